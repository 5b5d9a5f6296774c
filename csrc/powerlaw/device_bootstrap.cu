#include "core/cuda/launch.hpp"
#include "powerlaw/device_bootstrap.hpp"

namespace pyspectra::powerlaw {
namespace {

#include "core/elementary.inl.hpp"
#include "core/philox.inl.hpp"
#include "powerlaw/replicate.inl.hpp"

using Word = unsigned long long;

constexpr int kThreads = 256;
constexpr Index kStaged = 2048;

// The words of one counter of one stream of a replicate.
__device__ void draw_words(Word key, Word block, Word replicate, Word stream, Word* out) {
  const Philox<Word> x =
      philox4x32<Word>({block, 0, replicate, stream}, (unsigned int)key, (unsigned int)(key >> 32));
  const Word words[4] = {x.c0, x.c1, x.c2, x.c3};
  for (int w = 0; w < 4; ++w) out[w] = words[w] & 0xffffffffull;
}

__global__ void __launch_bounds__(kThreads)
    draw_kernel(Index per, Index first, const DeviceSource* sources, const double* x,
                const Index* starts, double* all_log_x, double* all_scratch) {
  __shared__ double staged[kStaged];
  __shared__ double carried;
  __shared__ unsigned int sums[kThreads];
  const DeviceSource s = sources[blockIdx.x / per];
  const Word replicate = (Word)(first + blockIdx.x % per);
  double* const out = all_log_x + starts[blockIdx.x];
  auto* const times = (unsigned int*)(all_scratch + starts[blockIdx.x]);
  const int t = (int)threadIdx.x;

  for (Index i = t; i < s.body; i += kThreads) times[i] = 0;
  __syncthreads();
  for (Index block = t; s.body > 0 && 4 * block < s.n; block += kThreads) {
    Word words[4];
    draw_words(s.key, (Word)block, replicate, 0, words);
    for (int w = 0; w < 4 && 4 * block + w < s.n; ++w) {
      const Index i = drawn_index(words[w], s.n);
      if (i < s.body) atomicAdd(&times[i], 1u);
    }
  }
  __syncthreads();
  Index drawn = 0;
  for (Index begin = 0; begin < s.body; begin += kThreads) {
    const unsigned int own = begin + t < s.body ? times[begin + t] : 0;
    sums[t] = own;
    __syncthreads();
    for (int step = 1; step < kThreads; step *= 2) {
      const unsigned int before = t >= step ? sums[t - step] : 0;
      __syncthreads();
      sums[t] += before;
      __syncthreads();
    }
    if (own > 0) {
      const double value = log_positive(x[s.begin + begin + t]);
      const Index end = drawn + sums[t];
      for (Index j = end - own; j < end; ++j) out[j] = value;
    }
    drawn += sums[kThreads - 1];
    __syncthreads();
  }

  const double log_xmin = log_positive(s.xmin), beta = s.alpha - 1.0;
  if (t == 0) carried = 0.0;
  for (Index begin = drawn; begin < s.n; begin += kStaged) {
    const Index end = begin + kStaged < s.n ? begin + kStaged : s.n;
    __syncthreads();
    for (Index j = begin + t; j < end; j += kThreads) {
      const Index e = j - drawn;
      Word words[4];
      draw_words(s.key, (Word)(e / 2), replicate, 1, words);
      const double U = uniform(words[e % 2 * 2], words[e % 2 * 2 + 1]);
      staged[j - begin] = -log_positive(U) / (double)(s.n - j);
    }
    __syncthreads();
    if (t == 0) {
      double u = carried;
#pragma unroll 8
      for (Index i = 0; i < end - begin; ++i) {
        u += staged[i];
        staged[i] = u;
      }
      carried = u;
    }
    __syncthreads();
    for (Index j = begin + t; j < end; j += kThreads) out[j] = log_xmin + staged[j - begin] / beta;
  }
}

}  // namespace

void device_draw(Index count, Index per, Index first, const DeviceSource* sources, const double* x,
                 const Index* starts, double* log_x, double* scratch, const cuda::Stream& stream) {
  cuda::launch(stream, draw_kernel, count * per, kThreads, 0, per, first, sources, x, starts, log_x,
               scratch);
}

}  // namespace pyspectra::powerlaw
