// Products of a weight matrix with a block of vectors: Y += W X, and Z = W^T Y with the same read
// of W. They are the steps of a Krylov method on W^T W, which is never formed.
//
// W is N x M of any element type and strides; X is M x b, Y is N x b, Z is M x b, all float64 and
// row-major. 2 N M b flops for each product. W is read in blocks of kBlockRows rows, which are
// converted to float64 piece by piece: extra memory is a packed copy of X and, for Z, a copy of Z
// for each of at most kChunks chunks of rows.
//
// Chunks follow from N alone, each is summed in ascending order of rows and they are added in
// theirs: the same bits for any number of threads, on one instruction set. Entries of W that are
// not finite give products that are not.
#pragma once

#include "core/types.hpp"

namespace pyspectra::linalg {

// Adds W X to Y. `Z` may be null: only Y is wanted then. No array may overlap another. Parallel
// over rows of W; calls check_interrupt() after each block of them.
void normal_product(const MatrixView& W, const double* X, Index b, double* Y, double* Z);

namespace detail {

// Rows and columns of W that are converted at a time.
constexpr Index kBlockRows = 96;
constexpr Index kBlockCols = 256;
constexpr Index kMostPanel = 16;

// A block of W as float64: entry (i, j) is at a[i * row_step + j * col_step].
struct Packed {
  const double* a;
  Index row_step, col_step;
};

struct ProductKernels {
  Index panel;  // columns of X at a time, at most kMostPanel
  // Converts rows [i0, i0 + rows) and columns [j0, j0 + cols) of W to float64. `to` has room for
  // kBlockRows x (kBlockCols + 8).
  Packed (*pack)(const MatrixView& W, Index i0, Index rows, Index j0, Index cols, double* to);
  // out(i, :) += sum over k < depth of a[i * row_step + k * col_step] x(k, :), for i < rows; x and
  // out have `panel` columns.
  void (*accumulate)(const Packed& a, Index rows, Index depth, const double* x, double* out);
};

ProductKernels product_kernels_baseline();
ProductKernels product_kernels_avx2();
ProductKernels product_kernels_avx512();

}  // namespace detail
}  // namespace pyspectra::linalg
