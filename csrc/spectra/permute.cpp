#include "spectra/permute.hpp"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "core/isa.hpp"
#include "core/parallel.hpp"

namespace pyspectra::spectra {
namespace {

#include "core/philox.inl.hpp"

using std::uint64_t;

// Elements a bucket holds on average: 128 KiB of float32 stay in a second-level cache.
constexpr Index kBucket = Index{1} << 15;
constexpr Index kMaxBuckets = 4096;
constexpr Index kMinChunk = Index{1} << 16;
constexpr Index kMaxChunks = 256;

// Words of a Philox counter: which step of the method draws, and for which bucket.
enum Stream : unsigned int { kScatter = 0, kShuffle = 1 };

constexpr Index kGroups = 32;  // of draws at a time, 8 KiB

using Draw = decltype(detail::PermuteKernels::draw);

// The buckets of elements first, first + 1, ..., of which `first` begins a group of draws. The
// number of buckets is a power of two of at most 2^16, so that 16 bits say which.
class Buckets {
 public:
  Buckets(Draw draw, uint64_t key, Index first, Index buckets)
      : draw_(draw),
        key_(key),
        group_(first / kDrawGroup),
        mask_(static_cast<unsigned int>(buckets) - 1) {}
  Index next() {
    if (at_ == kGroups * kDrawGroup) {
      draw_(static_cast<uint64_t>(group_), kGroups, 0, kScatter, key_, draws_);
      group_ += kGroups;
      at_ = 0;
    }
    return static_cast<Index>(draws_[at_++] & mask_);
  }

 private:
  Draw draw_;
  uint64_t key_;
  Index group_;
  unsigned int mask_;
  Index at_ = kGroups * kDrawGroup;
  unsigned short draws_[kGroups * kDrawGroup];
};

// Fisher and Yates. The index below i + 1 is the product of it and 32 random bits, over 2^32: no
// index is more or less likely than it should be by more than 2^-32.
template <typename T>
void shuffle(Draw draw, T* x, Index n, Index bucket, uint64_t key) {
  constexpr Index kWords = kGroups * kDrawGroup / 2;  // of 32 bits at a time
  unsigned short draws[kGroups * kDrawGroup];
  std::uint32_t words[kWords];
  Index drawn = -1;
  for (Index i = n - 1; i > 0; --i) {
    if (i / kWords != drawn) {
      drawn = i / kWords;
      // Those below i alone are needed.
      const Index groups = (i % kWords) * 2 / kDrawGroup + 1;
      draw(static_cast<uint64_t>(drawn * kGroups), groups, static_cast<unsigned int>(bucket),
           kShuffle, key, draws);
      std::memcpy(words, draws, static_cast<std::size_t>(groups * kDrawGroup) * sizeof draws[0]);
    }
    const uint64_t product =
        static_cast<uint64_t>(words[i % kWords]) * static_cast<uint64_t>(i + 1);
    std::swap(x[i], x[product >> 32]);
  }
}

// Elements [first, last) of the matrix in row-major order, one after the other.
template <typename T, typename F>
void each(const MatrixView& in, Index first, Index last, F&& take) {
  const T* data = static_cast<const T*>(in.data);
  Index row = first / in.cols, col = first % in.cols;
  for (Index e = first; e < last; ++row, col = 0) {
    const T* x = data + row * in.row_stride;
    for (; col < in.cols && e < last; ++col, ++e) take(x[col * in.col_stride]);
  }
}

template <typename T>
void permute_as(const MatrixView& in, uint64_t key, T* out) {
  const Draw draw = PS_SELECT_ISA(detail::permute_kernels).draw;
  const Index n = in.rows * in.cols;
  Index buckets = 1;
  while (buckets < kMaxBuckets && buckets * kBucket < n) buckets *= 2;
  // Whole groups of draws.
  const Index share = std::max(kMinChunk, (n + kMaxChunks - 1) / kMaxChunks);
  const Index chunk = (share + kDrawGroup - 1) / kDrawGroup * kDrawGroup;
  const Index chunks = (n + chunk - 1) / chunk;

  std::vector<Index> start(chunks * buckets, 0);  // counts, then where each chunk's share begins
  parallel_for(chunks, [&](Index c) {
    Index* count = start.data() + c * buckets;
    Buckets bucket(draw, key, c * chunk, buckets);
    for (Index e = c * chunk; e < std::min(n, (c + 1) * chunk); ++e) ++count[bucket.next()];
  });
  std::vector<Index> edge(buckets + 1, 0);
  for (Index b = 0, sum = 0; b < buckets; ++b) {
    edge[b] = sum;
    for (Index c = 0; c < chunks; ++c) sum += std::exchange(start[c * buckets + b], sum);
  }
  edge[buckets] = n;
  parallel_for(chunks, [&](Index c) {
    Index* next = start.data() + c * buckets;
    Buckets bucket(draw, key, c * chunk, buckets);
    each<T>(in, c * chunk, std::min(n, (c + 1) * chunk),
            [&](T value) { out[next[bucket.next()]++] = value; });
  });
  parallel_for(buckets,
               [&](Index b) { shuffle(draw, out + edge[b], edge[b + 1] - edge[b], b, key); });
}

}  // namespace

void permute(const MatrixView& in, uint64_t key, void* out) {
  if (in.rows == 0 || in.cols == 0) return;
  switch (item_size(in.dtype)) {
    case 2:
      return permute_as(in, key, static_cast<std::uint16_t*>(out));
    case 4:
      return permute_as(in, key, static_cast<std::uint32_t*>(out));
    default:
      return permute_as(in, key, static_cast<std::uint64_t*>(out));
  }
}

}  // namespace pyspectra::spectra
