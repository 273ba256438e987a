#include "unlearn/kept_system.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "engine/descriptor.h"
#include "engine/safetensors.h"
#include "engine/sha256.h"

namespace fastntk {
namespace {

namespace fs = std::filesystem;

constexpr int64_t read_bytes = int64_t{1} << 20;  // hashed while they are in cache

std::span<const std::byte> tiles_as_bytes(const SymmetricMatrix& m) {
  const auto [size, count, extent] = m.tiling();
  return {reinterpret_cast<const std::byte*>(m.tile(0, 0)),
          sizeof(double) * static_cast<size_t>(lower_tiles(count) * extent * extent)};
}
std::span<std::byte> tiles_as_bytes(SymmetricMatrix& m) {
  const auto bytes = tiles_as_bytes(std::as_const(m));
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}
Shape tiles_shape(const SymmetricMatrix& m) {
  return {lower_tiles(m.tiling().count), m.tiling().extent, m.tiling().extent};
}

void append_tiles(SafeTensorsWriter& file, const char* name, const SymmetricMatrix& m) {
  const int64_t extent = m.tiling().extent;
  Tensor tile({extent, extent}, DType::float64);
  for (int64_t t = 0; t < lower_tiles(m.tiling().count); t++) {
    const LowerTile at(t);
    std::copy_n(m.tile(at.row, at.column), extent * extent, tile.mutable_data<double>());
    file.append(name, tile);
  }
}

struct Place {
  const char* name;
  Shape shape;
  std::span<std::byte> bytes;
};

// Reads a file of these float64 tensors and nothing else, once.
void read_hashed(const std::string& path, const std::vector<Place>& places, const std::string& hash) {
  const SafeTensorsHeader header = read_safetensors_header(path);
  require(header.tensors.size() == places.size(), "{}: {} tensors were expected, got {}", path, places.size(),
          header.tensors.size());
  const InputFile file(path);
  Sha256 sha;
  std::vector<std::byte> start(static_cast<size_t>(header.data_start));
  file.read(0, start);
  sha.add(start);
  for (size_t k = 0; k < places.size(); k++) {
    const TensorEntry& e = header.tensors[k];
    const auto& [name, shape, bytes] = places[k];
    require(e.name == name && e.shape == shape && e.dtype == DType::float64, "{}: expected the tensor '{}', float64 {}",
            path, name, shape.str());
    for (int64_t from = e.begin; from < e.end; from += read_bytes) {
      const auto part =
          bytes.subspan(static_cast<size_t>(from - e.begin), static_cast<size_t>(std::min(read_bytes, e.end - from)));
      file.read(header.data_start + from, part);
      sha.add(part);
    }
  }
  require(sha.hex() == hash, "{} is damaged: its hash is not the one in the journal or the manifest", path);
}

// How many entries there were at the last factorisation; those that follow have pending rows.
size_t entries_factored(const Journal& journal) {
  size_t count = journal.entries().size();
  while (count > 0 && !journal.entries()[count - 1].hashes.contains("factor")) count--;
  return count;
}

const std::string& hash_in(const JournalEntry& entry, const char* name, const std::string& path) {
  const auto at = entry.hashes.find(name);
  require(at != entry.hashes.end(), "entry {} of the journal has no hash of {}", entry.number, path);
  return at->second;
}

}  // namespace

std::string entry_file(const std::string& folder, const char* kind, int64_t entry, const char* ending) {
  return fmt::format("{}/{}-{:06}.{}", folder, kind, entry, ending);
}

std::string write_factor(const std::string& folder, int64_t entry, const DowndatedSystem& system,
                         const Tensor& right_hand_side) {
  require(system.pending_rows() == 0, "the factor of entry {} has {} pending rows", entry, system.pending_rows());
  const std::string path = entry_file(folder, "factor", entry);
  const Shape tiles = tiles_shape(system.matrix());
  SafeTensorsWriter file(path, {},
                         {{"gram", DType::float64, tiles},
                          {"factor", DType::float64, tiles},
                          {"right_hand_side", DType::float64, {system.size()}},
                          {"norm_and_condition", DType::float64, {2}}});
  append_tiles(file, "gram", system.matrix());
  append_tiles(file, "factor", system.factor().factor());
  file.append("right_hand_side", right_hand_side);
  file.append("norm_and_condition", Tensor::from<double>({2}, {system.factor().one_norm(), system.condition()}));
  file.commit();
  return sha256_of_file(path);
}

std::string write_pending(const std::string& folder, int64_t entry, const DowndatedSystem& system, int64_t rows,
                          const Tensor& right_hand_side) {
  const std::string path = entry_file(folder, "pending", entry);
  const int64_t m = system.pending_rows();
  SafeTensors file;
  file.tensors = {{"solved", system.solved_rows().slice(0, m - rows, m)}, {"right_hand_side", right_hand_side}};
  file.save(path);
  return sha256_of_file(path);
}

KeptSystem read_kept_system(const std::string& folder, const Journal& journal, const std::string& first_hash,
                            int64_t size, double ridge, int64_t crossover,
                            const std::function<Tensor(const JournalEntry&)>& rows_of) {
  const auto& entries = journal.entries();
  const size_t factored = entries_factored(journal);
  const std::string path = entry_file(folder, "factor", static_cast<int64_t>(factored));
  require(file_exists(path), "{} is missing; if it was not removed, lines at the end of the journal are lost", path);
  SymmetricMatrix gram(size), factor(size);
  KeptSystem kept{.right_hand_side = Tensor({size}, DType::float64)};
  Tensor numbers({2}, DType::float64);
  const Shape tiles = tiles_shape(gram);
  read_hashed(path,
              {{"gram", tiles, tiles_as_bytes(gram)},
               {"factor", tiles, tiles_as_bytes(factor)},
               {"right_hand_side", {size}, mutable_bytes_of(kept.right_hand_side)},
               {"norm_and_condition", {2}, mutable_bytes_of(numbers)}},
              factored ? hash_in(entries[factored - 1], "factor", path) : first_hash);
  const double norm = numbers.data<double>()[0], condition = numbers.data<double>()[1];
  kept.system = std::make_unique<DowndatedSystem>(
      std::move(gram), Cholesky::from_factor(std::move(factor), ridge, norm), condition, crossover);

  std::vector<const JournalEntry*> since;
  std::vector<Tensor> rows;
  int64_t m = 0;
  for (size_t k = factored; k < entries.size(); k++) {
    if (entries[k].ids.empty()) continue;
    since.push_back(&entries[k]), rows.push_back(rows_of(entries[k]));
    m += rows.back().elements() / size;
  }
  if (m == 0) return kept;
  Tensor pending({m, size}, DType::float64), solved({m, size}, DType::float64);
  int64_t at = 0;
  for (size_t k = 0; k < since.size(); k++) {
    const int64_t count = rows[k].elements() / size;
    pending.slice(0, at, at + count).copy_from(rows[k].to(DType::float64).contiguous().reshape({count, size}));
    const std::string name = entry_file(folder, "pending", since[k]->number);
    Tensor part = solved.slice(0, at, at + count);
    read_hashed(name,
                {{"solved", {count, size}, mutable_bytes_of(part)},
                 {"right_hand_side", {size}, mutable_bytes_of(kept.right_hand_side)}},
                hash_in(*since[k], "pending", name));
    at += count;
  }
  kept.system->resume(pending, solved);
  return kept;
}

void remove_superseded_files(const std::string& folder, const Journal& journal, const NeededFiles& needed) {
  const auto factored = static_cast<int64_t>(entries_factored(journal));
  const auto last = static_cast<int64_t>(journal.entries().size());
  const std::vector<std::pair<std::string, std::function<bool(int64_t)>>> kinds = {
      {"factor", [&](int64_t entry) { return entry == factored; }},
      {"pending", [&](int64_t entry) { return entry > factored; }},
      {"state", [&](int64_t entry) { return entry == needed.table; }},
      {"rows", [&](int64_t entry) { return std::ranges::find(needed.rows, entry) != needed.rows.end(); }},
      {"weights", [&](int64_t entry) { return entry >= needed.first_weights; }}};
  bool removed = false;
  for (const auto& file : fs::directory_iterator(folder)) {
    const std::string name = file.path().filename().string();
    for (const auto& [kind, is_needed] : kinds) {
      int64_t entry = 0;
      if (!name.starts_with(kind + "-")) continue;
      std::from_chars(name.data() + kind.size() + 1, name.data() + name.size(), entry);
      // Half-written ones are what a killed process left: no one else writes here.
      if (name.ends_with(".safetensors.partial") ||
          (name.ends_with(".safetensors") && !is_needed(entry) && entry <= last))
        removed |= fs::remove(file.path());
    }
  }
  if (removed) sync_folder_of(folder + "/");
}

}  // namespace fastntk
