#include "core/error.hpp"
#include "powerlaw/device_fit.hpp"

namespace pyspectra::powerlaw {

void device_fit(Index, Index, double, double, const DeviceFitBuffers&, const cuda::Stream&) {
  throw CudaFailure("fit: this package was built without CUDA");
}

}  // namespace pyspectra::powerlaw
