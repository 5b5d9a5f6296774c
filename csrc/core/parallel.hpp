// The thread pool. An own pool of parked std::threads rather than OpenMP: torch's wheel carries a
// libgomp of its own, and two OpenMP runtimes spin against each other inside a training loop
// (figures in csrc/README.md, "Decisions").
#pragma once

#include <functional>

#include "core/types.hpp"

namespace pyspectra {

int num_threads();            // that a kernel called in this thread may use
void set_num_threads(int n);  // n >= 1

// Whether kernels that this thread calls from now on run in it alone: for a caller with threads of
// its own, each of which calls kernels.
void set_alone(bool alone);
bool is_alone();

// Calls body(i) once for every i in [0, count), from up to num_threads() threads, the caller's
// among them. They begin in ascending order and end in any: a body may wait for one of a smaller i,
// if it calls check_interrupt() meanwhile. A nested call, or a call while another thread holds the
// pool, runs serially in its caller: never a deadlock, never more threads than asked for. The first
// exception thrown by a body is rethrown here after all bodies have stopped. An interrupt
// (interrupt.hpp) ends the loop early, also between two steps of a body that calls
// check_interrupt().
void parallel_for(Index count, const std::function<void(Index)>& body);

}  // namespace pyspectra
