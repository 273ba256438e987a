// A model for another number of classes.
#pragma once
#include "models/registry.h"

namespace fastntk {

/// How the rows of the new classifier are set. With the keep rules, classes that stay keep their rows; the others are
/// zero, or of random direction with the mean norm of the kept rows, and with their mean bias.
enum class HeadRule : uint8_t { zero, keep_and_zero, keep_and_random };
/// "zero" | "keep-and-zero" | "keep-and-random"; UsageError otherwise.
HeadRule head_rule(const std::string& name);

/// The same model for `classes` classes; its classifier is what Module::head() names. Only keep_and_random uses the
/// seed.
Model replace_head(const Model& model, int64_t classes, HeadRule rule, uint64_t seed = 0);

}  // namespace fastntk
