// LAPACK's reductions to tridiagonal and to bidiagonal form, a BLAS call at a time.
//
// xSYTRD and xGESDD take a minute for a matrix of order 4000, in which nothing can be asked of
// them. What they do is no more than a loop over BLAS calls of some milliseconds each, so the loop
// is here: the algorithms and block sizes of the reference xSYTRD/xLATRD, xGEQRF and
// xGEBRD/xLABRD, hence their time and their errors. Between two calls check_interrupt() is asked,
// and no fork happens during one (core/fork.hpp). LAPACK itself takes what is small.
//
// The longest call reads the whole rest of the matrix once, 8 n^2 bytes: a tenth of a second at
// n = 12000 or so.
#pragma once

#include "core/types.hpp"

namespace pyspectra::linalg {

// Tridiagonal form of a symmetric matrix, of which the lower triangle is read and destroyed:
// column-major, order n, no gaps. Diagonal to d (n), off-diagonal to e (n - 1). Entries must be
// far enough from the ends of the range for their squares.
Status lapack_tridiagonalize(double* a, Index n, double* d, double* e);

// Descending singular values, s (n), of the column-major m x n matrix a, m >= n, which is
// destroyed. The same holds for its entries. Scratch memory: n^2 doubles where m is much larger.
Status lapack_singular_values(double* a, Index m, Index n, double* s);

}  // namespace pyspectra::linalg
