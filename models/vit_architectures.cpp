// Vision transformers by name, their options, and checkpoints of timm and torchvision.
#include <cmath>

#include "models/architectures.h"
#include "models/vit.h"

namespace fastntk {
namespace {

// ---- options ----

int64_t count_option(const ModelConfig& config, const std::string& name) {
  const std::string& text = config.option(name);
  return text == "0" ? 0 : config.positive_option(name);
}

bool choice(const ModelConfig& config, const std::string& name, const std::string& yes, const std::string& no) {
  const std::string& text = config.option(name);
  require_usage(text == yes || text == no, "{}: {} is {} or {}, got '{}'", config.architecture, name, yes, no, text);
  return text == yes;
}

VitShape shape_of(const ModelConfig& c, int64_t image) {
  VitShape s;
  s.image_height = c.image_height ? c.image_height : image;
  s.image_width = c.image_width ? c.image_width : image;
  require_usage(s.image_height > 0, "{} needs the size of its images", c.architecture);
  s.patch = c.positive_option("patch");
  s.depth = c.positive_option("depth");
  s.class_token = choice(c, "class-token", "yes", "no");
  s.pool = choice(c, "pool", "token", "avg") ? TokenPool::token : TokenPool::average;
  s.channels = c.channels;
  s.classes = c.classes;
  s.prompts = count_option(c, "prompts");
  s.deep_prompts = choice(c, "prompt-depth", "deep", "shallow");
  s.prompt_frame = count_option(c, "prompt-frame");
  BlockShape& b = s.block;
  b.width = c.positive_option("width");
  b.heads = c.positive_option("heads");
  b.hidden = static_cast<int64_t>(static_cast<double>(b.width) * number_option(c, "mlp-ratio", 0, 1024));
  b.qkv_bias = choice(c, "qkv-bias", "yes", "no");
  b.layer_scale = number_option(c, "layer-scale", 0, 1024);
  b.dropout = number_option(c, "dropout", 0, 0.99);
  b.drop_path = number_option(c, "drop-path", 0, 0.99);
  b.lora.rank = count_option(c, "lora");
  b.lora.alpha =
      c.option("lora-alpha") == "r" ? static_cast<double>(b.lora.rank) : number_option(c, "lora-alpha", 0, 1e6);
  b.adapter = count_option(c, "adapter");
  return s;
}

// ---- checkpoints without configuration ----

// The name in timm of a parameter that torchvision calls `name`; others are returned as they are.
std::string timm_name(const std::string& name) {
  static const std::map<std::string, std::string> whole{{"class_token", "cls_token"},
                                                        {"conv_proj.weight", "patch_embed.proj.weight"},
                                                        {"conv_proj.bias", "patch_embed.proj.bias"},
                                                        {"encoder.pos_embedding", "pos_embed"},
                                                        {"encoder.ln.weight", "norm.weight"},
                                                        {"encoder.ln.bias", "norm.bias"},
                                                        {"heads.head.weight", "head.weight"},
                                                        {"heads.head.bias", "head.bias"}};
  // What follows the number of a block. mlp.linear_1 and _2 are what torchvision called mlp.0 and mlp.3 before 0.12.
  static const std::map<std::string, std::string> in_block{
      {"ln_1.", "norm1."},
      {"ln_2.", "norm2."},
      {"self_attention.in_proj_", "attn.qkv."},
      {"self_attention.out_proj.", "attn.proj."},
      {"mlp.0.", "mlp.fc1."},
      {"mlp.3.", "mlp.fc2."},
      {"mlp.linear_1.", "mlp.fc1."},
      {"mlp.linear_2.", "mlp.fc2."},
  };
  if (const auto found = whole.find(name); found != whole.end()) return found->second;
  const std::string prefix = "encoder.layers.encoder_layer_";
  const size_t dot = name.find('.', prefix.size());
  if (!name.starts_with(prefix) || dot == std::string::npos) return name;
  const std::string rest = name.substr(dot + 1);
  for (const auto& [theirs, ours] : in_block)
    if (rest.starts_with(theirs))
      return "blocks." + name.substr(prefix.size(), dot - prefix.size()) + "." + ours + rest.substr(theirs.size());
  return name;
}

// Everything but the number of heads shows in the shapes; that is `heads`, or heads of width 64 if it is 0.
ModelConfig infer(const Architecture& architecture, int64_t heads, const NamedShapes& shapes) {
  const std::string& name = architecture.name;
  const auto find = [&](const std::string& key, int rank) { return shape_in(shapes, key, rank, name); };
  const auto has = [&](const std::string& key) { return shapes.count(key) > 0; };
  const Shape patches = find("patch_embed.proj.weight", 4), positions = find("pos_embed", 3);
  const int64_t width = patches[0], patch = patches[2], class_token = has("cls_token") ? 1 : 0;
  const auto side = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(positions[1] - class_token))));
  require(patches[3] == patch && side * side == positions[1] - class_token,
          "the positions {} of this checkpoint are not those of a square image", positions.str());
  const int64_t depth = count_numbered(shapes, "blocks.", ".norm1.weight");
  require(heads > 0 || width % 64 == 0, "the number of heads of a {} of width {} cannot be read from a checkpoint",
          name, width);
  const double ratio = static_cast<double>(find("blocks.0.mlp.fc1.weight", 2)[0]) / static_cast<double>(width);
  ModelConfig config{.architecture = name,
                     .classes = find("head.weight", 2)[0],
                     .channels = patches[1],
                     .image_height = side * patch,
                     .image_width = side * patch};
  config.options = architecture.options;
  config.options["width"] = std::to_string(width);
  config.options["depth"] = std::to_string(depth);
  config.options["heads"] = std::to_string(heads > 0 ? heads : width / 64);
  config.options["patch"] = std::to_string(patch);
  config.options["mlp-ratio"] = fmt::format("{}", ratio);
  config.options["pool"] = has("fc_norm.weight") ? "avg" : "token";
  config.options["class-token"] = class_token ? "yes" : "no";
  config.options["qkv-bias"] = has("blocks.0.attn.qkv.bias") ? "yes" : "no";
  config.options["layer-scale"] = has("blocks.0.ls1.gamma") ? "1e-05" : "0";
  for (const char* const fixed : {"width", "depth", "patch"})
    require(name == "vit" || config.options[fixed] == architecture.options.at(fixed),
            "not a checkpoint of {}: its {} is {}, not {}", name, fixed, config.options[fixed],
            architecture.options.at(fixed));
  return config;
}

