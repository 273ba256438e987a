#include "engine/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "engine/ops/reduce.h"
#include "engine/random.h"

namespace fastntk {
namespace {

constexpr int64_t directions = 3;  // in a stack
constexpr double exact = 1e-12;    // tolerance of what differs by rounding only

std::vector<double> flat(const Tensor& t) { return t.to_vector<double>(); }

double largest(const std::vector<double>& x) {
  double m = 0;
  for (const double v : x) m = std::max(m, std::abs(v));
  return m;
}

// Element e of a tensor of this shape: "[1, 0, 3]".
std::string element(const Shape& shape, int64_t e) {
  Shape index = shape;
  for (int axis = shape.rank() - 1; axis >= 0; axis--) {
    index[axis] = e % shape[axis];
    e /= shape[axis];
  }
  return index.str();
}

// One map in some of its inputs, at one point.
class Check {
 public:
  Check(const Function& f, const Tensors& point, ActiveSet active, std::string kind, const GradcheckOptions& options,
        GradcheckReport& report)
      : f_(f),
        point_(point),
        active_(active),
        kind_(std::move(kind)),
        options_(options),
        report_(report),
        random_(options.seed) {
    for (size_t i = 0; i < point.size(); i++)
      inputs_.push_back(is_active(i) ? tape_.leaf(point[i]) : Variable(point[i]));
    for (size_t i = 0; i < point.size(); i++)
      if (is_active(i)) leaves_.push_back(inputs_[i]), leaf_input_.push_back(i);
  }

  void run() {
    output_ = f_(inputs_);
    require(is_floating(output_.dtype()), "a value of {} has no derivative", name_of(output_.dtype()));
    size_ = largest(flat(output_.value));
    elements();
    dot();
    stacks();
  }
  bool first_order_only(std::string& who) const {
    for (const Record& r : tape_.records())
      if (r.op->first_order_only()) {
        who = r.op->name();
        return true;
      }
    return false;
  }

 private:
  bool is_active(size_t i) const { return (active_ >> i & 1U) != 0; }
  Tensor normal(const Shape& shape) { return random_.stream(stream_++).normal_tensor(shape, DType::float64); }

  Tensor jvp(const std::vector<std::pair<Variable, Variable>>& tangents, const Shape& lead) {
    const Variable dy = output_.active() ? tape_.jvp(tangents, output_) : Variable{};
    const Shape shape = lead + output_.shape();
    if (!dy.defined()) return Tensor::zeros(shape, DType::float64);
    require(dy.shape() == shape, "jvp gave a tangent {} where {} was expected", dy.shape().str(), shape.str());
    return dy.value;
  }
  Tensors vjp(const Tensor& u) {
    const auto found = output_.active() ? tape_.vjp(output_, u, leaves_) : std::vector<Variable>(leaves_.size());
    Tensors out;
    for (size_t l = 0; l < leaves_.size(); l++) {
      const Shape shape = u.shape().leading(u.rank() - output_.rank()) + leaves_[l].shape();
      require(!found[l].defined() || found[l].shape() == shape,
              "vjp gave input {} a cotangent {} where {} was expected", leaf_input_[l],
              found[l].defined() ? found[l].shape().str() : "", shape.str());
      out.push_back(found[l].defined() ? found[l].value : Tensor::zeros(shape, DType::float64));
    }
    return out;
  }

  // The worst of many comparisons of one kind.
  struct Worst {
    double ratio = -1, got = 0, expected = 0, allowed = 0;
    std::string where;
    template <class Where>
    void compare(double g, double e, double a, Where&& describe) {
      const double error = std::abs(g - e);
      double r = a > 0 ? error / a : error > 0 ? HUGE_VAL : 0;
      if (!std::isfinite(g) || !std::isfinite(e)) r = HUGE_VAL;
      if (r <= ratio) return;
      ratio = r, got = g, expected = e, allowed = a, where = describe();
    }
  };
  void record(const char* what, const char* against, const Worst& worst, int64_t compared) {
    report_.checks += compared;
    if (worst.ratio < 0) return;
    const std::string sentence =
        fmt::format("{}{}: {}: {:.12g}, {} {:.12g}; they differ by {:.3g}, {:.3g} is allowed", kind_, what, worst.where,
                    worst.got, against, worst.expected, std::abs(worst.got - worst.expected), worst.allowed);
    if (!(worst.ratio <= 1)) report_.failures.push_back(sentence);
    if (report_.worst_element.empty() || worst.ratio > report_.worst)
      report_.worst = worst.ratio, report_.worst_element = sentence;
  }

  std::vector<int64_t> chosen(int64_t n) {
    std::vector<int64_t> all = random_.stream(stream_++).permutation(n);
    if (n > options_.elements) all.resize(static_cast<size_t>(options_.elements));
    std::sort(all.begin(), all.end());
    return all;
  }

