#include "models/image_size.h"

#include <cmath>

#include "engine/ops/resize.h"

namespace fastntk {
namespace {

using Values = std::map<std::string, Parameter*>;

Values parameters_by_name(Module& model) {
  Values values;
  for (const auto& [name, p] : model.named_parameters()) values[name] = p;
  return values;
}

// Rows [1, prefix + rows · columns, D] of one grid for another.
Tensor resize_positions(const Tensor& from, int64_t prefix, int64_t rows, int64_t columns, int64_t new_rows,
                        int64_t new_columns) {
  const int64_t D = from.extent(2), count = rows * columns, new_count = new_rows * new_columns;
  Tensor to({1, prefix + new_count, D}, from.dtype());
  to.slice(1, 0, prefix).copy_from(from.slice(1, 0, prefix));
  const Tensor grid = from.slice(1, prefix, prefix + count).reshape({1, rows, columns, D});
  const ResizeOptions options{.interpolation = Interpolation::bicubic, .antialias = true};
  to.slice(1, prefix, prefix + new_count)
      .copy_from(resize(grid, new_rows, new_columns, options).value.reshape({1, new_count, D}));
  return to;
}

}  // namespace

Model with_image_size(const Model& model, int64_t height, int64_t width) {
  const Values old = parameters_by_name(*model);
  require_usage(old.count("pos_embed") && model.config.options.count("patch"),
                "{} has no position embeddings to be resized for other images", model.config.architecture);
  ModelConfig config = model.config;
  config.image_height = height, config.image_width = width;
  Model result = build_model(std::move(config));
  result->to(model->dtype());
  const int64_t patch = model.config.positive_option("patch"), prefix = old.count("cls_token") ? 1 : 0;
  const Tensor& positions = old.at("pos_embed")->value;
  // An architecture that was named without a size has square images.
  const int64_t count = positions.extent(1) - prefix;
  const auto side = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(count))));
  const int64_t rows = model.config.image_height ? model.config.image_height / patch : side;
  for (const auto& [name, p] : result->named_parameters()) {
    const Tensor& value = old.at(name)->value;
    require_usage(name == "pos_embed" || value.shape() == p->value.shape(),
                  "{} of this model depends on the size of its images and cannot be resized", name);
    p->value.copy_from(name == "pos_embed"
                           ? resize_positions(value, prefix, rows, count / rows, height / patch, width / patch)
                           : value);
  }
  return result;
}

}  // namespace fastntk
