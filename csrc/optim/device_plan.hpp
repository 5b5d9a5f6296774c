// The plan as it lies on the device, for the kernels of a step.
#pragma once

#include "optim/device_step.hpp"

namespace pyspectra::optim::detail {

// A tensor, and where its pieces begin among all.
struct Planned {
  StepTensor t;
  Index first;
};

struct Plan {
  const Planned* tensors;
  const Piece* pieces;
  const void* const* grads;  // in the place of StepTensor::grad
};

inline Plan plan_of(const DeviceBuffers& buffers, Index tensors) {
  const auto* const from = static_cast<const Planned*>(buffers.plan);
  return {from, reinterpret_cast<const Piece*>(from + tensors), buffers.grads};
}

// A group's options at this step.
struct Prepared {
  StepOptions o;  // lr, step and grad_scale as they are at this step
  Scalars s;
  bool skip;
};

}  // namespace pyspectra::optim::detail
