// The one way to launch a kernel, for .cu files: on the caller's stream, errors thrown, nothing
// waited for.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <string>
#include <utility>

#include "core/cuda/stream.hpp"
#include "core/error.hpp"

namespace pyspectra::cuda {

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw CudaFailure(std::string(what) + ": " + cudaGetErrorString(status));
}

// Makes a device the thread's current one, and puts back what was.
class OnDevice {
 public:
  explicit OnDevice(int device) : device_(device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (device_ != before_) check(cudaSetDevice(device_), "cudaSetDevice");
  }
  ~OnDevice() {
    if (device_ != before_) cudaSetDevice(before_);  // else it would make a context there
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int device_, before_ = 0;
};

// No blocks: nothing to do. `shared`: bytes of dynamic shared memory, which above 48 KiB must have
// been allowed by `allow_shared`.
template <typename... P, typename... A>
void launch(const Stream& stream, void (*kernel)(P...), long long blocks, int threads,
            std::size_t shared, A&&... arguments) {
  if (blocks == 0) return;
  const OnDevice here(stream.device);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned int>(blocks));
  config.blockDim = dim3(static_cast<unsigned int>(threads));
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(stream.handle);
  check(cudaLaunchKernelEx(&config, kernel, std::forward<A>(arguments)...), "kernel launch");
}

#if defined(__CUDACC__)
// The block's dynamic shared memory.
template <typename T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
}
#endif

// The most dynamic shared memory that a block may have on this device.
inline std::size_t shared_limit(const Stream& stream) {
  int bytes = 0;
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, stream.device),
        "cudaDeviceGetAttribute");
  return static_cast<std::size_t>(bytes);
}

template <typename... P>
void allow_shared(const Stream& stream, void (*kernel)(P...), std::size_t bytes) {
  const OnDevice here(stream.device);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        "cudaFuncSetAttribute");
}

}  // namespace pyspectra::cuda
