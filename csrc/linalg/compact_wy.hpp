// The triangle T of a product of Householder reflectors, I - V T V^T (Schreiber and Van Loan, SIAM
// J. Sci. Stat. Comput. 10, 1989): column k is tau_k (-T V^T v_k, 1).
#pragma once

#include <algorithm>

#include "linalg/tiles.hpp"

namespace pyspectra::linalg::detail {

// T (kWide x kWide, row-major, upper) from G = V^T V and the scales of the reflectors; a scale of
// zero stands for none.
template <typename Real>
void compact_wy(const Real* G, const Real* tau, Real* T) {
  std::fill(T, T + kTileSize, Real{0});
  for (Index k = 0; k < kWide; ++k) {
    T[k * kWide + k] = tau[k];
    for (Index i = 0; i < k; ++i) {
      Real sum = 0;
      for (Index q = i; q < k; ++q) sum += T[i * kWide + q] * G[q * kWide + k];
      T[i * kWide + k] = -tau[k] * sum;
    }
  }
}

}  // namespace pyspectra::linalg::detail
