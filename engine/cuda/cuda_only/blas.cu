// Matrix products by cuBLAS in float64 and in full float32, or in TF32 where it is asked for.
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
    check(cublasSetAtomicsMode(handle, CUBLAS_ATOMICS_NOT_ALLOWED));
  }
};
// Never destroyed: the driver may be gone by then.
Handle& blas() {
  static Handle* const instance = new Handle;
  return *instance;
}

cublasOperation_t operation(char transpose) { return transpose == 'N' ? CUBLAS_OP_N : CUBLAS_OP_T; }

template <class T>
void run(const BatchedGemm<T>& g, cudaDataType_t type, cublasComputeType_t compute) {
  const T one = 1, zero = 0;
  Handle& handle = blas();
  const std::lock_guard lock(handle.mutex);
  check(cublasGemmStridedBatchedEx(handle.handle, operation(g.transpose_a), operation(g.transpose_b), g.m, g.n, g.k,
                                   &one, g.a, type, g.lda, g.step_a, g.b, type, g.ldb, g.step_b, &zero, g.c, type,
                                   g.ldc, g.step_c, g.count, compute, CUBLAS_GEMM_DEFAULT));
}

}  // namespace

void gemm(const BatchedGemm<float>& arguments) {
  run(arguments, CUDA_R_32F, arguments.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F_PEDANTIC);
}
void gemm(const BatchedGemm<double>& arguments) { run(arguments, CUDA_R_64F, CUBLAS_COMPUTE_64F_PEDANTIC); }

}  // namespace fastntk::cuda
