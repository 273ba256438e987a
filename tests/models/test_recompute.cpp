// Blocks that run again instead of keeping what they computed: the same bits in less memory.
#include <catch2/catch.hpp>

#include "engine/ops/loss.h"
#include "engine/ops/reduce.h"
#include "engine/random.h"
#include "models/pass.h"
#include "models/registry.h"
#include "models/vit.h"

using namespace fastntk;

namespace {

struct Run {
  Tensor logits;
  std::vector<std::vector<float>> cotangents, buffers;
  size_t saved = 0, peak = 0;
};

std::vector<float> values(const Tensor& t) { return t.to(DType::float32).to_vector<float>(); }

std::unique_ptr<Module> network(bool transformer) {
  if (!transformer) return make_model({.architecture = "resnet20", .classes = 5, .channels = 2}, 1).module;
  auto vit = std::make_unique<VisionTransformer>(
      VitShape{.image_height = 16,
               .image_width = 16,
               .patch = 2,
               .depth = 5,
               .block = {.width = 12, .heads = 3, .hidden = 48, .dropout = 0.1, .drop_path = 0.2, .lora = {.rank = 2}},
               .channels = 2,
               .classes = 5,
               .prompts = 3,
               .deep_prompts = true});
  vit->initialise(1);
  return vit;
}

Run run(bool transformer, const std::string& subset, bool per_sample, Mode mode, bool recompute, int64_t samples) {
  const auto model = network(transformer);
  const Tensor x = Random(2).normal_tensor({samples, 16, 16, 2});
  std::vector<int64_t> classes;
  for (int64_t i = 0; i < samples; i++) classes.push_back(i % 5);
  const Tensor labels = Tensor::from<int64_t>({samples}, classes);
  Run out;
  const size_t before = memory_statistics().live;
  reset_peak_memory();
  {
    Tape tape;
    const Subset chosen = choose(*model, subset);
    Pass pass = per_sample ? Pass::per_sample(*model, chosen, tape, samples) : Pass::shared(*model, chosen, tape, mode);
    pass.set_recompute(recompute);
    pass.draw_from(*model, Random(4));
    const Variable f = model->forward(pass, x);
    out.logits = f.value;
    std::vector<Variable> found;
    if (per_sample) {
      found = tape.vjp(f, Random(3).normal_tensor({3, samples, 5}), pass.leaves());
    } else {
      const Variable loss = mean(cross_entropy(f, labels));
      found = tape.vjp(loss, Tensor::scalar(1), pass.leaves());
    }
    out.peak = memory_statistics().peak - before;
    out.saved = tape.saved_bytes();
    for (const Variable& c : found) out.cotangents.push_back(values(c.value));
  }
  for (const auto& [name, b] : model->named_buffers()) out.buffers.push_back(values(b->value));
  return out;
}

}  // namespace

TEST_CASE("networks whose blocks are recomputed give the same bits in less memory") {
  struct Case {
    bool transformer;
    const char* subset;
    bool per_sample;
    Mode mode;
  };
  for (const auto& [transformer, subset, per_sample, mode] :
       {Case{false, "bn+head", true, Mode::eval}, Case{false, "layer2.*,head", true, Mode::eval},
        Case{false, "all", false, Mode::eval}, Case{false, "all", false, Mode::train},
        Case{true, "all", true, Mode::eval}, Case{true, "prompt.*,head", true, Mode::eval},
        Case{true, "all", false, Mode::train}}) {
    CAPTURE(transformer, subset, per_sample, mode == Mode::train);
    const int64_t samples = per_sample ? 4 : 32;
    const Run plain = run(transformer, subset, per_sample, mode, false, samples);
    const Run again = run(transformer, subset, per_sample, mode, true, samples);
    CHECK(values(plain.logits) == values(again.logits));
    CHECK(plain.cotangents == again.cotangents);
    CHECK(plain.buffers == again.buffers);  // running statistics are updated once
    CAPTURE(plain.saved, again.saved, plain.peak, again.peak);
    CHECK(again.saved < plain.saved / 2);
    // Per sample, the cotangents of a stack and the rows themselves are most of the peak.
    CHECK(again.peak < (per_sample ? plain.peak : 8 * plain.peak / 10));
  }
}
