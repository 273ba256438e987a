// Named tensors from a file of any format known here: safetensors, whole or in shards, and what torch.save wrote.
#pragma once
#include "engine/safetensors.h"

namespace fastntk {

/// What is in a file, without its elements.
struct WeightsListing {
  std::string format;  ///< "safetensors", "safetensors in 3 shards", "torch"
  std::map<std::string, std::string> metadata;
  struct Entry {
    std::string name;
    StoredType type = StoredType::f32;
    Shape shape;
  };
  std::vector<Entry> tensors;
};

/// Lists a file. Its first bytes say which format it has (shards: a name that ends in .json). Error, in one sentence,
/// where it is of none of them or malformed; files of torch before 1.6 are refused by name.
WeightsListing list_weights(const std::string& path);

/// Reads all tensors of a file, contiguous, in the types of memory_type.
SafeTensors load_weights(const std::string& path);

}  // namespace fastntk
