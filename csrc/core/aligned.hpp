// Arrays that begin at a cache line, and whose numbers are not set. Large ones are in the pages
// that the system's address translation likes best, where it has such pages.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "core/types.hpp"

namespace pyspectra {

struct AlignedFree {
  std::size_t alignment = 64;
  void operator()(void* p) const { ::operator delete(p, std::align_val_t{alignment}); }
};
template <typename T>
using Buffer = std::unique_ptr<T[], AlignedFree>;

// Amounts of kHugePage and more are aligned to it, and the system is asked for huge pages: one
// fault instead of 512, and fewer misses of address translation.
constexpr std::size_t kHugePage = std::size_t{1} << 21;
void* aligned_memory(std::size_t bytes, AlignedFree& free);

template <typename T>
Buffer<T> aligned_buffer(Index count) {
  AlignedFree free;
  void* const memory = aligned_memory(static_cast<std::size_t>(count) * sizeof(T), free);
  return Buffer<T>(static_cast<T*>(memory), free);
}

}  // namespace pyspectra
