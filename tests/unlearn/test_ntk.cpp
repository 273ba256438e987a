// The kernel as a primitive: one value however it is computed, within the predicted memory, and resumable.
#include <catch2/catch.hpp>
#include <filesystem>
#include <set>

#include "engine/parallel.h"
#include "small_models.h"
#include "temporary_folder.h"
#include "unlearn/matrix_free.h"
#include "unlearn/ntk.h"
#include "unlearn/rows.h"
#include "unlearn/spectrum.h"

using namespace fastntk;

namespace {

// A small convolutional network with batch norm: no linear layer but its classifier.
struct Network {
  Model model = make_model({.architecture = "convnet", .classes = 3, .channels = 1, .options = {{"width", "4"}}}, 5);
  Tensor inputs = Random(6).normal_tensor({70, 8, 8, 1});
  Tensor others = Random(7).normal_tensor({41, 8, 8, 1});
};

// What a primal plan sums over: more samples than a group has with one thread.
struct Sums {
  Network net;
  Subset subset = choose(*net.model, "bn+head");
  int64_t n = 600;
  Tensor inputs = Random(8).normal_tensor({n, 8, 8, 1}), targets = Random(9).normal_tensor({n, 3}, DType::float64);
  TemporaryFolder folder;
  NtkOptions options{.purpose = NtkPurpose::spectrum, .representation = NtkRepresentation::primal};
};

double relative_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double difference = 0, size = 0;
  for (size_t i = 0; i < x.size(); i++) difference += (x[i] - y[i]) * (x[i] - y[i]), size += y[i] * y[i];
  return std::sqrt(difference / size);
}

struct Stop {};

}  // namespace

TEST_CASE("a kernel without factored layers has the bits of dual_gram, in every representation and budget", "[ntk]") {
  const Network net;
  const Tensor inputs = Random(6).normal_tensor({200, 8, 8, 1}), others = Random(7).normal_tensor({120, 8, 8, 1});
  const Subset subset = choose(*net.model, "bn+conv2.weight");
  const Tensor ja = jacobian(*net.model, subset, inputs).rows, jb = jacobian(*net.model, subset, others).rows;
  const Tensor own = dual_gram(ja).dense(), block = dual_gram(ja, jb).contiguous();
  CHECK(same_bits(ntk(*net.model, subset, inputs).dense(), own));
  CHECK(same_bits(ntk(*net.model, subset, inputs, others).dense(), block));

  const TemporaryFolder folder;
  const std::string progress = folder.path() + "/kernel.partial";
  for (const auto representation : {NtkRepresentation::dual, NtkRepresentation::thin_file})
    for (const bool two : {false, true}) {
      const Tensor second = two ? others : Tensor();
      NtkOptions options{.representation = representation, .memory = size_t{1} << 40, .progress = progress};
      NtkProblem problem = NtkComputation(*net.model, subset, inputs, second, options).problem();
      problem.memory = 1;
      size_t least = 0;
      try {
        plan_ntk(problem, representation);
      } catch (const UsageError& e) {
        const std::string text = e.what();
        least = std::stoul(text.substr(text.find("does is ") + 8));
      }
      REQUIRE(least > 1);
      options.memory = least;
      NtkComputation computation(*net.model, subset, inputs, second, options);
      CHECK(computation.choice().plan.resident_tiles < computation.kernel().row_tiling().count);
      CHECK(std::filesystem::exists(progress));
      computation.remove_progress();
      CHECK(!std::filesystem::exists(progress));
      CHECK(same_bits(ntk(*net.model, subset, inputs, second, options).dense(), two ? block : own));
      CHECK(!std::filesystem::exists(progress));
      options.memory = least / 2;
      CHECK_THROWS_WITH(NtkComputation(*net.model, subset, inputs, second, options),
                        Catch::Contains("the smallest budget that does is"));
    }
}

TEST_CASE("a kernel computed in one thread or three has the same bits", "[ntk]") {
  const Network net;
  const Subset subset = choose(*net.model, "all");
  const int before = thread_count();
  set_thread_count(1);
  const Tensor one = ntk(*net.model, subset, net.inputs).dense();
  set_thread_count(3);
  const Tensor three = ntk(*net.model, subset, net.inputs).dense();
  set_thread_count(before);
  CHECK(same_bits(one, three));
}

