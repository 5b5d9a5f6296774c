// The eigenvectors of a Gram matrix at the small end of its spectrum, by inverse iteration with a
// block of vectors: what pyspectra/spectra/small_end.py computes small singular values from.
//
//   1. shifted_factor: Cholesky's L L^T = G + shift I, in tiles of 32 x 32. n^3 / 3 flops. The
//      factor serves as a preconditioner only, so it always exists: a pivot that rounding has made
//      smaller than the shift is replaced by it.
//   2. inverse_steps: X := orth((L L^T)^-1 X), 2 n^2 flops a column and step, and about
//      (4 + 4 p / 32) n p for orthonormal columns.
//
// All products of tiles are those of wide_band.hpp's kernel, also the solutions: diagonal tiles are
// kept as their inverses. Parallel over tiles and over panels of 32 columns; a solution goes by
// four tiles of rows, which all rows after them take up side by side. Each tile and each sum has
// one task that computes it in one order: the same bits for any number of threads.
#pragma once

#include "core/types.hpp"

namespace pyspectra::linalg {

// Doubles of a factor of order n: the lower triangle in tiles, about n^2 / 2 + 48 n.
Index shifted_factor_size(Index n);

// From the lower triangle of a column-major G, which is not written to; finite, n >= 1, with its
// largest entry from 2^-900 to 2^900; shift > 0. No array may overlap another.
void shifted_factor(const double* G, Index n, Index lda, double shift, double* L);

// The n pivots of the factorisation of such a matrix, each of which is at least the smallest
// eigenvalue of G + shift I: what is left of a diagonal entry once the columns before it have been
// eliminated. Those of a leading part of a matrix are the first ones of the whole: n^3 / 3 flops.
void leading_pivots(const double* G, Index n, Index lda, double shift, double* pivots);

// X (n x p, row-major) := (L L^T)^-1 X.
void apply_inverse(const double* L, Index n, double* X, Index p);

// X := orth(X), then `steps` times X := orth((L L^T)^-1 X). p <= n. The leading columns span what
// they span without those after them. Columns that depend on those before them become others; if
// they are of another panel of 32, those need not be orthogonal to all: whoever cannot exclude it
// looks.
void inverse_steps(const double* L, Index n, double* X, Index p, Index steps);

}  // namespace pyspectra::linalg
