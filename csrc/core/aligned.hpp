// Arrays that begin at a cache line, and whose numbers are not set.
#pragma once

#include <memory>
#include <new>

#include "core/types.hpp"

namespace pyspectra {

struct AlignedFree {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t{64}); }
};
template <typename T>
using Buffer = std::unique_ptr<T[], AlignedFree>;

template <typename T>
Buffer<T> aligned_buffer(Index count) {
  return Buffer<T>(static_cast<T*>(
      ::operator new(static_cast<std::size_t>(count) * sizeof(T), std::align_val_t{64})));
}

}  // namespace pyspectra
