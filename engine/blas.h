// BLAS and LAPACK from OpenBLAS, loaded on first use so that its kernel set can be chosen before it starts. Every call
// is single-threaded: parallelism is ours (parallel_for over calls of a fixed shape), so that bits do not depend on
// threads.
#pragma once
#include <string>

// The functions below follow the reference BLAS: matrices are column-major, ld is the distance between columns in
// elements. Flags: transpose 'N' | 'T', side 'L' | 'R', triangle 'L' | 'U', unit diagonal 'N' | 'U'. Missing OpenBLAS
// throws Error.
namespace fastntk::blas {

/// C [m, n] ← α op(A) [m, k] op(B) [k, n] + β C.
void gemm(char transpose_a, char transpose_b, int m, int n, int k, double alpha, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc);
void gemm(char transpose_a, char transpose_b, int m, int n, int k, float alpha, const float* a, int lda, const float* b,
          int ldb, float beta, float* c, int ldc);

/// One triangle of C [n, n] ← α A Aᵀ + β C, A [n, k] ('N'), or α AᵀA + β C, A [k, n] ('T').
void syrk(char triangle, char transpose, int n, int k, double alpha, const double* a, int lda, double beta, double* c,
          int ldc);

/// B [m, n] ← α op(A)⁻¹ B ('L') or α B op(A)⁻¹ ('R'), A triangular.
void trsm(char side, char triangle, char transpose, char unit, int m, int n, double alpha, const double* a, int lda,
          double* b, int ldb);

/// Cholesky factor in place of one triangle of A [n, n]. Returns 0, or k when the leading k × k block is the first that
/// is not positive definite.
int potrf(char triangle, int n, double* a, int lda);

/// Eigenvalues in ascending order of the symmetric A [n, n], one triangle of which is read and destroyed.
void eigenvalues(char triangle, int n, double* a, int lda, double* values);

}  // namespace fastntk::blas

namespace fastntk {

/// Name of the kernel set in use ("SkylakeX", "Haswell", …). Equal bits are promised for one kernel set.
std::string blas_kernel_set();
/// "OpenBLAS 0.3.21"
std::string blas_version();
/// Speed of sgemm on `threads` threads at once (1024³ each, best of a few rounds), in Gflop/s. Takes about a quarter of
/// a second.
double measured_sgemm_gflops(int threads);

}  // namespace fastntk
