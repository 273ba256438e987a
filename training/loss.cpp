#include "training/loss.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>

#include "engine/ops/softmax.h"

namespace fastntk {
namespace {

void softmax_of(const double* f, int64_t classes, double* p) {
  const double largest = *std::max_element(f, f + classes);
  double sum = 0;
  for (int64_t c = 0; c < classes; c++) sum += p[c] = std::exp(f[c] - largest);
  for (int64_t c = 0; c < classes; c++) p[c] /= sum;
}

Loss cross_entropy_loss() {
  Loss loss;
  loss.name = "ce";
  loss.description = "cross-entropy, −log softmax(f)[label]";
  loss.evaluate = [](const Variable& logits, const Tensor& labels, double smoothing) {
    return cross_entropy(logits, labels, smoothing);
  };
  loss.value = [](const double* f, int64_t classes, int64_t label) {
    const double largest = *std::max_element(f, f + classes);
    double sum = 0;
    for (int64_t c = 0; c < classes; c++) sum += std::exp(f[c] - largest);
    return largest + std::log(sum) - f[label];
  };
  loss.gradient = [](const double* f, int64_t classes, int64_t label, double* gradient) {
    softmax_of(f, classes, gradient);
    gradient[label] -= 1;
  };
  // Λ = diag(p) − ppᵀ = S Sᵀ with S = diag(√p) − p √pᵀ, because Σ p = 1.
  loss.curvature_factor = [](const double* f, int64_t classes, double* factor) {
    std::vector<double> p(static_cast<size_t>(classes));
    softmax_of(f, classes, p.data());
    for (int64_t i = 0; i < classes; i++)
      for (int64_t j = 0; j < classes; j++) {
        const double root = std::sqrt(p[static_cast<size_t>(j)]);
        factor[i * classes + j] = (i == j ? root : 0) - p[static_cast<size_t>(i)] * root;
      }
  };
  return loss;
}

Loss squared_error_loss() {
  Loss loss;
  loss.name = "mse";
  loss.description = "squared error, ½ ‖f − onehot(label)‖²";
  loss.evaluate = [](const Variable& logits, const Tensor& labels, double smoothing) {
    require_usage(smoothing == 0, "label smoothing is for cross-entropy, got {} with squared error", smoothing);
    return squared_error(logits, one_hot(labels, logits.extent(-1), logits.dtype()));
  };
  loss.value = [](const double* f, int64_t classes, int64_t label) {
    double sum = 0;
    for (int64_t c = 0; c < classes; c++) {
      const double d = f[c] - (c == label ? 1 : 0);
      sum += 0.5 * d * d;
    }
    return sum;
  };
  loss.gradient = [](const double* f, int64_t classes, int64_t label, double* gradient) {
    for (int64_t c = 0; c < classes; c++) gradient[c] = f[c] - (c == label ? 1 : 0);
  };
  return loss;
}

struct Table {
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<Loss>> losses;
  Table() {
    for (Loss loss : {cross_entropy_loss(), squared_error_loss()}) losses[loss.name] = std::make_unique<Loss>(loss);
  }
};
Table& table() {
  static Table t;
  return t;
}

}  // namespace

const Loss& register_loss(Loss loss) {
  require(loss.evaluate && loss.value && loss.gradient, "the loss '{}' needs evaluate, value and gradient", loss.name);
  const std::lock_guard lock(table().mutex);
  auto& entry = table().losses[loss.name];
  require(!entry, "a loss named '{}' is registered already", loss.name);
  entry = std::make_unique<Loss>(std::move(loss));
  return *entry;
}

const Loss& find_loss(const std::string& name) {
  {
    const std::lock_guard lock(table().mutex);
    const auto it = table().losses.find(name);
    if (it != table().losses.end()) return *it->second;
  }
  std::string all;
  for (const auto& n : loss_names()) all += (all.empty() ? "" : ", ") + n;
  throw UsageError(fmt::format("there is no loss '{}'; there are {}", name, all));
}

std::vector<std::string> loss_names() {
  const std::lock_guard lock(table().mutex);
  std::vector<std::string> names;
  for (const auto& [name, loss] : table().losses) names.push_back(name);
  return names;
}

}  // namespace fastntk
