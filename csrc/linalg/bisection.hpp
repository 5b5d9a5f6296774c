// All eigenvalues of one symmetric tridiagonal matrix: Sturm counts separate them, then a root
// finder in each one's bracket.
//
// The number of eigenvalues below x is the number of sign changes in the sequence of leading
// principal minors p_i = (d_i - x) p_(i-1) - e_(i-1)^2 p_(i-2) (Givens 1954; Barth, Martin,
// Wilkinson, Numer. Math. 9, 1967). Its entries are divided by s_i > 0 with
// s_i / s_(i-2) = e_(i-1)^2, so that with f_i = s_(i-1) / s_i
//   q_i = (d_i f_i - x f_i) q_(i-1) - q_(i-2),   f_i f_(i-1) = 1 / e_(i-1)^2,
// two multiply-adds. The f_i are those of a matrix whose off-diagonals differ by a rounding or two.
// Eight sequences fit a vector, and no step divides, while QL (tridiagonal.hpp) is one chain of
// divisions for one matrix.
//
//   1. Counts on a grid of about n points, then within the intervals that hold several eigenvalues,
//      until each has an interval of its own, or one of 2^-51 of the norm with its neighbours.
//   2. The sequence's last entry is the characteristic polynomial, whose zero in the bracket
//      Chandrupatla's method finds (Adv. Eng. Softw. 28, 1997): inverse quadratic interpolation
//      where three points promise that it does well, else halving, until the bracket is 2^-51 of
//      the norm wide. 8 sequences an eigenvalue, where halving takes 45. The last entry's sign is
//      the parity of the count, which says on which side of a point the eigenvalue is, as long as
//      no other is within rounding of the point: inside the bracket, away from its ends. A root
//      that is found beside an end is searched for again by counts, which are sure there, too.
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

// Squares of off-diagonals are at least this, beside a norm of one.
constexpr double kLeastSquare = 0x1p-120;

// Widths, beside a norm of one, at which an interval is done.
constexpr double kDoneWidth = 0x1p-51;

// More than rounding moves a count, beside a norm of one.
constexpr double kUnsure = 0x1p-46;

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

// Rows up to `end` go without rescaling: their entries cannot leave the range of double, nor their
// signs a word of 64 bits. Before the first of them q_(i-2) is multiplied by `coupling`.
struct Stretch {
  Index end;
  double coupling;
};
constexpr Index kStretchRows = 62;

// One matrix of a norm in [1/2, 1): f_i and g_i = d_i f_i.
struct SturmMatrix {
  const double *f, *g;
  const Stretch* stretches;
  Index count;  // of stretches
};

struct BisectionKernels {
  Index width;  // points of one call of count
  // Completes points of which x is given.
  void (*count)(const SturmMatrix& matrix, SturmPoint* points);
  void (*refine)(const SturmMatrix& matrix, const Bracket* brackets, Index count, double* roots);
};

BisectionKernels bisection_baseline();
BisectionKernels bisection_avx2();
BisectionKernels bisection_avx512();

}  // namespace detail
}  // namespace pyspectra::linalg
