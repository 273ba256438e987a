// Resizing of images.
#include <algorithm>
#include <cmath>

#include "engine/ops/resize.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

double kernel(double x, const ResizeOptions& o) {
  x = std::abs(x);
  if (o.interpolation == Interpolation::bilinear) return x < 1 ? 1 - x : 0;
  const double a = o.antialias ? -0.5 : -0.75;
  if (x <= 1) return (a + 2) * std::pow(x, 3) - (a + 3) * std::pow(x, 2) + 1;
  return x < 2 ? a * (std::pow(x, 3) - 5 * std::pow(x, 2) + 8 * x - 4) : 0;
}

// The weight of pixel j of `in` in pixel i of `out`, which are laid over the same interval.
double weight(int64_t i, int64_t j, int64_t in, int64_t out, const ResizeOptions& o) {
  const double ratio = static_cast<double>(in) / static_cast<double>(out);
  const double at = (static_cast<double>(i) + 0.5) * ratio - 0.5;
  if (o.interpolation == Interpolation::nearest) return j == static_cast<int64_t>(static_cast<double>(i) * ratio);
  const double wide = o.antialias && ratio > 1 ? ratio : 1;
  double own = 0, total = 0;
  for (int64_t k = -8; k < in + 8; k++) {
    const bool inside = k >= 0 && k < in;
    if (o.antialias && !inside) continue;
    const double w = kernel((static_cast<double>(k) - at) / wide, o);
    total += w;
    if (std::clamp<int64_t>(k, 0, in - 1) == j) own += w;
  }
  return own / total;
}

Array resized(const Array& x, int64_t height, int64_t width, const ResizeOptions& o) {
  const Shape& s = x.shape;
  return make({s[0], height, width, s[3]}, [&](const Shape& at) {
    double y = 0;
    for (int64_t i = 0; i < s[1]; i++)
      for (int64_t j = 0; j < s[2]; j++)
        y += weight(at[1], i, s[1], height, o) * weight(at[2], j, s[2], width, o) * x({at[0], i, j, at[3]});
    return y;
  });
}

Sample resize_sample(const std::string& note, const Shape& x, int64_t height, int64_t width, const ResizeOptions& o) {
  return {.op = "resize",
          .note = note,
          .inputs = {{x}},
          .function = [=](const Values& v) { return resize(v[0], height, width, o); },
          .reference = [=](const Arrays& a) { return resized(a[0], height, width, o); },
          .samples = x[0],
          .composition = true,
          .refusals = {{{{4, 4, 3}}},
                       {{{2, 0, 4, 3}}},
                       {{x}, [=](const Values& v) { return resize(v[0], 0, width, o); }},
                       {{x}, [=](const Values& v) {
                          return resize(v[0], height, width,
                                        {.interpolation = Interpolation::nearest, .antialias = true});
                        }}}};
}

}  // namespace

Samples resize_samples() {
  const ResizeOptions nearest{.interpolation = Interpolation::nearest}, bilinear{},
      bicubic{.interpolation = Interpolation::bicubic}, bilinear_aa{.antialias = true},
      bicubic_aa{.interpolation = Interpolation::bicubic, .antialias = true};
  return {
      resize_sample("bilinear, larger", {2, 3, 4, 3}, 5, 7, bilinear),
      resize_sample("bilinear, smaller", {2, 5, 6, 2}, 3, 2, bilinear),
      resize_sample("bilinear, one axis", {2, 3, 4, 2}, 3, 6, bilinear),
      resize_sample("bilinear, the other axis", {2, 3, 4, 2}, 7, 4, bilinear),
      resize_sample("bilinear, antialiased", {2, 7, 5, 2}, 3, 4, bilinear_aa),
      resize_sample("bicubic, larger", {2, 3, 4, 2}, 5, 6, bicubic),
      resize_sample("bicubic, smaller", {2, 7, 5, 3}, 3, 2, bicubic),
      resize_sample("bicubic, antialiased, smaller", {2, 7, 6, 2}, 3, 4, bicubic_aa),
      resize_sample("bicubic, antialiased, larger", {2, 3, 3, 2}, 5, 4, bicubic_aa),
      resize_sample("one pixel spread", {2, 1, 1, 5}, 3, 2, bicubic),
      resize_sample("nearest", {2, 5, 3, 2}, 3, 7, nearest),
  };
}

}  // namespace fastntk::test
