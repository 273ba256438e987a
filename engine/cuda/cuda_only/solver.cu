// Cholesky factors, and solutions by them, by cuSOLVER in float64.
#include <cusolverDn.h>

#include <mutex>
#include <vector>

#include "engine/cuda/cuda_only/library.h"
#include "engine/cuda/device_entry.h"
#include "engine/cuda/families.h"
#include "engine/cuda/launch.cuh"
#include "engine/device.h"

namespace fastntk::cuda {
namespace {

void check(cusolverStatus_t status, const char* what) {
  require(status == CUSOLVER_STATUS_SUCCESS, "{} failed: status {} of cuSOLVER", what, static_cast<int>(status));
}

struct Solver {
  Library library{"libcusolver.so." FASTNTK_TEXT(CUSOLVER_VER_MAJOR)};
  decltype(cusolverDnXpotrf_bufferSize)* plan = FASTNTK_FIND(library, cusolverDnXpotrf_bufferSize);
  decltype(cusolverDnXpotrf)* factorise = FASTNTK_FIND(library, cusolverDnXpotrf);
  decltype(cusolverDnXpotrs)* solve = FASTNTK_FIND(library, cusolverDnXpotrs);
  std::mutex mutex;
  cusolverDnHandle_t handle = nullptr;
  cusolverDnParams_t parameters = nullptr;

  Solver() {
    release_cached_memory(Device::cuda);  // the library's own memory is not from our cache
    check(FASTNTK_FIND(library, cusolverDnCreate)(&handle), "making a handle of cuSOLVER");
    check(FASTNTK_FIND(library, cusolverDnSetStream)(handle, stream()), "giving cuSOLVER a stream");
    check(FASTNTK_FIND(library, cusolverDnCreateParams)(&parameters), "making parameters of cuSOLVER");
  }
};
// Never destroyed: the driver may be gone by then.
Solver& solver() {
  static Solver* const instance = new Solver;
  return *instance;
}

// Negative: an argument was wrong.
int read(const Buffer& info, const char* what) {
  int failed = 0;
  memory().copy_out(&failed, info.as<int>(), sizeof failed);
  require(failed >= 0, "{} failed: argument {} of cuSOLVER is wrong", what, -failed);
  return failed;
}

}  // namespace

int64_t cholesky(double* a, int64_t n) {
  const char* const what = "a Cholesky factorisation";
  Solver& s = solver();
  const std::lock_guard lock(s.mutex);
  size_t device_bytes = 0, host_bytes = 0;
  check(s.plan(s.handle, s.parameters, CUBLAS_FILL_MODE_UPPER, n, CUDA_R_64F, a, n, CUDA_R_64F, &device_bytes,
               &host_bytes),
        what);
  const Buffer work(device_bytes, Device::cuda), info(sizeof(int), Device::cuda);
  std::vector<std::byte> host_work(host_bytes);
  check(s.factorise(s.handle, s.parameters, CUBLAS_FILL_MODE_UPPER, n, CUDA_R_64F, a, n, CUDA_R_64F, work.as<void>(),
                    device_bytes, host_work.data(), host_bytes, info.as<int>()),
        what);
  return read(info, what);
}

void cholesky_solve(const double* factor, int64_t n, double* b, int64_t columns) {
  const char* const what = "a solution by a Cholesky factor";
  Solver& s = solver();
  const std::lock_guard lock(s.mutex);
  const Buffer info(sizeof(int), Device::cuda);
  check(s.solve(s.handle, s.parameters, CUBLAS_FILL_MODE_UPPER, n, columns, CUDA_R_64F, factor, n, CUDA_R_64F, b, n,
                info.as<int>()),
        what);
  read(info, what);
}

}  // namespace fastntk::cuda