  std::vector<double> value_at(size_t input, int64_t at, double by) const {
    std::vector<Variable> x(point_.begin(), point_.end());
    Tensor moved = point_[input].clone();
    moved.mutable_data<double>()[at] += by;
    x[input] = moved;
    return flat(f_(x).value);
  }

  // ∂ output / ∂ one element of an input.
  std::vector<double> central_difference(size_t input, int64_t at) const {
    const double h = options_.step;
    std::vector<double> out = value_at(input, at, h);
    const auto b = value_at(input, at, -h), c = value_at(input, at, 2 * h), d = value_at(input, at, -2 * h);
    for (size_t i = 0; i < out.size(); i++) out[i] = (8 * (out[i] - b[i]) - (c[i] - d[i])) / (12 * h);
    return out;
  }

  void elements() {
    const int64_t outputs = output_.value.elements();
    const std::vector<int64_t> rows = chosen(outputs);
    // Row r of Jᵀ applied to the chosen elements of the value, one stack.
    Tensor u = Tensor::zeros({static_cast<int64_t>(rows.size()), outputs}, DType::float64);
    for (size_t r = 0; r < rows.size(); r++) u.mutable_data<double>()[static_cast<int64_t>(r) * outputs + rows[r]] = 1;
    const Tensors cotangents = vjp(u.reshape(Shape{static_cast<int64_t>(rows.size())} + output_.shape()));
    Worst forwards, backwards;
    int64_t compared = 0;
    for (size_t l = 0; l < leaves_.size(); l++) {
      const size_t i = leaf_input_[l];
      const Shape& shape = point_[i].shape();
      const int64_t n = shape.elements();
      const std::vector<double> transposed = flat(cotangents[l]);
      std::vector<std::vector<double>> differences, columns;
      double size = size_;
      const std::vector<int64_t> chosen_columns = chosen(n);
      for (const int64_t j : chosen_columns) {
        differences.push_back(central_difference(i, j));
        Tensor e = Tensor::zeros({n}, DType::float64);
        e.mutable_data<double>()[j] = 1;
        columns.push_back(flat(jvp({{leaves_[l], e.reshape(shape)}}, {})));
        size = std::max(size, largest(differences.back()));
      }
      const double allowed = options_.tolerance * size;
      for (size_t c = 0; c < chosen_columns.size(); c++)
        for (size_t r = 0; r < rows.size(); r++) {
          const int64_t j = chosen_columns[c];
          const auto where = [&] {
            return fmt::format("derivative of element {} of the value by element {} of input {}",
                               element(output_.shape(), rows[r]), element(shape, j), i);
          };
          const double expected = differences[c][static_cast<size_t>(rows[r])];
          forwards.compare(columns[c][static_cast<size_t>(rows[r])], expected, allowed, where);
          backwards.compare(transposed[static_cast<size_t>(static_cast<int64_t>(r) * n + j)], expected, allowed, where);
          compared++;
        }
    }
    record("jvp", "central differences give", forwards, compared);
    record("vjp", "central differences give", backwards, compared);
  }

  void draw_directions() {
    tangents_.clear();
    for (const Variable& leaf : leaves_) tangents_.emplace_back(leaf, normal(Shape{directions} + leaf.shape()));
    u_ = normal(Shape{directions} + output_.shape());
  }

  void dot() {
    draw_directions();
    jv_ = jvp(tangents_, {directions});
    jtu_ = vjp(u_);
    Worst worst;
    for (int64_t k = 0; k < directions; k++) {
      double left = 0, right = 0, size = 0;
      const auto add = [&](double& sum, const Tensor& a, const Tensor& b) {
        const auto x = flat(a.select(0, k)), y = flat(b.select(0, k));
        for (size_t e = 0; e < x.size(); e++) sum += x[e] * y[e], size += std::abs(x[e] * y[e]);
      };
      add(left, u_, jv_);
      for (size_t l = 0; l < leaves_.size(); l++) add(right, jtu_[l], tangents_[l].second.value);
      worst.compare(left, right, exact * (size + size_), [&] { return fmt::format("⟨u, J v⟩ of pair {}", k); });
    }
    record("dot", "⟨Jᵀ u, v⟩ is", worst, directions);
  }

  void stacks() {
    Worst worst;
    int64_t compared = 0;
    const auto same = [&](const Tensor& a, const Tensor& b, const std::string& what) {
      const auto x = flat(a), y = flat(b);
      const double allowed = exact * (largest(y) + size_);
      for (size_t e = 0; e < x.size(); e++, compared++)
        worst.compare(x[e], y[e], allowed,
                      [&] { return fmt::format("{}, element {}", what, element(b.shape(), static_cast<int64_t>(e))); });
    };
    for (int64_t k = 0; k < directions; k++) {
      std::vector<std::pair<Variable, Variable>> tangents;
      for (const auto& [leaf, v] : tangents_) tangents.emplace_back(leaf, v.value.select(0, k));
      same(jv_.select(0, k), jvp(tangents, {}), fmt::format("tangent {} of a stack", k));
      const Tensors jtu = vjp(u_.select(0, k));
      for (size_t l = 0; l < jtu.size(); l++)
        same(jtu_[l].select(0, k), jtu[l], fmt::format("cotangent {} of a stack, of input {}", k, leaf_input_[l]));
    }
    record("stack", "by itself it is", worst, compared);
  }