struct Size {
  int64_t width, depth, heads, patch, image;
};

Architecture vit(const std::string& name, const std::string& description, const Size& size) {
  Architecture a{.name = name,
                 .description = description,
                 .options = {{"width", std::to_string(size.width)},
                             {"depth", std::to_string(size.depth)},
                             {"heads", std::to_string(size.heads)},
                             {"patch", std::to_string(size.patch)},
                             {"mlp-ratio", "4"},
                             {"pool", "token"},
                             {"class-token", "yes"},
                             {"qkv-bias", "yes"},
                             {"layer-scale", "0"},
                             {"dropout", "0"},
                             {"drop-path", "0"},
                             {"prompts", "0"},
                             {"prompt-depth", "shallow"},
                             {"prompt-frame", "0"},
                             {"lora", "0"},
                             {"lora-alpha", "r"},
                             {"adapter", "0"}},
                 .build = [image = size.image](
                              const ModelConfig& c) { return std::make_unique<VisionTransformer>(shape_of(c, image)); },
                 .infer = {},
                 .rename = timm_name};
  // The number of heads is no option that a checkpoint without configuration could tell.
  const int64_t heads = name == "vit" ? 0 : size.heads;
  a.infer = [fixed = Architecture{.name = a.name, .options = a.options}, heads](const NamedShapes& shapes) {
    return infer(fixed, heads, shapes);
  };
  return a;
}

}  // namespace

/// vit_{tiny,small,base,large}_patch{16,32}_{224,384} as timm has them, torchvision's vit_{b,l}_{16,32}, the small
/// vit_mini_patch7_28 for images of 28x28, and `vit`, of which everything is an option.
std::vector<Architecture> vit_architectures() {
  const Size tiny{192, 12, 3, 16, 224}, small{384, 12, 6, 16, 224}, base{768, 12, 12, 16, 224},
      large{1024, 24, 16, 16, 224};
  std::vector<Architecture> all;
  const auto add = [&](const std::string& name, const std::string& letters, const Size& size, int64_t patch) {
    for (const int64_t image : {224, 384})
      all.push_back(vit(fmt::format("vit_{}_patch{}_{}", name, patch, image),
                        fmt::format("ViT-{}/{} for images of {}, timm's", letters, patch, image),
                        {size.width, size.depth, size.heads, patch, image}));
  };
  add("tiny", "Ti", tiny, 16);
  for (const int64_t patch : {16, 32}) {
    add("small", "S", small, patch);
    add("base", "B", base, patch);
    add("large", "L", large, patch);
    for (const auto& [letter, size] : {std::pair("b", base), std::pair("l", large)})
      all.push_back(vit(fmt::format("vit_{}_{}", letter, patch), "the same for images of 224, torchvision's",
                        {size.width, size.depth, size.heads, patch, 224}));
  }
  all.push_back(vit("vit_mini_patch7_28", "a small ViT for images of 28x28", {96, 4, 6, 7, 28}));
  all.push_back(vit("vit", "a vision transformer of any size, by options", {192, 12, 3, 16, 0}));
  return all;
}

}  // namespace fastntk
