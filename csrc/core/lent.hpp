// Buffers that a thread keeps from one task to the next.
//
// A plain thread_local would be shared with whoever interrupts the task: a signal handler that
// check_interrupt() lets run may call the same kernel, in the same thread.
#pragma once

#include <utility>

namespace pyspectra {

// The thread's T, taken from it while this lives: who asks meanwhile gets a new one. Given back
// afterwards, after T::trim() where T has one.
template <typename T>
class Lent {
 public:
  Lent() : value_(std::move(kept())) {}
  ~Lent() {
    if constexpr (requires(T& value) { value.trim(); }) value_.trim();
    kept() = std::move(value_);
  }
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;

  T& operator*() { return value_; }

 private:
  static T& kept() {
    thread_local T value;
    return value;
  }

  T value_;
};

}  // namespace pyspectra
