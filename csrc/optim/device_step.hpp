// The step of step.hpp on a CUDA device: the same formulas (element, rules and scalars .inl.hpp),
// the same bits.
//
// What a step works on is packed once into a plan, copied to the device by the caller and used
// until an address changes. One launch for each element type moves all tensors of it, another those
// with compact moments (device_compact.hpp); a launch of one block before them computes the
// scalars, so that the learning rate, the step count, the loss scale and the clip factor may live
// on the device. Nothing is allocated, nothing waits, nothing is read back: a step can be captured
// in a CUDA graph.
//
// Memory traffic as on the CPU. A thread has eight elements, two runs of four, so that accesses are
// 16 bytes wide (8 for 16-bit types) and one Philox counter serves it. Sums are taken in the order
// of the CPU's: eight lanes within tiles of 128, tiles within blocks of 4096, then blocks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/cuda/stream.hpp"
#include "optim/step.hpp"

namespace pyspectra::optim {

// Options whose scalars may live on the device. All pointers are device memory.
struct DeviceOptions {
  StepOptions values;
  std::int64_t* step;  // steps taken so far, counted up by the call; values.step goes unread
  const float* lr;     // or null: values.lr
};

// Element types (DType), and of each the tensors with whole and with compact moments.
constexpr int kKinds = 8;

struct DevicePlan {
  std::vector<unsigned char> bytes;  // to be copied to the device: tensors, then pieces
  Index count[kKinds];               // pieces of each kind, 2 type + (compact ? 1 : 0)
};

// What a step needs on the device besides the plan.
struct DeviceBuffers {
  const void** grads;       // one a tensor: gradients move while the plan holds
  const void* plan;         // aligned to 16 bytes
  void* prepared;           // device_prepared_bytes(number of options)
  double* blocks;           // 8 doubles a piece where statistics are taken or gradients clipped
  double* squares;          // one double a tensor where gradients are clipped
  double* statistics;       // or null; 8 doubles a tensor, then one: the factor 1 / loss scale
  const float* found_inf;   // or null; not 0: this step is left out
  const float* loss_scale;  // or null
  double max_grad_norm;     // infinity: no clipping
  bool squares_are_taken = false;  // by device_squares
};

// Checks and packs. Throws std::invalid_argument as `step` does.
DevicePlan device_plan(std::span<const StepTensor> tensors, std::span<const StepOptions> options);

// Where some tensor has compact moments: counts, once the plan is on the device and again after any
// mask has changed, where the moments of each piece begin.
void device_ranks(Index tensors, void* plan, const cuda::Stream& stream);

Index device_prepared_bytes(Index options);

// Takes the sums of squares of the gradients alone, into buffers.squares. Where tensors are sharded
// the caller adds those of all processes up, before `device_step` makes the clip factor of them.
void device_squares(const Index count[kKinds], Index tensors, std::span<const void* const> grads,
                    const DeviceBuffers& buffers, const cuda::Stream& stream);

// `grads`: addresses to write to buffers.grads first, or none where they are there already. They
// travel as arguments of a kernel, so that a graph replays them.
void device_step(const Index count[kKinds], Index tensors, std::span<const DeviceOptions> options,
                 std::span<const void* const> grads, const DeviceBuffers& buffers,
                 const cuda::Stream& stream);

}  // namespace pyspectra::optim
