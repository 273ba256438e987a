// What a GPU's program asks of cuBLAS and cuSOLVER, checked as they check it and answered by OpenBLAS.
#define FASTNTK_GPU emu
#include "engine/blas.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <type_traits>
#include <vector>

#include "engine/cuda/families.h"
#include "engine/parallel.h"

namespace fastntk::emu {
namespace {

// To the nearest number of 11 bits of mantissa, as a tensor core takes it. Of a matrix [rows, columns] with a leading
// dimension, column-major.
std::vector<float> in_tf32(const float* from, int rows, int columns, int leading) {
  std::vector<float> out(static_cast<size_t>(leading) * static_cast<size_t>(columns));
  for (int c = 0; c < columns; c++)
    for (int r = 0; r < rows; r++) {
      const size_t at = static_cast<size_t>(c) * static_cast<size_t>(leading) + static_cast<size_t>(r);
      const auto bits = std::bit_cast<uint32_t>(from[at]);
      out[at] = from[at] != from[at] ? from[at] : std::bit_cast<float>((bits + 0xFFFU + (bits >> 13 & 1U)) & ~0x1FFFU);
    }
  return out;
}

template <class T>
void run(const BatchedGemm<T>& g) {
  const auto flag = [](char c) { return c == 'N' || c == 'T'; };
  const auto rows = [](char transpose, int as_is, int transposed) { return transpose == 'N' ? as_is : transposed; };
  require(flag(g.transpose_a) && flag(g.transpose_b), "gemm: the transposes are '{}' and '{}'", g.transpose_a,
          g.transpose_b);
  require(g.m >= 0 && g.n >= 0 && g.k >= 0 && g.count >= 0, "gemm: {} products of extents {}, {}, {}", g.count, g.m,
          g.n, g.k);
  require(g.lda >= std::max(1, rows(g.transpose_a, g.m, g.k)) && g.ldb >= std::max(1, rows(g.transpose_b, g.k, g.n)) &&
              g.ldc >= std::max(1, g.m),
          "gemm: the leading dimensions {}, {}, {} are too small for {} x {} x {} ('{}', '{}')", g.lda, g.ldb, g.ldc,
          g.m, g.n, g.k, g.transpose_a, g.transpose_b);
  require(g.step_a >= 0 && g.step_b >= 0 && (g.count <= 1 || g.n == 0 || g.step_c != 0),
          "gemm: matrices of a batch are {}, {} and {} elements apart", g.step_a, g.step_b, g.step_c);
  parallel_for(g.count, [&](int64_t i) {
    const T *a = g.a + i * g.step_a, *b = g.b + i * g.step_b;
    std::vector<T> rounded_a, rounded_b;
    if constexpr (std::is_same_v<T, float>) {
      if (g.tf32) {
        const auto round = [&](const T*& matrix, std::vector<T>& to, char transpose, int m, int n, int leading) {
          to = in_tf32(matrix, rows(transpose, m, n), rows(transpose, n, m), leading);
          matrix = to.data();
        };
        round(a, rounded_a, g.transpose_a, g.m, g.k, g.lda);
        round(b, rounded_b, g.transpose_b, g.k, g.n, g.ldb);
      }
    }
    blas::gemm(g.transpose_a, g.transpose_b, g.m, g.n, g.k, T(1), a, g.lda, b, g.ldb, T(0), g.c + i * g.step_c, g.ldc);
  });
}

}  // namespace

void gemm(const BatchedGemm<float>& arguments) { run(arguments); }
void gemm(const BatchedGemm<double>& arguments) { run(arguments); }

int64_t cholesky(double* a, int64_t n) {
  require(n > 0 && n <= std::numeric_limits<int>::max(), "a Cholesky factor of {} columns", n);
  return blas::potrf('U', static_cast<int>(n), a, static_cast<int>(n));
}

void cholesky_solve(const double* factor, int64_t n, double* b, int64_t columns) {
  require(n > 0 && std::max(n, columns) <= std::numeric_limits<int>::max() && columns > 0,
          "a solution by a Cholesky factor of {} columns for {} right-hand sides", n, columns);
  const int size = static_cast<int>(n);
  for (const char transpose : {'T', 'N'})
    blas::trsm('L', 'U', transpose, 'N', size, static_cast<int>(columns), 1.0, factor, size, b, size);
}

}  // namespace fastntk::emu
