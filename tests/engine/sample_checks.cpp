// What the op tests check once per sample: per-sample leaves, and refusals.
#include <algorithm>
#include <cmath>

#include "engine/op_checks.h"
#include "engine/tape.h"

namespace fastntk::test {
namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

class SampleCheck {
 public:
  SampleCheck(const Sample& s, Report& report) : sample_(s), report_(report) {}

  void run() {
    try {
      const auto scope = sample_.scope ? sample_.scope() : nullptr;
      per_sample();
      refusals();
    } catch (const std::exception& e) {
      expect(false, "exception", e.what());
    }
  }

 private:
  void expect(bool holds, const char* kind, const std::string& what) {
    report_.checks++;
    if (!holds) report_.failures.push_back(fmt::format("{}: {} ({}): {}", kind, sample_.op, sample_.note, what));
  }
  void expect_equal(const std::string& what, const Array& got, const Array& expected, DType dtype) {
    const double allowed = sample_.equal_bits ? 0 : (dtype == DType::float64 ? 1e-13 : 1e-6) * largest(expected);
    bool equal = got.shape == expected.shape;
    for (size_t i = 0; equal && i < got.values.size(); i++)
      equal = std::abs(got.values[i] - expected.values[i]) <= allowed;
    expect(equal, "per-sample", what);
  }
  // f() must throw an Error whose message contains all of `parts`.
  template <class F>
  void expect_refused(const char* kind, const std::string& what, const std::vector<std::string>& parts, F&& f) {
    std::string message = "nothing was thrown";
    bool good = false;
    try {
      f();
    } catch (const Error& e) {
      message = e.what();
      good = std::all_of(parts.begin(), parts.end(), [&](const std::string& p) { return contains(message, p); });
    }
    expect(good, kind, what + ": " + message);
  }

  DType dtype_of_input(size_t i, DType dtype) const {
    return sample_.inputs[i].draw == Draw::labels ? DType::int64 : dtype;
  }
  bool has_sample_axis(size_t i) const {
    const Shape& shape = sample_.inputs[i].shape;
    return shape.rank() > 0 && (shape[0] == sample_.samples || shape[0] == 1);
  }

  void per_sample() {
    if (sample_.samples == 0) return;
    for (size_t i = 0; i < sample_.inputs.size(); i++) {
      if (!sample_.inputs[i].differentiable || !has_sample_axis(i)) continue;
      if (sample_.mixes_samples) {
        refused_per_sample(i);
        continue;
      }
      for (const DType dtype : {DType::float64, DType::float32})
        for (const int64_t stack : {0, 3}) per_sample(i, dtype, stack);
    }
  }

  // A point whose input i is the same for all samples.
  Arrays draw_point(Draws& draws, size_t i, int64_t samples, DType dtype) const {
    for (int attempt = 0; attempt < 500; attempt++) {
      Arrays point;
      for (const Input& input : sample_.inputs) point.push_back(draws.input(input, Layout::contiguous, dtype));
      const Array first = rows(point[i], 0, 0, 1);
      point[i] = concatenated(Arrays(static_cast<size_t>(samples), first), 0);
      if (!sample_.kink_distance || sample_.kink_distance(point) >= 0.01) return point;
    }
    fail("no point away from the kinks was found");
  }
  Values constants(const Arrays& point, DType dtype) const {
    Values v;
    for (size_t i = 0; i < point.size(); i++)
      v.emplace_back(place(point[i], dtype_of_input(i, dtype), Layout::contiguous));
    return v;
  }

  void refused_per_sample(size_t i) {
    Draws draws(sample_.op + sample_.note);
    const int64_t samples = sample_.inputs[i].shape[0];
    const Arrays point = draw_point(draws, i, samples, DType::float32);
    const std::string culprit = sample_.composition ? "" : sample_.op;  // a composition is refused by one of its ops
    expect_refused("per-sample", fmt::format("input {} as a per-sample leaf", i), {"mixes samples", culprit}, [&] {
      Tape tape;
      Values v = constants(point, DType::float32);
      v[i] = tape.per_sample_leaf(v[i].value.slice(0, 0, 1), samples);
      sample_.function(v);
    });
  }

