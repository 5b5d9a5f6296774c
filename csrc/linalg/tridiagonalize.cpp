#include "linalg/tridiagonalize.hpp"

#include <cstdint>

#include "core/error.hpp"
#include "core/interrupt.hpp"
#include "core/isa.hpp"

namespace pyspectra::linalg {
namespace {

// The widest band of any unit: the workspace must not depend on the instruction set in use.
constexpr Index kWidest = 8;
constexpr Index kAlignment = 64;

}  // namespace

Index tridiagonalize_work(Index n) {
  const Index order = (n + kWidest - 1) / kWidest * kWidest;
  const Index triangle = order * (order + kWidest) / 2;
  const Index panels = 4 * order * kWidest;
  const Index band = (order + 2 * kWidest) * 2 * kWidest;
  return triangle + panels + band + kAlignment / static_cast<Index>(sizeof(double));
}

void tridiagonalize(const double* a, Index n, Index lda, double* d, double* e, double* work) {
  PS_REQUIRE(n >= 0 && lda >= n, "tridiagonalize: the leading dimension is below the order");
  if (n == 0) return;
  if (n == 1) {
    d[0] = a[0];
    return;
  }
  const auto address = reinterpret_cast<std::uintptr_t>(work);
  const auto past = address % kAlignment;
  double* const aligned = work + (kAlignment - past) % kAlignment / sizeof(double);
  PS_SELECT_ISA(detail::tridiagonalize)(a, n, lda, d, e, aligned, check_interrupt);
}

}  // namespace pyspectra::linalg
