// Matrix products by cuBLAS in full float32 and float64: TF32 is off.
#include <cublas_v2.h>

#include <mutex>

#include "engine/cuda/families.h"
#include "engine/cuda/launch.cuh"

namespace fastntk::cuda {
namespace {

void check(cublasStatus_t status) {
  require(status == CUBLAS_STATUS_SUCCESS, "a matrix product failed: {}", cublasGetStatusString(status));
}

struct Handle {
  std::mutex mutex;
  cublasHandle_t handle = nullptr;
  Handle() {
    check(cublasCreate(&handle));
    check(cublasSetStream(handle, stream()));
    check(cublasSetMathMode(handle, CUBLAS_PEDANTIC_MATH));
    check(cublasSetAtomicsMode(handle, CUBLAS_ATOMICS_NOT_ALLOWED));
  }
};
// Never destroyed: the driver may be gone by then.
Handle& blas() {
  static Handle* const instance = new Handle;
  return *instance;
}

cublasOperation_t operation(char transpose) { return transpose == 'N' ? CUBLAS_OP_N : CUBLAS_OP_T; }

template <class T, class Call>
void run(const BatchedGemm<T>& g, Call&& call) {
  const T one = 1, zero = 0;
  Handle& handle = blas();
  const std::lock_guard lock(handle.mutex);
  check(call(handle.handle, operation(g.transpose_a), operation(g.transpose_b), g.m, g.n, g.k, &one, g.a, g.lda,
             g.step_a, g.b, g.ldb, g.step_b, &zero, g.c, g.ldc, g.step_c, g.count));
}

}  // namespace

void gemm(const BatchedGemm<float>& arguments) { run(arguments, cublasSgemmStridedBatched); }
void gemm(const BatchedGemm<double>& arguments) { run(arguments, cublasDgemmStridedBatched); }

}  // namespace fastntk::cuda
