#include "spectra/permute.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/parallel.hpp"

namespace pyspectra::spectra {
namespace {

using std::uint64_t;

// Elements a bucket holds on average: 128 KiB of float32 stay in a second-level cache.
constexpr Index kBucket = Index{1} << 15;
constexpr Index kMaxBuckets = 4096;
constexpr Index kMinChunk = Index{1} << 16;
constexpr Index kMaxChunks = 256;
constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;

uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

uint64_t draw(uint64_t stream, Index i) {
  return mix(stream + kGolden * (static_cast<uint64_t>(i) + 1));
}

// The buckets of elements first, first + 1, ...: four share a draw, 16 bits each.
class Buckets {
 public:
  Buckets(uint64_t stream, Index first, Index buckets)
      : stream_(stream), element_(first), mask_(static_cast<uint64_t>(buckets) - 1) {
    bits_ = draw(stream_, element_ >> 2) >> (16 * (element_ & 3));
  }
  Index next() {
    if ((element_ & 3) == 0) bits_ = draw(stream_, element_ >> 2);
    const Index bucket = static_cast<Index>(bits_ & mask_);
    bits_ >>= 16;
    ++element_;
    return bucket;
  }

 private:
  uint64_t stream_, bits_;
  Index element_;
  uint64_t mask_;
};

// The product of two 64-bit numbers over 2^64: an integer below `bound` from 64 random bits, with a
// bias below bound / 2^64.
Index below(uint64_t random, Index bound) {
  const uint64_t b = static_cast<uint64_t>(bound);
  const uint64_t high = (random >> 32) * b, low = (random & 0xffffffffull) * b;
  return static_cast<Index>((high + (low >> 32)) >> 32);  // bound < 2^32
}

template <typename T>
void shuffle(T* x, Index n, uint64_t stream) {
  for (Index i = n - 1; i > 0; --i) std::swap(x[i], x[below(draw(stream, i), i + 1)]);
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
  const Index n = in.rows * in.cols;
  const uint64_t scatter = mix(key ^ kGolden), within = mix(scatter + kGolden);
  Index buckets = 1;
  while (buckets < kMaxBuckets && buckets * kBucket < n) buckets *= 2;
  const Index chunk = std::max(kMinChunk, (n + kMaxChunks - 1) / kMaxChunks);
  const Index chunks = (n + chunk - 1) / chunk;

  std::vector<Index> start(chunks * buckets, 0);  // counts, then where each chunk's share begins
  parallel_for(chunks, [&](Index c) {
    Index* count = start.data() + c * buckets;
    Buckets bucket(scatter, c * chunk, buckets);
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
    Buckets bucket(scatter, c * chunk, buckets);
    each<T>(in, c * chunk, std::min(n, (c + 1) * chunk),
            [&](T value) { out[next[bucket.next()]++] = value; });
  });
  parallel_for(buckets,
               [&](Index b) { shuffle(out + edge[b], edge[b + 1] - edge[b], draw(within, b)); });
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
