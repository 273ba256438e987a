// The fastntk program as its users meet it: what it prints, what it writes, how it fails.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "apps/command.h"
#include "engine/cpu/dispatch.h"
#include "engine/file.h"
#include "engine/npy.h"
#include "engine/safetensors.h"
#include "engine/sha256.h"
#include "file_makers.h"
#include "temporary_folder.h"

using namespace fastntk;
using namespace fastntk::test;
namespace fs = std::filesystem;

namespace {

const std::string pretrained = std::string(FASTNTK_SOURCE_DIR) + "/checkpoints/resnet20-fashion-mnist-0-8.safetensors";
const std::string tiny = " --samples '30000-59999 per-class:4' --epochs 1 --quiet ";

std::string finetuned(const std::string& folder, const std::string& more = {}) {
  std::string path = folder + "/tuned.safetensors";
  const Result r = run("finetune " + pretrained + " -o " + path + tiny + more);
  INFO(r.output);
  REQUIRE(r.code == 0);
  return path;
}

}  // namespace

TEST_CASE("usage errors have exit code 2 and leave nothing behind") {
  const TemporaryFolder folder;
  const std::string out = folder.path() + "/out.safetensors";
  check_refused("", 2, "subcommand");
  check_refused("pretrain", 2, "--output");
  check_refused("info --no-such-flag", 2, "--no-such-flag");
  check_refused("finetune " + pretrained + " -o " + out + tiny + "--subset 'layer9.*'", 2, "layer9.*", out);
  check_refused("finetune " + pretrained + " -o " + out + tiny + "--loss hinge", 2, "hinge", out);
  check_refused("finetune " + pretrained + " -o " + out + tiny + "--schedule sometimes", 2, "sometimes", out);
  check_refused("finetune " + pretrained + " -o " + out + tiny + "--threads -1", 2, "--threads", out);
  check_refused("finetune " + pretrained + " -o " + out + tiny + "--memory lots", 2, "lots", out);
  check_refused("finetune " + pretrained + " -o " + out + " --samples class:12 --quiet", 2, "12", out);
  check_refused("finetune " + pretrained + " -o " + out + " --samples per-class:7000 --quiet", 2, "6000", out);
  check_refused("finetune " + pretrained + " -o " + out + " --data no-such-set --quiet", 2, "no-such-set", out);
}

TEST_CASE("damaged files are refused with exit code 1 and one line") {
  const TemporaryFolder folder;
  const std::string broken = folder.path() + "/broken.safetensors", out = folder.path() + "/out.safetensors";
  check_refused("info " + folder.path() + "/missing.safetensors", 1, "missing.safetensors");
  const std::string whole = read_file(pretrained);
  write_file_atomically(broken, whole.substr(0, whole.size() / 2));
  check_refused("evaluate " + broken, 1, broken);
  write_file_atomically(broken, "not a model at all");
  check_refused("evaluate " + broken, 1, broken);
  SafeTensors file = SafeTensors::load(pretrained);
  file.tensors[0].second.mutable_data<float>()[3] = std::nanf("");
  file.save(broken);
  check_refused("finetune " + broken + " -o " + out + tiny, 1, file.tensors[0].first, out);
  check_refused("evaluate " + pretrained + " --part train --data idx:" + broken + "," + broken, 1, broken);
  check_refused("unlearn " + pretrained + " --forget class:9", 1, "finetune");
}