TEST_CASE("products in float32 leave their rounding alone, whatever the threads", "[ntk]") {
  const Network net;
  const Subset subset = choose(*net.model, "all");
  const int before = thread_count();
  for (const bool two : {false, true}) {
    const Tensor second = two ? net.others : Tensor();
    const Tensor exact = ntk(*net.model, subset, net.inputs, second).dense();
    set_thread_count(1);
    const Tensor one = ntk(*net.model, subset, net.inputs, second, {.products = DType::float32}).dense();
    set_thread_count(3);
    const Tensor three = ntk(*net.model, subset, net.inputs, second, {.products = DType::float32}).dense();
    set_thread_count(before);
    CHECK(same_bits(one, three));
    CHECK(relative_difference(one, exact) < 1e-6);
    CHECK(relative_difference(one, exact) > 0);
  }
  net.model->to(DType::float64);
  CHECK_THROWS_WITH(ntk(*net.model, subset, net.inputs.to(DType::float64), {}, {.products = DType::float32}),
                    "products in float32 are for models of float32, this one is float64");
}

TEST_CASE("linear layers in factors give the kernel of their rows, also in its class average", "[ntk]") {
  const Model model = make_model({.architecture = "mlp",
                                  .classes = 5,
                                  .channels = 1,
                                  .image_height = 7,
                                  .image_width = 7,
                                  .options = {{"hidden", "33,20"}}},
                                 2);
  model->to(DType::float64);
  const Tensor a = Random(3).normal_tensor({67, 7, 7, 1}, DType::float64),
               b = Random(4).normal_tensor({30, 7, 7, 1}, DType::float64);
  for (const char* const specification : {"all", "head", "layers.1.weight", "layers.0.weight+fc.bias"}) {
    const Subset subset = choose(*model, specification);
    const Tensor ja = jacobian(*model, subset, a).rows, jb = jacobian(*model, subset, b).rows;
    CHECK(plan_rows(*model, subset, a, true).dense < subset.size());
    CHECK(relative_difference(ntk(*model, subset, a).dense(), dual_gram(ja).dense()) < 1e-13);
    CHECK(relative_difference(ntk(*model, subset, a, b).dense(), dual_gram(ja, jb).contiguous()) < 1e-13);
    // The class average is the kernel of the rows laid end to end.
    Tensor average = dual_gram(ja.reshape({67, 5 * subset.size()}), jb.reshape({30, 5 * subset.size()})).contiguous();
    for (int64_t i = 0; i < average.elements(); i++) average.mutable_data<double>()[i] /= 5;
    CHECK(relative_difference(ntk(*model, subset, a, b, {.trace = true}).dense(), average) < 1e-13);
  }
}

TEST_CASE("kernels of disjoint parts of a subset add up", "[ntk]") {
  const Network net;
  net.model->to(DType::float64);
  const Tensor inputs = net.inputs.to(DType::float64), others = net.others.to(DType::float64);
  Tensor sum;
  for (const char* const part : {"bn", "conv1.*+conv2.*", "conv3.weight", "head"}) {
    const Tensor kernel = ntk(*net.model, choose(*net.model, part), inputs, others).dense();
    if (!sum.defined()) sum = Tensor::zeros(kernel.shape(), DType::float64);
    for (int64_t i = 0; i < sum.elements(); i++) sum.mutable_data<double>()[i] += kernel.data<double>()[i];
  }
  CHECK(relative_difference(ntk(*net.model, choose(*net.model, "all"), inputs, others).dense(), sum) < 1e-13);
}

TEST_CASE("an interrupted kernel goes on where it was and ends in the same bits", "[ntk]") {
  const Network net;
  const Subset subset = choose(*net.model, "all");
  const Tensor inputs = Random(8).normal_tensor({600, 8, 8, 1});  // 1,800 rows, 36 tiles
  const Tensor expected = ntk(*net.model, subset, inputs).dense();
  const TemporaryFolder folder;
  const std::string progress = folder.path() + "/kernel.partial";
  NtkOptions options{.representation = NtkRepresentation::dual, .memory = size_t{30} << 20, .progress = progress};
  int steps = 0;
  options.on_step = [&] {
    if (++steps == 2) throw Stop{};
  };
  NtkComputation first(*net.model, subset, inputs, {}, options);
  INFO(first.choice().str());
  CHECK_THROWS_AS(first.kernel(), Stop);
  REQUIRE(std::filesystem::exists(progress));
  // Killed in the middle of a write: the last piece is not whole.
  std::filesystem::resize_file(progress, std::filesystem::file_size(progress) - 1000);
  options.on_step = {};
  NtkComputation second(*net.model, subset, inputs, {}, options);
  CHECK(same_bits(second.kernel().dense(), expected));
  CHECK(second.resumed() > 0);
  second.remove_progress();

  // What another computation left begins anew.
  steps = 0;
  options.on_step = [&] {
    if (++steps == 2) throw Stop{};
  };
  CHECK_THROWS_AS(NtkComputation(*net.model, subset, Random(11).normal_tensor(inputs.shape()), {}, options).kernel(),
                  Stop);
  options.on_step = {};
  NtkComputation third(*net.model, subset, inputs, {}, options);
  CHECK(same_bits(third.kernel().dense(), expected));
  CHECK(third.resumed() == 0);
}

