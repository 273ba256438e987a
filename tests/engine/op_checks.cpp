#include "engine/op_checks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <set>

#include "engine/tape.h"

namespace fastntk::test {
namespace {

constexpr double step = 1e-4;  // of central differences; a direction is at most 4, a kink at least 1e-3 away

struct Tolerance {
  double value, derivative;
};
Tolerance tolerance(const Sample& s, DType dtype) {
  return dtype == DType::float64 ? Tolerance{1e-12, 1e-9} : Tolerance{s.tolerance32, s.tolerance32};
}

bool has(ActiveSet set, size_t i) { return (set >> i & 1U) != 0; }

std::string describe(const Sample& s, const Case& c) {
  std::string active;
  for (size_t i = 0; i < s.inputs.size(); i++)
    if (has(c.active, i)) active += (active.empty() ? "" : ",") + std::to_string(i);
  return fmt::format("{} ({}), active {{{}}}, {}, K = {}, {}", s.op, s.note, active, name_of(c.layout), c.stack,
                     fastntk::name_of(c.dtype));
}

// Directions of inputs that are not active are absent: arrays without a shape or values.
bool absent(const Array& x) { return x.shape.rank() == 0 && x.values.empty(); }

Arrays moved(const Arrays& at, const Arrays& direction, double by) {
  Arrays x = at;
  for (size_t i = 0; i < x.size(); i++)
    for (size_t j = 0; j < direction[i].values.size(); j++) x[i].values[j] += by * direction[i].values[j];
  return x;
}

// The derivative of f at a point along a direction, with an error of O(step⁴).
template <class F>
Arrays central_difference(F&& f, const Arrays& at, const Arrays& direction) {
  const Arrays a = f(moved(at, direction, step)), b = f(moved(at, direction, -step));
  const Arrays c = f(moved(at, direction, 2 * step)), d = f(moved(at, direction, -2 * step));
  Arrays out = a;
  for (size_t k = 0; k < out.size(); k++)
    for (size_t i = 0; i < out[k].values.size(); i++)
      out[k].values[i] = (8 * (a[k].values[i] - b[k].values[i]) - (c[k].values[i] - d[k].values[i])) / (12 * step);
  return out;
}

// An undefined tangent or cotangent is zero.
Array value_of(const Variable& v, const Shape& shape) { return v.defined() ? to_array(v.value) : Array(shape); }

// A sample recorded at a point.
struct Recorded {
  Tape tape;
  Values inputs;
  Variable output;

  Recorded(const Sample& s, const std::vector<Tensor>& at, ActiveSet active) {
    for (size_t i = 0; i < at.size(); i++) inputs.push_back(has(active, i) ? tape.leaf(at[i]) : Variable(at[i]));
    output = s.function(inputs);
    if (s.recorded) s.recorded(tape);
  }
  Variable jvp(const std::vector<Tensor>& tangents, const Variable& of) {
    std::vector<std::pair<Variable, Variable>> pairs;
    for (size_t i = 0; i < tangents.size(); i++)
      if (inputs[i].active() && tangents[i].defined()) pairs.emplace_back(inputs[i], tangents[i]);
    return tape.jvp(pairs, of);
  }
  Values leaves() const {
    Values active;
    for (const Variable& v : inputs)
      if (v.active()) active.push_back(v);
    return active;
  }
  Values vjp(const Variable& of, const Tensor& cotangent, bool differentiable = false) {
    return tape.vjp(of, cotangent, leaves(), differentiable);
  }
};

class Check {
 public:
  Check(const Sample& s, const Case& c, Report& report)
      : sample_(s), case_(c), report_(report), draws_(s.op + s.note + std::to_string(c.active)) {}

  void run() {
    try {
      const auto scope = sample_.scope ? sample_.scope() : nullptr;
      draw_point();
      Recorded r(sample_, tensors_, case_.active);
      forward(r);
      draw_directions(r.output.shape());
      jvp(r);
      dot(r);
      stack(r);
      tangents(r);
      saved(r);
      if (case_.dtype == DType::float64) second_order();
    } catch (const std::exception& e) {
      expect(false, "exception", e.what());
    }
  }

