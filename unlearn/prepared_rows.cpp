#include "unlearn/prepared_rows.h"

#include <algorithm>
#include <set>

#include "engine/progress.h"
#include "engine/sha256.h"
#include "unlearn/ntk_progress.h"
#include "unlearn/row_file.h"

namespace fastntk {
namespace {

constexpr size_t digits_of_hash = 64;

Positions range(int64_t first, int64_t last) {
  Positions out;
  for (int64_t i = first; i < last; i++) out.push_back(i);
  return out;
}

std::vector<std::string> hashes_of(const Samples& samples) {
  std::vector<std::string> out;
  for (int64_t i = 0; i < samples.size(); i++) out.push_back(hash_of_sample(samples, i));
  return out;
}

LinearisedPart linearise_part(const Module& model, const Subset& subset, const SampleSource& source, int64_t first,
                              const JacobianOptions& options) {
  check_interrupt();
  const Samples samples = source.at(range(first, std::min(source.size(), first + RowFile::chunk)));
  Jacobian j = jacobian(model, subset, samples.inputs, options);
  return {first, {j.rows, j.logits, samples.labels}, hashes_of(samples)};
}

// Rows, logits and hashes one after the other.
std::vector<std::byte> packed(const LinearisedPart& part) {
  std::vector<std::byte> out;
  for (const Tensor& t : {part.set.rows, part.set.logits}) {
    const auto bytes = bytes_of(t);
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  for (const std::string& hash : part.sample_hashes) {
    const auto bytes = std::as_bytes(std::span(hash));
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  return out;
}

LinearisedPart unpacked(std::span<const std::byte> bytes, int64_t first, const SampleSource& source, DType dtype,
                        int64_t classes, int64_t parameters, const std::string& file) {
  const int64_t count = std::min(RowFile::chunk, source.size() - first);
  LinearisedPart part{first,
                      {Tensor({count, classes, parameters}, dtype), Tensor({count, classes}, dtype),
                       source.labels().slice(0, first, first + count).contiguous()},
                      {}};
  size_t at = 0;
  const auto take = [&](size_t size) {
    require(at + size <= bytes.size(), "{}: the rows of samples from {} on are not whole", file, first);
    at += size;
    return bytes.subspan(at - size, size);
  };
  for (Tensor* const t : {&part.set.rows, &part.set.logits}) {
    const auto to = mutable_bytes_of(*t);
    std::ranges::copy(take(to.size()), to.begin());
  }
  for (int64_t i = 0; i < count; i++) {
    const auto hash = take(digits_of_hash);
    part.sample_hashes.emplace_back(reinterpret_cast<const char*>(hash.data()), hash.size());
  }
  require(at == bytes.size(), "{}: the rows of samples from {} on have bytes left over", file, first);
  return part;
}

}  // namespace

std::string hash_of_sample(const Samples& samples, int64_t position) {
  return Sha256()
      .add(std::as_bytes(std::span(&samples.ids[static_cast<size_t>(position)], 1)))
      .add(std::as_bytes(std::span(samples.labels.data<int64_t>() + position, 1)))
      .add(bytes_of(samples.inputs.select(0, position).contiguous()))
      .hex();
}

void linearise(const Module& model, const Subset& subset, const SampleSource& source, const JacobianOptions& options,
               const SeePart& see) {
  Progress progress("rows", source.size(), "samples");
  for (int64_t first = 0; first < source.size(); first += RowFile::chunk) {
    const LinearisedPart part = linearise_part(model, subset, source, first, options);
    see(part);
    progress.advance(part.set.size());
  }
}

void linearise_resumably(const Module& model, const Subset& subset, const SampleSource& source,
                         const JacobianOptions& options, const std::string& file, const std::string& key,
                         const SeePart& see) {
  const int64_t C = plan_jacobian(model, subset, source.at({0}).inputs, options).outputs;
  const auto part_of = [&](int64_t first, std::span<const std::byte> bytes) {
    require(first >= 0 && first < source.size() && first % RowFile::chunk == 0,
            "{}: rows of samples from {} on, there are {}", file, first, source.size());
    return unpacked(bytes, first, source, model.dtype(), C, subset.size(), file);
  };
  const auto run = fmt::format("{} n={} C={} P={}", key, source.size(), C, subset.size());
  std::set<int64_t> there;
  int64_t done = 0;
  {
    PieceFile pieces(file, run, [&](int64_t first, std::span<const std::byte> bytes) {
      const LinearisedPart part = part_of(first, bytes);
      require(part.sample_hashes == hashes_of(source.at(range(first, first + part.set.size()))),
              "{} has rows of other samples; remove it", file);
      if (there.insert(first).second) done += part.set.size();
    });
    Progress progress("rows", source.size() - done, "samples");
    for (int64_t first = 0; first < source.size(); first += RowFile::chunk) {
      if (there.contains(first)) continue;
      const LinearisedPart part = linearise_part(model, subset, source, first, options);
      pieces.append(first, packed(part));
      pieces.sync();
      progress.advance(part.set.size());
    }
  }
  int64_t next = 0;
  PieceFile(file, run, [&](int64_t first, std::span<const std::byte> bytes) {
    require(first == next, "{}: rows of samples from {} on where those from {} on were expected", file, first, next);
    const LinearisedPart part = part_of(first, bytes);
    see(part);
    next += part.set.size();
  }).remove();
  require(next == source.size(), "{}: rows of {} samples, {} were expected", file, next, source.size());
}

}  // namespace fastntk
