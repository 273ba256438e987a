// Vision transformers: names, the forward pass, what is recorded, checkpoints.
#include "models/vit.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <sstream>

#include "engine/ops/activation.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"
#include "engine/ops/resize.h"
#include "engine/ops/softmax.h"
#include "engine/record_checks.h"
#include "engine/safetensors.h"
#include "models/checkpoint.h"
#include "models/image_size.h"
#include "models/small_vit.h"
#include "temporary_folder.h"

using namespace fastntk;
using Catch::Contains;

namespace {

// "cls_token 1 1 192" for every parameter of the model of this name in timm or torchvision.
std::vector<std::string> listed_names(const std::string& model) {
  std::ifstream file(FASTNTK_SOURCE_DIR "/tests/golden/vit_names.txt");
  REQUIRE(file.good());
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(model + " ")) lines.push_back(line.substr(model.size() + 1));
  REQUIRE(!lines.empty());
  return lines;
}

std::vector<std::string> names_of(const Model& model) {
  std::vector<std::string> lines;
  for (const auto& [name, p] : model->named_parameters()) {
    lines.push_back(name);
    for (const int64_t extent : p->value.shape()) lines.back() += " " + std::to_string(extent);
  }
  return lines;
}

double relative_error(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const auto x = a.to(DType::float64).to_vector<double>(), y = b.to(DType::float64).to_vector<double>();
  double difference = 0, norm = 0;
  for (size_t i = 0; i < x.size(); i++) difference += (x[i] - y[i]) * (x[i] - y[i]), norm += y[i] * y[i];
  return std::sqrt(difference / norm);
}

// The model as its papers write it: every row of every block, the prompts after the class token.
class Written {
 public:
  explicit Written(const Model& model) : config_(model.config) {
    for (const auto& [name, p] : model->named_parameters()) values_[name] = p->value;
  }

  Tensor logits(const Tensor& images) const {
    const int64_t N = images.extent(0), D = number("width"), patch = number("patch"), depth = number("depth");
    const bool token = has("cls_token"), average = config_.option("pool") == "avg";
    const int64_t prefix = token ? 1 : 0, rows = 12 / patch, columns = 8 / patch;
    Tensor x = images.clone();
    if (has("frame.top")) {
      const int64_t w = number("prompt-frame");
      const auto add = [&](const std::string& side, int64_t top, int64_t left) {
        const Tensor& v = at("frame." + side);
        Tensor there = x.slice(1, top, top + v.extent(0)).slice(2, left, left + v.extent(1));
        there.copy_from((Variable(there) + Variable(v)).value);
      };
      add("top", 0, 0), add("bottom", 12 - w, 0), add("left", w, 0), add("right", w, 8 - w);
    }
    // Patches, row by row, each [patch, patch, C]; the weight is [D, C, patch, patch].
    const Tensor patches = x.reshape({N, rows, patch, columns, patch, 3})
                               .permute({0, 1, 3, 5, 2, 4})
                               .reshape({N, rows * columns, 3 * patch * patch});
    Variable y = map(patches, at("patch_embed.proj.weight").reshape({D, 3 * patch * patch})) +
                 Variable(at("patch_embed.proj.bias"));
    if (token) y = concat({Variable(at("cls_token").expand({N, 1, D})), y}, 1);
    y = y + Variable(at("pos_embed"));
    const int64_t prompts = has("prompt.0") ? number("prompts") : 0, patch_count = rows * columns;
    for (int64_t i = 0; i < depth; i++) {
      const std::string own = "prompt." + std::to_string(i);
      if (has(own)) {
        const int64_t skip = i == 0 ? 0 : prompts;
        const Variable prompt = at(own).expand({N, prompts, D});
        y = concat({slice(y, 1, 0, prefix), prompt, slice(y, 1, prefix + skip, y.extent(1))}, 1);
      }
      y = block("blocks." + std::to_string(i) + ".", y);
    }
    y = average ? mean(slice(y, 1, y.extent(1) - patch_count, y.extent(1)), {1}) : slice(y, 1, 0, 1);
    y = norm(average ? "fc_norm" : "norm", y);
    return (map(y, at("head.weight")) + Variable(at("head.bias"))).value.reshape({N, 4});
  }

