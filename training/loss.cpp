#include "training/loss.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>

#include "engine/ops/elementwise.h"
#include "engine/ops/loss.h"
#include "engine/parse_number.h"

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
  loss.curvature_factor = [](const double* f, int64_t classes, int64_t, double* factor) {
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

double sigmoid_of(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
double softplus_of(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

Loss binary_cross_entropy_loss() {
  Loss loss;
  loss.name = "bce";
  loss.description = "binary cross-entropy, −Σ_c log σ(±f_c), + for the label";
  loss.evaluate = [](const Variable& logits, const Tensor& labels, double smoothing) {
    require_usage(smoothing == 0, "label smoothing is for cross-entropy, got {} with binary cross-entropy", smoothing);
    return binary_cross_entropy(logits, one_hot(labels, logits.extent(-1), logits.dtype()));
  };
  loss.value = [](const double* f, int64_t classes, int64_t label) {
    double sum = 0;
    for (int64_t c = 0; c < classes; c++) sum += softplus_of(c == label ? -f[c] : f[c]);
    return sum;
  };
  loss.gradient = [](const double* f, int64_t classes, int64_t label, double* gradient) {
    for (int64_t c = 0; c < classes; c++) gradient[c] = c == label ? -sigmoid_of(-f[c]) : sigmoid_of(f[c]);
  };
  loss.curvature_factor = [](const double* f, int64_t classes, int64_t, double* factor) {
    std::fill(factor, factor + classes * classes, 0.0);
    for (int64_t c = 0; c < classes; c++) factor[c * classes + c] = std::sqrt(sigmoid_of(f[c]) * sigmoid_of(-f[c]));
  };
  return loss;
}

// The weights behind the colon of "ce:1,2,1".
std::vector<double> parse_weights(const std::string& name, const std::string& text) {
  std::vector<double> weights;
  for (size_t from = 0; from <= text.size();) {
    const size_t comma = std::min(text.find(',', from), text.size());
    const std::string word = text.substr(from, comma - from);
    const double w = parse_number<double>(word).value_or(0);
    require_usage(w > 0 && std::isfinite(w),
                  "the loss '{}' must have a positive weight for every class behind the colon, got '{}'", name, word);
    weights.push_back(w);
    from = comma + 1;
  }
  return weights;
}

struct Table {
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<Loss>> losses;
  std::map<std::string, std::unique_ptr<Loss>> weighted;  // as they were asked for
  Table() {
    for (const Loss& loss : {cross_entropy_loss(), squared_error_loss(), binary_cross_entropy_loss()})
      losses[loss.name] = std::make_unique<Loss>(loss);
  }
};
Table& table() {
  static Table t;
  return t;
}

}  // namespace

Loss class_weighted(const Loss& loss, const std::vector<double>& weights) {
  std::string text;
  for (const double w : weights) {
    require(w > 0 && std::isfinite(w), "class weights of the loss {}: they must be positive, got {}", loss.name, w);
    text += fmt::format("{}{}", text.empty() ? "" : ",", w);
  }
  const auto weight = [weights](int64_t classes, int64_t label) {
    require_usage(static_cast<int64_t>(weights.size()) == classes,
                  "the loss has weights of {} classes, the model has {}", weights.size(), classes);
    return weights[static_cast<size_t>(label)];
  };
  Loss out = loss;
  out.name = loss.name + ":" + text;
  out.description = loss.description + ", times a weight of the label";
  out.evaluate = [plain = loss.evaluate, weight](const Variable& logits, const Tensor& labels, double smoothing) {
    const Variable each = plain(logits, labels, smoothing);
    std::vector<double> factors;
    for (const int64_t label : labels.to_vector<int64_t>()) factors.push_back(weight(logits.extent(-1), label));
    return each * Variable(Tensor::from<double>(labels.shape(), factors).to(logits.dtype()).to(logits.value.device()));
  };
  out.value = [plain = loss.value, weight](const double* f, int64_t classes, int64_t label) {
    return weight(classes, label) * plain(f, classes, label);
  };
  out.gradient = [plain = loss.gradient, weight](const double* f, int64_t classes, int64_t label, double* gradient) {
    plain(f, classes, label, gradient);
    const double w = weight(classes, label);
    for (int64_t c = 0; c < classes; c++) gradient[c] *= w;
  };
  out.curvature_factor = [plain = loss.curvature_factor, weight](const double* f, int64_t classes, int64_t label,
                                                                 double* factor) {
    const double root = std::sqrt(weight(classes, label));
    if (plain)
      plain(f, classes, label, factor);
    else
      for (int64_t i = 0; i < classes * classes; i++) factor[i] = i % (classes + 1) == 0 ? 1 : 0;
    for (int64_t i = 0; i < classes * classes; i++) factor[i] *= root;
  };
  return out;
}

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
  if (const size_t colon = name.find(':'); colon != std::string::npos) {
    Loss loss = class_weighted(find_loss(name.substr(0, colon)), parse_weights(name, name.substr(colon + 1)));
    loss.name = name;
    const std::lock_guard lock(table().mutex);
    return *table().weighted.try_emplace(name, std::make_unique<Loss>(std::move(loss))).first->second;
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
