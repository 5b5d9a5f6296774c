// The scheduler of cuda_runtime.h, and the bindings of the device functions on top of it.
#include <cuda_runtime.h>
#include <ucontext.h>

#include <limits>
#include <stdexcept>
#include <vector>

#include "bindings/bind.hpp"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

namespace {

enum class State { ready, at_block, at_warp, done };

struct Thread {
  ucontext_t context;
  State state;
};

constexpr std::size_t kStack = 64 * 1024;
std::vector<Thread> threads;
std::vector<unsigned char> stacks;
std::vector<double> shared;
std::vector<std::uint64_t> slots;
ucontext_t scheduler;
std::size_t current = 0;
bool descending = false;
Body running = nullptr;
void* running_arguments = nullptr;

void enter() {
  running(running_arguments);
  threads[current].state = State::done;
  swapcontext(&threads[current].context, &scheduler);
}

void stop(State state) {
  threads[current].state = state;
  swapcontext(&threads[current].context, &scheduler);
}

// Lets those go on that stand in [begin, end) where everybody who is not done has arrived.
bool release(std::size_t begin, std::size_t end, State where) {
  bool any = false;
  for (std::size_t k = begin; k < end; ++k) {
    if (threads[k].state != where && threads[k].state != State::done) return false;
    any |= threads[k].state == where;
  }
  for (std::size_t k = begin; k < end; ++k)
    if (threads[k].state == where) threads[k].state = State::ready;
  return any;
}

void run_block() {
  const std::size_t n = blockDim.x;
  for (std::size_t k = 0; k < n; ++k) {
    Thread& t = threads[k];
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = stacks.data() + k * kStack;
    t.context.uc_stack.ss_size = kStack;
    t.context.uc_link = nullptr;
    makecontext(&t.context, enter, 0);
    t.state = State::ready;
  }
  for (;;) {
    for (std::size_t q = 0; q < n; ++q) {
      const std::size_t k = descending ? n - 1 - q : q;
      if (threads[k].state != State::ready) continue;
      current = k;
      threadIdx = dim3(static_cast<unsigned int>(k));
      swapcontext(&scheduler, &threads[k].context);
    }
    bool moved = release(0, n, State::at_block);
    for (std::size_t warp = 0; warp < n; warp += 32)
      moved |= release(warp, warp + 32 < n ? warp + 32 : n, State::at_warp);
    if (moved) continue;
    for (const Thread& t : threads)
      if (&t < threads.data() + n && t.state != State::done)
        throw std::runtime_error("a block waits at different barriers");
    return;
  }
}

}  // namespace

void wait_for_block() { stop(State::at_block); }
void wait_for_warp() { stop(State::at_warp); }
void* shared_memory() { return shared.data(); }
std::uint64_t* warp_slots() { return slots.data() + current / 32 * 32; }

void run_grid(dim3 grid, dim3 block, std::size_t bytes, Body body, void* arguments) {
  if (threads.size() < block.x) {
    threads.resize(block.x);
    stacks.resize(block.x * kStack);
    slots.resize(block.x + 32);
  }
  running = body;
  running_arguments = arguments;
  blockDim = block;
  gridDim = grid;
  for (unsigned int b = 0; b < grid.x; ++b) {
    shared.assign(bytes / sizeof(double) + 1, std::numeric_limits<double>::quiet_NaN());
    blockIdx = dim3(b);
    run_block();
  }
}

}  // namespace emulation

PYBIND11_MODULE(emulated, m) {
  using namespace pyspectra::bindings;
  py::module_ linalg = m.def_submodule("linalg");
  bind_linalg_device(linalg);
  py::module_ optim = m.def_submodule("optim");
  bind_optim_device(optim);
  py::module_ powerlaw = m.def_submodule("powerlaw");
  bind_powerlaw_device(powerlaw);
  m.def("set_descending", [](bool order) { emulation::descending = order; });
}
