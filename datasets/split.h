// Choosing samples by rules that can be written on a command line and printed with the results.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/dataset.h"

namespace fastntk {

/// One way to choose among samples; part of a Split.
class SplitRule {
 public:
  virtual ~SplitRule() = default;
  /// As it is written.
  virtual std::string str() const = 0;
  /// Those of `candidates` (positions in `data`, ascending) that this rule chooses, ascending.
  virtual std::vector<int64_t> choose(const Dataset& data, const std::vector<int64_t>& candidates,
                                      uint64_t seed) const = 0;
};

/// Rules separated by spaces; each chooses among what the rules before it have left. The rules are
///
///     all                 every sample
///     class:9             classes: single numbers and ranges, e.g. class:0-3,7
///     30000-59999         ids in a range as published, or in several: 0-99,200-299
///     ids:1,5,9-12        exactly these ids, all of which must be in the data set
///     ids-file:PATH       the same from a file: ids and ranges separated by white space or commas
///     first:1000          the first 1,000 by id
///     per-class:100       the first 100 by id of each class that has any
///     random:0.1          this fraction, chosen by the seed; random:0.1@7 has the seed 7, whatever the run's seed is
///
/// A sample is chosen by `random` because of its id and the seed alone: among m candidates those with the round(f·m)
/// smallest random numbers are taken.
class Split {
 public:
  /// A UsageError says what is wrong with the text.
  static Split parse(std::string_view text);
  /// The one rule ids:LIST, where white space may separate as well as commas.
  static Split ids_in_text(std::string_view text);
  /// The one rule ids-file:PATH, where the path may have spaces in it.
  static Split ids_in_file(const std::string& path);
  /// The rules as they can be parsed again.
  std::string str() const;
  /// The positions chosen, ascending. What the data set does not have (a class, an id, enough samples) is a UsageError.
  std::vector<int64_t> positions(const Dataset& data, uint64_t seed = 0) const;
  Dataset select(const Dataset& data, uint64_t seed = 0) const { return data.subset(positions(data, seed)); }

 private:
  std::vector<std::shared_ptr<const SplitRule>> rules_;
};

/// A data set cut in two: what is to be forgotten, and all the rest. Both keep the order of the data set.
struct ForgetRetain {
  Dataset forget, retain;
  std::vector<int64_t> forget_positions, retain_positions;
};
ForgetRetain split_forget_retain(const Dataset& data, const Split& forget, uint64_t seed = 0);

}  // namespace fastntk