TEST_CASE_METHOD(Sums, "an interrupted primal Gram matrix goes on where it was and ends in the same bits", "[ntk]") {
  const Gram expected = NtkComputation(*net.model, subset, inputs, {}, options).gram(targets);
  CHECK(relative_difference(expected.matrix.dense(), [&] {
          GramAccumulator sums(subset.size(), 1);
          sums.add(jacobian(*net.model, subset, inputs).rows, targets);
          return std::move(sums).finish().matrix.dense();
        }()) == 0);
  options.progress = folder.path() + "/gram.partial";
  const int before = thread_count();
  set_thread_count(1);  // smaller groups, so that there is something to interrupt
  int steps = 0;
  options.on_step = [&] {
    if (++steps == 1) throw Stop{};
  };
  NtkComputation first(*net.model, subset, inputs, {}, options);
  const int64_t group = first.problem().sweep_samples;
  REQUIRE(group < n);
  CHECK_THROWS_AS(first.gram(targets), Stop);
  CHECK(std::filesystem::exists(options.progress));
  set_thread_count(before);
  options.on_step = {};
  NtkComputation second(*net.model, subset, inputs, {}, options);
  const Gram again = second.gram(targets);
  CHECK(second.resumed() == group);
  CHECK(same_bits(again.matrix.dense(), expected.matrix.dense()));
  CHECK(same_bits(again.right_hand_side, expected.right_hand_side));
  second.remove_progress();
  CHECK(!std::filesystem::exists(options.progress));
  set_thread_count(before);
}

TEST_CASE_METHOD(Sums, "ranks share the sums of a primal Gram matrix", "[ntk]") {
  const auto computation = [&](const Tensor& other = {}) {
    return NtkComputation(*net.model, subset, other.defined() ? other : inputs, {}, options);
  };
  const Gram expected = computation().gram(targets);
  CHECK_THROWS_WITH(computation().gram_of_rank({0, 2}, targets), Catch::Contains("ranks need a progress file"));
  options.progress = folder / "gram.partial";

  // The last of three is made by the run that adds them up, whose bits are those of three that were all there.
  const auto with_ranks = [&](std::initializer_list<int64_t> numbers) {
    for (const int64_t number : numbers) {
      const RankFile sums = computation().gram_of_rank({number, 3}, targets);
      CHECK(sums.file == options.progress + fmt::format(".rank-{}-of-3", number));
      CHECK(sums.first == number * n / 3);
      CHECK(sums.last == (number + 1) * n / 3);
    }
    NtkComputation whole = computation();
    Gram gram = whole.gram(targets);
    int64_t samples = 0;
    for (const int64_t number : numbers) samples += (number + 1) * n / 3 - number * n / 3;
    CHECK(whole.resumed() == samples);
    whole.remove_progress();
    CHECK(std::filesystem::is_empty(folder.path()));
    return gram;
  };
  const Gram three = with_ranks({2, 0, 1}), two = with_ranks({1, 0});
  CHECK(three.rows == expected.rows);
  CHECK(relative_difference(three.matrix.dense(), expected.matrix.dense()) < 1e-14);
  CHECK(relative_difference(three.right_hand_side, expected.right_hand_side) < 1e-14);
  CHECK(same_bits(two.matrix.dense(), three.matrix.dense()));
  CHECK(same_bits(two.right_hand_side, three.right_hand_side));

  // A rank that was interrupted goes on, and one that is done has nothing to do.
  const int before = thread_count();
  set_thread_count(1);
  options.on_step = [] { throw Stop{}; };
  const int64_t group = computation().problem().sweep_samples;
  REQUIRE(group < n / 2);
  CHECK_THROWS_AS(computation().gram_of_rank({1, 2}, targets), Stop);
  // While it works no one else does, nor after it does anyone find what it needed for that.
  options.on_step = [&] {
    NtkOptions quiet = options;
    quiet.on_step = {};
    NtkComputation other(*net.model, subset, inputs, {}, quiet);
    CHECK_THROWS_WITH(other.gram_of_rank({1, 2}, targets), Catch::Contains("another process is writing it"));
    CHECK_THROWS_WITH(other.gram(targets), Catch::Contains("another process is writing it"));
  };
  for (const int64_t found : {group, n / 2}) {
    NtkComputation rank = computation();
    rank.gram_of_rank({1, 2}, targets);
    CHECK(rank.resumed() == found);
    options.on_step = {};
  }
  set_thread_count(before);
  const auto files = [&] { return std::distance(std::filesystem::directory_iterator(folder.path()), {}); };
  CHECK(files() == 1);

  // What belongs to other inputs, to another number of ranks, or is damaged, is neither used nor overwritten.
  CHECK_THROWS_WITH(computation(Random(11).normal_tensor(inputs.shape())).gram(targets),
                    Catch::Contains("rank-1-of-2 has sums of another model"));
  CHECK_THROWS_WITH(computation().gram_of_rank({1, 2}), Catch::Contains("rank-1-of-2 has sums of another model"));
  CHECK_THROWS_WITH(computation().gram_of_rank({0, 5}, targets), Catch::Contains("files of 2 ranks, this is one of 5"));
  const std::string file = options.progress + ".rank-1-of-2", stray = options.progress + ".rank-0-of-5";
  write_file_atomically(stray, "");
  CHECK_THROWS_WITH(computation().gram(targets), Catch::Contains("files of 2 ranks and of 5"));
  std::filesystem::remove(stray);
  options.representation = NtkRepresentation::dual;
  CHECK_THROWS_WITH(computation(), Catch::Contains("which the dual representation does not use"));
  options.representation = NtkRepresentation::primal;
  CHECK(files() == 1);
  const std::string whole = read_file(file);
  const auto refused = [&](const std::string& bytes) {
    write_file_atomically(file, bytes);
    CHECK_THROWS_WITH(computation().gram(targets), Catch::Contains("rank-1-of-2 is damaged"));
    CHECK(file_exists(file));
  };
  refused(whole.substr(0, whole.size() - 8));
  std::string changed = whole;
  changed[whole.size() / 2] ^= 1;
  refused(changed);

  // More ranks than samples: some have nothing to do.
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) std::filesystem::remove(entry);
  computation().gram_of_rank({n, n + 1}, targets);
  NtkComputation many = computation();
  CHECK(relative_difference(many.gram(targets).matrix.dense(), expected.matrix.dense()) < 1e-14);
  CHECK(many.resumed() == 1);
  CHECK(files() == n + 1);
  many.remove_progress();
  CHECK(files() == 0);
}