  // Input i as one leaf per sample, against the same with one sample at a time.
  void per_sample(size_t i, DType dtype, int64_t stack) {
    const int64_t samples = sample_.samples;
    Draws draws(sample_.op + sample_.note + "per sample");
    const Arrays point = draw_point(draws, i, samples, dtype);
    const int lead = stack ? 1 : 0;
    const Shape stacked = stack ? Shape{stack} : Shape{};
    const auto name = [&](const char* what, int64_t n) {
      return fmt::format("{} of sample {} (input {} as a per-sample leaf, K = {}, {})", what, n, i, stack,
                         fastntk::name_of(dtype));
    };

    Tape tape;
    Values v = constants(point, dtype);
    v[i] = tape.per_sample_leaf(v[i].value.slice(0, 0, 1), samples);
    const Variable y = sample_.function(v);
    const Array u = draws.direction(stacked + y.shape(), Layout::contiguous, dtype);
    const Array t = draws.direction(stacked + v[i].shape(), Layout::contiguous, dtype);
    const auto value = [](const Variable& x, const Shape& shape) {
      return x.defined() ? to_array(x.value) : Array(shape);
    };
    const Array c = value(tape.vjp(y, place(u, dtype, Layout::contiguous), {&v[i], 1})[0], t.shape);
    const std::pair<Variable, Variable> tangent{v[i], place(t, dtype, Layout::contiguous)};
    const Array jt = value(tape.jvp({&tangent, 1}, y), u.shape);
    expect(c.shape == t.shape, "per-sample", name("the shape of the cotangent", 0));

    for (int64_t n = 0; n < samples; n++) {
      Arrays alone = point;
      for (size_t j = 0; j < alone.size(); j++)
        if (alone[j].shape.rank() > 0 && alone[j].shape[0] == samples) alone[j] = rows(alone[j], 0, n, n + 1);
      Tape one;
      Values w = constants(alone, dtype);
      w[i] = one.leaf(w[i].value);
      const Variable z = sample_.function(w);
      const Tensor un = place(rows(u, lead, n, n + 1), dtype, Layout::contiguous);
      const Tensor tn = place(rows(t, lead, n, n + 1), dtype, Layout::contiguous);
      const Array cn = value(one.vjp(z, un, {&w[i], 1})[0], tn.shape());
      const std::pair<Variable, Variable> tangent_n{w[i], tn};
      const Array jn = value(one.jvp({&tangent_n, 1}, z), un.shape());
      expect_equal(name("value", n), rows(to_array(y.value), 0, n, n + 1), to_array(z.value), dtype);
      expect_equal(name("gradient", n), rows(c, lead, n, n + 1), cn, dtype);
      expect_equal(name("tangent", n), rows(jt, lead, n, n + 1), jn, dtype);
    }
  }

  void refusals() {
    for (const Refusal& refusal : sample_.refusals) {
      std::string shapes;
      for (const Shape& s : refusal.shapes) shapes += s.str();
      expect_refused("refusal", "shapes " + shapes, {sample_.called}, [&] {
        Values v;
        for (size_t i = 0; i < refusal.shapes.size(); i++)
          v.emplace_back(Tensor::zeros(refusal.shapes[i], dtype_of_input(i, DType::float32)));
        (refusal.function ? refusal.function : sample_.function)(v);
      });
    }

    Draws draws(sample_.op + sample_.note);
    Arrays point;
    int64_t variables = 0;
    for (const Input& input : sample_.inputs) {
      point.push_back(
          unary(draws.input(input, Layout::contiguous, DType::float32), [](double x) { return std::round(x); }));
      variables += input.differentiable;
    }
    const auto as = [&](size_t different, DType first, DType others) {
      Values v;
      for (size_t i = 0; i < point.size(); i++)
        v.emplace_back(place(point[i], dtype_of_input(i, i == different ? first : others), Layout::contiguous));
      return v;
    };
    for (size_t i = 0; variables > 1 && i < point.size(); i++)
      if (sample_.inputs[i].differentiable)
        expect_refused("refusal", fmt::format("float64 input {}, the others float32", i), {},
                       [&] { sample_.function(as(i, DType::float64, DType::float32)); });
    if (sample_.takes_integers) {
      const Variable y = sample_.function(as(0, DType::int64, DType::int64));
      expect(y.dtype() == DType::int64 && to_array(y.value).values == sample_.reference(point).values, "forward",
             "of integers");
    } else {
      expect_refused("refusal", "integers", {}, [&] { sample_.function(as(0, DType::int64, DType::int64)); });
    }
  }

  const Sample& sample_;
  Report& report_;
};

}  // namespace

void check_sample(const Sample& sample, Report& report) { SampleCheck(sample, report).run(); }

}  // namespace fastntk::test
