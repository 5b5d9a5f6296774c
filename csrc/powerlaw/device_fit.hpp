// Fits of fit.hpp (estimator ww, xmin chosen) on a CUDA device, for spectra that are there: the
// same formulas, the same bits.
//
// Three launches for the whole batch. First, a block a spectrum: logarithms, and T_i by the CPU's
// recurrence: the terms in parallel, the chain of additions by one thread from shared memory, which
// costs some ten cycles a point and keeps the CPU's rounding. Then all candidates, one a warp, each
// abandoned as soon as its deviation exceeds the least D that any warp has found. Last, a block a
// spectrum: the first candidate with the least D.
//
// Work: n^2 / 2 exponentials at most, most of them saved by abandoning; the CPU's bounds save more,
// so that one long spectrum is faster there.
#pragma once

#include <span>

#include "core/cuda/stream.hpp"
#include "powerlaw/fit.hpp"

namespace pyspectra::powerlaw {

// All in device memory; `total` is the number of points of all spectra.
struct DeviceFitBuffers {
  const double* x;           // total: the spectra, each ascending, one after the other; or null
  const Index* starts;       // count + 1: where each begins
  double* log_x;             // total; where `x` is null, the logarithms of the points
  double* tail_sum;          // total
  double* D;                 // total
  unsigned long long* best;  // count
  Fit* fits;                 // count: the result
};

// `longest`: points of the longest spectrum. Without `x` all points enter the fit, and the fits
// have no xmin and xmax: so replicates are fitted (device_bootstrap.hpp).
void device_fit(Index count, Index longest, double threshold, double xmax,
                const DeviceFitBuffers& buffers, const cuda::Stream& stream);

}  // namespace pyspectra::powerlaw
