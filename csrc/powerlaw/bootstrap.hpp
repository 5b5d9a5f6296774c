// Semi-parametric bootstrap of power-law fits (Clauset, Shalizi, Newman 2009, 4.1).
//
// A replicate of a fit has as many points as entered the fit. Each is, with probability n_tail / n,
// a draw from the fitted law, ln(x / xmin) ~ Exp(alpha - 1), else one of the points below the tail,
// drawn with replacement. The replicate is fitted as the data were, scan included.
//
// Replicates are made in order, so nothing is sorted: a point's draw r in [0, n) counts for body
// point r if r < n_body and for the tail otherwise, and the k tail points are the order statistics
// of k exponentials, whose gaps are independent, u_(j) - u_(j-1) = E_j / (k - j + 1) (Renyi 1953).
//
// Randomness: Philox4x32-10 under the key of the spectrum, counter (block, 0, replicate, stream),
// stream 0 for r (32 bits each; n < 2^32), 1 for the exponentials (64 bits each). Replicate b is
// the same bits for any number of replicates, threads and instruction sets.
//
// Complexity: that of a fit, plus n draws and n_tail logarithms, per replicate.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "powerlaw/fit.hpp"

namespace pyspectra::powerlaw {

struct Replicate {
  double alpha, D, n_tail;  // NaN where the replicate could not be fitted
};

// `fits[s]` is the fit of `spectra[s]` (ascending) with `options`, and did not fail; each spectrum
// gets `count` replicates, those numbered from `first` on: a caller that wants many can ask for
// some at a time and gets the same bits. Parallel over the replicates of all spectra together.
std::vector<std::vector<Replicate>> bootstrap(std::span<const std::span<const double>> spectra,
                                              std::span<const Fit> fits, const FitOptions& options,
                                              Index first, Index count,
                                              std::span<const std::uint64_t> keys);

namespace detail {

// Random words of one purpose of one replicate: a block of four for each counter.
struct Stream {
  std::uint64_t key, replicate;
  unsigned number;
};

constexpr int kBlocks = 32;  // at a time

struct DrawKernels {
  // 4 kBlocks indices in [0, n), those of the blocks from `first` on, in any order; n in the place
  // of those after the n-th of the stream.
  void (*indices)(const Stream& stream, Index n, Index first, std::uint64_t* out);
  // 2 kBlocks numbers in (0, 1], those of the blocks from `first` on.
  void (*uniforms)(const Stream& stream, Index first, double* out);
};

DrawKernels draws_baseline();
DrawKernels draws_avx2();
DrawKernels draws_avx512();

}  // namespace detail
}  // namespace pyspectra::powerlaw
