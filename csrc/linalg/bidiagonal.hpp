// Bidiagonal form of one matrix by all threads, for its singular values.
//
// In three stages, since the classical reduction (LAPACK's xGEBRD) does half of its work in
// matrix-vector products that read the whole matrix once a column:
//
//   1. full to an upper band of kWide columns beside the diagonal: QR of a column of tiles, then QR
//      of the transposed row of tiles, in turn. With Q = I - V T V^T from the left, I - U S U^T
//      from the right, Z = T^T V^T A and X = (A - V Z) U S, A becomes A - V Z - X U^T. One pass
//      through the tiles applies a panel's update and forms the next V^T A, another one A U: tiles
//      are operands of the product kernel (tiles.hpp), the arithmetic units are the limit.
//      8/3 n^3 flops, and 4 kWide n^2 in panels.
//   2. wide to narrow: successive band reduction. A sweep takes one vector's width of rows to the
//      narrow band and chases the bulge, alternately above and below the diagonal, in blocks of
//      kWide; sweeps follow each other two blocks apart, spread over threads. 8 kWide n^2 flops.
//   3. narrow to bidiagonal: the same for one row a sweep, in blocks that fit the registers.
//
// Backward stable: errors of singular values are some roundings of the largest. Which thread does
// what changes no bit: each tile and each sum has one task that computes it in one order.
#pragma once

#include <optional>

#include "core/types.hpp"
#include "linalg/tiles.hpp"

namespace pyspectra::linalg {

// Diagonal to d (n), off-diagonal to e (n - 1), of 2^-x X for the x that is returned, which is not
// 0 where entries are near the ends of the range; none where an entry is not finite. X has at least
// as many rows as columns, n >= 1; where it has more, those of its triangle (tall_qr.hpp).
// Allocates about 1 to 2 n^2 + 700 n doubles.
std::optional<int> bidiagonalize(const MatrixView& X, double* d, double* e);

namespace detail {

constexpr Index kMostRows = 8;  // of the narrow band: the widest vector of any unit
// The wide band: element (i, j) at j * kUpperStride + i, for i from j - 2 kWide to j + kWide.
constexpr Index kUpperStride = 3 * kWide + 8;

// A bulge on its way: reflectors from the right that act on the kWide columns from `column`.
struct UpperSweep {
  alignas(64) double v[kWide * kMostRows];
  alignas(64) double t[kMostRows * kMostRows];
  Index column;
};

struct BidiagonalKernels {
  Index lanes;
  // The first step of sweep s, and each later one.
  void (*begin)(double* band, Index s, UpperSweep& sweep);
  void (*advance)(double* band, UpperSweep& sweep);
  // The narrow band to bidiagonal form; work of (n + 4 lanes) * 4 lanes doubles.
  void (*finish)(const double* band, Index n, double* d, double* e, double* work, void (*check)());
};

BidiagonalKernels bidiagonal_baseline();
BidiagonalKernels bidiagonal_avx2();
BidiagonalKernels bidiagonal_avx512();

}  // namespace detail
}  // namespace pyspectra::linalg