 private:
  DType dtype(size_t i) const { return sample_.inputs[i].draw == Draw::labels ? DType::int64 : case_.dtype; }
  Shape lead() const { return case_.stack ? Shape{case_.stack} : Shape{}; }
  double equal_tolerance() const { return sample_.equal_bits ? 0 : case_.dtype == DType::float64 ? 1e-13 : 1e-6; }

  void expect(bool holds, const char* kind, const std::string& what) {
    report_.checks++;
    if (!holds) report_.failures.push_back(fmt::format("{}: {}: {}", kind, describe(sample_, case_), what));
  }
  void expect_close(const char* kind, const std::string& what, const Array& got, const Array& expected,
                    double allowed) {
    if (got.shape != expected.shape) {
      expect(false, kind, fmt::format("{}: shape {}, expected {}", what, got.shape.str(), expected.shape.str()));
      return;
    }
    for (size_t i = 0; i < got.values.size(); i++)
      if (!(std::abs(got.values[i] - expected.values[i]) <= allowed)) {
        expect(false, kind,
               fmt::format("{}: element {} is {}, expected {} within {}", what, i, got.values[i], expected.values[i],
                           allowed));
        return;
      }
    expect(true, kind, what);
  }

  void draw_point() {
    for (int attempt = 0; attempt < 500; attempt++) {
      point_.clear();
      for (size_t i = 0; i < sample_.inputs.size(); i++)
        point_.push_back(draws_.input(sample_.inputs[i], case_.layout, case_.dtype));
      if (sample_.kink_distance && sample_.kink_distance(point_) < 0.01) continue;
      for (size_t i = 0; i < point_.size(); i++)
        tensors_.push_back(place(point_[i], dtype(i), case_.layout, sample_.inputs[i].repeated_axis));
      return;
    }
    fail("no point away from the kinks was found");
  }

  void draw_directions(const Shape& output) {
    for (size_t i = 0; i < point_.size(); i++) {
      v_.push_back(has(case_.active, i) ? draws_.direction(lead() + point_[i].shape, case_.layout, case_.dtype)
                                        : Array{});
      v_tensors_.push_back(has(case_.active, i) ? place(v_[i], case_.dtype, case_.layout) : Tensor{});
    }
    u_ = draws_.direction(lead() + output, case_.layout, case_.dtype);
    u_tensor_ = place(u_, case_.dtype, case_.layout);
  }

  // Number k of a stack, or the thing itself.
  Array one(const Array& x, int64_t k) const { return case_.stack && !absent(x) ? part(x, k) : x; }
  Arrays one(const Arrays& x, int64_t k) const {
    Arrays out;
    for (const Array& a : x) out.push_back(one(a, k));
    return out;
  }
  std::vector<Tensor> one(const std::vector<Tensor>& x, int64_t k) const {
    std::vector<Tensor> out;
    for (const Tensor& t : x) out.push_back(t.defined() && case_.stack ? t.select(0, k) : t);
    return out;
  }
  int64_t count() const { return std::max<int64_t>(1, case_.stack); }

  void forward(const Recorded& r) {
    const Array expected = sample_.reference(point_);
    size_ = std::max(largest(expected), std::numeric_limits<double>::min());
    expect(r.output.dtype() == case_.dtype, "forward", "the dtype of the output");
    expect_close("forward", "value", to_array(r.output.value), expected, tolerance(sample_, case_.dtype).value * size_);
    std::vector<Variable> constants(tensors_.begin(), tensors_.end());
    expect_close("forward", "without a tape", to_array(sample_.function(constants).value), to_array(r.output.value), 0);
  }

  void jvp(Recorded& r) {
    const Variable out = r.jvp(v_tensors_, r.output);
    if (out.defined()) expect(out.dtype() == case_.dtype, "jvp", "the dtype of the tangent");
    jv_ = value_of(out, lead() + r.output.shape());
    for (int64_t k = 0; k < count(); k++) {
      const Array expected =
          central_difference([&](const Arrays& x) { return Arrays{sample_.reference(x)}; }, point_, one(v_, k))[0];
      const double relative = tolerance(sample_, case_.dtype).derivative;
      expect_close("jvp", "against central differences", one(jv_, k), expected,
                   relative * largest(expected) + 0.1 * relative * size_);
    }
  }

