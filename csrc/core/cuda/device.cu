#include <cuda_runtime_api.h>

#include <cstdio>

#include "core/cuda/device.hpp"

namespace pyspectra::cuda {

bool built() { return true; }

bool available() {
  int count = 0;
  // A machine without a driver answers with an error, which here simply means "none".
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

std::vector<std::string> device_names() {
  std::vector<std::string> names;
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return names;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, i) != cudaSuccess) continue;
    char text[400];
    std::snprintf(text, sizeof text, "%s (sm_%d%d, %.0f GiB)", p.name, p.major, p.minor,
                  static_cast<double>(p.totalGlobalMem) / (1 << 30));
    names.emplace_back(text);
  }
  return names;
}

}  // namespace pyspectra::cuda
