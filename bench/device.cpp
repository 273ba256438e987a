// How fast a device's products, convolutions, attention and Jacobians are. One JSON object on standard output.
//     bench_device DEVICE [SCALE]
// DEVICE cuda | emu | cpu. SCALE divides the sizes, so that the program can be tried on the emulator: `bench_device emu
// 16`. Efficiencies are fractions of what a large square product reaches on the same device, by cuBLAS on a GPU.
// bench/device.sh runs it, beside PyTorch where one is found.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/backend.h"
#include "engine/device.h"
#include "engine/precision.h"
#include "engine/progress.h"
#include "engine/random.h"
#include "models/registry.h"
#include "unlearn/jacobian.h"

using namespace fastntk;

namespace {

constexpr int64_t classes = 10;

// Seconds of one `work`, the best of three rounds that take some time each.
template <class Work>
double seconds_of(Device device, Work&& work) {
  work();  // what is made once: handles, memory
  synchronise(device);
  double best = 1e300;
  for (int round = 0; round < 3; round++) {
    const Stopwatch clock;
    int times = 0;
    do {
      work();
      times++;
      synchronise(device);
    } while (clock.seconds() < 0.2);
    best = std::min(best, clock.seconds() / times);
  }
  return best;
}

Tensor drawn(const Shape& shape, Device device, uint64_t seed) {
  return Random(seed).normal_tensor(shape, DType::float32).to(device);
}

// Of `count` matrices [m, k] with one [k, n], as a linear layer has them.
double gemm_gflops(Device device, int64_t count, int64_t m, int64_t n, int64_t k) {
  const Tensor a = drawn({count, m, k}, device, 1), b = drawn({1, n, k}, device, 2).transpose(1, 2);
  Tensor c({count, m, n}, DType::float32, device);
  const double seconds = seconds_of(device, [&] { backend(device).gemm(a, b, c, false); });
  return 2e-9 * static_cast<double>(count * m) * static_cast<double>(n) * static_cast<double>(k) / seconds;
}

struct ConvolutionSpeed {
  double forward, input_gradient;  // Gflop/s
};
ConvolutionSpeed convolution_gflops(Device device, int64_t images, const ConvolutionShape& s) {
  const Tensor x = drawn({images, s.height, s.width, s.in_channels}, device, 1),
               w = drawn({1, s.out_channels, s.in_channels, s.kernel_height, s.kernel_width}, device, 2);
  Tensor y({images, s.out_height(), s.out_width(), s.out_channels}, DType::float32, device);
  Tensor dx(x.shape(), DType::float32, device);
  const double flops = 1e-9 * static_cast<double>(images) * s.flops();
  const auto exact = ConvolutionAlgorithm::exact;
  return {flops / seconds_of(device, [&] { backend(device).convolution(s, exact, x, w, y); }),
          flops / seconds_of(device, [&] { backend(device).convolution_input_gradient(s, exact, y, w, dx); })};
}

// Of 12 heads of 64 features, and their cotangents in a stack, counting the products alone: two, and the four of the
// transposed map with the probabilities once.
struct AttentionSpeed {
  double forward, transposed;  // Gflop/s
};
AttentionSpeed attention_gflops(Device device, int64_t samples, int64_t tokens, int64_t stack) {
  const Shape shape{samples, 12, tokens, 64};
  const Tensor q = drawn(shape, device, 1), k = drawn(shape, device, 2), v = drawn(shape, device, 3),
               c = drawn(Shape{stack} + shape, device, 4);
  Tensor y(shape, DType::float32, device), dq(c.shape(), DType::float32, device), dk = dq.clone(), dv = dq.clone();
  const double product = 2e-9 * static_cast<double>(samples * 12 * tokens * tokens * 64);
  return {2 * product /
              seconds_of(device, [&] { backend(device).attention({.q = q, .k = k, .v = v, .scale = 0.125, .y = y}); }),
          static_cast<double>(4 * stack + 1) * product / seconds_of(device, [&] {
            backend(device).attention_transposed(
                {.q = q, .k = k, .v = v, .scale = 0.125, .cotangent = c, .dq = &dq, .dk = &dk, .dv = &dv});
          })};
}

nlohmann::json jacobian_speed(Device device, const ModelConfig& config, int64_t side, const std::string& tuned,
                              int64_t n) {
  const Model model = make_model(config, 1);
  model->to(device);
  const Subset subset = choose(*model, tuned);
  const Tensor x = drawn({n, side, side, config.channels}, device, 3);
  // What is made once: handles, kernels, and the memory of a tile.
  const int64_t tile = plan_jacobian(*model, subset, x, {}).tile;
  static_cast<void>(jacobian(*model, subset, x.slice(0, 0, tile).clone()));
  reset_peak_memory(device);
  const size_t before = memory_statistics(device).live;
  const Stopwatch clock;
  const Jacobian j = jacobian(*model, subset, x);
  synchronise(device);
  const double seconds = clock.seconds();
  return {{"n", n},
          {"parameters", subset.size()},
          {"tile", tile},
          {"samples_per_second", static_cast<double>(n) / seconds},
          {"work_bytes", memory_statistics(device).peak - before - j.rows.bytes()}};
}

nlohmann::json measure(Device device, int64_t scale) {
  const auto scaled = [&](int64_t size) { return std::max<int64_t>(1, size / scale); };
  nlohmann::json out = {{"device", name_of(device)}, {"devices", describe_devices()}, {"scale", scale}};
  const int64_t square = scaled(8192);
  const double peak = gemm_gflops(device, 1, square, square, square);
  out["gemm"]["square"] = {{"extent", square}, {"gflops", peak}};
  const auto with_efficiency = [&](double gflops) {
    return nlohmann::json{{"gflops", gflops}, {"efficiency", gflops / peak}};
  };
  // The linear layers of a ViT-B/32 with 10 prompts, 34 samples and 10 cotangents of 60 tokens.
  const int64_t matrices = scaled(34 * 10);
  for (const auto& [name, from, to] : {std::tuple{"qkv", 768, 2304}, {"proj", 768, 768}, {"fc1", 768, 3072}})
    out["gemm"][name] = with_efficiency(gemm_gflops(device, matrices, 60, scaled(to), scaled(from)));
  // The stages of a ResNet-18 with a 3×3 stem on images of 32×32, cotangents of 97 samples and 10 classes.
  for (const auto& [side, channels] : {std::pair<int64_t, int64_t>{32, 64}, {16, 128}, {8, 256}, {4, 512}}) {
    const ConvolutionShape shape{.height = side,
                                 .width = side,
                                 .in_channels = scaled(channels),
                                 .out_channels = scaled(channels),
                                 .kernel_height = 3,
                                 .kernel_width = 3,
                                 .padding_height = 1,
                                 .padding_width = 1};
    const ConvolutionSpeed speed = convolution_gflops(device, scaled(970), shape);
    out["convolution"][fmt::format("{0}x{0}x{1}", side, shape.in_channels)] = {
        {"forward", with_efficiency(speed.forward)}, {"input_gradient", with_efficiency(speed.input_gradient)}};
  }
  // A ViT-B/32 and a ViT-B/16 with 10 prompts, images of 224×224 and 10 cotangents.
  for (const int64_t tokens : {60, 207}) {
    const AttentionSpeed speed = attention_gflops(device, scaled(34), scaled(tokens), 10);
    out["attention"][fmt::format("{} tokens", scaled(tokens))] = {{"forward", with_efficiency(speed.forward)},
                                                                  {"transposed", with_efficiency(speed.transposed)}};
  }
  for (const Precision precision : {Precision::float32, Precision::tf32}) {
    if (precision == Precision::tf32 && device == Device::cpu) continue;
    set_linear_precision(precision);
    nlohmann::json& speeds = out[precision == Precision::tf32 ? "jacobian_tf32" : "jacobian"];
    speeds["resnet18c"] = jacobian_speed(
        device, {.architecture = "resnet18", .classes = classes, .channels = 3, .options = {{"stem", "cifar"}}}, 32,
        "bn", scaled(2048 / scale));
    if (scale > 1) continue;
    speeds["vit_base_patch32_224"] = jacobian_speed(
        device,
        {.architecture = "vit_base_patch32_224", .classes = classes, .channels = 3, .options = {{"prompts", "10"}}},
        224, "prompt", 512);
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    require_usage(argc == 2 || argc == 3, "usage: bench_device DEVICE [SCALE]");
    const Device device = parse_device(argv[1]);
    require_available(device);
    const int64_t scale = argc == 3 ? std::stoll(argv[2]) : 1;
    require_usage(scale >= 1, "the scale must be at least 1, got {}", argv[2]);
    fmt::print("{}\n", measure(device, scale).dump(1));
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_device: {}\n", e.what());
    return 2;
  }
}