  void dot(Recorded& r) {
    const Values cotangents = r.vjp(r.output, u_tensor_);
    size_t at = 0;
    for (size_t i = 0; i < point_.size(); i++) {
      jtu_.push_back(Array{});
      if (!has(case_.active, i)) continue;
      const Variable& c = cotangents[at++];
      if (c.defined()) expect(c.dtype() == case_.dtype, "dot", "the dtype of the cotangent");
      jtu_.back() = value_of(c, lead() + point_[i].shape);
      expect(jtu_[i].shape == lead() + point_[i].shape, "dot",
             fmt::format("the cotangent of input {} has shape {}", i, jtu_[i].shape.str()));
    }
    for (int64_t k = 0; k < count(); k++)
      expect_equal_products("dot", one(u_, k), one(jv_, k), one(jtu_, k), one(v_, k));
  }

  // ⟨u, Jv⟩ = Σ_i ⟨(Jᵀu)_i, v_i⟩
  void expect_equal_products(const char* kind, const Array& u, const Array& jv, const Arrays& jtu, const Arrays& v) {
    double left = 0, right = 0, left_size = 0, right_size = 0;
    const auto sum = [](const Array& a, const Array& b, double& value, double& size) {
      for (size_t i = 0; i < a.values.size() && i < b.values.size(); i++)
        value += a.values[i] * b.values[i], size += std::abs(a.values[i] * b.values[i]);
    };
    sum(u, jv, left, left_size);
    for (size_t i = 0; i < v.size(); i++) sum(jtu[i], v[i], right, right_size);
    // The last term is for maps that send these very directions to zero, up to rounding.
    double u_size = 0;
    for (const double x : u.values) u_size += std::abs(x);
    const double allowed =
        tolerance(sample_, case_.dtype).value * (std::max(left_size, right_size) + 0.01 * size_ * u_size);
    expect(std::abs(left - right) <= allowed, kind,
           fmt::format("⟨u, Jv⟩ = {}, ⟨Jᵀu, v⟩ = {}, may differ by {}", left, right, allowed));
  }

  void stack(Recorded& r) {
    for (int64_t k = 0; k < case_.stack; k++) {
      const Array jv = value_of(r.jvp(one(v_tensors_, k), r.output), r.output.shape());
      expect_close("stack", fmt::format("tangent {}", k), one(jv_, k), jv, equal_tolerance() * largest(jv));
      const Values c = r.vjp(r.output, u_tensor_.select(0, k));
      size_t at = 0;
      for (size_t i = 0; i < point_.size(); i++) {
        if (!has(case_.active, i)) continue;
        const Array jtu = value_of(c[at++], point_[i].shape);
        expect_close("stack", fmt::format("cotangent {} of input {}", k, i), one(jtu_[i], k), jtu,
                     equal_tolerance() * largest(jtu));
      }
    }
  }

  void tangents(Recorded& r) {
    const Shape shape = lead() + r.output.shape();
    std::vector<Tensor> zeros;
    for (const Array& v : v_) zeros.push_back(absent(v) ? Tensor{} : Tensor::zeros(v.shape, case_.dtype));
    expect_close("tangents", "zero", value_of(r.jvp(zeros, r.output), shape), Array(shape), 0);
    Array total(shape);
    for (size_t i = 0; i < point_.size(); i++) {
      if (!has(case_.active, i)) continue;
      std::vector<Tensor> alone(point_.size()), padded = zeros;
      alone[i] = padded[i] = v_tensors_[i];
      const Array a = value_of(r.jvp(alone, r.output), shape);
      const double allowed = (case_.dtype == DType::float64 ? 1e-14 : 1e-6) * largest(a);
      expect_close("tangents", fmt::format("only input {}'s, the others zero", i),
                   value_of(r.jvp(padded, r.output), shape), a, allowed);
      if (a.shape == shape) total = binary(total, a, std::plus<>());
    }
    expect_close("tangents", "the sum over inputs", total, jv_,
                 tolerance(sample_, case_.dtype).value * (largest(jv_) + size_));
  }

