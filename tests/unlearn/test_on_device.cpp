// Whole models on a device against the CPU: logits, Jacobian rows, Gram matrices, updates, prepared states.
#include <catch2/catch.hpp>

#include "datasets/registry.h"
#include "engine/gram.h"
#include "engine/precision.h"
#include "models/small_vit.h"
#include "temporary_folder.h"
#include "test_device.h"
#include "training/gradient.h"
#include "unlearn/fast_ntk.h"
#include "unlearn/jacobian.h"
#include "unlearn/ntk.h"
#include "unlearn/relinearise.h"
#include "unlearn/small_models.h"
#include "unlearn/small_state.h"
#include "worse.h"

using namespace fastntk;
using test::test_device;

namespace {

// The largest difference, relative to the largest element.
double difference(const Tensor& got, const Tensor& expected) {
  REQUIRE(got.shape() == expected.shape());
  double largest = 0, difference = 0;
  const Eigen::VectorXd x = eigen(got), y = eigen(expected);
  for (Eigen::Index i = 0; i < x.size(); i++) {
    largest = test::worse(largest, std::abs(y[i]));
    difference = test::worse(difference, std::abs(x[i] - y[i]));
  }
  return difference / largest;
}

// Everything that unlearning asks of a model before it solves.
void check_on_device(Module& model, const std::string& parameters, const Tensor& inputs, double allowed) {
  const Subset subset = choose(model, parameters);
  const Jacobian here = jacobian(model, subset, inputs);
  const Tensor gram = dual_gram(here.rows, here.rows);
  const Tensor direction = Random(4).normal_tensor({subset.size()}, inputs.dtype());
  const DirectionalDerivative along = directional_derivative(model, subset, inputs, direction);
  model.to(test_device());
  const Tensor there = inputs.to(test_device());
  const Jacobian j = jacobian(model, subset, there);
  // Inputs of the host go to the model, and what comes of them comes back.
  const Jacobian back = jacobian(model, subset, inputs);
  CHECK(back.rows.device() == Device::cpu);
  CHECK(same_bits(back.rows, j.rows.to(Device::cpu)));
  CHECK(same_bits(predict(model, inputs), predict(model, there).to(Device::cpu)));
  CHECK(same_bits(directional_derivative(model, subset, inputs, direction).derivative,
                  directional_derivative(model, subset, there, direction).derivative.to(Device::cpu)));
  CHECK(j.rows.device() == test_device());
  CHECK(difference(j.logits, here.logits) <= allowed);
  CHECK(difference(j.rows, here.rows) <= allowed);
  CHECK(difference(dual_gram(j.rows, j.rows), gram) <= allowed);
  CHECK(difference(dual_gram(j.rows).dense(), gram) <= allowed);
  CHECK(difference(predict(model, there), here.logits) <= allowed);
  CHECK(difference(directional_derivative(model, subset, there, direction.to(test_device())).derivative,
                   along.derivative) <= allowed);
}

}  // namespace

TEST_CASE("a ResNet-20 gives on a device what it gives on the CPU, for garments", "[device]") {
  const DType dtype = GENERATE(DType::float64, DType::float32);
  Model model = make_model({.architecture = "resnet20", .classes = 10, .channels = 1, .options = {{"width", "4"}}}, 3);
  model->to(dtype);
  const Dataset garments = load_dataset("fashion-mnist");
  const Tensor inputs = scale(garments.images().slice(0, 0, 2).to(dtype), 1 / 255.0).value;
  check_on_device(*model, "bn+head", inputs, dtype == DType::float64 ? 1e-12 : 1e-5);
}

TEST_CASE("a vision transformer gives on a device what it gives on the CPU", "[device]") {
  Model model = small_vit({{"prompts", "2"}, {"lora", "2"}});
  check_on_device(*model, "all", small_images(2), 1e-12);
}

TEST_CASE("products with rows on a device are those of rows on the host", "[device]") {
  const LinearisedSet here = random_set(300, 3, 17, 2);
  LinearisedSet there = here;
  there.rows = here.rows.to(test_device());
  const Positions some = {0, 1, 5, 100, 280, 299}, all = all_positions(300);
  const Tensor v = Random(3).normal_tensor({17}, DType::float64);
  for (const Positions& s : {some, all, Positions{}}) {
    const auto count = static_cast<int64_t>(s.size());
    const Tensor u = Random(4).normal_tensor({count, 3}, DType::float64);
    const auto equal = [&](const Tensor& got, const Tensor& expected) {
      REQUIRE(got.shape() == expected.shape());
      CHECK((eigen(got) - eigen(expected)).norm() <= 1e-13 * eigen(expected).norm());
    };
    equal(rows_times(there, s, v), rows_times(here, s, v));
    equal(transposed_rows_times(there, s, u), transposed_rows_times(here, s, u));
    for (const char* const loss : {"mse", "ce"})
      equal(weighted_gram(there, s, find_loss(loss), gather_rows(here.logits, s)).dense(),
            weighted_gram(here, s, find_loss(loss), gather_rows(here.logits, s)).dense());
  }
}

