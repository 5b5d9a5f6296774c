// The step of step.hpp on a CUDA device for tensors with compact moments: the kernels that need to
// know how many elements of the child come before one.
//
// A plan has the rank of each piece of 4096 elements, counted once on the device; within a piece a
// warp finds the ranks of its threads from the piece's 512 bytes of mask, so that nothing is passed
// between warps. Gradients outside the child are read at most where four neighbours have one in it;
// where nothing moves outside the child, parameters too.
//
// Whatever becomes of a mask after its ranks were counted, nothing outside the moments is touched;
// the caller counts again, in a new plan, after changing one.
#pragma once

#include "core/cuda/stream.hpp"
#include "optim/device_plan.hpp"

namespace pyspectra::optim::detail {

// Moves plan.pieces[first, first + count), all of tensors of `type` with compact moments.
void launch_compact(DType type, const Plan& plan, Index first, Index count,
                    const Prepared* prepared, StepStatistics* blocks, const cuda::Stream& stream);

}  // namespace pyspectra::optim::detail
