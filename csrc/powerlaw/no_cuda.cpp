#include "core/error.hpp"
#include "powerlaw/device_bootstrap.hpp"
#include "powerlaw/device_fit.hpp"

namespace pyspectra::powerlaw {

void device_fit(Index, Index, double, double, const DeviceFitBuffers&, const cuda::Stream&) {
  throw CudaFailure("fit: this package was built without CUDA");
}

void device_draw(Index, Index, Index, const DeviceSource*, const double*, const Index*, double*,
                 double*, const cuda::Stream&) {
  throw CudaFailure("bootstrap: this package was built without CUDA");
}

}  // namespace pyspectra::powerlaw
