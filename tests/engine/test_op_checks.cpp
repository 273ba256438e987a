// The op tests tested: ops with one deliberate defect each, and the check that must find it.
#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "engine/op_checks.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/record_checks.h"
#include "engine/tape.h"

using namespace fastntk;
using namespace fastntk::test;

namespace {

enum class Defect {
  none,
  forward_inexact,
  forward_in_float32,
  forward_ignores_strides,
  forward_depends_on_batch_size,
  jvp_wrong_sign,
  jvp_drops_a_term,
  jvp_wants_all_tangents,
  jvp_ignores_stack,
  vjp_wrong_sign,
  vjp_drops_a_term,
  vjp_does_not_sum,
  vjp_wrong_dtype,
  vjp_ignores_stack,
  both_maps_wrong,
  vjp_not_differentiable,
  second_derivative_refused,
  saves_an_input_too_many,
  saves_the_output,
  saves_an_extra,
  declares_what_is_not_needed,
  saves_too_little,
  mixes_samples_silently,
  shape_rule_too_lax,
  takes_integers
};

// y = a² ⊙ b + defect.   dy = 2ab ⊙ da + a² ⊙ db
struct Faulty final : Op {
  static inline const OpInfo& info = register_op({"test_faulty", "y = a² ⊙ b", "dy = 2ab ⊙ da + a² ⊙ db"});
  explicit Faulty(Defect defect) : Op(info), defect(defect) {}
  Defect defect;
  bool is(Defect d) const { return defect == d; }

  Shape shape(std::span<const Shape> in) const override {
    return is(Defect::shape_rule_too_lax) ? in[0] : broadcast(in[0], in[1], "test_faulty");
  }
  Needs needs(ActiveSet active) const override {
    Needs n{.inputs = (active & 1U) != 0 ? 3U : 1U};
    if (is(Defect::saves_an_input_too_many) || is(Defect::declares_what_is_not_needed)) n.inputs = 3;
    if (is(Defect::saves_too_little)) n.inputs = active & 1U;
    n.output = is(Defect::saves_the_output);
    return n;
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet active, std::vector<Tensor>& extras) const override {
    Tensor a = in[0], b = in[1];
    if (is(Defect::takes_integers)) a = a.to(DType::float32), b = b.to(DType::float32);
    if (is(Defect::forward_in_float32)) a = a.to(DType::float32).to(a.dtype());
    if (is(Defect::forward_ignores_strides)) a = as_if_packed(a);
    if (is(Defect::saves_an_extra) && active) extras.push_back(a.clone());
    Variable y = square(a) * b;
    if (is(Defect::forward_inexact)) y = scale(y, 1.001);
    if (is(Defect::forward_depends_on_batch_size) && a.extent(0) > 1) y = scale(y, 1 + 4e-16);
    if (is(Defect::mixes_samples_silently)) y = y + sum(a, {0});
    return y.value;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    Variable da, db;
    if (t[0].defined()) da = scale(at.input(0) * at.input(1) * t[0], 2);
    if (t[1].defined()) db = square(at.input(0)) * t[1];
    if (is(Defect::jvp_wrong_sign) && da.defined()) da = negate(da);
    if (is(Defect::jvp_drops_a_term)) db = {};
    if (is(Defect::jvp_wants_all_tangents) && !(da.defined() && db.defined()) && at.active(0) && at.active(1))
      return {};
    if (is(Defect::mixes_samples_silently) && da.defined()) da = da + expand(sum(t[0], {-3}), t[0].shape());
    Variable out = add_defined(da, db);
    if (is(Defect::both_maps_wrong) && out.defined()) out = scale(out, 1.001);
    return is(Defect::jvp_ignores_stack) ? first_of_stack(out, at) : out;
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    Variable a = at.input(0), da, db;
    if (is(Defect::vjp_not_differentiable)) a = a.constant();
    if (at.active(0)) da = scale(a * at.input(1) * c, 2);
    if (at.active(1)) db = square(a) * c;
    if (is(Defect::vjp_wrong_sign) && db.defined()) db = negate(db);
    if (is(Defect::vjp_drops_a_term)) db = {};
    if (is(Defect::mixes_samples_silently) && da.defined()) da = da + expand(sum(c, {-3}), c.shape());
    if (is(Defect::both_maps_wrong)) {
      if (da.defined()) da = scale(da, 1.001);
      if (db.defined()) db = scale(db, 1.001);
    }
    if (db.defined() && !is(Defect::vjp_does_not_sum)) db = sum_to(db, at.input_shape(1), at.output_shape().rank());
    if (is(Defect::vjp_wrong_dtype) && da.defined()) da = da.value.to(DType::float64);
    if (is(Defect::vjp_ignores_stack) && da.defined()) da = first_of_stack(da, at);
    return {da, db};
  }
  bool first_order_only() const override { return is(Defect::second_derivative_refused); }

