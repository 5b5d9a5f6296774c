#include <algorithm>

#include "core/cuda/launch.hpp"
#include "powerlaw/device_fit.hpp"

namespace pyspectra::powerlaw {
namespace {

#include "core/elementary.inl.hpp"
#include "powerlaw/candidate.inl.hpp"

constexpr int kThreads = 256, kWarp = 32;
constexpr Index kStaged = 2048;

// First point above `value`.
__device__ Index upper_bound(const double* x, Index n, double value) {
  Index low = 0, high = n;
  while (low < high) {
    const Index middle = (low + high) / 2;
    if (x[middle] > value)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

// The part of a spectrum that enters the fit.
struct Points {
  Index begin, n;  // begin: among all points of the batch
};

__device__ Points points_of(const DeviceFitBuffers& b, Index k, double threshold, double xmax) {
  const Index all = b.starts[k + 1] - b.starts[k];
  if (b.x == nullptr) return {b.starts[k], all};
  const double* const x = b.x + b.starts[k];
  const Index first = upper_bound(x, all, threshold);
  const Index last = upper_bound(x, all, xmax);
  return {b.starts[k] + first, last > first ? last - first : 0};
}

__global__ void __launch_bounds__(kThreads)
    prepare_kernel(DeviceFitBuffers b, double threshold, double xmax) {
  __shared__ double staged[kStaged];
  __shared__ double carried;
  __shared__ int bad;
  const Index k = blockIdx.x;
  if (threadIdx.x == 0) {
    bad = 0;
    carried = 0.0;
    b.best[k] = as_bits(1.0);  // an invalid candidate counts as D = 1: nothing above is wanted
  }
  __syncthreads();
  const double* const given = b.x == nullptr ? b.log_x : b.x;
  for (Index j = b.starts[k] + threadIdx.x; j < b.starts[k + 1]; j += kThreads)
    if (!(given[j] - given[j] == 0.0)) bad = 1;
  __syncthreads();
  const Points points = points_of(b, k, threshold, xmax);
  const Index n = points.n;
  if (threadIdx.x == 0) {
    Fit fit;
    fit.n = bad != 0 ? 0 : n;
    if (bad != 0 || n < 2) fit.status = bad != 0 ? Status::not_finite : Status::too_few_points;
    b.fits[k] = fit;
  }
  if (bad != 0 || n < 2) return;
  double* const log_x = b.log_x + points.begin;
  double* const tail_sum = b.tail_sum + points.begin;
  if (b.x != nullptr)
    for (Index j = threadIdx.x; j < n; j += kThreads)
      log_x[j] = log_positive(b.x[points.begin + j]);
  __syncthreads();
  // T_i = T_{i+1} + (n-i-1) (log_x[i+1] - log_x[i]), from the end, kStaged of them at a time.
  for (Index end = n - 1; end > 0; end -= kStaged) {
    const Index begin = end > kStaged ? end - kStaged : 0;
    for (Index i = begin + threadIdx.x; i < end; i += kThreads)
      staged[i - begin] = (double)(n - i - 1) * (log_x[i + 1] - log_x[i]);
    __syncthreads();
    if (threadIdx.x == 0) {
      double sum = carried;
#pragma unroll 8
      for (Index i = end - begin - 1; i >= 0; --i) {
        sum = sum + staged[i];
        staged[i] = sum;
      }
      carried = sum;
    }
    __syncthreads();
    for (Index i = begin + threadIdx.x; i < end; i += kThreads) tail_sum[i] = staged[i - begin];
    __syncthreads();
  }
  if (threadIdx.x == 0) tail_sum[n - 1] = 0.0;
}

__device__ double deviation(const Candidate& c, const double* log_x, Index j) {
  const double d = model_cdf(c, log_x[j]) - ((double)(j - c.i) + c.shift) * c.inv_m;
  return d < 0.0 ? -d : d;
}

__device__ double warp_max(double x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const double other = __shfl_xor_sync(0xffffffffu, x, step);
    x = other > x ? other : x;
  }
  return x;
}

// `per` blocks a spectrum, a candidate a warp.
__global__ void __launch_bounds__(kThreads)
    scan_kernel(DeviceFitBuffers b, Index per, double threshold, double xmax) {
  constexpr int kWarps = kThreads / kWarp;
  constexpr Index kStretch = 8 * kWarp;  // points between two looks at the best D
  const Index k = blockIdx.x / per;
  if (b.fits[k].status != Status::ok) return;
  const Points points = points_of(b, k, threshold, xmax);
  const double* const log_x = b.log_x + points.begin;
  const double* const tail_sum = b.tail_sum + points.begin;
  const Index n = points.n;
  const bool small = n < kSmall;
  const Index candidates = n - (small ? kSmallTail : 2) + 1;
  const double correction = small ? 1.0 : 0.0;
  const int lane = (int)(threadIdx.x % kWarp);
  // Spread out, so that those that come first find a good bound: every `rows`-th, then the next.
  constexpr Index kColumns = 32;
  const Index rows = (candidates + kColumns - 1) / kColumns;
  for (Index q = blockIdx.x % per * kWarps + threadIdx.x / kWarp; q < rows * kColumns;
       q += per * kWarps) {
    const Index i = q % kColumns * rows + q / kColumns;
    if (i >= candidates) continue;
    double worst = 0.0, beta;
    const bool valid = find_exponent(n - i, tail_sum[i], correction, beta);
    if (valid) {
      const Candidate c{i, n, log_x[i], beta, 1.0 / (double)(n - i), 0.0};
      for (Index begin = i; begin < n; begin += kStretch) {
        const Index end = begin + kStretch < n ? begin + kStretch : n;
        for (Index j = begin + lane; j < end; j += kWarp) {
          const double d = deviation(c, log_x, j);
          worst = d > worst ? d : worst;
        }
        worst = warp_max(worst);
        // One lane looks for all: others could see a later value and part from the shuffles.
        const double least = as_value((long long)*(const volatile unsigned long long*)&b.best[k]);
        if (worst > __shfl_sync(0xffffffffu, least, 0)) break;
      }
    }
    if (lane == 0) {
      // One that was abandoned is above the best, and so never the answer.
      b.D[points.begin + i] = valid ? worst : __builtin_inf();
      if (valid) atomicMin(&b.best[k], (unsigned long long)as_bits(worst));
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    finish_kernel(DeviceFitBuffers b, double threshold, double xmax) {
  __shared__ double least[kThreads];
  __shared__ Index where[kThreads];
  __shared__ double exponent;
  const Index k = blockIdx.x;
  if (b.fits[k].status != Status::ok) return;
  const Points points = points_of(b, k, threshold, xmax);
  const double* const log_x = b.log_x + points.begin;
  const Index n = points.n;
  const bool small = n < kSmall;
  const Index candidates = n - (small ? kSmallTail : 2) + 1;
  // Too few for any candidate: all points are the tail.
  double my_least = candidates < 1 ? 0.0 : __builtin_inf();
  Index mine = candidates < 1 ? 0 : -1;
  for (Index i = threadIdx.x; i < candidates; i += kThreads) {
    const double d = b.D[points.begin + i];
    if (d <= 1.0 && (mine < 0 || d < my_least)) {
      my_least = d;
      mine = i;
    }
  }
  least[threadIdx.x] = my_least;
  where[threadIdx.x] = mine;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      const double d = least[threadIdx.x + half];
      const Index i = where[threadIdx.x + half], own = where[threadIdx.x];
      const bool first = d < least[threadIdx.x] || (d == least[threadIdx.x] && i < own);
      if (i >= 0 && (own < 0 || first)) {
        least[threadIdx.x] = d;
        where[threadIdx.x] = i;
      }
    }
    __syncthreads();
  }
  const Index best = where[0];
  if (threadIdx.x == 0) {
    Fit fit = b.fits[k];
    exponent = 0.0;
    double beta;
    const double correction = small ? 1.0 : 0.0;
    const double T = best < 0 ? 0.0 : b.tail_sum[points.begin + best];
    if (best < 0 || !find_exponent(n - best, T, correction, beta)) {
      fit.status = Status::degenerate;
    } else {
      exponent = beta;
      set_exponent(fit, best, beta, T, 2);
      Index low = best;
      if (b.x != nullptr) {
        const double* const x = b.x + points.begin;
        fit.xmax = x[n - 1];
        fit.xmin = x[best];
        low = 0;  // n_tail counts points equal to xmin before it
        for (Index high = best; low < high;) {
          const Index middle = (low + high) / 2;
          if (x[middle] < fit.xmin)
            low = middle + 1;
          else
            high = middle;
        }
      }
      fit.n_tail = n - low;
    }
    b.fits[k] = fit;
  }
  __syncthreads();
  if (exponent == 0.0) return;
  const Candidate c{best, n, log_x[best], exponent, 1.0 / (double)(n - best), 0.0};
  double worst = 0.0;
  for (Index j = best + threadIdx.x; j < n; j += kThreads) {
    const double d = deviation(c, log_x, j);
    worst = d > worst ? d : worst;
  }
  least[threadIdx.x] = worst;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int t = 1; t < kThreads; ++t) worst = least[t] > worst ? least[t] : worst;
    b.fits[k].D = worst;
  }
}

}  // namespace

void device_fit(Index count, Index longest, double threshold, double xmax,
                const DeviceFitBuffers& buffers, const cuda::Stream& stream) {
  // Enough warps for the longest spectrum; a thousand blocks fill any device.
  constexpr Index kFull = 1024, kCandidatesABlock = 64;
  const Index wanted = (longest + kCandidatesABlock - 1) / kCandidatesABlock;
  const Index per =
      std::clamp<Index>(std::min(wanted, 8 * kFull / std::max<Index>(count, 1)), 1, kFull);
  cuda::launch(stream, prepare_kernel, count, kThreads, 0, buffers, threshold, xmax);
  cuda::launch(stream, scan_kernel, count * per, kThreads, 0, buffers, per, threshold, xmax);
  cuda::launch(stream, finish_kernel, count, kThreads, 0, buffers, threshold, xmax);
}

}  // namespace pyspectra::powerlaw
