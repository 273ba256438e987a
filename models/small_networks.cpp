// Networks to learn with: a multilayer perceptron, LeNet-5 and a plain convolutional network.
#include "engine/ops/elementwise.h"
#include "models/architectures.h"
#include "models/layers.h"

namespace fastntk {
namespace {

void check_images(const char* what, const Module& model, int64_t channels, const Variable& x) {
  require(x.rank() == 4 && x.extent(3) == channels && x.dtype() == model.dtype(),
          "this {} takes {} images [N, H, W, {}], got {}", what, name_of(model.dtype()), channels, x.value.describe());
}

// ---- mlp: the pixels, then linear layers with ReLU between them: layers.0, layers.1, …, fc ----

std::vector<int64_t> widths_of(const ModelConfig& config) {
  std::vector<int64_t> widths;
  const std::string& text = config.option("hidden");
  for (size_t from = 0; from <= text.size();) {
    const size_t to = std::min(text.find(',', from), text.size());
    ModelConfig one{.architecture = config.architecture, .options = {{"hidden", text.substr(from, to - from)}}};
    widths.push_back(one.positive_option("hidden"));
    from = to + 1;
  }
  return widths;
}

class Mlp final : public Module {
 public:
  explicit Mlp(const ModelConfig& config)
      : channels_(config.channels), inputs_(config.image_height * config.image_width * config.channels) {
    require_usage(inputs_ > 0, "{} needs to know the size of its images, got {}x{}", config.architecture,
                  config.image_height, config.image_width);
    auto layers = std::make_unique<Sequential>();
    int64_t in = inputs_;
    for (const int64_t width : widths_of(config)) {
      hidden_.push_back(&layers->append(std::make_unique<Linear>(in, width)));
      in = width;
    }
    add_child("layers", std::move(layers));
    classifier_ = &add_child("fc", std::make_unique<Linear>(in, config.classes));
  }
  Variable forward(const Pass& pass, const Variable& x) const override {
    check_images("MLP", *this, channels_, x);
    Variable y = flatten_image(x);
    require(y.extent(1) == inputs_, "this MLP takes images of {} numbers, got {}", inputs_, x.shape().str());
    for (const Linear* layer : hidden_) y = relu(layer->forward(pass, y));
    return classifier_->forward(pass, y);
  }
  std::string head() const override { return "fc"; }

 private:
  int64_t channels_, inputs_;
  std::vector<const Linear*> hidden_;
  const Linear* classifier_ = nullptr;
};

// The numbers of pixels and channels cannot be told apart in a weight: one channel is assumed, and a square image, or,
// where that cannot be, three channels.
ModelConfig infer_mlp(const std::string& name, const NamedShapes& shapes) {
  ModelConfig config{.architecture = name, .classes = shape_in(shapes, "fc.weight", 2, name)[0], .channels = 1};
  const int64_t layers = count_numbered(shapes, "layers.", ".weight");
  require(layers > 0, "not a checkpoint of {}: it has no layers.0.weight", name);
  std::string& hidden = config.options["hidden"];
  for (int64_t i = 0; i < layers; i++)
    hidden += (i ? "," : "") + std::to_string(shape_in(shapes, fmt::format("layers.{}.weight", i), 2, name)[0]);
  const int64_t inputs = shape_in(shapes, "layers.0.weight", 2, name)[1];
  for (const int64_t channels : {1, 3})
    for (int64_t side = 1; side * side * channels <= inputs; side++)
      if (side * side * channels == inputs) {
        config.channels = channels;
        config.image_height = config.image_width = side;
        return config;
      }
  fail("not a checkpoint of {} on square images: layers.0.weight takes {} numbers", name, inputs);
}

// ---- lenet5: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE
// 1998, in the form of today: ReLU, max pooling, all maps connected. 28×28 images are padded to 32×32. ----

class LeNet5 final : public Module {
 public:
  explicit LeNet5(const ModelConfig& config) : channels_(config.channels) {
    const bool small = config.image_height == 28 && config.image_width == 28;
    require_usage(small || (config.image_height == 32 && config.image_width == 32),
                  "{} takes images of 28x28 or 32x32, got {}x{}", config.architecture, config.image_height,
                  config.image_width);
    side_ = config.image_height;
    const int64_t padding = small ? 2 : 0;
    conv1_ = &add_child(
        "conv1", std::make_unique<Conv2d>(config.channels, 6, 5, Conv2dOptions{.padding = {padding, padding}}, true));
    conv2_ = &add_child("conv2", std::make_unique<Conv2d>(6, 16, 5, Conv2dOptions{}, true));
    fc1_ = &add_child("fc1", std::make_unique<Linear>(16 * 5 * 5, 120));
    fc2_ = &add_child("fc2", std::make_unique<Linear>(120, 84));
    fc3_ = &add_child("fc3", std::make_unique<Linear>(84, config.classes));
  }
  Variable forward(const Pass& pass, const Variable& x) const override {
    check_images("LeNet-5", *this, channels_, x);
    require(x.extent(1) == side_ && x.extent(2) == side_, "this LeNet-5 takes images of {}x{}, got {}", side_, side_,
            x.shape().str());
    Variable y = max_pool2d(relu(conv1_->forward(pass, x)), {});
    y = max_pool2d(relu(conv2_->forward(pass, y)), {});
    y = relu(fc1_->forward(pass, flatten_image(y)));
    return fc3_->forward(pass, relu(fc2_->forward(pass, y)));
  }
  std::string head() const override { return "fc3"; }