  void saved(Recorded& r) {
    const Saved declared = sample_.saved(case_.active);
    int found = 0;
    for (const Record& record : r.tape.records()) {
      const std::string& name = record.op->name();
      if (std::count(sample_.helpers.begin(), sample_.helpers.end(), name)) continue;
      const bool ours = name == sample_.op;
      found += ours;
      for (size_t i = 0; i < record.saved_inputs.size(); i++)
        if (record.saved_inputs[i].defined())
          expect_needed(r, record.saved_inputs[i].value, fmt::format("{}: input {}", name, i));
      if (record.saved_output.defined()) expect_needed(r, record.saved_output.value, name + ": the output");
      for (size_t i = 0; i < record.extras.size(); i++)
        expect_needed(r, record.extras[i], fmt::format("{}: extra {}", name, i));
      if (sample_.composition) continue;
      const Saved now = ours ? declared : Saved{};
      for (size_t i = 0; i < record.saved_inputs.size(); i++)
        expect(record.saved_inputs[i].defined() == has(now.inputs, i), "saved",
               fmt::format("{}: input {} is {}kept", name, i, record.saved_inputs[i].defined() ? "" : "not "));
      expect(record.saved_output.defined() == now.output, "saved",
             fmt::format("{}: the output is {}kept", name, record.saved_output.defined() ? "" : "not "));
      expect(record.extras.size() == now.extras.size(), "saved",
             fmt::format("{}: {} extras, declared {}", name, record.extras.size(), now.extras.size()));
      for (size_t i = 0; i < std::min(record.extras.size(), now.extras.size()); i++)
        expect(record.extras[i].shape() == now.extras[i], "saved",
               fmt::format("extra {} is {}, declared {}", i, record.extras[i].describe(), now.extras[i].str()));
    }
    if (!sample_.composition) expect(found == 1, "saved", fmt::format("{} records of this op instead of 1", found));
  }

  // Whatever is kept must matter: the linear map changes when it is overwritten.
  void expect_needed(Recorded& r, Tensor kept, const std::string& what) {
    if (kept.elements() == 0 || r.output.value.elements() == 0) return;
    const Tensor original = kept.clone();
    bool changed = false;
    for (const double value : {std::numeric_limits<double>::quiet_NaN(), 1.0}) {
      kept.fill(is_floating(kept.dtype()) || value == 1 ? value : 0);
      changed |= value_of(r.jvp(v_tensors_, r.output), lead() + r.output.shape()).values != jv_.values;
      const Values c = r.vjp(r.output, u_tensor_);
      size_t at = 0;
      for (size_t i = 0; i < point_.size(); i++)
        if (has(case_.active, i)) changed |= value_of(c[at++], lead() + point_[i].shape).values != jtu_[i].values;
    }
    kept.copy_from(original);
    expect(changed, "saved", what + " is kept but not needed");
  }

  // The vjp at another point, by the engine.
  Arrays gradient(const Arrays& at) const {
    std::vector<Tensor> tensors;
    for (size_t i = 0; i < at.size(); i++) tensors.push_back(place(at[i], dtype(i), Layout::contiguous));
    Recorded r(sample_, tensors, case_.active);
    const Values c = r.vjp(r.output, u_tensor_);
    Arrays out;
    for (const Variable& v : r.leaves()) out.push_back(value_of(c[out.size()], lead() + v.shape()));
    return out;
  }

