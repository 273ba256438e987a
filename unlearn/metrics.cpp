#include "unlearn/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fastntk {
namespace {

constexpr double undefined = std::numeric_limits<double>::quiet_NaN();

void check(const Tensor& logits, const Tensor& labels) {
  require(logits.rank() == 2 && labels.rank() == 1 && labels.extent(0) == logits.extent(0),
          "a metric needs logits [n, C] and labels [n], got {} and {}", logits.shape().str(), labels.shape().str());
}

// Calls f(sample, pointer to its C logits).
template <class F>
void for_rows(const Tensor& logits, F&& f) {
  const std::vector<double> values = logits.to(DType::float64).to_vector<double>();
  const int64_t classes = logits.extent(1);
  for (int64_t n = 0; n < logits.extent(0); n++) f(n, values.data() + n * classes);
}

double log_sum_exp(const double* x, int64_t classes) {
  const double largest = *std::max_element(x, x + classes);
  double sum = 0;
  for (int64_t c = 0; c < classes; c++) sum += std::exp(x[c] - largest);
  return largest + std::log(sum);
}

void check_same(const Tensor& p, const Tensor& q) {
  require(p.rank() == 2 && p.shape() == q.shape(),
          "two models are compared on the same samples and classes, got logits {} and {}", p.shape().str(),
          q.shape().str());
}

}  // namespace

double accuracy(const Tensor& logits, const Tensor& labels) {
  check(logits, labels);
  if (logits.extent(0) == 0) return undefined;
  const auto label = labels.to_vector<int64_t>();
  const int64_t classes = logits.extent(1);
  int64_t right = 0;
  for_rows(logits, [&](int64_t n, const double* x) {
    right += std::max_element(x, x + classes) - x == label[static_cast<size_t>(n)];
  });
  return static_cast<double>(right) / static_cast<double>(logits.extent(0));
}

double mean_cross_entropy(const Tensor& logits, const Tensor& labels) {
  check(logits, labels);
  if (logits.extent(0) == 0) return undefined;
  const auto label = labels.to_vector<int64_t>();
  for (const int64_t l : label)
    require_usage(l >= 0 && l < logits.extent(1),
                  "the cross-entropy of a sample of class {} was asked for, and the logits are of the classes 0 to {}",
                  l, logits.extent(1) - 1);
  double sum = 0;
  for_rows(logits, [&](int64_t n, const double* x) {
    sum += log_sum_exp(x, logits.extent(1)) - x[label[static_cast<size_t>(n)]];
  });
  return sum / static_cast<double>(logits.extent(0));
}

double mean_squared_error(const Tensor& logits, const Tensor& labels) {
  check(logits, labels);
  if (logits.extent(0) == 0) return undefined;
  const auto label = labels.to_vector<int64_t>();
  double sum = 0;
  for_rows(logits, [&](int64_t n, const double* x) {
    for (int64_t c = 0; c < logits.extent(1); c++) {
      const double d = x[c] - (c == label[static_cast<size_t>(n)] ? 1 : 0);
      sum += 0.5 * d * d;
    }
  });
  return sum / static_cast<double>(logits.extent(0));
}

std::vector<double> softmax_rows(const Tensor& logits) {
  std::vector<double> out(static_cast<size_t>(logits.elements()));
  const int64_t classes = logits.extent(1);
  for_rows(logits, [&](int64_t n, const double* x) {
    const double z = log_sum_exp(x, classes);
    for (int64_t c = 0; c < classes; c++) out[static_cast<size_t>(n * classes + c)] = std::exp(x[c] - z);
  });
  return out;
}

double jensen_shannon(const Tensor& logits_p, const Tensor& logits_q) {
  check_same(logits_p, logits_q);
  if (logits_p.extent(0) == 0) return undefined;
  const std::vector<double> p = softmax_rows(logits_p), q = softmax_rows(logits_q);
  // a log(a/m) with m the mean of both: their sum cannot underflow as half of it can.
  const auto term = [](double a, double both) { return a == 0 ? 0 : a * std::log(2 * a / both); };
  double sum = 0;
  for (size_t i = 0; i < p.size(); i++) sum += 0.5 * (term(p[i], p[i] + q[i]) + term(q[i], p[i] + q[i]));
  const double mean = sum / static_cast<double>(logits_p.extent(0));
  return mean < 0 ? 0 : mean;  // by rounding; not a number stays one
}

double activation_distance(const Tensor& logits_p, const Tensor& logits_q) {
  check_same(logits_p, logits_q);
  if (logits_p.extent(0) == 0) return undefined;
  const std::vector<double> p = softmax_rows(logits_p), q = softmax_rows(logits_q);
  double sum = 0;
  for (size_t i = 0; i < p.size(); i++) sum += std::abs(p[i] - q[i]);
  return sum / static_cast<double>(logits_p.extent(0));
}

double norm(const std::vector<double>& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

double norm(const Tensor& v) { return norm(v.to_vector<double>()); }

Tensor combine(const Tensor& a, double factor, const Tensor& b) {
  Tensor out = a.clone();
  double* const y = out.mutable_data<double>();
  const double* const x = b.data<double>();
  for (int64_t i = 0; i < out.elements(); i++) y[i] += factor * x[i];
  return out;
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  require(a.size() == b.size(), "the distance between {} and {} parameters", a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  require(a.size() == b.size(), "the angle between {} and {} parameters", a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); i++) sum += a[i] * b[i];
  const double length = norm(a) * norm(b);
  return length > 0 ? sum / length : 0;
}

double weight_distance(const std::vector<double>& theta, const std::vector<double>& theta_oracle,
                       const std::vector<double>& theta_original) {
  const double scale = distance(theta_oracle, theta_original);
  return scale > 0 ? distance(theta, theta_oracle) / scale : undefined;
}

}  // namespace fastntk
