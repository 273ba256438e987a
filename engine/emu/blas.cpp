// What a GPU's program asks of cuBLAS, checked as cuBLAS checks it and answered by OpenBLAS.
#define FASTNTK_GPU emu
#include "engine/blas.h"

#include <algorithm>
#include <limits>

#include "engine/cuda/families.h"
#include "engine/parallel.h"

namespace fastntk::emu {
namespace {

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
    blas::gemm(g.transpose_a, g.transpose_b, g.m, g.n, g.k, T(1), g.a + i * g.step_a, g.lda, g.b + i * g.step_b, g.ldb,
               T(0), g.c + i * g.step_c, g.ldc);
  });
}

}  // namespace

void gemm(const BatchedGemm<float>& arguments) { run(arguments); }
void gemm(const BatchedGemm<double>& arguments) { run(arguments); }

int64_t cholesky(double* a, int64_t n) {
  require(n > 0 && n <= std::numeric_limits<int>::max(), "a Cholesky factor of {} columns", n);
  return blas::potrf('U', static_cast<int>(n), a, static_cast<int>(n));
}

}  // namespace fastntk::emu
