// The rows of a prepared state, which stay in their files: read for some samples, or passed over for a product.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/file.h"
#include "unlearn/rows.h"

namespace fastntk {

/// J [n, C, P] in safetensors files that hold this one tensor, the rows of some samples in each, one file after the
/// other. A sample's rows are compared with their hash when they are first read; an Error names the sample.
class RowFile {
 public:
  static constexpr int64_t chunk = 64;  ///< samples of which callers hold the rows at once

  /// One of the files, and of how many samples it has the rows.
  struct Part {
    std::string path;
    int64_t count = 0;
  };
  /// `hashes` are SHA-256 of each sample's rows, `ids` what the samples are called in errors. Error if a file has
  /// other tensors than rows [count, classes, parameters], or rows of another type than the first.
  RowFile(const std::vector<Part>& parts, int64_t classes, int64_t parameters, std::vector<std::string> hashes,
          std::vector<int64_t> ids);

  /// The rows of these samples [|S|, C, P], in the type of the files.
  Tensor read(const Positions& positions) const;
  /// Calls see(part, rows) for the samples of `positions` in order, `chunk` at a time.
  void for_each(const Positions& positions,
                const std::function<void(const Positions& part, const Tensor& rows)>& see) const;
  /// Σ_S Jᵢᵀ wᵢ [P] in one pass over the files: weigh(k, u, w) is given u = Jᵢ v [C] of sample i = positions[k] and
  /// fills w [C]. It is called from several threads. Sums are float64, over 16 samples and then in their order, so that
  /// threads change no bit. v [P] float64.
  Tensor sum(const Positions& positions, const Tensor& v,
             const std::function<void(int64_t k, const double* u, double* w)>& weigh) const;

  DType type() const { return type_; }
  int64_t classes() const { return classes_; }
  int64_t parameters() const { return parameters_; }

 private:
  struct Opened {
    std::unique_ptr<const InputFile> file;
    int64_t first = 0;  // position of the first sample whose rows it has
    int64_t start = 0;  // of the data
  };
  const Opened& holding(int64_t position) const;
  void read_one(int64_t position, std::span<std::byte> to) const;

  std::vector<Opened> files_;
  int64_t classes_, parameters_;
  DType type_ = DType::float32;
  std::vector<std::string> hashes_;
  std::vector<int64_t> ids_;
  std::unique_ptr<std::atomic<bool>[]> checked_;  // by position
};

}  // namespace fastntk
