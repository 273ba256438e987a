#include "engine/weights_file.h"

#include <array>
#include <cstring>

#include "engine/quoted.h"
#include "engine/safetensors_index.h"
#include "engine/torch_file.h"

namespace fastntk {
namespace {

enum class Format : uint8_t { safetensors, index, torch };

Format format_of(const std::string& path) {
  if (path.ends_with(".json")) return Format::index;
  const InputFile file(path);
  std::array<char, 4> start{};
  if (file.size() < static_cast<int64_t>(start.size())) return Format::safetensors;  // which says that it is too short
  file.read(0, std::as_writable_bytes(std::span(start)));
  if (std::memcmp(start.data(), "PK\3\4", 4) == 0) return Format::torch;
  // Before torch 1.6 a file began with a pickled magic number. As the length of a safetensors header it is impossible.
  require(std::memcmp(start.data(), "\x80\x02\x8a\x0a", 4) != 0,
          "{}: written by torch before 1.6, or with _use_new_zipfile_serialization=False; load it in torch and save it "
          "again",
          path);
  return Format::safetensors;
}

void append(WeightsListing& listing, const SafeTensorsHeader& header) {
  for (const TensorEntry& t : header.tensors) listing.tensors.push_back({t.name, t.stored, t.shape});
}

}  // namespace

WeightsListing list_weights(const std::string& path) {
  WeightsListing listing;
  switch (format_of(path)) {
    case Format::torch: {
      listing.format = "torch";
      const TorchFile file{ZipArchive(path)};
      for (const TorchTensor& t : file.tensors()) listing.tensors.push_back({t.name, t.type, t.shape});
      break;
    }
    case Format::index: {
      const ShardedHeader sharded = read_sharded_header(path);
      listing.format = fmt::format("safetensors in {} shards", sharded.shards.size());
      listing.metadata = sharded.metadata;
      for (const auto& [file, header] : sharded.shards) append(listing, header);
      break;
    }
    default: {
      const SafeTensorsHeader header = read_safetensors_header(path);
      listing.format = "safetensors";
      listing.metadata = header.metadata;
      append(listing, header);
    }
  }
  return listing;
}

SafeTensors load_weights(const std::string& path) {
  switch (format_of(path)) {
    case Format::torch:
      return {{}, TorchFile(ZipArchive(path)).load()};
    case Format::index:
      return load_sharded(path);
    default:
      return SafeTensors::load(path);
  }
}

}  // namespace fastntk
