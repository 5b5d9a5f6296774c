// How a long call ends early, at Ctrl-C above all.
//
// Whoever makes a call says how to find out whether it shall go on (`Interruptible`). Kernels call
// check_interrupt() where they are: in the thread that made the call it asks, at most every
// kPollInterval; in a worker of parallel_for it looks whether that loop has been stopped. Either
// way it leaves by an exception, so kernels need no more than to own their memory.
//
// Kernels that write in place (optim/) do not ask: half a step would be worse than a late answer.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>

namespace pyspectra {

// A quarter of the tenth of a second that a person may have to wait, as work between two checks,
// other processes and the way out need their time too.
constexpr std::chrono::milliseconds kPollInterval{25};

// Throws where the call shall end.
using Poll = void (*)();

// While it lives, the calls of this thread ask `poll` (null: nobody).
class Interruptible {
 public:
  explicit Interruptible(Poll poll);
  ~Interruptible();
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

 private:
  Poll poll_;
  const std::atomic<bool>* stop_;
  std::chrono::steady_clock::time_point next_;
};

// A nanosecond or two where nobody is to be asked, the time of a look at the clock otherwise.
void check_interrupt();

// While it lives, check_interrupt() in this thread throws once `stop` is set.
class StoppedBy {
 public:
  explicit StoppedBy(const std::atomic<bool>* stop);
  ~StoppedBy();
  StoppedBy(const StoppedBy&) = delete;
  StoppedBy& operator=(const StoppedBy&) = delete;

 private:
  const std::atomic<bool>* stop_;
};

// Calls `work` and waits for it with an eye on interrupts: for a library's routine that takes long
// and cannot be asked to stop. It runs in a thread of its own, which an interrupt leaves behind to
// come to its end alone. So it must own (shared pointers, copies) all that it touches, must not
// throw, and must not call what takes locks. Where nobody is to be asked it runs here.
void run_aside(std::function<void()> work);

}  // namespace pyspectra
