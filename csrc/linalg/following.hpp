// Groups of sweeps that follow each other down a band, each on a thread of its own.
//
// A group tells how far its last sweep is, and waits until the group before is far enough. Groups
// are the tasks of one parallel_for, which begins them in order: a group waits for nothing but one
// that was begun before it, whatever the number of threads. Included by units of all instruction
// sets: nothing in it has external linkage.
#pragma once

#include "core/types.hpp"

namespace pyspectra::linalg::detail {

// How far a group is, in a unit of its caller's: it only grows. A cache line each.
struct alignas(64) Progress {
  Index done = 0;
};
constexpr Index kAllDone = Index{1} << 62;

// `before` is null for the first group. `idle` is called while a group waits, and may throw.
struct Following {
  const Progress* before;
  Progress* own;
  void (*idle)();
};

// Waits until the group before has done `wanted`; how far it is then.
static inline Index await(const Following& f, Index wanted) {
  constexpr int kSpins = 256;
  if (f.before == nullptr) return kAllDone;
  for (int spin = 1;; ++spin) {
    const Index done = __atomic_load_n(&f.before->done, __ATOMIC_ACQUIRE);
    if (done >= wanted) return done;
    if (spin % kSpins == 0) f.idle();
  }
}

static inline void publish(const Following& f, Index done) {
  __atomic_store_n(&f.own->done, done, __ATOMIC_RELEASE);
}

}  // namespace pyspectra::linalg::detail
