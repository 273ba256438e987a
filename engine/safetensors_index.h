// Safetensors in several files ("shards") and the index that says which tensor is in which:
// model.safetensors.index.json, { "metadata": { … }, "weight_map": { name: file, … } }.
#pragma once
#include <string_view>

#include "engine/safetensors.h"

namespace fastntk {

/// The contents of an index.
struct ShardIndex {
  /// Values that are no strings as JSON text. Without "total_size", which is true of these files only.
  std::map<std::string, std::string> metadata;
  std::map<std::string, std::string> weight_map;  ///< name of a tensor to name of a file
};
/// Parses the text of an index. Error naming what is missing or of another type, and for a file name that leads out of
/// the folder.
ShardIndex parse_shard_index(std::string_view text, const std::string& source);

/// An index and the headers of its shards.
struct ShardedHeader {
  std::map<std::string, std::string> metadata;                    ///< of the shards and of the index
  std::vector<std::pair<std::string, SafeTensorsHeader>> shards;  ///< by path, in alphabetical order
};
/// Reads the index and the headers of the shards beside it. Error where a shard lacks a tensor that the index puts
/// there or has another one, and where two shards have different values for one entry of the metadata.
ShardedHeader read_sharded_header(const std::string& index_path);
/// The same with all tensors, shard by shard.
SafeTensors load_sharded(const std::string& index_path);

/// Writes the tensors in shards of at most `shard_bytes` of data each (but at least one tensor) beside the index, whose
/// path must end in ".safetensors.index.json": NAME-00001-of-00003.safetensors. The index is written last.
void save_sharded(const std::string& index_path, const SafeTensors& contents, int64_t shard_bytes,
                  std::optional<StoredType> floating = std::nullopt);

}  // namespace fastntk
