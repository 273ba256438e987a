// Pooling.
#include "engine/ops/pool.h"
#include "engine/samples.h"
#include "engine/tape.h"

namespace fastntk::test {
namespace {

Pool2dOptions options_of(const Window& w) {
  return {{w.kernel[0], w.kernel[1]}, {w.stride[0], w.stride[1]}, {w.padding[0], w.padding[1]}};
}
int64_t pooled_extent(const Shape& image, const Window& w, int i) {
  return (image[1 + i] + 2 * w.padding[i] - w.kernel[i]) / w.stride[i] + 1;
}

Sample max_pool_sample(const std::string& note, const Shape& image, const Window& w) {
  return {.op = "max_pool2d",
          .note = note,
          .inputs = {{image, Draw::distinct}},
          .function = [=](const Values& v) { return max_pool2d(v[0], options_of(w)); },
          .reference = [=](const Arrays& a) { return pooled_max(a[0], w); },
          .saved =
              [=](ActiveSet) {
                const int64_t positions = pooled_extent(image, w, 0) * pooled_extent(image, w, 1);
                return Saved{.extras = {{image[0], positions, image[3]}}};
              },
          .samples = image[0],
          .refusals = {{{{2, 1, 1, 3}}, [](const Values& v) { return max_pool2d(v[0], {}); }},
                       {{{4, 4}}},
                       {{image},
                        [](const Values& v) {
                          return max_pool2d(v[0], {{2, 2}, {0, 2}, {0, 0}});
                        }},
                       {{image}, [](const Values& v) {
                          return max_pool2d(v[0], {{2, 2}, {2, 2}, {2, 0}});
                        }}}};
}

Sample average_pool_sample(const std::string& note, const Shape& image, const Window& w) {
  return {.op = "average_pool2d",
          .note = note,
          .inputs = {{image}},
          .function = [=](const Values& v) { return average_pool2d(v[0], options_of(w)); },
          .reference = [=](const Arrays& a) { return pooled_mean(a[0], w); },
          .samples = image[0],
          .refusals = {{{{2, 1, 1, 3}}, [](const Values& v) { return average_pool2d(v[0], {}); }}, {{{4, 4}}}}};
}

// The transpose of the mean over windows: what the cotangent `c` of a record of it becomes.
Sample transposed_sample(const std::string& note, const Shape& image, const Window& w) {
  const Shape pooled{image[0], pooled_extent(image, w, 0), pooled_extent(image, w, 1), image[3]};
  return {.op = "average_pool2d_transposed",
          .note = note,
          .inputs = {{pooled}},
          .function =
              [=](const Values& v) {
                Tape tape;
                Shape x = image;
                x[0] = v[0].extent(0);
                const Variable leaf = tape.leaf(Tensor::zeros(x, v[0].dtype(), v[0].value.device()));
                return tape.vjp(average_pool2d(leaf, options_of(w)), v[0], {&leaf, 1})[0];
              },
          .reference =
              [=](const Arrays& a) {
                Shape x = image;
                x[0] = a[0].shape[0];
                Array out(x);
                const double area = static_cast<double>(w.kernel[0] * w.kernel[1]);
                for_each_index(a[0].shape, [&](const Shape& o) {
                  for (int64_t ky = 0; ky < w.kernel[0]; ky++)
                    for (int64_t kx = 0; kx < w.kernel[1]; kx++) {
                      const int64_t iy = o[1] * w.stride[0] + ky - w.padding[0];
                      const int64_t ix = o[2] * w.stride[1] + kx - w.padding[1];
                      if (iy >= 0 && iy < x[1] && ix >= 0 && ix < x[2]) out({o[0], iy, ix, o[3]}) += a[0](o) / area;
                    }
                });
                return out;
              },
          .samples = image[0]};
}

}  // namespace

Samples pool_samples() {
  const Window two{{2, 2}, {2, 2}, {0, 0}}, three{{3, 3}, {2, 2}, {1, 1}}, skewed{{3, 2}, {1, 2}, {1, 0}},
      all{{5, 5}, {1, 1}, {0, 0}}, gaps{{1, 1}, {2, 3}, {0, 0}};
  return {
      max_pool_sample("2 by 2", {2, 4, 6, 3}, two),
      max_pool_sample("overlapping and padded, as in a ResNet", {2, 5, 6, 3}, three),
      max_pool_sample("height unlike width", {2, 4, 5, 17}, skewed),
      max_pool_sample("the whole image", {2, 5, 5, 2}, all),
      average_pool_sample("2 by 2", {2, 4, 6, 3}, two),
      average_pool_sample("a rest that no window covers", {2, 5, 5, 3}, two),
      average_pool_sample("overlapping and padded", {2, 5, 6, 3}, three),
      average_pool_sample("height unlike width", {2, 4, 5, 17}, skewed),
      average_pool_sample("single pixels with gaps", {2, 4, 5, 3}, gaps),
      transposed_sample("2 by 2", {2, 4, 6, 3}, two),
      transposed_sample("a rest that no window covers", {2, 5, 5, 3}, two),
      transposed_sample("overlapping and padded", {2, 5, 6, 3}, three),
      {.op = "sum",
       .note = "global average pool",
       .inputs = {{{2, 4, 3, 5}}},
       .function = [](const Values& v) { return global_average_pool(v[0]); },
       .reference =
           [](const Arrays& a) {
             return unary(sum_over(a[0], {1, 2}), [](double s) { return s / 12; });
           },
       .samples = 2,
       .refusals = {{{{3, 4}}}},
       .called = "global_average_pool"},
  };
}

}  // namespace fastntk::test
