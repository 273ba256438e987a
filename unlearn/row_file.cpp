#include "unlearn/row_file.h"

#include <algorithm>

#include "engine/parallel.h"
#include "engine/progress.h"
#include "engine/safetensors.h"
#include "engine/sha256.h"

namespace fastntk {
namespace {

constexpr int64_t together = 16;          // samples that one thread passes over before it hands its sum out
constexpr int64_t parameter_block = 256;  // columns of which one thread adds the sums

// ⟨row, v⟩ by eight sums, so that the additions need not wait for one another.
template <class T>
double product(const T* row, const double* v, int64_t count) {
  double part[8] = {};
  int64_t p = 0;
  for (; p + 8 <= count; p += 8)
    for (int k = 0; k < 8; k++) part[k] += static_cast<double>(row[p + k]) * v[p + k];
  for (int k = 0; p < count; p++, k++) part[k] += static_cast<double>(row[p]) * v[p];
  return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

}  // namespace

RowFile::RowFile(const std::vector<Part>& parts, int64_t classes, int64_t parameters, std::vector<std::string> hashes,
                 std::vector<int64_t> ids)
    : classes_(classes),
      parameters_(parameters),
      hashes_(std::move(hashes)),
      ids_(std::move(ids)),
      checked_(new std::atomic<bool>[hashes_.size()]) {
  int64_t first = 0;
  for (const auto& [path, count] : parts) {
    const SafeTensorsHeader header = read_safetensors_header(path);
    const Shape expected{count, classes, parameters};
    require(header.tensors.size() == 1 && header.tensors[0].name == "rows" && header.tensors[0].shape == expected &&
                is_floating(header.tensors[0].dtype),
            "{}: expected rows {}", path, expected.str());
    if (files_.empty()) type_ = header.tensors[0].dtype;
    require(header.tensors[0].dtype == type_, "{} has rows of {}, those before are {}", path,
            name_of(header.tensors[0].dtype), name_of(type_));
    files_.push_back({.file = std::make_unique<InputFile>(path), .first = first, .start = header.data_start});
    first += count;
  }
  require(first == static_cast<int64_t>(hashes_.size()) && ids_.size() == hashes_.size(),
          "rows of {} samples, with {} hashes and {} ids", first, hashes_.size(), ids_.size());
  for (size_t i = 0; i < hashes_.size(); i++) checked_[i] = false;
}

const RowFile::Opened& RowFile::holding(int64_t position) const {
  const auto after = std::upper_bound(files_.begin(), files_.end(), position,
                                      [](int64_t at, const Opened& f) { return at < f.first; });
  return *std::prev(after);
}

void RowFile::read_one(int64_t position, std::span<std::byte> to) const {
  const auto at = static_cast<size_t>(position);
  const Opened& from = holding(position);
  from.file->read(from.start + (position - from.first) * static_cast<int64_t>(to.size()), to);
  if (checked_[at].load(std::memory_order_relaxed)) return;
  require(sha256(to) == hashes_[at], "{} is damaged: the hash of the rows of sample {} differs", from.file->path(),
          ids_[at]);
  checked_[at].store(true, std::memory_order_relaxed);
}

Tensor RowFile::read(const Positions& positions) const {
  Tensor out({static_cast<int64_t>(positions.size()), classes_, parameters_}, type_);
  const std::span<std::byte> bytes = mutable_bytes_of(out);
  const size_t each = positions.empty() ? 0 : bytes.size() / positions.size();
  parallel_for(static_cast<int64_t>(positions.size()), [&](int64_t k) {
    read_one(positions[static_cast<size_t>(k)], bytes.subspan(static_cast<size_t>(k) * each, each));
  });
  return out;
}

void RowFile::for_each(const Positions& positions,
                       const std::function<void(const Positions& part, const Tensor& rows)>& see) const {
  for (size_t from = 0; from < positions.size(); from += chunk) {
    check_interrupt();
    const Positions part(positions.begin() + static_cast<long>(from),
                         positions.begin() + static_cast<long>(std::min(positions.size(), from + chunk)));
    see(part, read(part));
  }
}

Tensor RowFile::sum(const Positions& positions, const Tensor& v,
                    const std::function<void(int64_t k, const double* u, double* w)>& weigh) const {
  require(v.shape() == Shape{parameters_} && v.dtype() == DType::float64,
          "a product with rows needs float64 [{}], got {}", parameters_, v.describe());
  check_interrupt();
  const auto n = static_cast<int64_t>(positions.size());
  const int64_t C = classes_, P = parameters_, items = (n + together - 1) / together;
  const Tensor direction = v.contiguous();
  Tensor sums = Tensor::zeros({items, P}, DType::float64);
  double* const partial = sums.mutable_data<double>();
  for_floating(type_, "a product with rows", [&](auto zero) {
    using T = decltype(zero);
    const size_t each = static_cast<size_t>(C * P) * sizeof(T);
    parallel_for(items, [&](int64_t item) {
      const Buffer rows(each);
      std::vector<double> u(static_cast<size_t>(C)), w(static_cast<size_t>(C));
      double* const y = partial + item * P;
      for (int64_t k = item * together; k < std::min(n, (item + 1) * together); k++) {
        read_one(positions[static_cast<size_t>(k)], {rows.as<std::byte>(), each});
        const T* const j = rows.as<T>();
        for (int64_t c = 0; c < C; c++) u[static_cast<size_t>(c)] = product(j + c * P, direction.data<double>(), P);
        weigh(k, u.data(), w.data());
        for (int64_t c = 0; c < C; c++) {
          const double weight = w[static_cast<size_t>(c)];
          for (int64_t p = 0; p < P; p++) y[p] += weight * static_cast<double>(j[c * P + p]);
        }
      }
    });
  });
  Tensor out = Tensor::zeros({P}, DType::float64);
  double* const total = out.mutable_data<double>();
  parallel_ranges(P, parameter_block, [&](int64_t from, int64_t to) {
    for (int64_t item = 0; item < items; item++)
      for (int64_t p = from; p < to; p++) total[p] += partial[item * P + p];
  });
  return out;
}

}  // namespace fastntk
