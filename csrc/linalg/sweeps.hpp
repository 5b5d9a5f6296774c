// Successive band reduction over threads (Bischof, Lang, Sun, ACM TOMS 26, 2000): which sweep does
// which block when.
#pragma once

#include <algorithm>
#include <thread>
#include <vector>

#include "core/interrupt.hpp"
#include "core/parallel.hpp"
#include "linalg/following.hpp"
#include "linalg/tiles.hpp"

namespace pyspectra::linalg::detail {

// body(first, last, following) for groups of `each` of `total` sweeps, over all threads.
template <typename Body>
void in_groups(Index total, Index each, Body body) {
  const Index groups = (total + each - 1) / each;
  std::vector<Progress> progress(static_cast<std::size_t>(groups));
  const auto idle = [] {
    check_interrupt();
    std::this_thread::yield();
  };
  parallel_for(groups, [&](Index g) {
    const Following following{g > 0 ? &progress[static_cast<std::size_t>(g - 1)] : nullptr,
                              &progress[static_cast<std::size_t>(g)], idle};
    body(g * each, std::min(total, (g + 1) * each), following);
  });
}

// Sweeps over a band of order n, each of which takes `lanes` columns and chases their bulge to its
// end: begin(s, sweep), then advance(sweep) until sweep.column is n or more. Sweeps two blocks
// apart touch nothing in common, so one does its step t once the sweep before has done its step
// t + 1. A thread takes several of them down together: what they work on stays in its cache.
template <typename Sweep, typename Begin, typename Advance>
void in_waves(Index n, Index lanes, Begin begin, Advance advance) {
  // A short band has no room for long groups beside each other.
  const Index together = std::clamp<Index>(n / 320, 2, 8);
  const Index total = (n - 1) / lanes;  // sweeps: columns [0, total * lanes) have rows below
  in_groups(total, together, [&](Index first, Index last, const Following& following) {
    std::vector<Sweep> sweeps(static_cast<std::size_t>(last - first));
    Index open = 0;  // steps that the sweep before has done
    for (Index time = 0, oldest = first; oldest < last; ++time) {
      for (Index s = oldest; s < std::min(last, first + time / 2 + 1); ++s) {
        check_interrupt();
        Sweep& sweep = sweeps[static_cast<std::size_t>(s - first)];
        const Index step = time - 2 * (s - first);
        if (s == first && open < step + 2) open = await(following, step + 2);
        if (step == 0)
          begin(s, sweep);
        else if (sweep.column < n)
          advance(sweep);
        if (s + 1 == last) publish(following, sweep.column < n ? step + 1 : kAllDone);
      }
      while (oldest < last && time >= 2 * (oldest - first) &&
             sweeps[static_cast<std::size_t>(oldest - first)].column >= n)
        ++oldest;
    }
  });
}

}  // namespace pyspectra::linalg::detail
