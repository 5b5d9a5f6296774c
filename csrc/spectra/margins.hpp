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
// of threads and, with eight sums side by side on each, any instruction set. Memory: two doubles a
// row, and two a column for each strip, of at least kStripRows rows. Entries that are not finite
// give sums that are not.
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
  std::vector<double> of_rows, of_cols;  // r_k and c_i
};

// Writes one result a matrix. Parallel over matrices and strips.
void margins_batch(std::span<const MatrixView> X, std::span<Margins> out);

namespace detail {

// What the rows [first, last) of a matrix add up to. `row_sum` and `row_square` belong to those
// rows, the others to all columns.
struct Strip {
  Index first, last;
  double *row_sum, *row_square;
  double *col_sum, *col_square;
  double quartic;
};

struct MarginKernels {
  // Adds the columns [begin, begin + count), count <= kPiece, of a strip.
  void (*add)(const MatrixView& X, Index begin, Index count, Strip& strip);
};

// Columns at a time: a row's piece and the sums of its columns stay in the first-level cache.
constexpr Index kPiece = 512;

MarginKernels margin_kernels_baseline();
MarginKernels margin_kernels_avx2();
MarginKernels margin_kernels_avx512();

}  // namespace detail
}  // namespace pyspectra::spectra