TEST_CASE("the predicted memory is the allocator's peak within a tenth", "[ntk]") {
  const Network net;
  const Tensor inputs = Random(8).normal_tensor({500, 8, 8, 1});
  const TemporaryFolder folder;
  const auto check = [&](const char* specification, const NtkOptions& options) {
    const Subset subset = choose(*net.model, specification);
    NtkComputation computation(*net.model, subset, inputs, {}, options);
    INFO(specification << "\n" << computation.choice().str());
    const size_t before = memory_statistics().live;
    reset_peak_memory();
    const bool primal = computation.choice().plan.representation == NtkRepresentation::primal;
    if (primal)
      computation.gram();
    else
      computation.kernel();
    const auto peak = static_cast<double>(memory_statistics().peak - before);
    CHECK(peak <= 1.1 * computation.choice().plan.bytes);
    CHECK(peak >= 0.9 * computation.choice().plan.bytes);
    if (options.memory) CHECK(peak <= 1.1 * static_cast<double>(options.memory));
  };
  const std::string progress = folder.path() + "/partial";
  check("all", {.representation = NtkRepresentation::thin});
  check("all", {.representation = NtkRepresentation::dual, .memory = size_t{24} << 20});
  check("all", {.representation = NtkRepresentation::dual, .memory = size_t{32} << 20});
  check("all", {.representation = NtkRepresentation::thin_file, .memory = size_t{24} << 20, .progress = progress});
  check("all", {.purpose = NtkPurpose::solve, .representation = NtkRepresentation::primal});
}

TEST_CASE("the predicted memory of products without rows is the allocator's peak within a tenth", "[ntk]") {
  const Model model = make_model({.architecture = "resnet20", .classes = 10, .channels = 1}, 1);
  const Subset subset = choose(*model, "bn+head");
  const Tensor inputs = Random(2).normal_tensor({32, 28, 28, 1});
  const auto largest = [&] {
    const JacobianOperator J(*model, subset, inputs, gather(*model, subset));
    return largest_eigenvalues([&](const Tensor& v) { return J.gram_times(all_positions(32), v); }, subset.size(), 3,
                               1e-4);
  };
  const NtkOptions options{.purpose = NtkPurpose::top_eigenvalues,
                           .representation = NtkRepresentation::matrix_free,
                           .vectors = 3,
                           .iterations = largest().steps};
  const NtkComputation computation(*model, subset, inputs, {}, options);
  const double predicted = computation.choice().plan.bytes;
  const size_t before = memory_statistics().live;
  reset_peak_memory();
  largest();
  const auto peak = static_cast<double>(memory_statistics().peak - before);
  CHECK(peak <= 1.1 * predicted);
  CHECK(peak >= 0.9 * predicted);
}