TEST_CASE("every update rule gives with rows on a device what it gives with rows on the host", "[device]") {
  const std::string loss_name = GENERATE(as<std::string>{}, "mse", "ce");
  const Loss& loss = find_loss(loss_name);
  Model model = make_model({.architecture = "resnet20", .classes = 4, .channels = 1, .options = {{"width", "4"}}}, 3);
  model->to(DType::float64);
  const Samples data = random_samples(24, {8, 8, 1}, 4, 5);
  const Subset subset = choose(*model, "bn+head");
  const Tensor theta_star = gather(*model, subset);
  const Tensor theta0 = Random(6).normal_tensor({subset.size()}, DType::float64);
  const auto updates = [&](Representation representation) {
    const Jacobian j = jacobian(*model, subset, data.inputs.to(model->device()));
    const LinearisedSet set{j.rows, j.logits.to(Device::cpu), data.labels};
    FastNtk rules(set, {1, 7, 20}, theta0, theta_star, loss, 2, 2, representation);
    std::vector<Tensor> thetas;
    for (const std::string& rule : closed_form_rules(loss_name)) thetas.push_back(rules.update(rule).theta);
    relinearise(*model, subset, data, loss, 2, theta0, 1, {});
    thetas.push_back(gather(*model, subset));
    scatter(*model, subset, theta_star);
    const JacobianOperator products(*model, subset, data.inputs, theta_star);
    thetas.push_back(products.gram_times({1, 7, 20}, theta0));
    return thetas;
  };
  const Representation representation =
      loss_name == "ce" ? Representation::primal : GENERATE(Representation::primal, Representation::dual);
  const std::vector<Tensor> here = updates(representation);
  const double objective_here = objective(*model, subset, data, loss, 2, theta0).value();
  model->to(test_device());
  const std::vector<Tensor> there = updates(representation);
  REQUIRE(there.size() == here.size());
  for (size_t i = 0; i < here.size(); i++) {
    INFO("update " << i);
    CHECK(relative_error(eigen(there[i]), eigen(here[i])) <= 1e-10);
  }
  CHECK(objective(*model, subset, data, loss, 2, theta0).value() == Approx(objective_here).epsilon(1e-12));
}

TEST_CASE("a state prepared on a device serves the requests that one of the CPU serves", "[device]") {
  const std::string loss = GENERATE(as<std::string>{}, "mse", "ce");
  const TemporaryFolder folder;
  const test::SmallState s;
  Prepared here = s.prepare(folder / "here", 1000, loss);
  s.model->to(test_device());
  Prepared there = s.prepare(folder / "there", 1000, loss);
  const Tensor expected = here.forget({3, 11}).theta;
  const RequestRecord r = there.forget({3, 11});
  CHECK(relative_error(eigen(r.theta), eigen(expected)) <= 1e-4);
  CHECK(r.linearisation_error > 0);
  const Prepared::Recomputed again = there.recompute(1, s.samples);
  CHECK(again.difference <= again.bound);
  CHECK_THROWS_WITH(
      Prepared::open(folder / "there", Journal::Access::read),
      Catch::Contains("was prepared with") && Catch::Contains(fmt::format("by the device {}", name_of(test_device()))));
  CHECK_THROWS_WITH(Prepared::open(folder / "here", Journal::Access::read, test_device()),
                    Catch::Contains(fmt::format("by the device {}", name_of(test_device()))));
  CHECK(same_bits(Prepared::open(folder / "there", Journal::Access::read, test_device()).theta_after(1), r.theta));
}

