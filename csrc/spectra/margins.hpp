// Sums over the entries of a matrix, its rows and its columns, in one pass: what the sizes of the
// entries fix of the spectrum, whatever their signs.
//
// With B_ki = w_ki^2, r_k = sum_i B_ki, c_i = sum_k B_ki, T = sum B and the rows' and columns'
// shares p_k = (r_k / T)^2, q_i = (c_i / T)^2, the sum over i != j, k != l of (r_k r_l c_i c_j)^2 /
// T^4 is
//   cycles = ((sum p)^2 - sum p^2) ((sum q)^2 - sum q^2) T^4.
// (What the sums are for: pyspectra/spectra/sign_test.py.)
//
// Any element type and strides; sums are float64. A matrix is summed in strips of rows, whose
// bounds follow from its shape, and strips are added in their order: the same bits for any number
// of threads and, with eight sums side by side on each, any instruction set. Memory: two or three
// doubles a row, and as many a column for each strip, of at least kStripRows rows. Entries that are
// not finite give sums that are not.
//
// Of a matrix whose means of rows and columns are taken away, C = P W Q with P = 1 - 1/N, Q = 1 -
// 1/M, one more pass gives the same sums, and what centring takes from the sum of the squared
// eigenvalues: with s = W 1, t = W^T 1, the total T and u = W^T s - t T/N,
//   tr (W^T W)^2 - tr (C^T C)^2 = 2 |W t|^2 / N - |t|^4 / N^2 + 2 |u|^2 / M - (|s|^2 - T^2/N)^2 /
//   M^2.
// A Gram matrix of C would take N M^2 flops.
#pragma once

#include <span>
#include <vector>

#include "core/types.hpp"

namespace pyspectra::spectra {

// Names and order are shared with Python by this list.
#define PS_MARGINS(SUM)                                      \
  SUM(total)       /* of w */                                \
  SUM(square)      /* of w^2 */                              \
  SUM(quartic)     /* of w^4 */                              \
  SUM(row_squares) /* of r_k^2 */                            \
  SUM(col_squares) /* of c_i^2 */                            \
  SUM(cycles)                                                \
  SUM(row_totals) /* of the square of each row's sum of w */ \
  SUM(col_totals) /* of the square of each column's */       \
  SUM(zero_rows)  /* number of rows of zeros */              \
  SUM(zero_cols)                                             \
  SUM(diagonal)        /* of w on the main diagonal */       \
  SUM(diagonal_square) /* of w^2 there */

struct Margins {
#define PS_FIELD(name) double name = 0.0;
  PS_MARGINS(PS_FIELD)
#undef PS_FIELD
  std::vector<double> of_rows, of_cols;    // r_k and c_i
  std::vector<double> row_sums, col_sums;  // of w
};

// Writes one result a matrix. Parallel over matrices and strips.
void margins_batch(std::span<const MatrixView> X, std::span<Margins> out);

struct CentredMargins {
  Margins margins;   // of C
  double reduction;  // tr (W^T W)^2 - tr (C^T C)^2, good to rounding of the former
};

// `plain` is what margins_batch has found of the same matrices.
void centred_margins_batch(std::span<const MatrixView> X, std::span<const Margins* const> plain,
                           std::span<CentredMargins> out);

namespace detail {

// What the rows [first, last) of a matrix add up to. `row_sum` and `row_square` belong to those
// rows, the others to all columns.
struct Strip {
  Index first, last;
  double *row_sum, *row_square;
  double *col_sum, *col_square;
  double quartic;
};

// The means that are subtracted from a strip, and two products with the matrix as it is.
struct Means {
  const double *row_sum, *col_sum;  // of the whole matrix
  double *product, *transposed;     // W t of the strip's rows; W^T s, to which the strip adds
};

struct MarginKernels {
  // Adds the columns [begin, begin + count), count <= kPiece, of a strip.
  void (*add)(const MatrixView& X, Index begin, Index count, Strip& strip);
  // The same of centred entries.
  void (*add_centred)(const MatrixView& X, Index begin, Index count, Strip& strip, double mean,
                      const Means& means);
};

// Columns at a time: a row's piece and the sums of its columns stay in the first-level cache.
constexpr Index kPiece = 512;

MarginKernels margin_kernels_baseline();
MarginKernels margin_kernels_avx2();
MarginKernels margin_kernels_avx512();

}  // namespace detail
}  // namespace pyspectra::spectra
