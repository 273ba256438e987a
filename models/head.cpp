#include "models/head.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/random.h"

namespace fastntk {
namespace {

constexpr std::array<std::pair<const char*, HeadRule>, 3> rules{{{"zero", HeadRule::zero},
                                                                 {"keep-and-zero", HeadRule::keep_and_zero},
                                                                 {"keep-and-random", HeadRule::keep_and_random}}};

double norm(const std::vector<double>& v, size_t from, size_t to) {
  double sum = 0;
  for (size_t i = from; i < to; i++) sum += v[i] * v[i];
  return std::sqrt(sum);
}

// A classifier's weight [C, …] or bias [C] for another C, as float64.
Tensor replace_rows(const Tensor& old, int64_t classes, HeadRule rule, const Random& random) {
  Shape shape = old.shape();
  const int64_t kept = rule == HeadRule::zero ? 0 : std::min(classes, shape[0]);
  shape[0] = classes;
  Tensor rows = Tensor::zeros(shape, DType::float64);
  rows.slice(0, 0, kept).copy_from(old.slice(0, 0, kept));
  if (rule != HeadRule::keep_and_random || kept == classes) return rows;

  const std::vector<double> v = rows.to_vector<double>();
  const auto width = static_cast<size_t>(shape.elements() / classes);
  double mean = 0;  // of the norms of the rows of a weight, of the entries of a bias
  for (int64_t c = 0; c < kept; c++) {
    const size_t at = static_cast<size_t>(c) * width;
    mean += (shape.rank() == 1 ? v[at] : norm(v, at, at + width)) / static_cast<double>(kept);
  }
  if (shape.rank() == 1) {
    rows.slice(0, kept, classes).fill(mean);
    return rows;
  }
  std::vector<double> drawn = random.normal_tensor(shape, DType::float64).to_vector<double>();
  double* const out = rows.mutable_data<double>();
  for (int64_t c = kept; c < classes; c++) {
    const size_t at = static_cast<size_t>(c) * width;
    const double factor = mean / norm(drawn, at, at + width);
    for (size_t i = at; i < at + width; i++) out[i] = factor * drawn[i];
  }
  return rows;
}

}  // namespace

HeadRule head_rule(const std::string& name) {
  std::string known;
  for (const auto& [text, rule] : rules) {
    if (name == text) return rule;
    known += (known.empty() ? "" : ", ") + std::string(text);
  }
  throw UsageError(fmt::format("unknown rule '{}' for the head; known are {}", name, known));
}

Model replace_head(const Model& model, int64_t classes, HeadRule rule, uint64_t seed) {
  const std::string head = model->head();
  require(!head.empty(), "{} names no classifier (Module::head), so its classes cannot be changed",
          model.config.architecture);
  ModelConfig config = model.config;
  config.classes = classes;
  Model result = build_model(std::move(config));
  result->to(model->dtype());
  result->copy_state(*model, head);
  const auto from = std::as_const(*model).named_parameters();
  const auto to = result->named_parameters();
  for (size_t i = 0; i < to.size(); i++)
    if (to[i].first.starts_with(head + "."))
      to[i].second->value.copy_from(replace_rows(from[i].second->value, classes, rule, Random(seed)));
  return result;
}

}  // namespace fastntk