TEST_CASE("the planner takes what is fastest within the budget and says why", "[ntk]") {
  NtkProblem p{.purpose = NtkPurpose::spectrum,
               .samples = 5000,
               .rows = 10,
               .columns = 9600,
               .forward_flops = 1e9,
               .sweep_bytes = 50 << 20,
               .sweep_samples = 16,
               .threads = 2};
  CHECK(plan_ntk(p).plan.representation == NtkRepresentation::primal);
  // The class average has a spectrum of its own.
  p.samples = 500, p.rows = 1, p.stored_rows = 10;
  CHECK(plan_ntk(p).plan.representation == NtkRepresentation::thin);
  CHECK_THROWS_WITH(plan_ntk(p, NtkRepresentation::primal), Catch::Contains("JᵀJ has no class average"));
  p.purpose = NtkPurpose::top_eigenvalues;
  CHECK_THROWS_WITH(plan_ntk(p, NtkRepresentation::matrix_free), Catch::Contains("no class average"));
  p.purpose = NtkPurpose::spectrum, p.stored_rows = 0;
  CHECK(plan_ntk(p).plan.representation == NtkRepresentation::thin);
  p.purpose = NtkPurpose::block, p.rows = 10, p.columns = 100'000;
  CHECK(plan_ntk(p).plan.representation == NtkRepresentation::thin);
  p.memory = size_t{1} << 30;  // J alone has 1.9 GiB
  CHECK(plan_ntk(p).plan.representation == NtkRepresentation::thin_file);
  p.file = false;
  const NtkChoice dual = plan_ntk(p);
  CHECK(dual.plan.representation == NtkRepresentation::dual);
  CHECK(dual.plan.row_passes > 1);
  CHECK(dual.plan.bytes <= static_cast<double>(p.memory));
  CHECK_THAT(dual.str(), Catch::Contains("chosen") && Catch::Contains("thin needs"));
  CHECK_THROWS_WITH(plan_ntk(p, NtkRepresentation::primal), Catch::Contains("does not show the elements"));
  CHECK_THROWS_AS(ntk_representation("thick"), UsageError);
  // The smallest budget that is named will do.
  p.memory = 1 << 20;
  try {
    plan_ntk(p);
    FAIL("a kernel of 200 MB in one");
  } catch (const UsageError& e) {
    const std::string text = e.what();
    p.memory = std::stoul(text.substr(text.find("does is ") + 8));
    CHECK(plan_ntk(p).plan.bytes <= static_cast<double>(p.memory));
  }
  p.purpose = NtkPurpose::solve, p.samples = 100'000, p.columns = 1'000'000, p.vectors = 1;
  p.memory = size_t{1} << 30;
  CHECK(plan_ntk(p).plan.representation == NtkRepresentation::matrix_free);
}

TEST_CASE("the planner counts the memory of a device by itself", "[ntk]") {
  NtkProblem p{.purpose = NtkPurpose::spectrum,
               .samples = 5000,
               .rows = 10,
               .columns = 9600,
               .forward_flops = 1e9,
               .sweep_bytes = size_t{1} << 30,
               .sweep_samples = 1024,
               .on_device = true,
               .device_memory = size_t{80} << 30};
  const NtkPlan primal = plan_ntk(p).plan;
  CHECK(primal.representation == NtkRepresentation::primal);
  // Half of JᵀJ, the rows of 1,024 samples and the sweeps are there.
  CHECK(primal.device_bytes > 4.0 * 9600 * 9600 + 4.0 * 1024 * 10 * 9600 + double{1 << 30});
  CHECK(primal.device_bytes < 2.5e9);
  p.device_memory = size_t{1200} << 20;
  CHECK_THROWS_WITH(plan_ntk(p), Catch::Contains("of the device's memory"));
  p.sweep_bytes = 1 << 20, p.samples = 500, p.purpose = NtkPurpose::block, p.columns = 100'000;
  const NtkChoice dual = plan_ntk(p);
  CHECK(dual.plan.device_bytes <= static_cast<double>(ntk_share_of(p.device_memory)));
  CHECK(dual.plan.row_passes + dual.plan.disk_bytes > 1);
  CHECK_THAT(dual.str(), Catch::Contains("device") && Catch::Contains("of the device"));
}
