// The rows of a prepared state, which stay in their file: read for some samples, or passed over for a product.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/file.h"
#include "unlearn/rows.h"

namespace fastntk {

/// J [n, C, P] in a safetensors file that holds this one tensor. A sample's rows are compared with their hash when they
/// are first read; an Error names the sample.
class RowFile {
 public:
  static constexpr int64_t chunk = 64;  ///< samples of which callers hold the rows at once

  /// `hashes` are SHA-256 of each sample's rows, `ids` what the samples are called in errors. Error if the file has
  /// other tensors than rows [n, classes, parameters].
  RowFile(const std::string& path, int64_t classes, int64_t parameters, std::vector<std::string> hashes,
          std::vector<int64_t> ids);

  /// The rows of these samples [|S|, C, P], in the type of the file.
  Tensor read(const Positions& positions) const;
  /// Calls see(part, rows) for the samples of `positions` in order, `chunk` at a time.
  void for_each(const Positions& positions,
                const std::function<void(const Positions& part, const Tensor& rows)>& see) const;
  /// Σ_S Jᵢᵀ wᵢ [P] in one pass over the file: weigh(k, u, w) is given u = Jᵢ v [C] of sample i = positions[k] and
  /// fills w [C]. It is called from several threads. Sums are float64, over 16 samples and then in their order, so that
  /// threads change no bit. v [P] float64.
  Tensor sum(const Positions& positions, const Tensor& v,
             const std::function<void(int64_t k, const double* u, double* w)>& weigh) const;

  const std::string& path() const { return file_.path(); }
  int64_t classes() const { return classes_; }
  int64_t parameters() const { return parameters_; }

 private:
  void read_one(int64_t position, std::span<std::byte> to) const;

  InputFile file_;
  int64_t classes_, parameters_, start_ = 0;
  DType type_ = DType::float32;
  std::vector<std::string> hashes_;
  std::vector<int64_t> ids_;
  std::unique_ptr<std::atomic<bool>[]> checked_;  // by position
};

}  // namespace fastntk
