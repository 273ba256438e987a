// Cholesky factors, and solutions by them, by cuSOLVER in float64.
#include <cusolverDn.h>

#include <mutex>
#include <vector>

#include "engine/cuda/device_entry.h"
#include "engine/cuda/families.h"
#include "engine/cuda/launch.cuh"
#include "engine/device.h"

namespace fastntk::cuda {
namespace {

void check(cusolverStatus_t status, const char* what) {
  require(status == CUSOLVER_STATUS_SUCCESS, "{} failed: status {} of cuSOLVER", what, static_cast<int>(status));
}

struct Handle {
  std::mutex mutex;
  cusolverDnHandle_t handle = nullptr;
  cusolverDnParams_t parameters = nullptr;
  Handle() {
    check(cusolverDnCreate(&handle), "making a handle of cuSOLVER");
    check(cusolverDnSetStream(handle, stream()), "giving cuSOLVER a stream");
    check(cusolverDnCreateParams(&parameters), "making parameters of cuSOLVER");
  }
};
// Never destroyed: the driver may be gone by then.
Handle& solver() {
  static Handle* const instance = new Handle;
  return *instance;
}

}  // namespace

int64_t cholesky(double* a, int64_t n) {
  Handle& s = solver();
  const std::lock_guard lock(s.mutex);
  size_t device_bytes = 0, host_bytes = 0;
  check(cusolverDnXpotrf_bufferSize(s.handle, s.parameters, CUBLAS_FILL_MODE_UPPER, n, CUDA_R_64F, a, n, CUDA_R_64F,
                                    &device_bytes, &host_bytes),
        "planning a Cholesky factorisation");
  const Buffer work(device_bytes, Device::cuda), info(sizeof(int), Device::cuda);
  std::vector<std::byte> host_work(host_bytes);
  check(cusolverDnXpotrf(s.handle, s.parameters, CUBLAS_FILL_MODE_UPPER, n, CUDA_R_64F, a, n, CUDA_R_64F,
                         work.as<void>(), device_bytes, host_work.data(), host_bytes, info.as<int>()),
        "a Cholesky factorisation");
  int failed = 0;
  memory().copy_out(&failed, info.as<int>(), sizeof failed);
  require(failed >= 0, "a Cholesky factorisation failed: argument {} of cuSOLVER is wrong", -failed);
  return failed;
}

void cholesky_solve(const double* factor, int64_t n, double* b, int64_t columns) {
  Handle& s = solver();
  const std::lock_guard lock(s.mutex);
  const Buffer info(sizeof(int), Device::cuda);
  check(cusolverDnXpotrs(s.handle, s.parameters, CUBLAS_FILL_MODE_UPPER, n, columns, CUDA_R_64F, factor, n, CUDA_R_64F,
                         b, n, info.as<int>()),
        "a solution by a Cholesky factor");
  int failed = 0;
  memory().copy_out(&failed, info.as<int>(), sizeof failed);
  require(failed == 0, "a solution by a Cholesky factor failed: argument {} of cuSOLVER is wrong", -failed);
}

}  // namespace fastntk::cuda
