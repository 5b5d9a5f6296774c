// Tridiagonal form of one large symmetric matrix by all threads, for its eigenvalues.
//
// As in tridiagonalize.hpp, with a stage between: full to a band of kWide columns, that to a band
// of as many columns as a vector has lanes, that to tridiagonal form.
//
//   1. full to wide band: Householder QR of a panel of kWide columns (in parts of one vector a
//   row),
//      V and T of its compact WY form, W = A V T - V (T^T V^T A V T) / 2, A -= V W^T + W V^T. The
//      matrix is held as strips of kWide columns, so that its tiles of kWide x kWide are operands
//      of a matrix product as they stand. Each entry is read and written once a panel, for 8 kWide
//      flops: the arithmetic units are the limit. 4/3 n^3 flops, and 4 kWide n^2 of small products.
//   2. wide to narrow: successive band reduction (Bischof, Lang, Sun, ACM TOMS 26, 2000). A sweep
//      takes one vector's width of columns to the narrow band and chases the bulge down in blocks
//      of kWide; sweeps follow each other two blocks apart, spread over threads. 6 kWide n^2 flops.
//   3. narrow to tridiagonal: band_to_tridiagonal.inl.hpp.
//
// On two cores of a Xeon with AVX-512 (dgemm 140 GF/s), seconds: n = 1024 0.022, 2048 0.12, 4096
// 0.87, of which the second stage takes 0.06 and the third, on one thread, 0.04.
//
// Which thread does what changes no bit: each tile and each sum has one task that computes it in
// one order.
#pragma once

#include "core/types.hpp"
#include "linalg/tiles.hpp"

namespace pyspectra::linalg {

// As `tridiagonalize`, with the help of the pool; n >= 2, the largest entry from 2^-900 to 2^900
// (or all zero). Allocates about 5/8 n^2 + 500 n doubles itself.
void tridiagonalize_large(const double* a, Index n, Index lda, double* d, double* e);

// The same in float32, from a rounded to it: twice as many numbers a vector, half of the memory.
void tridiagonalize_large_float(const double* a, Index n, Index lda, double* d, double* e);

namespace detail {

// The widest vector of any unit, in numbers.
template <typename Real>
constexpr Index kMostLanes = 64 / static_cast<Index>(sizeof(Real));
// Numbers from one column of the wide band to the next: two blocks of rows, and off a power of two.
template <typename Real>
constexpr Index kBandStride = 2 * kWide + kMostLanes<Real>;

// A bulge on its way down the wide band: its reflectors act on the rows and columns from `column`.
template <typename Real>
struct WideSweep {
  alignas(64) Real v[kWide * kMostLanes<Real>];
  alignas(64) Real t[kMostLanes<Real> * kMostLanes<Real>];
  Index column;
};

template <typename Real>
struct WideBandKernels {
  Index lanes;
  TileKernels<Real> tiles;
  // band: column-major, element (i, j) at j * kBandStride + i. The first step of sweep s, and each
  // later one.
  void (*begin)(Real* band, Index s, WideSweep<Real>& sweep);
  void (*advance)(Real* band, WideSweep<Real>& sweep);
  // The narrow band to tridiagonal form; work of (n + 3 * lanes) * 2 * lanes numbers.
  void (*finish)(const Real* band, Index n, double* d, double* e, Real* work, void (*check)());
};

WideBandKernels<double> wide_band_baseline();
WideBandKernels<double> wide_band_avx2();
WideBandKernels<double> wide_band_avx512();

WideBandKernels<float> wide_band_float_baseline();
WideBandKernels<float> wide_band_float_avx2();
WideBandKernels<float> wide_band_float_avx512();

}  // namespace detail
}  // namespace pyspectra::linalg
