// Symmetric eigenvalues on a CUDA device, float64, values only.
//
// Tridiagonalisation by Householder reflectors, a block a matrix: for batches of small matrices,
// where a library spends its time on launches. The matrix is held in shared memory where it fits.
// 4/3 n^3 flops, of which half are products with the whole trailing matrix.
//
// Tridiagonal eigenvalues by bisection with Sturm counts, an eigenvalue a thread: 56 halvings of
// the interval of Gershgorin, so that the error is some ulps of the norm, n divisions each. (Barth,
// Martin, Wilkinson 1967; Demmel, Dhillon, Ren 1995 on why counts are monotone in spite of
// rounding.)
//
// Nothing is allocated, nothing waits. Entries must be finite and scaled: the largest near one.
#pragma once

#include "core/cuda/stream.hpp"
#include "core/types.hpp"

namespace pyspectra::linalg {

// The largest order that device_tridiagonalize takes.
constexpr Index kDeviceOrder = 2048;

// A: `count` dense symmetric n x n matrices (both triangles), destroyed. d and e: count * n each;
// the last of a matrix's e goes unwritten.
void device_tridiagonalize(double* A, Index count, Index n, double* d, double* e,
                           const cuda::Stream& stream);

// evals: count * n, ascending for each matrix but for ties that rounding exchanged.
void device_tridiagonal_eigvals(const double* d, const double* e, Index count, Index n,
                                double* evals, const cuda::Stream& stream);

}  // namespace pyspectra::linalg