TEST_CASE("fine-tune, forget and evaluate") {
  const TemporaryFolder folder;
  const std::string tuned = finetuned(folder.path(), "--json " + folder.path() + "/tuned.json"),
                    forgot = folder.path() + "/forgot.safetensors";
  CHECK(
      nlohmann::json::parse(read_file(folder.path() + "/tuned.json"))["results"]["gradient_norm_relative"].is_number());
  const Result r =
      run("unlearn " + tuned + " --forget class:9 --rule shift --oracle-seeds 0 --test-samples first:50 --quiet -o " +
          forgot + " --json " + folder.path() + "/report.json");
  INFO(r.output);
  REQUIRE(r.code == 0);
  const auto report = nlohmann::json::parse(read_file(folder.path() + "/report.json"));
  REQUIRE(report["rows"].size() == 4);
  CHECK(report["rows"][3]["method"] == "shift");
  CHECK(report["rows"][3]["metrics"]["js_retain"].get<double>() >= 0);
  CHECK(report["rows"][3]["solves"][0]["relative_residual"].get<double>() < 1e-10);
  CHECK(report["data"]["n_forget"] == 4);
  CHECK(run("evaluate " + forgot + " --samples first:50 --quiet").code == 0);
  CHECK_THAT(run("info " + forgot).output, Catch::Contains("unlearn.rule") && Catch::Contains("resnet20"));

  // Nothing to forget changes nothing; everything cannot be forgotten.
  const std::string same = folder.path() + "/same.safetensors";
  CHECK(run("unlearn " + tuned + " --rule shift --test-samples first:50 --quiet -o " + same).code == 0);
  const SafeTensors before = SafeTensors::load(tuned), after = SafeTensors::load(same);
  for (const auto& [name, tensor] : before.tensors) {
    INFO(name);
    CHECK(std::ranges::equal(bytes_of(tensor), bytes_of(*after.find(name))));
  }
  check_refused("unlearn " + tuned + " --forget all --quiet -o " + folder.path() + "/none.safetensors", 2, "retain set",
                folder.path() + "/none.safetensors");
}

TEST_CASE("a folder of images from the command line: fine-tune, forget, evaluate, predict") {
  const TemporaryFolder folder;
  const std::string& f = folder.path();
  const std::string images = f + "/images";
  // Stripes of three directions, 30x34, a folder per class.
  for (int i = 0; i < 48; i++) {
    const int kind = i % 3;
    std::vector<uint8_t> pixels;
    for (int y = 0; y < 30; y++)
      for (int x = 0; x < 34; x++)
        pixels.push_back(static_cast<uint8_t>(((kind == 0 ? x : kind == 1 ? y : x + y) + i) / 4 % 2 * 200 + i));
    const std::string place = fmt::format("{}/{}/{}", images, i < 36 ? "train" : "test", kind);
    fs::create_directories(place);
    write_file_atomically(fmt::format("{}/{}.{}", place, i, i % 2 ? "png" : "jpg"),
                          i % 2 ? png_bytes(pixels, 30, 34, 1) : jpeg_bytes(pixels, 30, 34, 1, 95));
  }
  const std::string data = " --dataset folder:" + images, tuned = f + "/tuned.safetensors";
  Result r = run("finetune " + pretrained + " -o " + tuned + data +
                 " --transform resize:28:bicubic,crop:28 --head zero --epochs 6 --quiet");
  INFO(r.output);
  REQUIRE(r.code == 0);
  CHECK(SafeTensors::load(tuned).metadata.at("transform") == "resize:28:bicubic,crop:28");
  // The model file says how images are to be transformed.
  r = run("evaluate " + tuned + data + " --quiet --json " + f + "/e.json");
  INFO(r.output);
  REQUIRE(r.code == 0);
  CHECK_THAT(r.output, Catch::Contains("12 samples: accuracy"));
  CHECK(nlohmann::json::parse(read_file(f + "/e.json"))["results"]["accuracy"].get<double>() > 0.8);
  // Less memory than the decoded images need changes nothing; another transform does.
  REQUIRE(run("predict " + tuned + data + " -o " + f + "/a.npy --quiet").code == 0);
  REQUIRE(run("predict " + tuned + data + " -o " + f + "/b.npy --quiet --memory 1K --threads 1").code == 0);
  REQUIRE(run("predict " + tuned + data + " -o " + f + "/c.npy --quiet --transform resize:28x28").code == 0);
  CHECK(read_file(f + "/a.npy") == read_file(f + "/b.npy"));
  CHECK(read_file(f + "/a.npy") != read_file(f + "/c.npy"));
  CHECK(load_npy(f + "/a.npy").shape() == Shape{12, 3});
  r = run("unlearn " + tuned + " --forget class:1 --quiet -o " + f + "/forgot.safetensors");
  INFO(r.output);
  CHECK(r.code == 0);
  CHECK_THAT(r.output, Catch::Contains("forget 12 of 36 samples"));
  check_refused("evaluate " + tuned + data + " --quiet --transform rgb,resize:28,crop:28", 1,
                "have 3 channels, the model takes 1; the transform grey makes one of them");
  check_refused("evaluate " + tuned + data + " --quiet --transform blur", 2, "unknown step \"blur\" of a transform");
  write_file_atomically(images + "/test/1/x.png", "not an image");
  check_refused("evaluate " + tuned + data + " --quiet", 1, "test/1/x.png: neither a PNG nor a JPEG image");
}