 private:
  bool has(const std::string& name) const { return values_.count(name) > 0; }
  const Tensor& at(const std::string& name) const {
    INFO(name);
    REQUIRE(has(name));
    return values_.at(name);
  }
  int64_t number(const std::string& option) const { return std::stoll(config_.option(option)); }
  static Variable map(const Variable& x, const Tensor& weight) {
    return matmul(x, Variable(weight.transpose(0, 1).unsqueeze(0)));
  }
  Variable norm(const std::string& name, const Variable& x) const {
    const Variable d = x - mean(x, {-1});
    return d / sqrt(shift(mean(square(d), {-1}), 1e-6)) * Variable(at(name + ".weight")) + Variable(at(name + ".bias"));
  }
  Variable affine(const std::string& name, const Variable& x) const {
    Variable y = map(x, at(name + ".weight"));
    if (has(name + ".bias")) y = y + Variable(at(name + ".bias"));
    if (!has(name + ".lora_A")) return y;
    const std::string& alpha = config_.option("lora-alpha");
    const auto rank = static_cast<double>(number("lora"));
    return y + scale(map(map(x, at(name + ".lora_A")), at(name + ".lora_B")),
                     (alpha == "r" ? rank : std::stod(alpha)) / rank);
  }
  Variable block(const std::string& b, const Variable& x) const {
    const int64_t D = number("width"), heads = number("heads"), d = D / heads;
    const Variable qkv = affine(b + "attn.qkv", norm(b + "norm1", x));
    std::vector<Variable> outputs;
    for (int64_t h = 0; h < heads; h++) {
      const auto part = [&](int64_t i) { return slice(qkv, -1, i * D + h * d, i * D + (h + 1) * d); };
      const Variable scores = scale(matmul(part(0), transpose(part(1), -2, -1)), 1 / std::sqrt(static_cast<double>(d)));
      outputs.push_back(matmul(softmax(scores), part(2)));
    }
    Variable branch = affine(b + "attn.proj", concat(outputs, -1));
    if (has(b + "ls1.gamma")) branch = branch * Variable(at(b + "ls1.gamma"));
    const Variable z = x + branch;
    branch = affine(b + "mlp.fc2", gelu(affine(b + "mlp.fc1", norm(b + "norm2", z))));
    if (has(b + "adapter.down.weight"))
      branch = branch + affine(b + "adapter.up", gelu(affine(b + "adapter.down", branch)));
    if (has(b + "ls2.gamma")) branch = branch * Variable(at(b + "ls2.gamma"));
    return z + branch;
  }

  ModelConfig config_;
  std::map<std::string, Tensor> values_;
};

std::string text(const Options& options) {
  std::string all;
  for (const auto& [name, value] : options) all += name + " " + value + " ";
  return all;
}

}  // namespace

TEST_CASE("names, order and shapes of vision transformers are timm's") {
  CHECK(names_of(build_model({.architecture = "vit_tiny_patch16_224", .classes = 1000})) ==
        listed_names("vit_tiny_patch16_224"));
  CHECK(names_of(build_model({.architecture = "vit_base_patch32_384", .classes = 1000})) ==
        listed_names("vit_base_patch32_384"));
  ModelConfig small{.architecture = "vit", .channels = 1, .image_height = 28, .image_width = 28};
  small.options = {{"width", "12"},    {"depth", "2"},  {"heads", "3"},        {"patch", "7"},
                   {"mlp-ratio", "2"}, {"pool", "avg"}, {"layer-scale", "0.5"}};
  CHECK(names_of(build_model(small)) == listed_names("vit-avg"));
  small.channels = 2;
  small.options = {{"width", "12"}, {"depth", "1"},        {"heads", "3"},    {"patch", "4"},
                   {"pool", "avg"}, {"class-token", "no"}, {"qkv-bias", "no"}};
  CHECK(names_of(build_model(small)) == listed_names("vit-no-class-token"));
}

TEST_CASE("a vision transformer computes what its papers write, though it leaves out what is not read") {
  for (const Options& options : kinds_of_vit()) {
    CAPTURE(text(options));
    const Model model = small_vit(options);
    const Tensor x = small_images(3);
    CHECK(relative_error(model->forward(Pass(), x).value, Written(model).logits(x)) < 1e-12);
  }
}

