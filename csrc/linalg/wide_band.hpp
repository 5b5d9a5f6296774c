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
//      of kWide; sweeps follow each other two blocks apart. 6 kWide n^2 flops.
//   3. narrow to tridiagonal: band_to_tridiagonal.inl.hpp. In both, groups of sweeps follow each
//      other on threads (following.hpp).
//
// While a tile is computed, the next one comes into the cache; while a thread factors a panel,
// others update tiles that its product reads first.
//
// On two cores of a Xeon with AVX-512 (dgemm 150 to 160 GF/s), eigenvalues in seconds: n = 1024
// 0.028, 2048 0.133, 4096 1.13 in a slow spell (benchmarks/eigenvalues.py). The product with a
// panel and the update are 1/2, 2/3, 3/4 of the first three, the second and the third stage 1/4,
// 1/6, 1/11.
//
// In float32 the first stage takes half of the time and of the memory; what it makes of a matrix is
// then kept, so that its error can be measured (float_band.hpp).
//
// Which thread does what changes no bit: each tile and each sum has one task that computes it in
// one order.
#pragma once

#include <optional>
#include <vector>

#include "core/aligned.hpp"
#include "core/types.hpp"
#include "linalg/following.hpp"
#include "linalg/symmetric_view.hpp"
#include "linalg/tiles.hpp"

namespace pyspectra::linalg {

// The tridiagonal form d (n) and e (n - 1) of 2^-x A for the x that is returned, which leaves no
// entry near the ends of the range; none where an entry is not finite. n >= 2. By all threads;
// allocates about n^2 / 2 + 900 n doubles itself, and above n = 10000 up to n^2 / 16 more.
std::optional<int> tridiagonalize_large(const SymmetricView& a, double* d, double* e);

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
  // tiles.product, and meanwhile the tile `next` comes into the cache.
  void (*product_ahead)(Real* out, const Factor<Real>* factors, int count, const Real* next);
  void (*negated_transpose)(const Real* in, Real* out);
  // A tile from kWide columns of as many doubles, times a factor.
  void (*take_columns)(const double* in, Index stride, double by, Real* out);
  // band: column-major, element (i, j) at j * kBandStride + i. The first step of sweep s, and each
  // later one.
  void (*begin)(Real* band, Index s, WideSweep<Real>& sweep);
  void (*advance)(Real* band, WideSweep<Real>& sweep);
  // The narrow band to tridiagonal form, in work of (n + 3 * lanes) * 2 * lanes numbers: the
  // sweeps [first, last), a group of `sweeps` of them or more, follow the group before them by the
  // columns that it has done.
  Index sweeps;
  void (*take)(const Real* band, Index n, Real* work);
  void (*chase)(Real* work, Index n, Index first, Index last, const Following& following,
                void (*check)());
  void (*read)(Real* work, Index n, double* d, double* e);
};

// What the first stage leaves of a matrix A: with P_p = I - V_p T_p V_p^T and Q = P_0 P_1 ...,
// Q^T (scale A) Q is the wide band.
struct FloatStage {
  Index n = 0, blocks = 0;
  double scale = 1.0;      // a power of two
  Buffer<float> tiles;     // V_p in the tiles of column p below the diagonal, each row-major
  std::vector<float> tau;  // 2 / |v|^2 of each reflector as it was used; 0: none was needed
  Buffer<double> band;     // element (i, j) at j * kBandStride<double> + i
  const float* tile(Index I, Index J) const {
    return tiles.get() + (blocks * J - J * (J - 1) / 2 + I - J) * kTileSize;
  }
};
FloatStage to_wide_band_float(const double* a, Index n, Index lda);
// The second and the third stage, of a wide band of doubles, which they use up.
void wide_band_to_tridiagonal(double* band, Index n, double* d, double* e);

WideBandKernels<double> wide_band_baseline();
WideBandKernels<double> wide_band_avx2();
WideBandKernels<double> wide_band_avx512();

WideBandKernels<float> wide_band_float_baseline();
WideBandKernels<float> wide_band_float_avx2();
WideBandKernels<float> wide_band_float_avx512();

}  // namespace detail
}  // namespace pyspectra::linalg
