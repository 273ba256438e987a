#include "unlearn/state_table.h"

#include <algorithm>

#include "engine/safetensors.h"
#include "engine/sha256.h"
#include "unlearn/kept_system.h"
#include "unlearn/metrics.h"
#include "unlearn/prepared_parts.h"
#include "unlearn/state_files.h"

namespace fastntk {
namespace {

constexpr size_t digits_of_hash = 64;

// Hashes, one a line, as bytes in a tensor.
Tensor as_bytes_tensor(const std::vector<std::string>& hashes) {
  const std::string text = joined(hashes);
  return Tensor::from<uint8_t>({static_cast<int64_t>(text.size())}, std::vector<uint8_t>(text.begin(), text.end()));
}
std::vector<std::string> lines_of(const Tensor& bytes, size_t count, const std::string& path) {
  const auto values = bytes.to_vector<uint8_t>();
  constexpr size_t line = digits_of_hash + 1;
  require(values.size() == count * line, "{}: hashes of {} samples take {} bytes, got {}", path, count, count * line,
          values.size());
  std::vector<std::string> out;
  for (size_t i = 0; i < count; i++)
    out.emplace_back(values.begin() + static_cast<long>(i * line),
                     values.begin() + static_cast<long>(i * line + digits_of_hash));
  return out;
}

template <class T>
std::vector<T> at(const std::vector<T>& values, const Positions& positions) {
  std::vector<T> out;
  for (const int64_t i : positions) out.push_back(values[static_cast<size_t>(i)]);
  return out;
}

}  // namespace

StateTable StateTable::only(const Positions& kept, int64_t entry) const {
  StateTable out{.ids = at(ids, kept),
                 .labels = at(labels, kept),
                 .present = std::vector<bool>(kept.size(), true),
                 .sample_hashes = at(sample_hashes, kept),
                 .row_hashes = at(row_hashes, kept),
                 .row_parts = {{entry, static_cast<int64_t>(kept.size())}},
                 .logits = gather_rows(logits, kept),
                 .reference = reference,
                 .reference_logits = gather_rows(reference_logits, kept),
                 .optimum = optimum,
                 .probe_inputs = {},
                 .probe_positions = {}};
  Positions in_probe;
  for (size_t k = 0; k < probe_positions.size(); k++) {
    const auto place = std::lower_bound(kept.begin(), kept.end(), probe_positions[k]);
    if (place == kept.end() || *place != probe_positions[k]) continue;
    in_probe.push_back(static_cast<int64_t>(k));
    out.probe_positions.push_back(place - kept.begin());
  }
  out.probe_inputs = gather_rows(probe_inputs, in_probe);
  return out;
}

void StateTable::append(const LinearisedPart& part, const std::vector<int64_t>& part_ids, const Tensor& theta_star) {
  const LinearisedSet& set = part.set;
  const auto more = [](std::vector<int64_t>& to, const std::vector<int64_t>& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  more(ids, part_ids), more(labels, set.labels.to_vector<int64_t>());
  present.resize(ids.size(), true);
  sample_hashes.insert(sample_hashes.end(), part.sample_hashes.begin(), part.sample_hashes.end());
  for (int64_t i = 0; i < set.size(); i++) row_hashes.push_back(sha256_of(set.rows.select(0, i)));
  logits = stacked({logits, set.logits.to(DType::float64).contiguous()});
  reference_logits = stacked({reference_logits, linear_logits(set, combine(reference, -1, theta_star))});
}

std::unique_ptr<RowFile> StateTable::open_rows(const std::string& folder, int64_t parameters) const {
  std::vector<RowFile::Part> parts;
  for (const auto& [entry, count] : row_parts) parts.push_back({entry_file(folder, "rows", entry), count});
  return std::make_unique<RowFile>(parts, logits.extent(1), parameters, row_hashes, ids);
}

std::string StateTable::save(const std::string& folder, int64_t entry) const {
  const int64_t n = size();
  std::vector<int64_t> parts;
  for (const auto& [number, count] : row_parts) parts.insert(parts.end(), {number, count});
  SafeTensors file;
  file.tensors = {
      {"optimum", optimum},
      {"logits", logits},
      {"reference", reference},
      {"reference_logits", reference_logits},
      {"ids", Tensor::from<int64_t>({n}, ids)},
      {"labels", Tensor::from<int64_t>({n}, labels)},
      {"present", Tensor::from<uint8_t>({n}, std::vector<uint8_t>(present.begin(), present.end()))},
      {"sample_hashes", as_bytes_tensor(sample_hashes)},
      {"row_hashes", as_bytes_tensor(row_hashes)},
      {"row_parts", Tensor::from<int64_t>({static_cast<int64_t>(row_parts.size()), 2}, parts)},
      {"probe", probe_inputs},
      {"probe_positions", Tensor::from<int64_t>({static_cast<int64_t>(probe_positions.size())}, probe_positions)}};
  const std::string path = entry_file(folder, "state", entry);
  file.save(path);
  return sha256_of_file(path);
}

StateTable StateTable::load(const std::string& folder, int64_t entry, const std::string& hash) {
  const std::string path = entry_file(folder, "state", entry);
  require(sha256_of_file(path) == hash, "{} is damaged: its hash is not the one in the journal or the manifest", path);
  const SafeTensors file = SafeTensors::load(path);
  const auto tensor = [&](const char* name) { return tensor_in(file, name, path); };
  StateTable out{.ids = tensor("ids").to_vector<int64_t>(),
                 .labels = tensor("labels").to_vector<int64_t>(),
                 .present = {},
                 .sample_hashes = {},
                 .row_hashes = {},
                 .row_parts = {},
                 .logits = tensor("logits"),
                 .reference = tensor("reference"),
                 .reference_logits = tensor("reference_logits"),
                 .optimum = tensor("optimum"),
                 .probe_inputs = tensor("probe"),
                 .probe_positions = tensor("probe_positions").to_vector<int64_t>()};
  const auto present = tensor("present").to_vector<uint8_t>();
  out.present.assign(present.begin(), present.end());
  out.sample_hashes = lines_of(tensor("sample_hashes"), out.ids.size(), path);
  out.row_hashes = lines_of(tensor("row_hashes"), out.ids.size(), path);
  const auto parts = tensor("row_parts").to_vector<int64_t>();
  for (size_t k = 0; k + 1 < parts.size(); k += 2) out.row_parts.push_back({parts[k], parts[k + 1]});
  return out;
}

}  // namespace fastntk