TEST_CASE("predict, jacobian and ntk of a tensor file") {
  const TemporaryFolder folder;
  const std::string& f = folder.path();
  Tensor x = Tensor::zeros({3, 1, 28, 28});
  for (int64_t i = 0; i < x.elements(); i++) x.mutable_data<float>()[i] = static_cast<float>(i % 17) / 10;
  save_npy(f + "/x.npy", x);
  REQUIRE(run("predict " + pretrained + " --input " + f + "/x.npy -o " + f + "/y.npy --quiet").code == 0);
  CHECK(load_npy(f + "/y.npy").shape() == Shape{3, 9});
  REQUIRE(
      run("jacobian " + pretrained + " --subset bn --input " + f + "/x.npy -o " + f + "/j.safetensors --quiet").code ==
      0);
  const SafeTensors j = SafeTensors::load(f + "/j.safetensors");
  CHECK(j.tensors[0].second.shape() == Shape{3, 9, 1568});
  CHECK_THAT(j.metadata.at("columns.0000"), Catch::Contains("bn1.weight 0"));
  const std::string spectrum =
      "ntk " + pretrained + " --input " + f + "/x.npy --representation primal --plot " + f + "/s.svg --quiet ";
  CHECK_THAT(run(spectrum + "--rank 1/2").output, Catch::Contains("sums over samples 1 to 3 of 3"));
  check_refused("ntk " + pretrained + " --input " + f + "/x.npy --plot " + f + "/s.svg", 2,
                "which the thin representation");
  REQUIRE(run(spectrum + "--json " + f + "/s.json").code == 0);
  CHECK(nlohmann::json::parse(read_file(f + "/s.json"))["results"]["resumed"] == 2);
  CHECK_FALSE(file_exists(f + "/s.svg.ntk-partial.rank-1-of-2"));
  REQUIRE(run("ntk " + pretrained + " --subset bn --input " + f + "/x.npy -o " + f + "/k.npy --quiet").code == 0);
  const Tensor k = load_npy(f + "/k.npy");
  CHECK(k.shape() == Shape{27, 27});
  double sum = 0;
  for (int64_t p = 0; p < 1568; p++) {
    const double v = j.tensors[0].second.data<float>()[p];
    sum += v * v;
  }
  CHECK(k.data<double>()[0] == Approx(sum).epsilon(1e-12));
}

TEST_CASE("training that is killed or interrupted is continued or begun again, to the same bits") {
  const TemporaryFolder folder;
  const std::string whole = folder.path() + "/whole.safetensors", cut = folder.path() + "/cut.safetensors";
  const std::string flags = " --samples '30000-59999 per-class:20' --epochs 4 --batch 20 --threads 1 --quiet";
  REQUIRE(run("finetune " + pretrained + " -o " + whole + flags).code == 0);
  for (const int signal : {SIGKILL, SIGINT}) {
    fs::remove(cut);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      const std::string command = std::string("exec ") + FASTNTK_PROGRAM + " finetune " + pretrained + " -o " + cut +
                                  flags + " >/dev/null 2>&1";
      execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
      _exit(127);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    kill(child, signal);
    int status = 0;
    waitpid(child, &status, 0);
    if (signal == SIGINT)
      CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 130));
    else
      CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
    // However far it came, the same command ends in the same file.
    REQUIRE(run("finetune " + pretrained + " -o " + cut + flags).code == 0);
    CHECK(sha256_of_file(cut) == sha256_of_file(whole));
    CHECK(!fs::exists(cut + ".training.partial"));
  }
}

TEST_CASE("the committed checkpoint's command gives the same bits: a prefix of it") {
  const TemporaryFolder folder;
  const std::string out = folder.path() + "/prefix.safetensors";
  std::string hashes[2];
  for (int threads = 1; threads <= 2; threads++) {
    const Result r = run(
        fmt::format("pretrain -o {} --stop-after-steps 6 --test-samples first:9 --quiet --threads {}", out, threads));
    INFO(r.output);
    REQUIRE(r.code == 0);
    hashes[threads - 1] = sha256_of_file(out);
  }
  CHECK(hashes[0] == hashes[1]);
  // The bits belong to one set of kernels and to the release build: which products and sums the compiler makes one
  // depends on how far it optimises. Elsewhere there is nothing to compare with.
#if defined(NDEBUG)
  if (cpu::isa() == cpu::Isa::avx512)
    CHECK(hashes[0] == "9fbfdb1608ddc7bdf9d873f51fd835df0dc40fc2a3d706b62baecfcc9d866241");
#endif
}

