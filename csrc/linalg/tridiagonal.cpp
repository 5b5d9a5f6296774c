#include "linalg/tridiagonal.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"

namespace pyspectra::linalg {
namespace {

// Scaled by a power of two to a norm in [1/2, 1): squares of off-diagonals then stay in range.
int exponent_of(const Tridiagonal& t) {
  double norm = 0.0;
  for (Index i = 0; i < t.n; ++i) norm = std::max(norm, std::abs(t.d[i]));
  for (Index i = 0; i + 1 < t.n; ++i) norm = std::max(norm, std::abs(t.e[i]));
  int exponent = 0;
  std::frexp(norm, &exponent);
  return exponent;
}

void solve_group(std::span<const Tridiagonal> all, std::span<const Index> group,
                 const detail::TridiagonalKernels& kernels, std::vector<Status>& status) {
  const Index size = static_cast<Index>(group.size());
  const Index groups = size <= kernels.lanes ? 1 : kernels.max_groups;
  const Index lanes = kernels.lanes * groups;
  Index rows = 0;
  for (Index k : group) rows = std::max(rows, all[k].n);
  // One row more than the longest: the deflation test looks one row ahead.
  std::vector<double> d((rows + 1) * lanes, 0.0), e2((rows + 1) * lanes, 0.0);
  std::vector<Index> n(lanes, 0);
  std::vector<int> exponent(lanes, 0);
  const std::unique_ptr<bool[]> failed(new bool[lanes]());
  for (Index lane = 0; lane < size; ++lane) {
    const Tridiagonal& t = all[group[lane]];
    n[lane] = t.n;
    if (t.n == 0) continue;
    exponent[lane] = exponent_of(t);
    // QL finds the eigenvalues at the top first and wants the small end of a graded matrix there.
    const bool reverse = std::abs(t.d[t.n - 1]) < std::abs(t.d[0]);
    for (Index i = 0; i < t.n; ++i)
      d[i * lanes + lane] = std::ldexp(t.d[reverse ? t.n - 1 - i : i], -exponent[lane]);
    for (Index i = 0; i + 1 < t.n; ++i) {
      const double e = std::ldexp(t.e[reverse ? t.n - 2 - i : i], -exponent[lane]);
      e2[i * lanes + lane] = e * e;
    }
  }
  kernels.ql(groups, d.data(), e2.data(), n.data(), rows, failed.get(), check_interrupt);
  for (Index lane = 0; lane < size; ++lane) {
    const Tridiagonal& t = all[group[lane]];
    if (failed[lane]) {
      status[group[lane]] = Status::no_convergence;
      continue;
    }
    for (Index i = 0; i < t.n; ++i) t.d[i] = std::ldexp(d[i * lanes + lane], exponent[lane]);
    std::sort(t.d, t.d + t.n);
  }
}

}  // namespace

std::vector<Status> tridiagonal_eigvals(std::span<const Tridiagonal> matrices) {
  const detail::TridiagonalKernels kernels = PS_SELECT_ISA(detail::tridiagonal);
  std::vector<Status> status(matrices.size(), Status::ok);
  // Neighbours in size share a group: lanes that end early would stand still.
  std::vector<Index> order(matrices.size());
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](Index a, Index b) { return matrices[a].n > matrices[b].n; });
  const Index count = static_cast<Index>(order.size());
  // As many full groups as there are, but at least one a thread.
  const Index share = (count + num_threads() - 1) / num_threads();
  const Index width = std::max(Index{1}, std::min(kernels.lanes * kernels.max_groups, share));
  parallel_for((count + width - 1) / width, [&](Index g) {
    const Index begin = g * width, size = std::min(width, count - begin);
    solve_group(matrices, std::span<const Index>(order).subspan(begin, size), kernels, status);
  });
  return status;
}

}  // namespace pyspectra::linalg
