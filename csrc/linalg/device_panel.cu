#include "core/cuda/launch.hpp"
#include "linalg/device_panel.hpp"

namespace pyspectra::linalg {
namespace {

constexpr int kThreads = 1024;  // a warp for each column of the widest panel
#include "linalg/block_sum.inl.hpp"
#include "linalg/reflector.inl.hpp"

__global__ void __launch_bounds__(kThreads)
    panel_kernel(double* matrices, Index n, Index start, Index band, double* all_V, double* all_T) {
  __shared__ double partial[kWarps], T[kDeviceBand * kDeviceBand], dots[kDeviceBand];
  const Index m = n - start - band;
  // Row k of `panel` is its column k.
  double* const panel = matrices + blockIdx.x * n * n + start * n + start + band;
  double* const V = all_V + blockIdx.x * band * n;
  const Index lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (Index i = threadIdx.x; i < band * band; i += kThreads) T[i] = 0.0;
  for (Index k = 0; k < band; ++k) {
    double* const x = panel + k * n;
    double* const v = V + k * n;
    double squares = 0.0;
    for (Index i = k + 1 + threadIdx.x; i < m; i += kThreads) squares += x[i] * x[i];
    // A panel may have fewer rows than columns: the last ones have nothing to reflect.
    const Reflector h = reflector(k < m ? x[k] : 0.0, block_sum(squares, partial));
    for (Index i = threadIdx.x; i < m; i += kThreads)
      v[i] = i < k || h.tau == 0.0 ? 0.0 : i == k ? 1.0 : h.inverse * x[i];
    __syncthreads();
    if (threadIdx.x == 0 && k < m) x[k] = h.beta;
    // v with the vectors before it, for T; and the columns after it, reflected.
    for (Index other = warp; other < band; other += kWarps) {
      if (other == k || h.tau == 0.0) continue;
      double* const row = other < k ? V + other * n : panel + other * n;
      double dot = 0.0;
      for (Index i = k + lane; i < m; i += kWarp) dot += v[i] * row[i];
      dot = warp_sum(dot);
      if (other < k) {
        if (lane == 0) dots[other] = dot;
      } else {
        const double share = h.tau * dot;
        for (Index i = k + lane; i < m; i += kWarp) row[i] -= share * v[i];
      }
    }
    __syncthreads();
    // Column k of T: (-tau T V^T v, tau), with T and V of the vectors before.
    if (threadIdx.x <= k && h.tau != 0.0) {
      const Index row = threadIdx.x;
      double sum = 0.0;
      for (Index j = row; j < k; ++j) sum += T[row * band + j] * dots[j];
      T[row * band + k] = row == k ? h.tau : -h.tau * sum;
    }
  }
  __syncthreads();
  double* const out = all_T + blockIdx.x * band * band;
  for (Index i = threadIdx.x; i < band * band; i += kThreads) out[i] = T[i];
}

}  // namespace

void device_panel(double* A, Index count, Index n, Index start, Index band, double* V, double* T,
                  const cuda::Stream& stream) {
  PS_REQUIRE(band >= 1 && band <= kDeviceBand, "device_panel: the band is too wide");
  PS_REQUIRE(start >= 0 && start + band < n, "device_panel: no rows below the panel");
  cuda::launch(stream, panel_kernel, count, kThreads, 0, A, n, start, band, V, T);
}

}  // namespace pyspectra::linalg
