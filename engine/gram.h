// Gram matrices of Jacobian rows in float64: JᵀJ (primal) from rows that arrive in any pieces, J Jᵀ (dual) from rows in
// memory. Each tile of the result is updated by one BLAS call per block, blocks in order.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/symmetric.h"

namespace fastntk {

/// The normal equations of the rows J [m, P] and residuals r [m, R].
struct Gram {
  SymmetricMatrix matrix;  ///< JᵀJ [P, P]
  Tensor right_hand_side;  ///< Jᵀr [P, R] float64
  int64_t rows = 0;        ///< m
};

/// The bytes of a state, in order: `WriteBytes` takes the next ones, `ReadBytes` fills what it is given with them.
using WriteBytes = std::function<void(std::span<const std::byte>)>;
using ReadBytes = std::function<void(std::span<std::byte>)>;

/// Accumulates JᵀJ and Jᵀr. Rows are collected in blocks of 256, so that the pieces they arrive in change no bit. For
/// weighted normal equations pass transformed rows. Memory: P²/2 + 256·P numbers of 8 bytes.
///
/// On another device the products are added there in float64, piece by piece, and go to the host at the end; rows of
/// the host are copied there first. How rows are cut into pieces may change the last bits. Memory of the device: P²/2 +
/// 2·1024·P numbers of 8 bytes and 2,048 rows.
class GramAccumulator {
 public:
  /// For rows of `columns` (P) numbers with `right_hand_sides` (R, may be 0) residuals each.
  explicit GramAccumulator(int64_t columns, int64_t right_hand_sides = 1, Device device = Device::cpu);
  /// Adds sign · JᵀJ to a matrix that is there, in its memory; without right-hand sides.
  GramAccumulator(SymmetricMatrix start, double sign);
  /// rows [..., P] float32 or float64, leading axes flattened in order; residuals: as many times R elements in that
  /// order (undefined if R is 0). Rows are on the accumulator's device or on the host. Error naming row and column of a
  /// NaN or infinity; the accumulator is of no use after it.
  void add(const Tensor& rows, const Tensor& residuals = {});
  /// What was added so far, byte by byte, and back into an accumulator of the same sizes and device: going on from
  /// there gives the bits of not having stopped. `write` takes the bytes in order, `read` fills what it is given in
  /// that order.
  size_t state_bytes() const;
  void save_state(const WriteBytes& write) const;
  void load_state(const ReadBytes& read);
  /// Ends a block with the rows collected so far: what is saved after that is a sum for add_state().
  void close_block();
  /// Adds what an accumulator of the same sizes and device had saved after close_block(): the sum over the rows of
  /// both.
  void add_state(const ReadBytes& read);
  /// Closes the last block and hands out the result; the accumulator is empty afterwards.
  Gram finish() &&;

 private:
  GramAccumulator(SymmetricMatrix start, int64_t right_hand_sides, double sign, Device device);
  template <class T>
  void collect(const Tensor& rows, int64_t from, int64_t count);
  void flush();
  void add_on_device(const Tensor& rows, const Tensor& residuals);
  void add_from_device(Tensor& right_hand_side);

  Tiling tiling_;
  Device device_;
  int64_t right_hand_sides_, rows_ = 0, filled_ = 0;
  double sign_ = 1;
  Buffer block_;      // [tile, row, column in tile]
  Buffer residuals_;  // [R, row]
  SymmetricMatrix matrix_;
  Buffer sums_;  // [R, P padded]
  // On another device: columns of JᵀJ from the diagonal down, and Jᵀr [P, R].
  std::vector<Tensor> device_panels_;
  Tensor device_sums_;
};

/// Θ = J Jᵀ [m, m] for rows [..., P] float32 or float64 in memory (leading axes flattened in order); half the products.
/// Rows on another device stay there: the products are made there in float64, and the result alone comes to the host.
SymmetricMatrix dual_gram(const Tensor& rows);
/// Θ_ab = J_a J_bᵀ, float64 [m_a, m_b], on the host. The rows of the result may be padded: see strides().
Tensor dual_gram(const Tensor& a, const Tensor& b);
/// The same for rows on another device, which are taken to be finite. With `products` float32, rows of float32 are
/// multiplied so, 512 columns at a time; sums of these are float64.
Tensor dual_gram_on_device(const Tensor& a, const Tensor& b, DType products = DType::float64);

/// Error naming the first row and column of rows [..., P] that is NaN or infinite; the first row is number `first`.
void require_finite_rows(const Tensor& rows, int64_t first);

}  // namespace fastntk
