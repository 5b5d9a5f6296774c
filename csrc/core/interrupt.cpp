#include "core/interrupt.hpp"

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "core/fork.hpp"

namespace pyspectra {
namespace {

using Clock = std::chrono::steady_clock;

// Thrown in a worker whose loop was stopped. The loop's caller throws what stopped it.
struct Interrupted : std::exception {
  const char* what() const noexcept override { return "the call was interrupted"; }
};

struct State {
  Poll poll = nullptr;
  const std::atomic<bool>* stop = nullptr;
  Clock::time_point next;
};
thread_local State state;

}  // namespace

Interruptible::Interruptible(Poll poll)
    : poll_(std::exchange(state.poll, poll)),
      stop_(std::exchange(state.stop, nullptr)),
      next_(state.next) {
  if (poll != nullptr) state.next = Clock::now() + kPollInterval;
}

Interruptible::~Interruptible() { state = {poll_, stop_, next_}; }

void check_interrupt() {
  if (state.stop != nullptr && state.stop->load(std::memory_order_relaxed)) throw Interrupted();
  if (state.poll == nullptr || Clock::now() < state.next) return;
  const long forks = fork_count();
  {
    const Poll poll = state.poll;
    const Interruptible nobody(nullptr);  // a signal handler's own calls are not of this one
    poll();
  }
  // Nobody is left who would finish what a body of parallel_for may wait for.
  if (state.stop != nullptr && fork_count() != forks) throw ForkedInside();
  state.next = Clock::now() + kPollInterval;
}

StoppedBy::StoppedBy(const std::atomic<bool>* stop) : stop_(std::exchange(state.stop, stop)) {}

StoppedBy::~StoppedBy() { state.stop = stop_; }

void run_aside(std::function<void()> work) {
  if (state.poll == nullptr && state.stop == nullptr) return work();
  struct Shared {
    std::function<void()> work;
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
  };
  const auto shared = std::make_shared<Shared>();
  shared->work = std::move(work);
  try {
    std::thread([shared] {
      shared->work();
      const std::lock_guard<std::mutex> lock(shared->mutex);
      shared->done = true;
      shared->changed.notify_all();
    }).detach();
  } catch (const std::system_error&) {  // the system grants no thread
    return shared->work();
  }
  const long forks = fork_count();
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(shared->mutex);
      if (shared->changed.wait_for(lock, kPollInterval, [&] { return shared->done; })) return;
    }
    check_interrupt();
    if (fork_count() != forks) throw ForkedInside();
  }
}

}  // namespace pyspectra