TEST_CASE("what was forgotten is not there to be forgotten again, and settings that the rules have not are named") {
  const TemporaryFolder folder;
  const std::string tuned = folder / "tuned.safetensors", forgot = folder / "forgot.safetensors",
                    again = folder / "again.safetensors";
  const auto succeeds = [](const std::string& arguments) {
    const Result r = run(arguments + " --quiet");
    INFO(arguments << "\n" << r.output);
    REQUIRE(r.code == 0);
    return r.output;
  };
  const std::string data = " --samples '30000-59999 per-class:2' --epochs 1";
  succeeds("finetune " + pretrained + " -o " + tuned + data + " --loss ce --label-smoothing 0.1");
  CHECK_THAT(succeeds("unlearn " + tuned + " --forget class:9 --test-samples first:20 -o " + forgot),
             Catch::Contains("fine-tuned with label smoothing, which the linearised objective has not"));
  check_refused("unlearn " + forgot + " --forget class:8", 2, "has forgotten samples already");
  check_refused("prepare " + forgot + " -o " + (folder / "state"), 2, "has forgotten samples already");
  // Fine-tuned anew it is a model like others.
  succeeds("finetune " + forgot + " -o " + again + data + " --loss mse --head keep");
  succeeds("unlearn " + again + " --forget class:9 --test-samples first:20");
  // θ0 stays as exact as it is.
  succeeds("convert " + again + " " + again + " --dtype f32");
  succeeds("prepare " + again + " -o " + (folder / "state"));
  succeeds("prepare " + again + " -o " + (folder / "fixed") + " --crossover 7");
}

TEST_CASE("what cannot be done is refused before it is begun") {
  const TemporaryFolder folder;
  const std::string none = folder / "none/x";
  check_refused("finetun x", 2, "there is no command 'finetun'; there are pretrain, finetune");
  check_refused("predict " + pretrained + " -o logits.txt --samples first:1", 2, "must end in .safetensors or .npy");
  check_refused("jacobian " + pretrained + " -o " + none + ".npy --samples first:1", 1, "cannot write");
  check_refused("evaluate " + pretrained + " --samples class:0 --json " + none, 1, "cannot write");
  check_refused("evaluate " + pretrained + " --samples class:0 --memory 0.5", 2, "at least one byte");
  check_refused("evaluate " + pretrained + " --seed -1", 2, "from 0 on was expected");
  check_refused("evaluate " + pretrained + " --input x.npy --samples first:1", 2, "--input");
  check_refused("ntk " + pretrained + " --samples first:1 --top 1 --ridge 1", 2, "--ridge is for");
  check_refused("ntk " + pretrained + " --samples first:1 --top 10", 2, "has 9 eigenvalues");
  check_refused("ntk " + pretrained + " --samples first:1 --plot p.png", 2, "ends in .svg");
  check_refused("ntk " + pretrained + " --samples first:1 --spectrum --representation thin-file", 2,
                "and none is written");
  const std::string ranked = "ntk " + pretrained + " --samples first:1 --rank ";
  check_refused(ranked + "0/2 -o k.npy", 2, "give one");
  check_refused(ranked + "2/2 --plot p.svg", 2, "a rank is K/N");
  check_refused(ranked + "0/2 --plot p.svg", 2, "give --representation primal to each");
  check_refused(ranked + "'' --plot p.svg", 2, "a rank is K/N");
  check_refused("info " + pretrained + " --devices", 2, "not a file");
  check_refused("finetune " + pretrained + " -o ''", 2, "has no name");
  check_refused("finetune " + pretrained + " -o " + folder.path(), 1, "not a regular file");
  check_refused("finetune " + pretrained + " -o " + (folder / "x") + " --stop-after-steps -2", 2,
                "must not be negative");
  check_refused("finetune " + pretrained + " -o " + (folder / "x") + " --image-size -5", 2, "--image-size");
  check_refused("pretrain -o " + (folder / "x") + " --test-samples first:0", 2, "to report accuracy on");
}
