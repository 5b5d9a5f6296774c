// All eigenvalues of one symmetric tridiagonal matrix: Sturm counts separate them, then a root
// finder in each one's bracket.
//
// The number of eigenvalues below x is the number of sign changes in the sequence of leading
// principal minors p_i = (d_i - x) p_(i-1) - e_(i-1)^2 p_(i-2), rescaled by powers of two on its
// way (Givens 1954; Barth, Martin, Wilkinson, Numer. Math. 9, 1967). Eight sequences fit a vector,
// and no step divides, while QL (tridiagonal.hpp) is one chain of divisions for one matrix.
//
//   1. Counts on a grid of about n points, then within the intervals that hold several eigenvalues,
//      until each has an interval of its own, or one of 2^-51 of the norm with its neighbours.
//   2. The sequence's last entry is the characteristic polynomial, whose zero in the bracket
//      Chandrupatla's method finds (Adv. Eng. Softw. 28, 1997): inverse quadratic interpolation
//      where three points promise that it does well, else halving. The counts go on to decide on
//      which side of a point the eigenvalue is, so that a bracket is one, whatever the values are,
//      until it is 2^-51 of the norm wide. 8 sequences an eigenvalue, where halving takes 45.
//
// With zeros on its diagonal the spectrum is symmetric, and only the upper half is searched: that
// is how singular values of a bidiagonal matrix come, whose entries are the off-diagonal then
// (Golub, Kahan, SIAM J. Numer. Anal. B 2, 1965).
//
// The same bits for any number of threads: what becomes of an interval depends on it and the matrix
// alone.
#pragma once

#include "core/types.hpp"

namespace pyspectra::linalg {

// d (n) is replaced by the eigenvalues, ascending; e (n - 1) stays. Finite entries. About 10 n^2
// steps of the sequence, by all threads where it is not called from within a parallel_for.
void bisect(double* d, const double* e, Index n);

namespace detail {

// Rows between two rescalings. Squares of off-diagonals are at least kLeastSquare, beside a norm of
// one, so that the sequence cannot leave the range of double between them.
constexpr Index kRescaled = 8;
constexpr double kLeastSquare = 0x1p-120;

// Widths, beside a norm of one, at which an interval is done.
constexpr double kDoneWidth = 0x1p-51;

// A point, the number of eigenvalues below it, and the characteristic polynomial,
// value * 2^exponent.
struct SturmPoint {
  double x, value;
  Index exponent, below;
};

// Eigenvalue number `low.below` is in it alone.
struct Bracket {
  SturmPoint low, high;
};

struct BisectionKernels {
  Index width;  // points of one call of count
  // Completes points of which x is given. e2[i] couples rows i and i + 1.
  void (*count)(const double* d, const double* e2, Index n, SturmPoint* points);
  void (*refine)(const double* d, const double* e2, Index n, const Bracket* brackets, Index count,
                 double* roots);
};

BisectionKernels bisection_baseline();
BisectionKernels bisection_avx2();
BisectionKernels bisection_avx512();

}  // namespace detail
}  // namespace pyspectra::linalg
