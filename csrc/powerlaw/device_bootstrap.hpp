// The replicates of bootstrap.hpp on a CUDA device, the same bits; `device_fit` then fits them.
//
// A block a replicate: points of the body are counted by atomics and written in order behind a
// scan; those of the tail are a chain of additions, by one thread from shared memory in the CPU's
// order.
#pragma once

#include <cstdint>

#include "core/cuda/stream.hpp"
#include "core/types.hpp"

namespace pyspectra::powerlaw {

// What the replicates of one spectrum are drawn from. Python makes a table of these.
struct DeviceSource {
  Index begin;  // in `x`: its first point that entered the fit
  Index n;      // points that entered the fit, below 2^32
  Index body;   // of them below the tail
  double xmin, alpha;
  std::uint64_t key;
};

// For each of `count` sources the replicates first to first + per; replicate k of all of them is
// written to log_x[starts[k]] on, ascending logarithms. `scratch`: as long as `log_x`.
void device_draw(Index count, Index per, Index first, const DeviceSource* sources, const double* x,
                 const Index* starts, double* log_x, double* scratch, const cuda::Stream& stream);

}  // namespace pyspectra::powerlaw