 private:
  int64_t channels_, side_ = 0;
  const Conv2d *conv1_, *conv2_;
  const Linear *fc1_, *fc2_, *fc3_;
};

// Whether images were padded cannot be read from the weights: one channel is taken for 28×28 digits, more for 32×32.
ModelConfig infer_lenet5(const std::string& name, const NamedShapes& shapes) {
  const int64_t channels = shape_in(shapes, "conv1.weight", 4, name)[1], side = channels == 1 ? 28 : 32;
  shape_in(shapes, "conv2.weight", 4, name);
  return {.architecture = name,
          .classes = shape_in(shapes, "fc3.weight", 2, name)[0],
          .channels = channels,
          .image_height = side,
          .image_width = side};
}

// ---- convnet: three times 3×3 convolution, batch norm and ReLU, with 2×2 max pooling between them; then the mean over
// the image and a classifier ----

class ConvNet final : public Module {
 public:
  explicit ConvNet(const ModelConfig& config) : channels_(config.channels) {
    int64_t in = config.channels, out = config.positive_option("width");
    for (int i = 0; i < 3; i++, in = out, out *= 2) {
      const std::string number = std::to_string(i + 1);
      const Conv2d& conv =
          add_child("conv" + number, std::make_unique<Conv2d>(in, out, 3, Conv2dOptions{.padding = {1, 1}}));
      stages_.emplace_back(&conv, &add_child("bn" + number, std::make_unique<BatchNorm2d>(out)));
    }
    classifier_ = &add_child("fc", std::make_unique<Linear>(in, config.classes));
  }
  Variable forward(const Pass& pass, const Variable& x) const override {
    check_images("convnet", *this, channels_, x);
    Variable y = x;
    for (const auto& [conv, norm] : stages_) {
      if (conv != stages_.front().first) y = max_pool2d(y, {});
      y = norm->forward(pass, conv->forward(pass, y), {}, true);
    }
    return classifier_->forward(pass, GlobalAveragePool().forward(pass, y));
  }
  std::string head() const override { return "fc"; }

 private:
  int64_t channels_;
  std::vector<std::pair<const Conv2d*, const BatchNorm2d*>> stages_;
  const Linear* classifier_ = nullptr;
};

ModelConfig infer_convnet(const std::string& name, const NamedShapes& shapes) {
  const Shape& stem = shape_in(shapes, "conv1.weight", 4, name);
  shape_in(shapes, "bn3.weight", 1, name);
  ModelConfig config{.architecture = name, .classes = shape_in(shapes, "fc.weight", 2, name)[0], .channels = stem[1]};
  config.options = {{"width", std::to_string(stem[0])}};
  return config;
}

template <class M>
Architecture architecture(const std::string& name, const std::string& description,
                          const std::map<std::string, std::string>& options,
                          ModelConfig (*infer)(const std::string&, const NamedShapes&)) {
  return {.name = name,
          .description = description,
          .options = options,
          .build = [](const ModelConfig& c) { return std::make_unique<M>(c); },
          .infer = [name, infer](const NamedShapes& shapes) { return infer(name, shapes); }};
}

}  // namespace

std::vector<Architecture> small_architectures() {
  return {architecture<Mlp>("mlp", "linear layers with ReLU; hidden is a list of widths", {{"hidden", "128,128"}},
                            infer_mlp),
          architecture<LeNet5>("lenet5", "LeNet-5 with ReLU and max pooling", {}, infer_lenet5),
          architecture<ConvNet>("convnet", "three 3x3 convolutions with batch norm, to learn with", {{"width", "16"}},
                                infer_convnet)};
}

}  // namespace fastntk
