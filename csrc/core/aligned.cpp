#include "core/aligned.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pyspectra {

void* aligned_memory(std::size_t bytes, AlignedFree& free) {
  free.alignment = bytes < kHugePage ? 64 : kHugePage;
  void* const memory = ::operator new(bytes, std::align_val_t{free.alignment});
#if defined(__linux__)
  // Whole pages alone: what shares the last one with this memory is not ours. Advice that the
  // system does not take costs nothing.
  if (bytes >= kHugePage) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  return memory;
}

}  // namespace pyspectra
