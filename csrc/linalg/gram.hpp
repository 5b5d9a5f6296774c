// Gram matrices G = X^T X of the shorter side, in float64, from any element type and strides.
//
// For a matrix with N >= M (its longer and shorter side), G is M x M; its eigenvalues are the
// squared singular values. N M^2 flops: only tiles of one triangle are computed. The input is read
// in slabs of 100 to 400 rows that are converted to float64 while being packed, so the extra memory
// is one slab a thread, never a float64 copy of the matrix.
//
// Products are accumulated in ascending order of rows whatever the number of threads: the same bits
// for any thread count, on one instruction set. (Between instruction sets the last bits differ:
// fused multiply-adds and the order within a slab.) An entry is wrong by at most (400 + N / 100) u
// times the sum of the sizes of its terms, u the unit roundoff: each slab has sums of its own.
#pragma once

#include <span>

#include "core/types.hpp"

namespace pyspectra::linalg {

// Writes the lower triangles of column-major M x M matrices; tiles on the diagonal spill into the
// upper ones, of which nothing is promised. Parallel over matrices where there are enough of them,
// else over ranges of columns within each, every thread packing the rows for itself; over the
// blocks of one slab after the other where a thread would have few columns. Aliasing: no output may
// overlap an input.
void gram_batch(std::span<const MatrixView> X, std::span<double* const> out);

namespace detail {

// One slab: rows [begin, end) along the long side of a matrix whose short side has M entries,
// packed as [panel][row][kPanel] with columns past M zero.
struct Slab {
  const void* data;
  DType dtype;
  Index long_stride, short_stride;
  Index M;
  Index begin, end;
  double* packed;
};

struct Kernels {
  Index panel;  // columns a panel
  // Packs a part of the slab: panels [p0, p1) of rows [k0, k1), both counted within the slab.
  void (*pack)(const Slab& slab, Index k0, Index k1, Index p0, Index p1);
  // out(r, c) += sum over rows of X(row, r) X(row, c) for r in the panels [i0, i1), c in panel j,
  // i0 >= j; where `fresh`, = in place of +=.
  void (*tiles)(const double* packed, Index rows, Index M, Index i0, Index i1, Index j, double* out,
                bool fresh);
};

Kernels kernels_baseline();
Kernels kernels_avx2();
Kernels kernels_avx512();

}  // namespace detail
}  // namespace pyspectra::linalg
