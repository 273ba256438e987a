// Parameter-efficient fine-tuning: which parameters of a model are tuned, and the flat vector θ that they make.
#pragma once
#include <optional>

#include "models/module.h"

namespace fastntk {

/// Some of the parameters of a model, in the order of named_parameters(). Laid end to end, each in row-major order,
/// they are the vector θ of length P = size(): the columns of a Jacobian.
struct Subset {
  struct Entry {
    size_t index = 0;  ///< into named_parameters()
    std::string name;
    Shape shape;
    int64_t offset = 0;  ///< of the first element in θ
  };
  std::string specification;  ///< what was asked for, e.g. "bn+head"
  std::vector<Entry> entries;

  /// P, the number of elements.
  int64_t size() const { return entries.empty() ? 0 : entries.back().offset + entries.back().shape.elements(); }
  /// One line per parameter (name, shape, offset, count), then the total.
  std::string table() const;
};

/// Chooses parameters by parts joined with "+" or ",":
///   bn            weight and bias of every batch norm
///   ln            weight and bias of every layer norm
///   head          the classifier
///   bias, bitfit  every bias (Ben Zaken et al., "BitFit", ACL 2022)
///   all           everything
///   prompt, prompt-deep, prompt-frame, lora, adapter
///                 what models/adapt.h added: prompt tokens, such tokens at every block, pixels around the image,
///                 low-rank factors, adapters. With a number, "lora:4", it is what the model must have.
///   a pattern     over full names, in which * stands for any characters and ? for one
/// e.g. "bn+head" or "layer3.*,fc.weight". UsageError when a part chooses nothing.
Subset choose(const Module& model, const std::string& specification);

/// A part of a specification: "lora:4" is {"lora", 4}, "head" is {"head", none}.
struct SubsetPart {
  std::string text, kind;
  std::optional<int64_t> number;
};
/// UsageError when a part is empty or its number is not positive.
std::vector<SubsetPart> subset_parts(const std::string& specification);

/// The number that tells the size of an addition (how many prompts, the rank, the width), 0 where the model has none;
/// kinds as above.
int64_t addition_size(const Module& model, const std::string& kind);

/// The parameters of `model` that `subset` names, in its order. Error when the subset was chosen on a model of another
/// structure.
std::vector<const Parameter*> parameters_of(const Module& model, const Subset& subset);

/// θ, float64 [P], on the host.
Tensor gather(const Module& model, const Subset& subset);
/// Sets the parameters from θ [P] (any floating-point type, rounded to the model's).
void scatter(Module& model, const Subset& subset, const Tensor& theta);

}  // namespace fastntk
