// Successive band reduction over threads (Bischof, Lang, Sun, ACM TOMS 26, 2000): which sweep does
// which block when.
#pragma once

#include <algorithm>
#include <vector>

#include "core/interrupt.hpp"
#include "core/parallel.hpp"
#include "linalg/tiles.hpp"

namespace pyspectra::linalg::detail {

// Sweeps over a band of order n, each of which takes `lanes` columns and chases their bulge to its
// end: begin(s, sweep), then advance(sweep) until sweep.column is n or more. Two blocks apart they
// touch nothing in common, so sweep s begins at the time 2 s and does its block k at 2 s + k + 1.
template <typename Sweep, typename Begin, typename Advance>
void in_waves(Index n, Index lanes, Begin begin, Advance advance) {
  const Index total = (n - 1) / lanes;  // sweeps: columns [0, total * lanes) have rows below
  std::vector<Sweep> sweeps(static_cast<std::size_t>(n / (2 * kWide) + 2));
  const Index ring = static_cast<Index>(sweeps.size());
  Index oldest = 0;
  for (Index time = 0; oldest < total; ++time) {
    const Index newest = std::min(total - 1, time / 2);
    parallel_for(newest - oldest + 1, [&](Index k) {
      check_interrupt();
      const Index s = oldest + k;
      Sweep& sweep = sweeps[static_cast<std::size_t>(s % ring)];
      if (time == 2 * s)
        begin(s, sweep);
      else if (sweep.column < n)
        advance(sweep);
    });
    while (oldest <= newest && sweeps[static_cast<std::size_t>(oldest % ring)].column >= n)
      ++oldest;
  }
}

}  // namespace pyspectra::linalg::detail