  void second_order() {
    Recorded r(sample_, tensors_, case_.active);
    if (sample_.first_order_only) {
      bool refused = false;
      try {
        r.vjp(r.output, u_tensor_, true);
      } catch (const Error& e) {
        refused = std::string(e.what()).find("second derivative") != std::string::npos;
      }
      expect(refused, "second order", "it is declared first order only, but was not refused");
      return;
    }
    const Values g = r.vjp(r.output, u_tensor_, true);
    // Two stacked tangents when the cotangents are stacked, so that the result is [2, 3, …].
    const Shape stack = case_.stack ? Shape{2} : Shape{};
    Arrays v;
    std::vector<Tensor> v_tensors;
    for (size_t i = 0; i < point_.size(); i++) {
      v.push_back(has(case_.active, i) ? draws_.direction(stack + point_[i].shape, case_.layout, case_.dtype)
                                       : Array{});
      v_tensors.push_back(has(case_.active, i) ? place(v[i], case_.dtype, case_.layout) : Tensor{});
    }
    const Arrays base = gradient(point_);
    Arrays hv(g.size());
    for (size_t i = 0; i < g.size(); i++) {
      const Shape shape = stack + base[i].shape;
      hv[i] = g[i].active() ? value_of(r.jvp(v_tensors, g[i]), shape) : Array(shape);
    }
    for (int64_t k = 0; k < (case_.stack ? 2 : 1); k++) {
      const Arrays expected = central_difference([&](const Arrays& x) { return gradient(x); }, point_, one(v, k));
      for (size_t i = 0; i < g.size(); i++)
        expect_close("second order", fmt::format("Hessian times tangent {}, part {}", k, i), one(hv[i], k), expected[i],
                     1e-8 * largest(expected[i]) + 1e-9 * (largest(base[i]) + size_));
    }
    // Backwards over backwards: ⟨w, Hv⟩ = ⟨Hᵀw, v⟩.
    for (size_t i = 0; i < g.size(); i++) {
      if (!g[i].active()) continue;
      const Array w = draws_.direction(stack + base[i].shape, case_.layout, case_.dtype);
      const Values c = r.vjp(g[i], place(w, case_.dtype, case_.layout));
      Arrays htw(point_.size());
      size_t at = 0;
      for (size_t j = 0; j < point_.size(); j++)
        if (has(case_.active, j)) htw[j] = value_of(c[at++], stack + point_[j].shape);
      for (int64_t k = 0; k < (case_.stack ? 2 : 1); k++)
        expect_equal_products("second order", one(w, k), one(hv[i], k), one(htw, k), one(v, k));
    }
  }

  const Sample& sample_;
  const Case case_;
  Report& report_;
  Draws draws_;
  Arrays point_;
  std::vector<Tensor> tensors_;
  Arrays v_, jtu_;  // absent for inputs that are not active
  std::vector<Tensor> v_tensors_;
  Array u_, jv_;
  Tensor u_tensor_;
  double size_ = 0;  // the largest value of the output
};

}  // namespace

void check_case(const Sample& sample, const Case& c, Report& report) { Check(sample, c, report).run(); }

// ---- grids ----

std::vector<Case> full_grid(const Sample& sample) {
  ActiveSet allowed = 0;
  for (size_t i = 0; i < sample.inputs.size(); i++)
    if (sample.inputs[i].differentiable) allowed |= 1U << i;
  std::vector<Case> all;
  for (ActiveSet active = 1; active <= allowed; active++)
    if ((active & ~allowed) == 0)
      for (const Layout layout : {Layout::contiguous, Layout::sliced, Layout::transposed, Layout::expanded})
        for (const int64_t stack : {0, 3})
          for (const DType dtype : {DType::float64, DType::float32}) all.push_back({active, layout, stack, dtype});
  return all;
}

std::vector<Case> pairwise_grid(const Sample& sample) {
  const std::vector<Case> all = full_grid(sample);
  const auto pairs = [](const Case& c) {
    const int64_t choice[] = {c.active, static_cast<int64_t>(c.layout), c.stack, static_cast<int64_t>(c.dtype)};
    std::vector<std::array<int64_t, 4>> out;
    for (int64_t a = 0; a < 4; a++)
      for (int64_t b = a + 1; b < 4; b++) out.push_back({a, choice[a], b, choice[b]});
    return out;
  };
  std::set<std::array<int64_t, 4>> missing;
  for (const Case& c : all)
    for (const auto& pair : pairs(c)) missing.insert(pair);
  std::vector<Case> chosen;
  while (!missing.empty()) {
    size_t best = 0, most = 0;
    for (size_t i = 0; i < all.size(); i++) {
      size_t gain = 0;
      for (const auto& pair : pairs(all[i])) gain += missing.count(pair);
      if (gain > most) best = i, most = gain;
    }
    for (const auto& pair : pairs(all[best])) missing.erase(pair);
    chosen.push_back(all[best]);
  }
  return chosen;
}

std::vector<Case> grid(const Sample& sample) {
  const char* const wanted = std::getenv("FASTNTK_TEST_GRID");
  return wanted && std::string(wanted) == "full" ? full_grid(sample) : pairwise_grid(sample);
}

}  // namespace fastntk::test