  const Function& f_;
  const Tensors& point_;
  ActiveSet active_;
  std::string kind_;
  const GradcheckOptions& options_;
  GradcheckReport& report_;
  Random random_;
  uint64_t stream_ = 0;
  Tape tape_;
  std::vector<Variable> inputs_, leaves_;
  std::vector<size_t> leaf_input_;
  Variable output_;
  double size_ = 0;
  std::vector<std::pair<Variable, Variable>> tangents_;
  Tensor u_, jv_;
  Tensors jtu_;
};

// x ↦ Jᵀ(x) u in the active inputs, end to end, for a fixed stack of two u.
Function gradient_function(const Function& f, ActiveSet active, const Tensor& u) {
  return [&f, active, u](const std::vector<Variable>& x) -> Variable {
    Tape own;
    Tape* tape = nullptr;
    for (const Variable& v : x)
      if (v.active()) tape = v.tape;
    const bool recorded = tape != nullptr;
    std::vector<Variable> inputs = x, leaves;
    for (size_t i = 0; i < x.size(); i++) {
      if ((active >> i & 1U) == 0) continue;
      if (!recorded) inputs[i] = own.leaf(x[i].value);
      leaves.push_back(inputs[i]);
    }
    if (!recorded) tape = &own;
    const Variable y = f(inputs);
    const auto found = y.active() ? tape->vjp(y, u, leaves, recorded) : std::vector<Variable>(leaves.size());
    std::vector<Variable> flat_parts;
    for (size_t l = 0; l < leaves.size(); l++) {
      const int64_t n = leaves[l].value.elements();
      flat_parts.push_back(found[l].defined() ? reshape(found[l], {u.extent(0), n})
                                              : Variable(Tensor::zeros({u.extent(0), n}, DType::float64)));
    }
    const Variable all = concat(flat_parts, -1);
    return recorded ? all : all.constant();
  };
}

}  // namespace

std::string GradcheckReport::str() const {
  std::string out = fmt::format("gradcheck: {} comparisons, {} failed\n", checks, failures.size());
  for (const auto& f : failures) out += "  " + f + "\n";
  if (failures.empty() && !worst_element.empty())
    out += fmt::format("  nearest to its tolerance ({:.2g} of it): {}\n", worst, worst_element);
  if (!note.empty()) out += "  " + note + "\n";
  return out;
}

GradcheckReport gradcheck(const Function& f, const Tensors& inputs, const GradcheckOptions& options) {
  require(options.step > 0 && options.tolerance > 0 && options.elements > 0,
          "gradcheck needs a positive step, tolerance and number of elements, got {}, {} and {}", options.step,
          options.tolerance, options.elements);
  require(inputs.size() <= 32, "gradcheck takes at most 32 inputs, got {}", inputs.size());
  Tensors point;
  ActiveSet all = 0;
  int differentiable = 0;
  for (size_t i = 0; i < inputs.size(); i++) {
    require(inputs[i].defined(), "gradcheck: input {} is undefined", i);
    const bool floating = is_floating(inputs[i].dtype());
    point.push_back(floating ? inputs[i].to(DType::float64).clone() : inputs[i]);
    if (floating) all |= 1U << i, differentiable++;
  }
  require(all != 0, "gradcheck needs an input of float32 or float64");

  GradcheckReport report;
  std::vector<ActiveSet> sets = {all};
  for (size_t i = 0; i < point.size() && differentiable > 1; i++)
    if (all >> i & 1U) sets.push_back(1U << i);
  for (const ActiveSet active : sets) {
    std::string kind;
    if (active != all)
      for (size_t i = 0; i < point.size(); i++)
        if (active >> i & 1U) kind = fmt::format("input {} alone, ", i);
    std::string stage = "first order, ";
    try {
      Check first(f, point, active, kind, options, report);
      first.run();
      std::string who;
      if (!options.second_order) continue;
      if (first.first_order_only(who)) {
        report.note = fmt::format("second order was not checked: {} has no second derivative", who);
        continue;
      }
      stage = "second order, ";
      const std::vector<Variable> constants(point.begin(), point.end());
      const Shape shape = f(constants).shape();
      const Tensor u = Random(options.seed).stream(1U << 20).normal_tensor(Shape{2} + shape, DType::float64);
      Check(gradient_function(f, active, u), point, active, kind + "second order, ", options, report).run();
    } catch (const std::exception& e) {
      report.failures.push_back(fmt::format("{}{}exception: {}", kind, stage, e.what()));
    }
  }
  return report;
}

GradcheckReport gradcheck(const Function& f, const Tensor& input, const GradcheckOptions& options) {
  return gradcheck(f, Tensors{input}, options);
}

}  // namespace fastntk
