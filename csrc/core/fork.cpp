#include "core/fork.hpp"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

namespace pyspectra {
namespace {

std::atomic<int> inside{0};   // threads that hold forks off
std::atomic<int> forking{0};  // threads that are about to fork
std::atomic<long> forks{0};

void wait_a_moment() { std::this_thread::sleep_for(std::chrono::microseconds(50)); }

// Each side announces itself before it looks for the other, so at least one of them sees the other.
void before() {
  forking.fetch_add(1);
  while (inside.load() != 0) wait_a_moment();
}

void in_parent() { forking.fetch_sub(1); }

void in_child() {
  inside.store(0);
  forking.store(0);
}

void one_more() { forks.fetch_add(1); }

}  // namespace

void count_forks() {
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(nullptr, nullptr, one_more); });
}

long fork_count() { return forks.load(std::memory_order_relaxed); }

void watch_forks() {
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(before, in_parent, in_child); });
}

ForkHeldOff::ForkHeldOff() {
  for (inside.fetch_add(1); forking.load() != 0; inside.fetch_add(1)) {
    inside.fetch_sub(1);
    while (forking.load() != 0) wait_a_moment();
  }
}

ForkHeldOff::~ForkHeldOff() { inside.fetch_sub(1); }

}  // namespace pyspectra