TEST_CASE(
    "the dot test holds on every record of vision transformers, and per-sample derivatives are those of each sample") {
  for (const Options& options : kinds_of_vit()) {
    CAPTURE(text(options));
    const Model model = small_vit(options);
    const Subset all = choose(*model, "all");
    const int64_t N = 3;
    const Tensor x = small_images(N);
    Tape tape;
    const Pass pass = Pass::per_sample(*model, all, tape, N);
    const Variable f = model->forward(pass, x);
    const std::vector<std::string> failed = test::failed_dot_tests(tape, 1e-12);
    CAPTURE(failed);
    CHECK(failed.empty());
    Tensor seeds = Tensor::zeros({4, N, 4}, DType::float64);
    for (int64_t c = 0; c < 4; c++) seeds.select(0, c).slice(1, c, c + 1).fill(1);
    const auto rows = tape.vjp(f, seeds, pass.leaves());
    for (int64_t i = 0; i < N; i++)
      for (int64_t c = 0; c < 4; c++) {
        Tape own;
        const Pass shared = Pass::shared(*model, all, own);
        const Variable y = model->forward(shared, x.slice(0, i, i + 1));
        const auto gradient = own.vjp(y, seeds.select(0, c).slice(0, 0, 1), shared.leaves());
        for (size_t k = 0; k < gradient.size(); k++) {
          CAPTURE(i, c, all.entries[k].name);
          REQUIRE(rows[k].defined() == gradient[k].defined());
          if (!gradient[k].defined()) continue;
          const Tensor difference =
              (rows[k].value.select(0, c).slice(0, i, i + 1) - gradient[k].value).value.to(DType::float64);
          for (const double d : difference.to_vector<double>()) CHECK(std::abs(d) < 1e-12);
        }
      }
  }
}

TEST_CASE("tuning prompts alone records nothing of the patches before the first attention") {
  const Model model = small_vit({{"prompts", "3"}, {"depth", "3"}});
  Tape tape;
  const Pass pass = Pass::per_sample(*model, choose(*model, "prompt"), tape, 2);
  model->forward(pass, small_images(2));
  int attentions = 0;
  for (const Record& r : tape.records()) {
    CHECK(r.op->name() != "conv2d");
    attentions += r.op->name() == "attention" || r.op->name() == "self_attention";
    if (attentions > 0 || r.op->name() == "concat" || r.op->name() == "permute" || r.op->name() == "reshape") continue;
    CAPTURE(r.op->name(), r.output_shape.str());
    CHECK((r.output_shape.rank() != 3 || r.output_shape[1] <= 3 || r.op->name() == "slice"));
  }
  CHECK(attentions == 3);
}

TEST_CASE("dropping is a function of the sample and not of how a batch is cut") {
  const Model model = small_vit({{"dropout", "0.2"}, {"drop-path", "0.3"}});
  const Tensor x = small_images(6);
  const auto logits = [&](int64_t from, int64_t to) {
    Pass pass(Mode::train);
    pass.draw_from(*model, Random(3), 10 + from);
    return model->forward(pass, x.slice(0, from, to)).value.to_vector<double>();
  };
  std::vector<double> parts = logits(0, 2);
  for (const double v : logits(2, 6)) parts.push_back(v);
  CHECK(logits(0, 6) == parts);
  CHECK(logits(0, 6) != model->forward(Pass(), x).value.to_vector<double>());
  CHECK_THROWS_WITH(model->forward(Pass(Mode::train), x), Contains("random numbers"));
}

TEST_CASE("a checkpoint of timm or torchvision is read with the name of its architecture") {
  const TemporaryFolder folder;
  ModelConfig config{.architecture = "vit", .classes = 5, .channels = 1, .image_height = 8, .image_width = 8};
  config.options = {{"width", "64"}, {"depth", "2"}, {"heads", "1"}, {"patch", "4"}, {"mlp-ratio", "0.25"}};
  const Model model = make_model(config, 1);
  const Tensor x = Random(2).normal_tensor({2, 8, 8, 1});
  const auto expected = model->forward(Pass(), x).value.to_vector<float>();
  const std::string path = folder / "foreign.safetensors";
  SafeTensors foreign{{{"format", "pt"}}, state(*model)};
  foreign.save(path);
  const Checkpoint timm = load_model(path, "vit");
  CHECK(timm.model.config.str() == model.config.str());
  CHECK(timm.model->forward(Pass(), x).value.to_vector<float>() == expected);
  CHECK_THROWS_WITH(load_model(path, "vit_tiny_patch16_224"),
                    Contains("not a checkpoint of vit_tiny_patch16_224") && !Contains("\n"));

  const std::vector<std::pair<std::string, std::string>> renamed{{"cls_token", "class_token"},
                                                                 {"pos_embed", "encoder.pos_embedding"},
                                                                 {"patch_embed.proj.", "conv_proj."},
                                                                 {"head.", "heads.head."},
                                                                 {"norm.", "encoder.ln."}};
  const std::vector<std::pair<std::string, std::string>> in_block{
      {".norm1.", ".ln_1."},    {".norm2.", ".ln_2."},    {".attn.qkv.", ".self_attention.in_proj_"},
      {".mlp.fc1.", ".mlp.0."}, {".mlp.fc2.", ".mlp.3."}, {".attn.proj.", ".self_attention.out_proj."},
  };
  for (auto& [name, tensor] : foreign.tensors) {
    for (const auto& [ours, theirs] : renamed)
      if (name.starts_with(ours)) name = theirs + name.substr(ours.size());
    if (!name.starts_with("blocks.")) continue;
    name = "encoder.layers.encoder_layer_" + name.substr(7);
    for (const auto& [ours, theirs] : in_block)
      if (const size_t at = name.find(ours); at != std::string::npos)
        name = name.substr(0, at) + theirs + name.substr(at + ours.size());
  }
  // As torchvision has them.
  const auto theirs = listed_names("vit_b_16");
  for (const auto& entry : foreign.tensors) {
    const std::string start = entry.first + " ";
    CHECK(std::any_of(theirs.begin(), theirs.end(), [&](const std::string& l) { return l.starts_with(start); }));
  }
  foreign.save(path);
  const Checkpoint torchvision = load_model(path, "vit");
  CHECK(torchvision.model->forward(Pass(), x).value.to_vector<float>() == expected);
}

