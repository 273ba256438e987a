#include "datasets/transform.h"

#include <algorithm>
#include <cmath>

#include "datasets/resample.h"
#include "engine/parse_number.h"

namespace fastntk {
namespace {

constexpr int64_t longest_side = 1 << 16;

std::vector<std::string> split_at(std::string_view text, char separator) {
  std::vector<std::string> parts{""};
  for (const char c : text)
    if (c == separator)
      parts.emplace_back();
    else
      parts.back() += c;
  return parts;
}

// "224" or "224x320"; width 0 where there is one number.
struct Sides {
  int64_t height = 0, width = 0;
  std::string str() const { return width ? fmt::format("{}x{}", height, width) : std::to_string(height); }
};

Sides parse_sides(std::string_view text, std::string_view step) {
  const size_t cross = text.find('x');
  const auto height = parse_number<int64_t>(text.substr(0, cross));
  const auto width = cross == std::string_view::npos ? 0 : parse_number<int64_t>(text.substr(cross + 1));
  const auto fits = [](int64_t side) { return side > 0 && side <= longest_side; };
  require_usage(height && width && fits(*height) && (cross == std::string_view::npos || fits(*width)),
                "{}: a size such as 224 or 224x320 was expected after the colon", step);
  return {*height, *width};
}

struct Resize final : TransformStep {
  Resize(const Sides& to, Filter by) : sides(to), filter(by) {}
  Sides sides;
  Filter filter;

  std::string str() const override { return fmt::format("resize:{}:{}", sides.str(), name_of(filter)); }
  ImageSize output(const ImageSize& in, const std::string& where) const override {
    if (sides.width) return {sides.height, sides.width, in.channels};
    const int64_t shorter = std::min(in.height, in.width), longer = std::max(in.height, in.width),
                  longer_out = sides.height * longer / shorter;
    require(longer_out <= longest_side, "{}: {} would make the image {} pixels long", where, str(), longer_out);
    if (in.height <= in.width) return {sides.height, longer_out, in.channels};
    return {longer_out, sides.height, in.channels};
  }
  Tensor apply(const Tensor& image) const override {
    const ImageSize size = output({image.extent(0), image.extent(1), image.extent(2)}, "an image");
    return resample(image, size.height, size.width, filter);
  }
};

struct Crop final : TransformStep {
  explicit Crop(const Sides& to) : sides(to) {}
  Sides sides;

  int64_t width() const { return sides.width ? sides.width : sides.height; }
  std::string str() const override { return "crop:" + sides.str(); }
  ImageSize output(const ImageSize& in, const std::string& where) const override {
    require(in.height >= sides.height && in.width >= width(), "{}: an image of {}x{} pixels is too small for {}", where,
            in.height, in.width, str());
    return {sides.height, width(), in.channels};
  }
  // (size − crop) / 2 as Python rounds it.
  static int64_t margin(int64_t size, int64_t crop) {
    const int64_t twice = size - crop;
    return twice / 2 + (twice % 4 == 3 ? 1 : 0);
  }
  Tensor apply(const Tensor& image) const override {
    const int64_t top = margin(image.extent(0), sides.height), left = margin(image.extent(1), width());
    return image.slice(0, top, top + sides.height).slice(1, left, left + width()).contiguous();
  }
};

struct Grey final : TransformStep {
  std::string str() const override { return "grey"; }
  ImageSize output(const ImageSize& in, const std::string&) const override { return {in.height, in.width, 1}; }
  Tensor apply(const Tensor& image) const override {
    if (image.extent(2) == 1) return image;
    Tensor out({image.extent(0), image.extent(1), 1}, DType::uint8);
    const Tensor in = image.contiguous();
    const uint8_t* x = in.data<uint8_t>();
    uint8_t* const y = out.mutable_data<uint8_t>();
    for (int64_t i = 0; i < out.elements(); i++, x += 3)  // ITU-R 601-2 in 16 binary digits, rounded
      y[i] = static_cast<uint8_t>((x[0] * 19595 + x[1] * 38470 + x[2] * 7471 + 0x8000) >> 16);
    return out;
  }
};

struct Rgb final : TransformStep {
  std::string str() const override { return "rgb"; }
  ImageSize output(const ImageSize& in, const std::string&) const override { return {in.height, in.width, 3}; }
  Tensor apply(const Tensor& image) const override {
    return image.extent(2) == 3 ? image : image.expand({image.extent(0), image.extent(1), 3}).contiguous();
  }
};

Normalisation parse_normalisation(const std::vector<std::string>& words, std::string_view step) {
  if (words.size() == 2 && words[1] == "imagenet") return {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}};
  if (words.size() == 2 && words[1] == "inception") return {{0.5}, {0.5}};
  const size_t channels = words.size() / 2;
  bool well_formed = words.size() % 2 == 1 && channels > 0;
  Normalisation n;
  for (size_t i = 1; well_formed && i < words.size(); i++) {
    const auto value = parse_number<double>(words[i]);
    well_formed = value && std::isfinite(*value) && (i <= channels || *value > 0);
    if (well_formed) (i <= channels ? n.mean : n.stddev).push_back(*value);
  }
  require_usage(well_formed,
                "{}: imagenet, inception, or means and then as many standard deviations above 0 were expected after "
                "the colon, separated by colons",
                step);
  return n;
}

}  // namespace

