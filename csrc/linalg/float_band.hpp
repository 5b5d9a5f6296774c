// Eigenvalues of G = W^T W by a reduction in float32, and the error that was made, measured.
//
// The first stage of wide_band.hpp, which does nearly all of the work, runs in float32; the wide
// band is then taken on in float64. Its reflectors stay, and as they are stored they define an
// orthogonal Q exactly: I - V T V^T with T^-1 = upper(V^T V) + diag(V^T V) / 2 is orthogonal for
// any V. So the eigenvalues are, but for roundings in float64, those of Q B Q^T with the band B,
// and by Weyl's theorem each of them is within |E| = |G - Q B Q^T| of G's. Nothing need be assumed
// about how G was multiplied, rounded or reduced: E x is taken in float64 from W itself.
//
// |E| is bounded by powers of E on Gaussian vectors x_1, ..., x_k: the part of x_j along E's
// largest eigenvector is standard normal, so one of them is at least c = kSmallest in size but for
// a probability of erf(c / sqrt 2)^k < 1e-8, and then |E| <= (max_j |E^p x_j| / c)^(1/p) for every
// p (Dixon, SIAM J. Numer. Anal. 20, 1983). With 8 vectors and three powers that is about five
// times the norm of an E that looks like noise.
#pragma once

#include "core/types.hpp"
#include "linalg/wide_band.hpp"

namespace pyspectra::linalg {

constexpr Index kProbes = 8, kPowers = 3;
// erf(0.125 / sqrt 2)^8 = 0.0995^8 = 9.6e-9.
constexpr double kSmallest = 0.125;

// evals: the M eigenvalues of W^T W (W W^T if W has more columns), ascending. `probes`: M x kProbes
// standard normal numbers, row-major. Returns `degenerate` where float32 cannot hold what W^T W
// makes of it, or W is not finite: then float64 has to serve. `bound`: of every eigenvalue's error,
// its measured part. M >= 2. The same bits for any number of threads, on one instruction set.
Status fast_eigvals(const MatrixView& W, const double* probes, double* evals, double* bound);

namespace detail {

constexpr Index kGroup = 8;  // probes of one kernel call, row-major rows of them

struct FloatBandKernels {
  // s (kWide x kGroup) += V^T y for a tile V of floats and kWide rows of y.
  void (*dots)(const float* tile, const double* y, double* s);
  // y += V s.
  void (*add)(const float* tile, const double* s, double* y);
};

FloatBandKernels float_band_baseline();
FloatBandKernels float_band_avx2();
FloatBandKernels float_band_avx512();

}  // namespace detail
}  // namespace pyspectra::linalg
