#include "unlearn/experiment.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <set>

#include "datasets/idx.h"
#include "datasets/split.h"
#include "engine/progress.h"
#include "temporary_folder.h"
#include "unlearn/small_models.h"

using namespace fastntk;
using Catch::Contains;
using nlohmann::json;

namespace {

Samples fashion(Part part, const std::string& rules) {
  const Dataset data = Split::parse(rules).select(load_fashion_mnist("", part));
  const Positions all = all_positions(data.size());
  return {data.images_as_float(all, measure_normalisation(data)), data.labels_at(all), data.ids()};
}

// A tiny run of the real thing: Fashion-MNIST, a ResNet-20 of width 4 with its initial weights, one epoch.
struct Tiny {
  Samples data = fashion(Part::train, "30000-59999 per-class:6"), test = fashion(Part::test, "first:30");
  Model model = make_model({.architecture = "resnet20", .classes = 10, .channels = 1, .options = {{"width", "4"}}}, 1);
  Subset subset = choose(*model, "bn+head");
  ExperimentConfig config;
  Finetuned finetuned;

  explicit Tiny(const std::string& loss) {
    Progress::set_quiet(true);
    config.finetune.loss = loss;
    config.finetune.learning_rate = 0.01;
    config.finetune.batch_size = 20;
    config.finetune.l2 = 0.01;
    config.finetune.mode = Mode::eval;
    finetuned = finetune(*model, subset, data, config.finetune, "finetune", "");
  }
  ForgetTask forget_class(int64_t c) const {
    ForgetTask task{.name = fmt::format("class:{}", c), .forgotten_classes = {c}};
    for (int64_t i = 0; i < data.size(); i++)
      if (data.labels.data<int64_t>()[i] == c) task.forget.push_back(i);
    return task;
  }
};

// A number, or null with a reason beside it.
void check_number(const json& object, const std::string& key) {
  CAPTURE(key);
  REQUIRE(object.contains(key));
  if (object[key].is_null()) {
    REQUIRE(object.contains(key + "_why"));
    CHECK(!object[key + "_why"].get<std::string>().empty());
  } else {
    CHECK(object[key].is_number());
  }
}

}  // namespace

TEST_CASE("an experiment has complete rows, and its report the documented keys") {
  Tiny tiny("ce");
  tiny.config.rules = {"shift", "newton-shift", "relinearise:1", "shift+relinearise:1"};
  tiny.config.oracle_seeds = 1;
  std::vector<std::string> seen;
  Tensor last;
  const ForgetTask task = tiny.forget_class(9);
  REQUIRE(task.forget.size() == 6);
  const auto rows = run_tasks(
      *tiny.model, tiny.finetuned, tiny.data, tiny.test, {task}, tiny.config,
      [&](const ReportRow& r) { seen.push_back(r.method); }, &last);
  const std::vector<std::string> methods = {"theta0", "original",     "oracle",        "oracle",
                                            "shift",  "newton-shift", "relinearise:1", "shift+relinearise:1"};
  REQUIRE(rows.size() == methods.size());
  CHECK(seen == methods);
  CHECK(last.shape() == Shape{tiny.subset.size()});
  CHECK(same_bits(gather(*tiny.model, tiny.subset), tiny.finetuned.theta_star));

  for (size_t i = 0; i < rows.size(); i++) {
    const ReportRow& r = rows[i];
    CAPTURE(r.method);
    CHECK(r.method == methods[i]);
    CHECK(r.parameters == tiny.subset.size());
    CHECK(r.rho == Approx(0.6));
    for (const char* const set : {"forget", "retain", "test"})
      for (const char* const metric : {"acc_", "loss_", "js_", "activation_l1_"}) {
        const auto it = r.metrics.find(std::string(metric) + set);
        REQUIRE(it != r.metrics.end());
        CHECK(std::isfinite(it->second));
      }
    const bool update = i >= 4;
    CHECK(r.linearisation_error.size() == (update ? 3 : 0));
    CHECK(r.metrics.count("update_norm") == (update ? 1 : 0));
    CHECK(r.relinearisations.size() == (i >= 6 ? 1 : 0));
    CHECK(r.solves.empty() == (i != 4 && i != 5 && i != 7));
    CHECK(r.phases.empty() == (i == 0));
    CHECK(std::isfinite(r.objective_retain));
  }
  // The first oracle is the reference: nothing lies between it and itself.
  CHECK(rows[2].metrics.at("js_test") == 0);
  CHECK(rows[2].metrics.at("weight_distance") == 0);
  CHECK(rows[1].metrics.at("weight_distance") == Approx(1));
  CHECK(rows[3].seed == rows[2].seed + 1);
  CHECK(rows[0].gradient_norm_relative == Approx(1));
  CHECK(rows[7].objective_retain <= rows[4].objective_retain);

  Report report;
  report.command = {"fastntk", "demo"};
  report.config = {{"seed", "0"}};
  report.data = {{"name", "fashion-mnist"}};
  report.data_numbers = {{"n", 60}, {"n_forget", 6}};
  report.rows = rows;
  const TemporaryFolder folder;
  report.write_json(folder / "report.json");
  std::ifstream file(folder / "report.json");
  const json j = json::parse(file);
  CHECK(j["tool"] == "fastntk");
  CHECK(j["version"].is_string());
  CHECK(j["command"] == json({"fastntk", "demo"}));
  CHECK(j["config"]["seed"] == "0");
  CHECK(j["data"]["n"] == 60);
  REQUIRE(j["rows"].size() == rows.size());
  for (const json& row : j["rows"]) {
    CAPTURE(row["method"]);
    for (const char* const key : {"forget", "subset", "loss", "method"}) CHECK(row[key].is_string());
    CHECK(row["seed"].is_number_unsigned());
    CHECK(row["parameters"] == tiny.subset.size());
    for (const char* const key : {"rho", "objective_retain", "gradient_norm_retain", "gradient_norm_relative"})
      check_number(row, key);
    for (const char* const key : {"acc_forget", "loss_retain", "js_test", "activation_l1_forget", "weight_distance"})
      check_number(row["metrics"], key);
    CHECK(row["phases"].is_array());
    CHECK(row["seconds"].is_number());
    CHECK(row["peak_bytes"].is_number_unsigned());
  }
  const json shift = j["rows"][4];
  for (const char* const key : {"forget", "retain", "test"}) check_number(shift["linearisation_error"], key);
  for (const char* const key : {"rho", "relative_residual", "condition_estimate", "unknowns", "refinement_steps"})
    check_number(shift["solves"][0], key);
  CHECK(shift["solves"][0]["representation"] == "dual");
  CHECK(shift["solves"][0]["rho"].get<double>() == Approx(0.54));
  check_number(j["rows"][6]["relinearisations"][0], "objective_after");

  const std::string text = table(rows), markdown = markdown_table(rows);
  for (const std::string& method : methods) {
    CHECK_THAT(text, Contains(method));
    CHECK_THAT(markdown, Contains("| " + method));
  }
}

