#include "core/parallel.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/fork.hpp"
#include "core/interrupt.hpp"

namespace pyspectra {
namespace {

thread_local bool inside_pool = false;
thread_local bool alone_here = false;

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Marks this thread as one of a pool's.
struct Inside {
  Inside() { inside_pool = true; }
  ~Inside() { inside_pool = false; }
};

// Workers wait a few microseconds awake, since kernels fork and join in quick succession, and are
// then parked, so that an idle pool costs a training loop nothing.
constexpr int kSpins = 2000;

class Pool {
 public:
  // Starts as many of the `wanted` workers as the system grants: fewer threads are slower, no more.
  explicit Pool(int wanted) : wanted_(wanted) {
    try {
      for (int t = 0; t < wanted; ++t) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
    }
  }

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  int wanted() const { return wanted_; }

  void run(Index count, const std::function<void(Index)>& body) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      body_ = &body;
      count_ = count;
      next_.store(0);
      error_ = nullptr;
      stop_body_.store(false);
      forks_ = fork_count();
      open_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    const Inside inside;
    const StoppedBy stopped(&stop_body_);
    drain();
    // A worker that has not arrived by now finds the job closed: the caller waits only for those
    // that are at work, never for one to wake up.
    {
      std::lock_guard<std::mutex> lock(mutex_);
      open_ = false;
    }
    for (int spin = 0; active_.load() != 0; ++spin) {
      if (spin < kSpins) {
        cpu_relax();
      } else {
        {
          std::unique_lock<std::mutex> lock(mutex_);
          if (done_.wait_for(lock, kPollInterval, [this] { return active_.load() == 0; })) break;
        }
        attempt(check_interrupt);
      }
    }
    // Not kept until the next loop: an exception of Python's holds the arrays of all frames that it
    // came through.
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  // Keeps the first exception and ends the loop early.
  template <typename F>
  void attempt(const F& f) {
    try {
      f();
      if (fork_count() != forks_) throw ForkedInside();
    } catch (...) {
      if (fork_count() != forks_) throw;  // in a child of the fork, the pool is not ours to touch
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!error_) error_ = std::current_exception();
      next_.store(count_);
      stop_body_.store(true);
    }
  }

  void drain() {
    for (Index i = next_.fetch_add(1); i < count_; i = next_.fetch_add(1))
      attempt([&] {
        check_interrupt();
        (*body_)(i);
      });
  }

  void work() {
    inside_pool = true;
    const StoppedBy stopped(&stop_body_);
    long seen = 0;
    while (true) {
      for (int spin = 0; spin < kSpins && generation_.load() == seen; ++spin) cpu_relax();
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load() != seen; });
        seen = generation_.load();
        if (stop_) return;
        if (!open_) continue;
        active_.fetch_add(1);
      }
      drain();
      if (active_.fetch_sub(1) == 1) {
        std::lock_guard<std::mutex> lock(mutex_);
        done_.notify_all();
      }
    }
  }

  const int wanted_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::atomic<long> generation_{0};
  std::atomic<int> active_{0};
  std::atomic<Index> next_{0};
  const std::function<void(Index)>* body_ = nullptr;
  Index count_ = 0;
  long forks_ = 0;
  std::exception_ptr error_;
  std::atomic<bool> stop_body_{false};  // seen by bodies under way
  bool open_ = false, stop_ = false;
};

constexpr int kMaxThreads = 4096;

int initial_threads() {
  const char* forced = std::getenv("PYSPECTRA_NUM_THREADS");
  if (forced != nullptr && *forced != '\0') {
    char* end = nullptr;
    const long n = std::strtol(forced, &end, 10);
    if (*end != '\0' || n < 1 || n > kMaxThreads)
      throw std::invalid_argument(
          std::string("PYSPECTRA_NUM_THREADS must be an integer from 1 to 4096, got '") + forced +
          "'");
    return static_cast<int>(n);
  }
#if defined(__linux__)
  cpu_set_t set;  // what this process may use, which in a container is less than the machine
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// The pool and the number of threads asked for. Deliberately never destroyed: joining threads from
// a static destructor at interpreter exit can deadlock.
struct Global {
  std::mutex busy;
  std::unique_ptr<Pool> pool;
  std::atomic<int> threads;

  explicit Global(int n) : threads(n) {}
};

Global*& global_slot() {
  static Global* slot = nullptr;
  return slot;
}

Global& global() {
  static std::once_flag once;
  std::call_once(once, [] {
    global_slot() = new Global(initial_threads());
    // Threads do not survive fork(): the child leaves the parent's pool alone and starts afresh.
    pthread_atfork(nullptr, nullptr, [] {
      global_slot() = new Global(global_slot()->threads.load());
      inside_pool = alone_here = false;
    });
  });
  return *global_slot();
}

}  // namespace

int num_threads() { return alone_here ? 1 : global().threads.load(); }

void set_alone(bool alone) { alone_here = alone; }
bool is_alone() { return alone_here; }

void set_num_threads(int n) {
  if (n < 1 || n > kMaxThreads)
    throw std::invalid_argument("number of threads must be from 1 to 4096");
  global().threads.store(n);
}

void parallel_for(Index count, const std::function<void(Index)>& body) {
  if (count <= 0) return;
  const auto serial = [&] {
    for (Index i = 0; i < count; ++i) {
      check_interrupt();
      body(i);
    }
  };
  Global& g = global();
  const int threads = num_threads();
  if (inside_pool || count == 1 || threads == 1) return serial();
  std::unique_lock<std::mutex> lock(g.busy, std::try_to_lock);
  if (!lock.owns_lock()) return serial();
  if (!g.pool || g.pool->wanted() != threads - 1) {
    g.pool.reset();
    g.pool = std::make_unique<Pool>(threads - 1);
  }
  g.pool->run(count, body);
}

}  // namespace pyspectra