 private:
  // Reads the elements in the order of memory, whatever the strides.
  static Tensor as_if_packed(const Tensor& x) {
    return for_floating(x.dtype(), "test_faulty", [&](auto zero) {
      using T = decltype(zero);
      const int64_t last = static_cast<int64_t>(x.storage()->bytes() / sizeof(T)) - x.offset() - 1;
      Tensor packed(x.shape(), x.dtype());
      for (int64_t i = 0; i < x.elements(); i++) packed.mutable_data<T>()[i] = x.data<T>()[std::min(i, last)];
      return packed;
    });
  }
  // Every member of a stack becomes the first.
  static Variable first_of_stack(const Variable& x, const Linearisation& at) {
    return x.rank() > at.output_shape().rank() ? expand(slice(x, 0, 0, 1), x.shape()) : x;
  }
};

Sample faulty_sample(Defect defect) {
  return {.op = "test_faulty",
          .note = "defect " + std::to_string(static_cast<int>(defect)),
          .inputs = {{{2, 3, 4}}, {{1, 3, 4}}},
          .function =
              [=](const Values& v) {
                return apply(Faulty(defect), {v[0], v[1]});
              },
          .reference =
              [=](const Arrays& x) {
                const Array y = binary(unary(x[0], [](double a) { return a * a; }), x[1], std::multiplies<>());
                return defect == Defect::mixes_samples_silently ? binary(y, sum_over(x[0], {0}), std::plus<>()) : y;
              },
          .saved =
              [=](ActiveSet active) {
                return Saved{.inputs = (active & 1U) != 0 || defect == Defect::declares_what_is_not_needed ? 3U : 1U};
              },
          .samples = 2,
          .refusals = {{{{2, 3, 4}, {1, 2, 4}}}}};
}

std::set<std::string> kinds_found(const Sample& sample) {
  Report report;
  check_sample(sample, report);
  for (const Case& c : pairwise_grid(sample)) check_case(sample, c, report);
  std::set<std::string> kinds;
  for (const std::string& f : report.failures) kinds.insert(f.substr(0, f.find(':')));
  return kinds;
}

}  // namespace

TEST_CASE("the op tests pass an op without a defect", "[ops]") {
  CHECK(kinds_found(faulty_sample(Defect::none)).empty());
}

TEST_CASE("the op tests find every deliberate defect, with the check that is meant to", "[ops]") {
  const std::vector<std::pair<Defect, std::string>> expected = {
      {Defect::forward_inexact, "forward"},
      {Defect::forward_in_float32, "forward"},
      {Defect::forward_ignores_strides, "forward"},
      {Defect::forward_depends_on_batch_size, "per-sample"},
      {Defect::jvp_wrong_sign, "jvp"},
      {Defect::jvp_drops_a_term, "jvp"},
      {Defect::jvp_wants_all_tangents, "tangents"},
      {Defect::jvp_ignores_stack, "stack"},
      {Defect::vjp_wrong_sign, "dot"},
      {Defect::vjp_drops_a_term, "dot"},
      {Defect::vjp_does_not_sum, "dot"},
      {Defect::vjp_wrong_dtype, "dot"},
      {Defect::vjp_ignores_stack, "stack"},
      {Defect::both_maps_wrong, "jvp"},
      {Defect::vjp_not_differentiable, "second order"},
      {Defect::second_derivative_refused, "exception"},
      {Defect::saves_an_input_too_many, "saved"},
      {Defect::saves_the_output, "saved"},
      {Defect::saves_an_extra, "saved"},
      {Defect::declares_what_is_not_needed, "saved"},
      {Defect::saves_too_little, "exception"},
      {Defect::mixes_samples_silently, "per-sample"},
      {Defect::shape_rule_too_lax, "refusal"},
      {Defect::takes_integers, "refusal"},
  };
  REQUIRE(expected.size() == static_cast<size_t>(Defect::takes_integers));
  for (const auto& [defect, kind] : expected) {
    const auto found = kinds_found(faulty_sample(defect));
    CAPTURE(static_cast<int>(defect), kind, found);
    CHECK(found.count(kind) == 1);
  }
}

TEST_CASE("the op tests find a wrong claim of a sample", "[ops]") {
  Sample first_order = faulty_sample(Defect::none);
  first_order.first_order_only = true;
  CHECK(kinds_found(first_order) == std::set<std::string>{"second order"});
  Sample mixes = faulty_sample(Defect::none);
  mixes.mixes_samples = true;
  CHECK(kinds_found(mixes) == std::set<std::string>{"per-sample"});
  Sample integers = faulty_sample(Defect::none);
  integers.takes_integers = true;
  CHECK(kinds_found(integers) == std::set<std::string>{"exception"});
  Sample lax = faulty_sample(Defect::none);
  lax.refusals = {{{{2, 3, 4}, {1, 3, 4}}}};
  CHECK(kinds_found(lax) == std::set<std::string>{"refusal"});
}

TEST_CASE("the dot test of a tape's records finds the one that is wrong", "[ops]") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    const double tolerance = dtype == DType::float32 ? 1e-5 : 1e-12;
    for (const bool faulty : {false, true}) {
      Tape tape;
      const Variable x = tape.leaf(Random(1).normal_tensor({2, 3, 4}, dtype), "x");
      const Variable w = tape.leaf(Random(2).normal_tensor({1, 3, 4}, dtype), "w");
      const Variable y = apply(Faulty(faulty ? Defect::vjp_wrong_sign : Defect::none), {relu(x), w});
      sum(permute(exp(y), {0, 2, 1}) / Variable(Tensor::full({1}, 3, dtype)), {1, 2});
      const auto failures = failed_dot_tests(tape, tolerance);
      CHECK(failures.size() == (faulty ? 1 : 0));
      if (faulty) CHECK_THAT(failures.at(0), Catch::Contains("record 1, test_faulty"));
    }
  }
}
