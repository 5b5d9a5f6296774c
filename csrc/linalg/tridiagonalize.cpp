#include "linalg/tridiagonalize.hpp"

#include <cmath>
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

std::optional<int> tridiagonalize(const SymmetricView& a, double* d, double* e, double* work) {
  const Index n = a.n;
  PS_REQUIRE(n >= 0 && (n < 2 || (a.row_stride == 1 && a.col_stride >= n) ||
                        (a.col_stride == 1 && a.row_stride >= n)),
             "tridiagonalize: neither rows nor columns are contiguous");
  if (n == 0) return 0;
  if (n == 1) {
    d[0] = a.data[0];
    return std::isfinite(d[0]) ? std::optional<int>(0) : std::nullopt;
  }
  const auto address = reinterpret_cast<std::uintptr_t>(work);
  const auto past = address % kAlignment;
  double* const aligned = work + (kAlignment - past) % kAlignment / sizeof(double);
  int exponent = 0;
  const bool finite =
      PS_SELECT_ISA(detail::tridiagonalize)(a, d, e, aligned, exponent, check_interrupt);
  return finite ? std::optional<int>(exponent) : std::nullopt;
}

void tridiagonalize(const double* a, Index n, Index lda, double* d, double* e, double* work) {
  const auto exponent = tridiagonalize({a, n, 1, lda}, d, e, work);
  if (!exponent || *exponent == 0) return;
  for (Index j = 0; j < n; ++j) d[j] = std::ldexp(d[j], *exponent);
  for (Index j = 0; j + 1 < n; ++j) e[j] = std::ldexp(e[j], *exponent);
}

}  // namespace pyspectra::linalg
