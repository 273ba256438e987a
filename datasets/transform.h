// What becomes of an image before a model sees it: resizing, cropping, channels, normalisation; by name or written out.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "datasets/image_file.h"
#include "datasets/normalisation.h"
#include "engine/tensor.h"

namespace fastntk {

/// One step; part of a Transform.
class TransformStep {
 public:
  virtual ~TransformStep() = default;
  /// As it is written.
  virtual std::string str() const = 0;
  /// The size of the result; an Error, which begins with `where`, if an image of this size cannot be transformed.
  virtual ImageSize output(const ImageSize& size, const std::string& where) const = 0;
  /// uint8 [h, w, c] → uint8 [h', w', c'].
  virtual Tensor apply(const Tensor& image) const = 0;
};

/// Steps separated by commas, or the name of a preset, which stands for such a text. The steps are
///
///     resize:256              the shorter side becomes 256, the longer ⌊256 · longer / shorter⌋; bilinear
///     resize:256:bicubic      the same with the cubic filter
///     resize:224x320          to height 224 and width 320 (also with :bicubic)
///     crop:224, crop:224x320  the middle; (size − crop) / 2 is rounded to the nearest, halves to the even number
///     grey                    RGB to grey, L = 0.299 R + 0.587 G + 0.114 B, as Pillow's convert("L"); grey stays
///     rgb                     grey to RGB by repeating it; RGB stays
///     normalise:imagenet      mean 0.485, 0.456, 0.406 and standard deviation 0.229, 0.224, 0.225
///     normalise:inception     mean and standard deviation 0.5
///     normalise:M:M:M:S:S:S   these: one mean per channel, then one deviation per channel
///
/// `normalise` comes last. Resizing is that of resample.h: the pixels are those of Pillow and of torchvision's and
/// timm's evaluation transforms on Pillow's images. An image smaller than a crop is refused; torchvision pads it with
/// black.
class Transform {
 public:
  /// Nothing is done.
  Transform() = default;
  /// A UsageError says what is wrong with the text. The empty text is the empty transform.
  static Transform parse(std::string_view text);
  /// The steps, so that they can be parsed again; presets are written out.
  std::string str() const;

  /// True if there are steps that change pixels.
  bool changes_pixels() const { return !steps_.empty(); }
  /// The size of what becomes of an image; an Error, which begins with `where`, if nothing can.
  ImageSize output(ImageSize size, const std::string& where) const;
  /// uint8 [h, w, 1 or 3] through all steps but normalise.
  Tensor apply(Tensor image) const;
  /// The steps of this one, then those of `next`, whose normalisation counts.
  Transform then(const Transform& next) const;
  /// Of images with this many channels, if there is one in the text; an Error if it has another number of channels.
  std::optional<Normalisation> normalisation(int64_t channels) const;

 private:
  std::vector<std::shared_ptr<const TransformStep>> steps_;
  std::string normalise_;                       // as written, empty if there is none
  std::optional<Normalisation> normalisation_;  // of one channel where all are alike
};

/// Names and texts of the presets: `torchvision/ARCHITECTURE-v1` (the weights IMAGENET1K_V1, and so on) and
/// `timm/ARCHITECTURE` (its default weights at the size they were trained with).
std::vector<std::pair<std::string, std::string>> transform_presets();

}  // namespace fastntk
