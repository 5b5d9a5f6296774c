// What fork() means for a process whose other threads are at work.
//
// A child has the one thread that called fork(), and locks that the others held stay locked in it.
// Our pool starts afresh there (parallel.cpp). OpenBLAS joins its threads before a fork, but takes
// no notice of a call that is under way in another thread: the child then finds its table of
// threads in use and waits for ever. So a fork waits for the BLAS calls of our kernels to end, and
// they wait for it. Each takes milliseconds (lapack_steps.hpp).
#pragma once

#include <stdexcept>

namespace pyspectra {

// Once, before the first kernel: from then on forks are counted.
void count_forks();

// How many forks this process descends by, since the first count_forks().
long fork_count();

// Once, after BLAS was loaded: handlers that run before a fork run in reverse order of their
// registration, and this one must come before OpenBLAS's.
void watch_forks();

// No fork happens while one lives. Not to be nested, not to be held while anything is waited for
// that a thread which forks may hold, such as Python's interpreter lock.
class ForkHeldOff {
 public:
  ForkHeldOff();
  ~ForkHeldOff();
  ForkHeldOff(const ForkHeldOff&) = delete;
  ForkHeldOff& operator=(const ForkHeldOff&) = delete;
};

// Thrown in the child where a signal handler that a kernel let run has forked: the threads that
// had their part in the kernel are the parent's.
struct ForkedInside : std::runtime_error {
  ForkedInside() : std::runtime_error("the process forked inside a kernel, which ends here") {}
};

}  // namespace pyspectra
