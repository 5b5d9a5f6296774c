// One panel of the first stage (full to band) of the tridiagonal reduction of large symmetric
// matrices on a CUDA device: Householder QR of `band` columns of each matrix of a batch, in compact
// WY form, Q = I - V T V^T (Schreiber, Van Loan 1989). A block a matrix: a library's QR of so
// narrow a panel is a launch or more a column, one matrix after the other. What the panel does to
// the rest of the matrix is matrix products: pyspectra/_cuda/eigenvalues.py.
//
// 2 band^2 m flops for m rows; panel and vectors go through the second-level cache once a column.
// Nothing is allocated, nothing waits.
#pragma once

#include "core/cuda/stream.hpp"
#include "core/types.hpp"
#include "linalg/device_chase.hpp"

namespace pyspectra::linalg {

// A: `count` symmetric n x n matrices, of which the panel of columns `start` to start + band is
// read where it is contiguous, in the upper triangle: rows start to start + band, from column start
// + band on. There R stands on return, transposed, on and below the panel's diagonal (what is right
// of it is garbage, and outside the band). V: count * band * n, vector k of a matrix from k * n on,
// m = n - start - band entries of it. T: count * band * band, upper triangular, row by row.
void device_panel(double* A, Index count, Index n, Index start, Index band, double* V, double* T,
                  const cuda::Stream& stream);

}  // namespace pyspectra::linalg
