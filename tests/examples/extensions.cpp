// What code outside the repository can add without a change here: a module and its architecture, a loss, a data set.
// (An op: docs/add-an-op.md; a whole model: docs/add-a-model.md.) docs/architecture.md quotes this file.
#include <fmt/core.h>

#include <cmath>

#include "datasets/registry.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/loss.h"
#include "engine/ops/reduce.h"
#include "engine/random.h"
#include "models/layers.h"
#include "models/registry.h"
#include "training/trainer.h"
#include "unlearn/jacobian.h"

using namespace fastntk;

namespace {

// y = s ⊙ x, one tuned number per channel, then the mean over the image and a classifier.
class Scaled final : public Module {
 public:
  Scaled(int64_t channels, int64_t classes) {
    scale_ = &add_parameter("scale", {channels}, Initial::constant(1));
    classifier_ = &add_child("classifier", std::make_unique<Linear>(channels, classes));
  }
  Variable forward(const Pass& pass, const Variable& x) const override {
    const Variable s = pass.parameter(*scale_);                            // [1 or N, C]
    const Variable spread = reshape(s, {s.extent(0), 1, 1, s.extent(1)});  // beside x [N, H, W, C]
    return classifier_->forward(pass, pool_.forward(pass, x * spread));
  }
  std::string head() const override { return "classifier"; }

 private:
  const Parameter* scale_;
  const Linear* classifier_;
  GlobalAveragePool pool_;
};

void register_scaled() {
  register_architecture({.name = "scaled",
                         .description = "a scale per channel and a classifier",
                         .options = {},
                         .build = [](const ModelConfig& c) { return std::make_unique<Scaled>(c.channels, c.classes); },
                         .infer = {}});
}

// Σ_c √(1 + d²) − 1, d = f_c − y_c with y one-hot: ½ d² near its minimum, |d| far from it.
void register_pseudo_huber() {
  Loss loss{.name = "pseudo-huber", .description = "Σ √(1 + (f − onehot(label))²) − 1"};
  loss.evaluate = [](const Variable& logits, const Tensor& labels, double) {  // [N] of logits [N, C], for the tape
    const Variable d = logits - one_hot(labels, logits.extent(-1), logits.dtype());
    return reshape(sum(shift(sqrt(shift(square(d), 1)), -1), {-1}), {logits.extent(0)});
  };
  loss.value = [](const double* f, int64_t classes, int64_t label) {  // of one sample, for the solvers
    double sum = 0;
    for (int64_t c = 0; c < classes; c++) sum += std::hypot(1, f[c] - (c == label ? 1 : 0)) - 1;
    return sum;
  };
  loss.gradient = [](const double* f, int64_t classes, int64_t label, double* g) {
    for (int64_t c = 0; c < classes; c++) {
      const double d = f[c] - (c == label ? 1 : 0);
      g[c] = d / std::hypot(1, d);
    }
  };
  register_loss(loss);
}

Dataset stripes(const DatasetRequest& request) {
  const int64_t n = request.part == Part::train ? 12 : 4;
  Tensor images = Tensor::zeros({n, 4, 4, 2}), labels = Tensor::zeros({n}, DType::int64);
  for (int64_t i = 0; i < n; i++) {
    labels.mutable_data<int64_t>()[i] = i % 2;
    images.select(0, i).slice(-1, i % 2, i % 2 + 1).fill(1);  // class k has channel k on
  }
  return {"stripes", images, labels, 2};
}

void register_stripes() { register_dataset({"stripes", "two classes, two channels", stripes}); }

}  // namespace

int main() {
  register_scaled();
  register_pseudo_huber();
  register_stripes();
  const Dataset data = load_dataset("stripes");
  const Model model = make_model({.architecture = "scaled", .classes = data.classes(), .channels = data.channels()}, 1);
  const Subset subset = choose(*model, "scale+head");
  const std::vector<int64_t>& all = data.ids();
  const Samples samples{data.images_as_float(all, Normalisation::identity(2)), data.labels_at(all), all};

  TrainConfig config{.loss = "pseudo-huber", .learning_rate = 0.05, .epochs = 20, .batch_size = 4};
  const TrainResult result = train(*model, subset, samples, config, "");
  const Jacobian j = jacobian(*model, subset, samples.inputs);
  fmt::print("loss {:.4f} at first, {:.4f} at last; J {}\n", result.epoch_loss.front(), result.epoch_loss.back(),
             j.rows.shape().str());
  return result.epoch_loss.back() < 0.1 * result.epoch_loss.front() && j.rows.shape() == Shape{12, 2, 8} ? 0 : 1;
}
