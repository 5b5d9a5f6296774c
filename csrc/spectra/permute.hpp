// A uniformly random permutation of the entries of a matrix, from a 64-bit key.
//
// Rao (1961) and Sandelius (1962): throw every entry into a bucket drawn at random, then shuffle
// each bucket (Fisher-Yates). The first pass reads and writes in order, the second stays in cache;
// a plain Fisher-Yates shuffle of a large matrix misses the cache at every entry.
//
// Random numbers: Philox (core/philox.inl.hpp), each computed from its element and the key alone.
// The result depends on the key and the shape only: not on the element type, the strides or the
// number of threads. So a permuted array of indices tells where the entries came from. A bucket may
// hold up to 2^32 entries.
#pragma once

#include <cstdint>

#include "core/types.hpp"

namespace pyspectra::spectra {

// Writes rows x cols elements of the type of `in` to `out`, contiguous, which must not overlap
// `in`.
void permute(const MatrixView& in, std::uint64_t key, void* out);

namespace detail {

struct PermuteKernels {
  // Writes groups of kDrawGroup draws (core/philox.inl.hpp) of one step of a stream.
  void (*draw)(unsigned long long first, long groups, unsigned int step, unsigned int stream,
               unsigned long long key, unsigned short* out);
};

PermuteKernels permute_kernels_baseline();
PermuteKernels permute_kernels_avx2();
PermuteKernels permute_kernels_avx512();

}  // namespace detail
}  // namespace pyspectra::spectra
