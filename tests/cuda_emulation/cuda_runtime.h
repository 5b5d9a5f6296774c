// A CUDA runtime of one host thread, for tests: found in the place of <cuda_runtime.h>, it lets a
// C++ compiler build the package's .cu files as they are. Memory is host memory.
//
// The threads of a block are coroutines; a barrier lets all of them arrive before any goes on.
// Between two barriers they run one after the other, in ascending or in descending order: where a
// kernel misses a barrier, the two orders differ. Blocks run one after the other.
#pragma once

#include <cstddef>
#include <cstdint>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
  unsigned int x, y, z;
  dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1) : x(x_), y(y_), z(z_) {}
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

void wait_for_block();  // __syncthreads
void wait_for_warp();
void* shared_memory();
std::uint64_t* warp_slots();  // 32 of this thread's warp

using Body = void (*)(void* arguments);
void run_grid(dim3 grid, dim3 block, std::size_t shared, Body body, void* arguments);

template <typename T>
T exchange(T value, unsigned int source) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  warp_slots()[threadIdx.x % 32] = bits;
  wait_for_warp();
  bits = warp_slots()[source % 32];
  wait_for_warp();
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace emulation

inline void __syncthreads() { emulation::wait_for_block(); }
inline void __threadfence() {}
inline void __syncwarp() { emulation::wait_for_warp(); }
template <typename T>
T __shfl_xor_sync(unsigned int, T value, int mask) {
  return emulation::exchange(value, threadIdx.x ^ static_cast<unsigned int>(mask));
}
template <typename T>
T __shfl_sync(unsigned int, T value, int lane) {
  return emulation::exchange(value, static_cast<unsigned int>(lane));
}
template <typename T>
T __shfl_up_sync(unsigned int, T value, unsigned int delta) {
  const unsigned int lane = threadIdx.x % 32;
  return emulation::exchange(value, lane < delta ? lane : lane - delta);
}
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }

template <typename T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}
template <typename T>
T atomicMax(T* at, T value) {
  const T before = *at;
  if (value > before) *at = value;
  return before;
}
template <typename T>
T atomicMin(T* at, T value) {
  const T before = *at;
  if (value < before) *at = value;
  return before;
}

enum cudaError_t { cudaSuccess = 0 };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
using cudaStream_t = void*;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 64 * 1024;
  return cudaSuccess;
}
template <typename... P>
cudaError_t cudaFuncSetAttribute(void (*)(P...), cudaFuncAttribute, int) {
  return cudaSuccess;
}

template <typename... P, typename... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...),
                               A&&... arguments) {
  auto call = [&] { kernel(P(arguments)...); };
  emulation::run_grid(
      config->gridDim, config->blockDim, config->dynamicSmemBytes,
      [](void* p) { (*static_cast<decltype(call)*>(p))(); }, &call);
  return cudaSuccess;
}

namespace pyspectra::cuda {
template <typename T>
T* dynamic_shared() {
  return static_cast<T*>(emulation::shared_memory());
}
}  // namespace pyspectra::cuda