Transform Transform::parse(std::string_view text) {
  for (const auto& [name, steps] : transform_presets())
    if (name == text) return parse(steps);
  Transform result;
  if (text.empty()) return result;
  for (const std::string& step : split_at(text, ',')) {
    require_usage(!result.normalisation_, "{}: a step after normalise, which comes last", step);
    const std::vector<std::string> words = split_at(step, ':');
    const std::string& name = words[0];
    if (name == "resize" && (words.size() == 2 || words.size() == 3)) {
      const std::string filter = words.size() == 3 ? words[2] : "bilinear";
      require_usage(filter == "bilinear" || filter == "bicubic", "{}: the filters are bilinear and bicubic", step);
      result.steps_.push_back(std::make_shared<Resize>(parse_sides(words[1], step),
                                                       filter == "bilinear" ? Filter::bilinear : Filter::bicubic));
    } else if (name == "crop" && words.size() == 2) {
      result.steps_.push_back(std::make_shared<Crop>(parse_sides(words[1], step)));
    } else if (step == "grey") {
      result.steps_.push_back(std::make_shared<Grey>());
    } else if (step == "rgb") {
      result.steps_.push_back(std::make_shared<Rgb>());
    } else if (name == "normalise" && words.size() >= 2) {
      result.normalisation_ = parse_normalisation(words, step);
      result.normalise_ = step;
    } else {
      throw UsageError(
          fmt::format("unknown step \"{}\" of a transform; known are resize:SIZE[:bicubic], crop:SIZE, grey, rgb and "
                      "normalise:NAME, separated by commas, and presets such as torchvision/resnet50-v1 or "
                      "timm/vit_base_patch16_224",
                      step));
    }
  }
  return result;
}

std::string Transform::str() const {
  std::string text;
  for (const auto& step : steps_) text += (text.empty() ? "" : ",") + step->str();
  if (!normalise_.empty()) text += (text.empty() ? "" : ",") + normalise_;
  return text;
}

ImageSize Transform::output(ImageSize size, const std::string& where) const {
  for (const auto& step : steps_) size = step->output(size, where);
  return size;
}

Tensor Transform::apply(Tensor image) const {
  for (const auto& step : steps_) image = step->apply(image);
  return image;
}

Transform Transform::then(const Transform& next) const {
  Transform result = next;
  result.steps_.insert(result.steps_.begin(), steps_.begin(), steps_.end());
  return result;
}

std::optional<Normalisation> Transform::normalisation(int64_t channels) const {
  if (!normalisation_) return std::nullopt;
  const auto given = static_cast<int64_t>(normalisation_->mean.size());
  if (normalise_ == "normalise:inception") {
    const auto count = static_cast<size_t>(channels);
    return Normalisation{std::vector<double>(count, 0.5), std::vector<double>(count, 0.5)};
  }
  require(given == channels, "{} is for images of {} channels, these have {}", normalise_, given, channels);
  return normalisation_;
}

}  // namespace fastntk
