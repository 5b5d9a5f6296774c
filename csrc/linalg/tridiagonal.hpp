// Eigenvalues of many symmetric tridiagonal matrices at once, one matrix a vector lane.
//
// The square-root-free QL iteration of Pal, Walker and Kahan (Parlett, The Symmetric Eigenvalue
// Problem, 8.15; the algorithm of LAPACK's xSTERF). Its recurrence is a chain of divisions, so one
// matrix leaves most of a processor idle; a lane each for up to 2 kLanes matrices fills it. Lanes
// advance on their own: each has its own window [l, m], its own shifts and deflations, and masks
// keep a lane still where another works. A lane's result therefore does not depend on what shares
// its group.
//
// Absolute error of a few ulps of the norm, as xSTERF. About 1.7 sweeps of length <= n an
// eigenvalue.
#pragma once

#include <span>
#include <vector>

#include "core/types.hpp"

namespace pyspectra::linalg {

struct Tridiagonal {
  double* d;        // n diagonal entries; on return the eigenvalues, ascending
  const double* e;  // n - 1 off-diagonal entries
  Index n;
};

// Status::no_convergence for a matrix that took more than 30 n sweeps (its d is then as it was).
// Entries must be finite.
std::vector<Status> tridiagonal_eigvals(std::span<const Tridiagonal> matrices);

namespace detail {

// With `groups` (1 or max_groups) vectors of `lanes` doubles side by side, `d` and `e2` hold entry
// i of matrix k at [i * groups * lanes + k]; e2 is the square of the off-diagonal, zero in a
// matrix's last entry. `rows` bounds every n[k]; d and e2 have one row more. failed[k]: k did not
// converge. `check` is check_interrupt, called about once a millisecond.
struct TridiagonalKernels {
  Index lanes, max_groups;
  void (*ql)(Index groups, double* d, double* e2, const Index* n, Index rows, bool* failed,
             void (*check)());
};

TridiagonalKernels tridiagonal_baseline();
TridiagonalKernels tridiagonal_avx2();
TridiagonalKernels tridiagonal_avx512();

}  // namespace detail
}  // namespace pyspectra::linalg
