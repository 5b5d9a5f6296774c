// Second stage of the tridiagonal reduction of a large symmetric matrix on a CUDA device: the band
// is chased away, bulges of band x band blocks as in band_to_tridiagonal.inl.hpp. The first stage,
// full to band, is matrix products: pyspectra/_cuda.py.
//
// A sweep removes one column of the band and is one block's work; as many sweeps as there are
// blocks go down the matrix together, each two steps behind the one before. Blocks take sweeps in
// order from a counter, so that whoever waits, waits for a sweep that has begun: no block needs
// another to be resident. n^2 / 2 band steps of about 10 band^2 multiply-adds, all in shared memory
// and the second-level cache.
#pragma once

#include "core/cuda/stream.hpp"
#include "core/types.hpp"

namespace pyspectra::linalg {

constexpr Index kDeviceBand = 32;  // the widest

// `a`: column j of the lower band at a[2 * band * j], from the diagonal down; 2 * band entries, of
// which the last band - 1 are zero at first. On return the first two are diagonal and off-diagonal.
// `progress`: n ints, zero.
void device_chase(double* a, Index n, Index band, int* progress, const cuda::Stream& stream);

}  // namespace pyspectra::linalg
