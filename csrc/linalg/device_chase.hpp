// Second stage of the tridiagonal reduction of large symmetric matrices on a CUDA device: the band
// is chased away, bulges of band x band blocks as in band_to_tridiagonal.inl.hpp. The first stage,
// full to band: device_panel.hpp.
//
// A sweep removes one column of the band and is one block's work; as many sweeps as a matrix has
// blocks go down it together, each two steps behind the one before. Blocks take sweeps in
// order from a counter, so that whoever waits, waits for a sweep that has begun: no block needs
// another to be resident. n^2 / 2 band steps of about 10 band^2 multiply-adds, all in shared memory
// and the second-level cache.
#pragma once

#include "core/cuda/stream.hpp"
#include "core/types.hpp"

namespace pyspectra::linalg {

constexpr Index kDeviceBand = 32;  // the widest

// `a`: of `count` matrices, 2 * band * n each: column j of the lower band at 2 * band * j, from the
// diagonal down, 2 * band entries, of which the last band - 1 are zero at first. On return the
// first two are diagonal and off-diagonal. `progress`: count * n ints, zero.
void device_chase(double* a, Index count, Index n, Index band, int* progress,
                  const cuda::Stream& stream);

}  // namespace pyspectra::linalg
