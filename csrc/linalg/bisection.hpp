// All eigenvalues of one symmetric tridiagonal matrix by all threads: bisection with Sturm counts.
//
// The number of eigenvalues below x is the number of sign changes in the sequence of leading
// principal minors p_i = (d_i - x) p_(i-1) - e_(i-1)^2 p_(i-2), rescaled by powers of two on its
// way (Givens 1954; Barth, Martin, Wilkinson, Numer. Math. 9, 1967). Eight sequences fit a vector,
// and no step divides, while QL (tridiagonal.hpp) is one chain of divisions for one matrix.
// Intervals that hold eigenvalues are halved level by level, each once for all of its eigenvalues,
// until they are 2^-53 of the norm wide.
//
// The same bits for any number of threads: an interval's count depends on the matrix and x alone.
#pragma once

#include "core/types.hpp"

namespace pyspectra::linalg {

// d (n) is replaced by the eigenvalues, ascending; e (n - 1) stays. Finite entries. About 45 n^2
// steps of the sequence.
void bisect(double* d, const double* e, Index n);

namespace detail {

// Rows between two rescalings. Squares of off-diagonals are at least kLeastSquare, beside a norm of
// one, so that the sequence cannot leave the range of double between them.
constexpr Index kRescaled = 4;
constexpr double kLeastSquare = 0x1p-120;

struct BisectionKernels {
  Index width;  // points of one call
  // How many eigenvalues are below each point. e2[i] couples rows i and i + 1; e2[n - 1] and what
  // follows up to a multiple of kRescaled is there and unread.
  void (*count)(const double* d, const double* e2, Index n, const double* x, double* below);
};

BisectionKernels bisection_baseline();
BisectionKernels bisection_avx2();
BisectionKernels bisection_avx512();

}  // namespace detail
}  // namespace pyspectra::linalg