TEST_CASE("position embeddings are resized for images of another size when asked") {
  const Model model = small_vit();
  const auto values = [](const Model& m, const std::string& name) {
    for (const auto& [own, p] : m->named_parameters())
      if (own == name) return p->value;
    return Tensor();
  };
  const Model same = with_image_size(model, 12, 8);
  CHECK(same->forward(Pass(), small_images(2)).value.to_vector<double>() ==
        model->forward(Pass(), small_images(2)).value.to_vector<double>());
  const Model larger = with_image_size(model, 24, 16);
  CHECK(larger.config.image_height == 24);
  const Tensor before = values(model, "pos_embed"), after = values(larger, "pos_embed");
  REQUIRE(after.shape() == Shape{1, 25, 8});
  CHECK(after.slice(1, 0, 1).to_vector<double>() == before.slice(1, 0, 1).to_vector<double>());
  // Rows of the grid are rows of images: 3 x 2 to 6 x 4.
  const Tensor grid = resize(before.slice(1, 1, 7).reshape({1, 3, 2, 8}), 6, 4,
                             {.interpolation = Interpolation::bicubic, .antialias = true})
                          .value;
  CHECK(after.slice(1, 1, 25).to_vector<double>() == grid.to_vector<double>());
  CHECK(grid.to_vector<double>()[0] != grid.to_vector<double>()[8]);
  // A cubic through equal values is that value.
  values(model, "pos_embed").fill(2);
  for (const double v : values(with_image_size(model, 4, 20), "pos_embed").to_vector<double>())
    CHECK(v == Approx(2).epsilon(1e-12));
  CHECK_THROWS_WITH(with_image_size(model, 10, 8), Contains("images of 10x8 cannot be cut into patches of 4x4"));
  const Model resnet = build_model({.architecture = "resnet20"});
  CHECK_THROWS_WITH(with_image_size(resnet, 32, 32), Contains("resnet20 has no position embeddings"));
}

TEST_CASE("vision transformers that cannot be are refused in one sentence") {
  const auto refused = [](const ModelConfig& config, const std::string& why) {
    CHECK_THROWS_AS(build_model(config), UsageError);
    CHECK_THROWS_WITH(build_model(config), Contains(why) && !Contains("\n"));
  };
  ModelConfig config{.architecture = "vit"};
  refused(config, "vit needs the size of its images");
  config.image_height = config.image_width = 28;
  refused(config, "images of 28x28 cannot be cut into patches of 16x16");
  const auto with = [&](const Options& options) {
    ModelConfig changed = config;
    changed.options = options;
    changed.options.insert({"patch", "7"});
    return changed;
  };
  refused(with({{"heads", "5"}}), "a width of 192 cannot be split into 5 heads");
  refused(with({{"class-token", "no"}}), "must pool by the average");
  refused(with({{"pool", "max"}}), "pool is token or avg, got 'max'");
  refused(with({{"dropout", "1.5"}}), "dropout must be a number from 0 to 0.99, got '1.5'");
  refused(with({{"prompts", "-1"}}), "prompts must be an integer of at least 1, got '-1'");
  refused(with({{"prompt-frame", "14"}}), "a frame of 14 pixels leaves nothing");
  refused(with({{"mlp-ratio", "0"}}), "MLP");
  const Model model = build_model(with({}));
  CHECK_THROWS_WITH(model->forward(Pass(), Tensor::zeros({1, 32, 32, 3})), Contains("[N, 28, 28, 3]"));
}
