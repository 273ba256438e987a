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
  return read(path);
}

StateTable StateTable::read(const std::string& path) {
  const SafeTensors file = SafeTensors::load(path);
  // The tensor of this name, which must be of this type and shape; an extent of −1 may be any.
  const auto tensor = [&](const char* name, DType dtype, const Shape& shape) {
    const Tensor* const t = file.find(name);
    require(t != nullptr, "{} has no tensor '{}'", path, name);
    bool fits = t->dtype() == dtype && t->rank() == shape.rank();
    for (int axis = 0; fits && axis < shape.rank(); axis++) fits = shape[axis] < 0 || t->extent(axis) == shape[axis];
    require(fits, "{}: '{}' is {}, expected {} {}", path, name, t->describe(), name_of(dtype), shape.str());
    return *t;
  };
  StateTable out{.ids = tensor("ids", DType::int64, {-1}).to_vector<int64_t>(),
                 .labels = {},
                 .present = {},
                 .sample_hashes = {},
                 .row_hashes = {},
                 .row_parts = {},
                 .logits = {},
                 .reference = tensor("reference", DType::float64, {-1}),
                 .reference_logits = {},
                 .optimum = {},
                 .probe_inputs = {},
                 .probe_positions = tensor("probe_positions", DType::int64, {-1}).to_vector<int64_t>()};
  const int64_t n = out.size();
  out.labels = tensor("labels", DType::int64, {n}).to_vector<int64_t>();
  const auto present = tensor("present", DType::uint8, {n}).to_vector<uint8_t>();
  out.present.assign(present.begin(), present.end());
  out.sample_hashes = lines_of(tensor("sample_hashes", DType::uint8, {-1}), out.ids.size(), path);
  out.row_hashes = lines_of(tensor("row_hashes", DType::uint8, {-1}), out.ids.size(), path);
  out.logits = tensor("logits", DType::float64, {n, -1});
  out.reference_logits = tensor("reference_logits", DType::float64, out.logits.shape());
  out.optimum = tensor("optimum", DType::float64, out.reference.shape());

  const auto parts = tensor("row_parts", DType::int64, {-1, 2}).to_vector<int64_t>();
  int64_t counted = 0;
  for (size_t k = 0; k < parts.size(); k += 2) {
    const RowPart part{parts[k], parts[k + 1]};
    require(part.entry >= 0 && part.count > 0 && part.count <= n - counted,
            "{}: it says that entry {} wrote the rows of {} samples, of which {} are without", path, part.entry,
            part.count, n - counted);
    counted += part.count;
    out.row_parts.push_back(part);
  }
  require(counted == n, "{}: it says where the rows of {} samples are, and has {}", path, counted, n);

  const Tensor* const probe = file.find("probe");
  require(probe != nullptr && probe->rank() >= 1 && is_floating(probe->dtype()) &&
              probe->extent(0) == static_cast<int64_t>(out.probe_positions.size()),
          "{}: a probe of {} samples has inputs {}", path, out.probe_positions.size(),
          probe ? probe->describe() : "none");
  out.probe_inputs = *probe;
  for (size_t k = 0; k < out.probe_positions.size(); k++)
    require(out.probe_positions[k] >= 0 && out.probe_positions[k] < n &&
                (k == 0 || out.probe_positions[k - 1] < out.probe_positions[k]),
            "{}: the probe's sample {} is at position {} of {}", path, k, out.probe_positions[k], n);
  return out;
}

}  // namespace fastntk
