#include "engine/safetensors_index.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/quoted.h"

namespace fastntk {
namespace {

using json = nlohmann::json;

constexpr size_t largest_index = size_t{1} << 26;
constexpr std::string_view ending = ".safetensors.index.json";

std::map<std::string, std::string> entries_of(const json& object, const char* what, bool strings_only,
                                              const std::string& source) {
  require(object.is_object(), "{}: its {} is {}, an object was expected", source, what, object.type_name());
  std::map<std::string, std::string> entries;
  for (const auto& [key, value] : object.items()) {
    require(!strings_only || value.is_string(), "{}: the entry {} of its {} is {}, a string was expected", source,
            in_quotes(key), what, value.type_name());
    require(value.is_primitive(), "{}: the entry {} of its {} is {}, a plain value was expected", source,
            in_quotes(key), what, value.type_name());
    entries[key] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  return entries;
}

// Adds entries to those that are there, which must not have other values.
void merge(std::map<std::string, std::string>& all, const std::map<std::string, std::string>& more,
           const std::string& source) {
  for (const auto& [key, value] : more) {
    const auto [at, added] = all.emplace(key, value);
    require(added || at->second == value, "{}: has the metadata {} = {}, another shard has {}", source, in_quotes(key),
            in_quotes(value), in_quotes(at->second));
  }
}

}  // namespace

ShardIndex parse_shard_index(std::string_view text, const std::string& source) {
  require(text.size() <= largest_index, "{}: an index of {} bytes; at most {} are expected", source, text.size(),
          largest_index);
  const json index = json::parse(text, nullptr, false);
  require(index.is_object(), "{}: not the index of a sharded safetensors file: {}", source,
          index.is_discarded() ? "it is no valid JSON" : "it is no JSON object");
  require(index.contains("weight_map"), "{}: not the index of a sharded safetensors file: it has no weight_map",
          source);
  ShardIndex result;
  if (index.contains("metadata")) result.metadata = entries_of(index["metadata"], "metadata", false, source);
  result.metadata.erase("total_size");
  result.weight_map = entries_of(index["weight_map"], "weight_map", true, source);
  for (const auto& [tensor, file] : result.weight_map)
    require(
        !file.empty() && file != "." && file != ".." && file.find_first_of(std::string_view("/\\\0", 3)) == file.npos,
        "{}: puts tensor {} into the file {}; the name of a file in the same folder was expected", source,
        in_quotes(tensor), in_quotes(file));
  return result;
}

ShardedHeader read_sharded_header(const std::string& index_path) {
  const InputFile file(index_path);
  require(file.size() <= static_cast<int64_t>(largest_index), "{}: an index of {} bytes; at most {} are expected",
          index_path, file.size(), largest_index);
  const ShardIndex index = parse_shard_index(read_file(index_path), index_path);
  std::map<std::string, std::map<std::string, bool>> expected;  // file → tensors, found or not
  for (const auto& [tensor, name] : index.weight_map) expected[name][tensor] = false;
  ShardedHeader result;
  const std::filesystem::path folder = std::filesystem::path(index_path).parent_path();
  for (auto& [name, tensors] : expected) {
    const std::string path = (folder / name).string();
    SafeTensorsHeader header = read_safetensors_header(path);
    for (const TensorEntry& t : header.tensors) {
      const auto at = tensors.find(t.name);
      require(at != tensors.end(), "{}: has the tensor {}, which {} does not put there", path, in_quotes(t.name),
              index_path);
      at->second = true;
    }
    for (const auto& [tensor, found] : tensors)
      require(found, "{}: lacks the tensor {}, which {} puts there", path, in_quotes(tensor), index_path);
    merge(result.metadata, header.metadata, path);
    result.shards.emplace_back(path, std::move(header));
  }
  merge(result.metadata, index.metadata, index_path);
  return result;
}

SafeTensors load_sharded(const std::string& index_path) {
  ShardedHeader sharded = read_sharded_header(index_path);
  SafeTensors all{std::move(sharded.metadata), {}};
  for (const auto& [path, header] : sharded.shards) {
    SafeTensors shard = SafeTensors::load(path);
    std::move(shard.tensors.begin(), shard.tensors.end(), std::back_inserter(all.tensors));
  }
  return all;
}

void save_sharded(const std::string& index_path, const SafeTensors& contents, int64_t shard_bytes,
                  std::optional<StoredType> floating) {
  require_usage(index_path.ends_with(ending), "the index of shards must end in {}, got '{}'", ending, index_path);
  require_usage(shard_bytes > 0, "a shard has at least one byte, got {}", shard_bytes);
  std::vector<SafeTensors> shards;
  int64_t in_shard = 0, total = 0;
  for (const auto& [name, tensor] : contents.tensors) {
    const StoredType type = stored_as(name, tensor.dtype(), floating);
    const int64_t bytes = tensor.elements() * static_cast<int64_t>(size_of(type));
    if (shards.empty() || in_shard + bytes > shard_bytes)
      shards.emplace_back().metadata = contents.metadata, in_shard = 0;
    shards.back().tensors.emplace_back(name, tensor);
    in_shard += bytes, total += bytes;
  }
  const std::filesystem::path target(index_path);
  std::string stem = target.filename().string();
  stem.resize(stem.size() - ending.size());
  json index{{"metadata", {{"total_size", total}}}, {"weight_map", json::object()}};
  bool index_goes = file_exists(index_path);
  for (size_t i = 0; i < shards.size(); i++) {
    const std::string name = fmt::format("{}-{:05}-of-{:05}.safetensors", stem, i + 1, shards.size());
    const std::string path = (target.parent_path() / name).string();
    // A shard of before has this name: without its index no one takes the new one for it.
    if (index_goes && file_exists(path)) {
      std::filesystem::remove(std::filesystem::canonical(target));
      index_goes = false;
    }
    shards[i].save(path, floating);
    for (const auto& [tensor, value] : shards[i].tensors) index["weight_map"][tensor] = name;
  }
  write_file_atomically(index_path, index.dump(2) + "\n");
}

}  // namespace fastntk
