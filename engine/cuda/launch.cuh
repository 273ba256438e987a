// The one header that kernels include. Under nvcc it is CUDA; under any other compiler the emulator answers
// (engine/emu/builtins.h). Kernels are launched by launch(grid, block, kernel, arguments…), shared arrays are declared
// by FASTNTK_SHARED(type, name, [extent]…); nothing else differs.
//
// Every .cu file here but those of cuda_only/ is compiled twice: with FASTNTK_GPU=cuda by nvcc, and with
// FASTNTK_GPU=emu by the host's compiler, into namespaces of those names.
#pragma once
#if defined(__CUDACC__)
#include <cuda_runtime.h>

#include <tuple>
#include <type_traits>
#include <utility>

#include "engine/error.h"

#define FASTNTK_SHARED(T, name, ...) __shared__ T name __VA_ARGS__

namespace fastntk::cuda {

/// The stream of everything that this program asks of the GPU.
cudaStream_t stream();
/// Error with the name and the meaning of a status that is not success.
void check(cudaError_t status, const char* what);

template <class... Parameters, class... Arguments>
void launch(dim3 grid, dim3 block, void (*kernel)(Parameters...), Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "parameters are copied to the device byte by byte");
  std::tuple<std::remove_cv_t<Parameters>...> values{std::forward<Arguments>(arguments)...};
  const cudaError_t status = std::apply(
      [&](auto&... value) {
        void* pointers[] = {static_cast<void*>(&value)..., nullptr};
        return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers, 0, stream());
      },
      values);
  check(status, "the launch of a kernel");
}

}  // namespace fastntk::cuda
#else
#include "engine/emu/builtins.h"
#define FASTNTK_SHARED(T, name, ...) auto& name = fastntk::emu::shared<T __VA_ARGS__>([] {})
#endif