TEST_CASE("every kind of kernel is made on a device, and is that of the CPU", "[device]") {
  // Batch norm and a classifier in factors, more than a tile of rows.
  Model model = make_model({.architecture = "resnet20", .classes = 4, .channels = 1, .options = {{"width", "4"}}}, 3);
  const DType dtype = GENERATE(DType::float64, DType::float32);
  model->to(dtype);
  const double allowed = dtype == DType::float64 ? 1e-12 : 1e-5;
  const Tensor inputs = random_samples(70, {8, 8, 1}, 4, 5).inputs.to(dtype),
               others = random_samples(11, {8, 8, 1}, 4, 6).inputs.to(dtype);
  const Subset subset = choose(*model, "bn+head");
  const TemporaryFolder folder;
  std::vector<std::pair<Tensor, NtkOptions>> cases = {
      {{}, {}},
      {others, {}},
      {{}, {.trace = true}},
      {others, {.trace = true}},
      {{}, {.representation = NtkRepresentation::dual}},
      {{}, {.representation = NtkRepresentation::thin_file, .progress = folder / "kernel.partial"}},
  };
  if (dtype == DType::float32) cases.push_back({others, {.products = DType::float32}});
  std::vector<Tensor> here;
  for (const auto& [second, options] : cases) here.push_back(ntk(*model, subset, inputs, second, options).dense());
  const Tensor targets = Random(9).normal_tensor({70, 4}, DType::float64);
  const auto primal = [&](NtkOptions options) {
    options.purpose = NtkPurpose::spectrum, options.representation = NtkRepresentation::primal;
    NtkComputation computation(*model, subset, inputs, {}, options);
    CHECK((computation.choice().plan.device_bytes > 0) == (model->device() != Device::cpu));
    return computation.gram(targets);
  };
  const Gram gram = primal({});
  model->to(test_device());
  for (size_t i = 0; i < cases.size(); i++) {
    INFO("case " << i);
    CHECK(difference(ntk(*model, subset, inputs, cases[i].first, cases[i].second).dense(), here[i]) <= allowed);
  }
  const Gram there = primal({});
  CHECK(difference(there.matrix.dense(), gram.matrix.dense()) <= allowed);
  CHECK(difference(there.right_hand_side, gram.right_hand_side) <= allowed);

  // By two ranks, of which one is made by the run that adds them up.
  NtkComputation shared(*model, subset, inputs, {},
                        {.purpose = NtkPurpose::spectrum,
                         .representation = NtkRepresentation::primal,
                         .progress = folder / "gram.partial"});
  shared.gram_of_rank({1, 2}, targets);
  const Gram sum = shared.gram(targets);
  CHECK(shared.resumed() == 35);
  CHECK(difference(sum.matrix.dense(), gram.matrix.dense()) <= allowed);
  CHECK(difference(sum.right_hand_side, gram.right_hand_side) <= allowed);

  // A budget that makes rows pass by in groups.
  NtkComputation grouped(*model, subset, inputs, {},
                         {.representation = NtkRepresentation::dual, .memory = size_t{3} << 20});
  const NtkKernel kernel = grouped.kernel();
  CHECK(grouped.choice().plan.resident_tiles < kernel.row_tiling().count);
  CHECK(difference(kernel.dense(), here[0]) <= allowed);

  const auto broken = [&](Tensor rows) {  // sample 5 has an infinity in its image
    rows = rows.clone();
    rows.slice(0, 5, 6).copy_from(Tensor::full(rows.slice(0, 5, 6).shape(), INFINITY, dtype));
    return rows;
  };
  CHECK_THROWS_WITH(ntk(*model, subset, broken(inputs)), Catch::Contains("row 20, column"));
}

TEST_CASE("layers multiply in TF32 on a GPU where that is asked for by name", "[device]") {
  struct Tf32 {
    Tf32() { set_linear_precision(Precision::tf32); }
    ~Tf32() { set_linear_precision(Precision::float32); }
  };
  Model model = make_model({.architecture = "resnet20", .classes = 4, .channels = 1, .options = {{"width", "4"}}}, 3);
  const Tensor inputs = random_samples(3, {8, 8, 1}, 4, 5, DType::float32).inputs;
  const Subset subset = choose(*model, "bn+head");
  model->to(test_device());
  const Tensor rows = jacobian(*model, subset, inputs.to(test_device())).rows, gram = dual_gram(rows).dense();
  const Tensor logits = predict(*model, inputs);
  const std::string arithmetic = row_arithmetic(test_device());
  {
    const Tf32 scope;
    // Rounded to 11 bits: worse than float32, better than bfloat16. (Rows jump where a rectifier changes its mind.)
    const double off = difference(predict(*model, inputs), logits);
    CHECK(off > 1e-5);
    CHECK(off < 1e-2);
    CHECK(row_arithmetic(test_device()) != arithmetic);
    CHECK(same_bits(dual_gram(rows).dense(), gram));  // products of rows keep their precision
    model->to(Device::cpu);
    CHECK_THROWS_WITH(predict(*model, inputs), Catch::Contains("products in tf32 are for GPUs"));
  }
  model->to(DType::float64);
  model->to(test_device());
  const Tensor exact = predict(*model, inputs.to(DType::float64));
  const Tf32 scope;
  CHECK(same_bits(predict(*model, inputs.to(DType::float64)), exact));
}
