#include "unlearn/prepared_rows.h"

#include <algorithm>

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
  out.reserve(bytes_of(part.set.rows).size() + bytes_of(part.set.logits).size() +
              part.sample_hashes.size() * digits_of_hash);
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

// The file of pieces: piece k has the rows of samples from k · RowFile::chunk on, under the number of the first.
class RowPieces {
 public:
  RowPieces(const Module& model, const Subset& subset, const SampleSource& source, const JacobianOptions& options,
            const std::string& path, const std::string& key)
      : model_(model),
        subset_(subset),
        source_(source),
        options_(options),
        path_(path),
        classes_(plan_jacobian(model, subset, source.at({0}).inputs, options).outputs),
        key_(fmt::format("{} n={} C={} P={}", key, source.size(), classes_, subset.size())),
        file_(checked(path), key_, [this](int64_t first, auto bytes) { check(path_, first, bytes); }) {}

  const std::string& path() const { return path_; }
  int64_t count() const { return (source_.size() + RowFile::chunk - 1) / RowFile::chunk; }
  LinearisedPart read(int64_t k) const { return part_of(path_, k * RowFile::chunk, file_.read(k * RowFile::chunk)); }

  // Those of pieces [from, to) that are not there.
  void compute(int64_t from, int64_t to) {
    std::vector<int64_t> missing;
    int64_t samples = 0;
    for (int64_t k = from; k < to; k++) {
      const int64_t first = k * RowFile::chunk;
      if (file_.has(first)) continue;
      missing.push_back(first);
      samples += std::min(RowFile::chunk, source_.size() - first);
    }
    Progress progress("rows", samples, "samples");
    for (const int64_t first : missing) {
      const LinearisedPart part = linearise_part(model_, subset_, source_, first, options_);
      file_.append(first, packed(part));
      file_.sync();
      progress.advance(part.set.size());
    }
  }

  // Moves the pieces of another file of the same run here.
  void take_over(const std::string& path) {
    PieceFile other(checked(path), key_, [&](int64_t first, std::span<const std::byte> bytes) {
      check(path, first, bytes);
      if (!file_.has(first)) file_.append(first, bytes);
    });
    file_.sync();
    other.remove();
  }

 private:
  const std::string& checked(const std::string& path) const {
    require_own(!file_exists(path) || PieceFile::is_there(path, key_), path, "rows");
    return path;
  }
  LinearisedPart part_of(const std::string& path, int64_t first, std::span<const std::byte> bytes) const {
    require(first >= 0 && first < source_.size() && first % RowFile::chunk == 0,
            "{}: rows of samples from {} on, there are {}", path, first, source_.size());
    return unpacked(bytes, first, source_, model_.dtype(), classes_, subset_.size(), path);
  }
  void check(const std::string& path, int64_t first, std::span<const std::byte> bytes) const {
    const LinearisedPart part = part_of(path, first, bytes);
    require(part.sample_hashes == hashes_of(source_.at(range(first, first + part.set.size()))),
            "{} has rows of other samples; remove it", path);
  }

  const Module& model_;
  const Subset& subset_;
  const SampleSource& source_;
  const JacobianOptions& options_;
  std::string path_;
  int64_t classes_;
  std::string key_;
  PieceFile file_;
};

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
  RowPieces pieces(model, subset, source, options, file, key);
  for (const std::string& other : files_of_ranks(file)) pieces.take_over(other);
  pieces.compute(0, pieces.count());
  for (int64_t k = 0; k < pieces.count(); k++) see(pieces.read(k));
}

RankFile linearise_rank(const Module& model, const Subset& subset, const SampleSource& source,
                        const JacobianOptions& options, const std::string& file, const std::string& key,
                        const Rank& rank) {
  RowPieces pieces(model, subset, source, options, file_of_rank(file, rank), key);
  const auto [first, last] = rank.part_of(pieces.count());
  pieces.compute(first, last);
  return {pieces.path(), first * RowFile::chunk, std::min(source.size(), last * RowFile::chunk)};
}

}  // namespace fastntk
