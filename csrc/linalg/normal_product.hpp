// Products of a weight matrix with a block of vectors: Y += W X, and Z = W^T Y with the same read
// of W. They are the steps of a Krylov method on W^T W, which is never formed.
//
// W is N x M of any element type and strides; X is M x b, Y is N x b, Z is M x b, row-major and all
// of one type, double or float, in which products and sums are taken. 2 N M b flops for each
// product. W is read in blocks of kBlockRows rows, which are converted piece by piece: extra memory
// is a packed copy of X and, for Z, a copy of Z for each of at most kChunks chunks of rows.
//
// In float it takes half of the time; float64 entries of W are rounded then, too. Sums are taken in
// pieces of at most kBlockCols or kBlockRows terms: with u the unit roundoff, an entry of Y is
// wrong by at most (kBlockCols + M / kBlockCols + 3) u times the sum of the sizes of its terms, one
// of Z by (kBlockRows + N / kBlockRows / kChunks + kChunks + 3) u.
//
// Chunks follow from N alone, each is summed in ascending order of rows and they are added in
// theirs: the same bits for any number of threads, on one instruction set. Entries of W that are
// not finite give products that are not.
#pragma once

#include "core/types.hpp"

namespace pyspectra::linalg {

// Adds W X to Y. `Z` may be null: only Y is wanted then. `X` may be null: Y stays as it is. No
// array may overlap another. Parallel over rows of W; calls check_interrupt() after each block of
// them.
void normal_product(const MatrixView& W, const double* X, Index b, double* Y, double* Z);
void normal_product(const MatrixView& W, const float* X, Index b, float* Y, float* Z);

namespace detail {

// Rows and columns of W that are converted at a time: 2 KiB of a row.
constexpr Index kBlockRows = 96;
template <typename Real>
constexpr Index kBlockCols = Index{2048} / static_cast<Index>(sizeof(Real));
// Rows of the packed block are no power of two apart: many of them are read side by side, and would
// fall into the same sets of the first-level cache.
template <typename Real>
constexpr Index kPackedRow = kBlockCols<Real> + Index{64} / static_cast<Index>(sizeof(Real));
constexpr Index kMostPanel = 16;

// A converted block of W: entry (i, j) is at a[i * row_step + j * col_step]. One step is 1, the
// other kPackedRow or kBlockRows.
template <typename Real>
struct Packed {
  const Real* a;
  Index row_step, col_step;
};

template <typename Real>
struct ProductSteps {
  Index panel;  // columns of X at a time, at most kMostPanel
  // Converts rows [i0, i0 + rows) and columns [j0, j0 + cols) of W. `to` has room for
  // kBlockRows x kPackedRow.
  Packed<Real> (*pack)(const MatrixView& W, Index i0, Index rows, Index j0, Index cols, Real* to);
  // out(i, :) += sum over k < depth of a[i * row_step + k * col_step] x(k, :), for i < rows; x and
  // out have `panel` columns.
  void (*accumulate)(const Packed<Real>& a, Index rows, Index depth, const Real* x, Real* out);
};

struct ProductKernels {
  ProductSteps<double> in_double;
  ProductSteps<double> of_few;  // for blocks of one vector's width: no columns of zeros go along
  ProductSteps<float> in_float;
};

ProductKernels product_kernels_baseline();
ProductKernels product_kernels_avx2();
ProductKernels product_kernels_avx512();

}  // namespace detail
}  // namespace pyspectra::linalg
