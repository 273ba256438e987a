// Matrix products by cuBLAS in float64 and in full float32, or in TF32 where it is asked for.
#include <cublas_v2.h>

#include <mutex>

#include "engine/cuda/cuda_only/library.h"
#include "engine/cuda/families.h"
#include "engine/cuda/launch.cuh"

namespace fastntk::cuda {
namespace {

// In C++ the header has two functions of this name; the library has this one.
using Gemm = cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void*,
                            const void*, cudaDataType, int, long long, const void*, cudaDataType, int, long long,
                            const void*, void*, cudaDataType, int, long long, int, cublasComputeType_t,
                            cublasGemmAlgo_t);

struct Blas {
  Library library{"libcublas.so." FASTNTK_TEXT(CUBLAS_VER_MAJOR)};
  decltype(cublasGetStatusString)* text_of = FASTNTK_FIND(library, cublasGetStatusString);
  decltype(static_cast<Gemm*>(cublasGemmStridedBatchedEx)) gemm = library.find<Gemm>("cublasGemmStridedBatchedEx");
  std::mutex mutex;
  cublasHandle_t handle = nullptr;

  Blas() {
    release_cached_memory(Device::cuda);  // the library's own memory is not from our cache
    check(FASTNTK_FIND(library, cublasCreate)(&handle));
    check(FASTNTK_FIND(library, cublasSetStream)(handle, stream()));
    check(FASTNTK_FIND(library, cublasSetAtomicsMode)(handle, CUBLAS_ATOMICS_NOT_ALLOWED));
  }
  void check(cublasStatus_t status) const {
    require(status == CUBLAS_STATUS_SUCCESS, "a matrix product failed: {}", text_of(status));
  }
};
// Never destroyed: the driver may be gone by then.
Blas& blas() {
  static Blas* const instance = new Blas;
  return *instance;
}

cublasOperation_t operation(char transpose) { return transpose == 'N' ? CUBLAS_OP_N : CUBLAS_OP_T; }

template <class T>
void run(const BatchedGemm<T>& g, cudaDataType_t type, cublasComputeType_t compute) {
  const T one = 1, zero = 0;
  Blas& b = blas();
  const std::lock_guard lock(b.mutex);
  b.check(b.gemm(b.handle, operation(g.transpose_a), operation(g.transpose_b), g.m, g.n, g.k, &one, g.a, type, g.lda,
                 g.step_a, g.b, type, g.ldb, g.step_b, &zero, g.c, type, g.ldc, g.step_c, g.count, compute,
                 CUBLAS_GEMM_DEFAULT));
}

}  // namespace

void gemm(const BatchedGemm<float>& arguments) {
  run(arguments, CUDA_R_32F, arguments.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F_PEDANTIC);
}
void gemm(const BatchedGemm<double>& arguments) { run(arguments, CUDA_R_64F, CUBLAS_COMPUTE_64F_PEDANTIC); }

}  // namespace fastntk::cuda