TEST_CASE("what could not be computed is null with a reason") {
  Tiny tiny("mse");
  tiny.config.rules = {"shift"};
  tiny.config.oracle_seeds = -1;
  const auto rows = run_tasks(*tiny.model, tiny.finetuned, tiny.data, tiny.test, {{.name = "ids"}}, tiny.config);
  REQUIRE(rows.size() == 3);
  // Nothing was forgotten: the update is zero, and so is its linearisation error.
  const ReportRow& shift = rows[2];
  CHECK(shift.metrics.at("update_norm") == 0);
  CHECK(shift.linearisation_error.at("retain") == 0);
  CHECK(shift.linearisation_error.at("test") == 0);
  CHECK(shift.metrics.at("loss_test") == rows[1].metrics.at("loss_test"));

  Report report;
  report.rows = rows;
  const json j = json::parse(report.json());
  const json& row = j["rows"][2];
  CHECK(row["metrics"]["acc_forget"].is_null());
  CHECK(row["metrics"]["acc_forget_why"] == "the set is empty");
  CHECK(row["metrics"]["js_test"].is_null());
  CHECK(row["metrics"]["js_test_why"] == "no oracle was run");
  CHECK(row["metrics"]["weight_distance_why"] == "no oracle was run");
  CHECK(row["linearisation_error"]["forget"].is_null());
  CHECK(row["linearisation_error"]["forget_why"] == "the set is empty");
  CHECK(row["metrics"]["acc_test"].is_number());
}

TEST_CASE("rules that cannot be meant are refused before anything is trained") {
  Tiny tiny("mse");
  for (const std::string rule : {"shfit", "newton-shift", "relinearise:0", "relinearise:2x", "relinearise:",
                                 "shift+solve", "shift+relinearise:-1", "relinearise:1+shift", "+relinearise:1"}) {
    CAPTURE(rule);
    tiny.config.rules = {"shift", rule};
    int rows = 0;
    CHECK_THROWS_AS(run_tasks(*tiny.model, tiny.finetuned, tiny.data, tiny.test, {tiny.forget_class(9)}, tiny.config,
                              [&](const ReportRow&) { rows++; }),
                    UsageError);
    CHECK(rows == 0);
  }
  tiny.config.rules = {"shift"};
  tiny.config.oracle_seeds = -1;
  CHECK_THROWS_WITH(run_tasks(*tiny.model, tiny.finetuned, tiny.data, tiny.test,
                              {{.name = "all", .forget = all_positions(tiny.data.size())}}, tiny.config),
                    Contains("nothing would be left"));
}
