#include "core/error.hpp"
#include "optim/device_step.hpp"

namespace pyspectra::optim {

DevicePlan device_plan(std::span<const StepTensor>, std::span<const StepOptions>) {
  throw CudaFailure("step: this package was built without CUDA");
}
void device_ranks(Index, void*, const cuda::Stream&) {
  throw CudaFailure("step: this package was built without CUDA");
}
Index device_prepared_bytes(Index) { return 0; }
void device_squares(const Index*, Index, std::span<const void* const>, const DeviceBuffers&,
                    const cuda::Stream&) {
  throw CudaFailure("step: this package was built without CUDA");
}
void device_step(const Index*, Index, std::span<const DeviceOptions>, std::span<const void* const>,
                 const DeviceBuffers&, const cuda::Stream&) {
  throw CudaFailure("step: this package was built without CUDA");
}

}  // namespace pyspectra::optim
