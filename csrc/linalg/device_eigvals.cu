#include "core/cuda/launch.hpp"
#include "linalg/device_eigvals.hpp"

namespace pyspectra::linalg {
namespace {

constexpr int kThreads = 256;
#include "linalg/block_sum.inl.hpp"
#include "linalg/reflector.inl.hpp"

__global__ void __launch_bounds__(kThreads)
    tridiagonalize_kernel(double* matrices, Index n, double* all_d, double* all_e, bool staged) {
  __shared__ double partial[kWarps];
  double* const v = cuda::dynamic_shared<double>();
  double* const w = v + n;
  double* const given = matrices + blockIdx.x * n * n;
  double* const a = staged ? w + n : given;
  double* const d = all_d + blockIdx.x * n;
  double* const e = all_e + blockIdx.x * n;
  if (staged)
    for (Index i = threadIdx.x; i < n * n; i += kThreads) a[i] = given[i];
  __syncthreads();
  const Index lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (Index k = 0; k + 1 < n; ++k) {
    const Index m = n - k - 1;  // rows and columns that are left
    const double* const x = a + k * n + k + 1;
    double* const rest = a + (k + 1) * (n + 1);
    double squares = 0.0;
    for (Index i = 1 + threadIdx.x; i < m; i += kThreads) squares += x[i] * x[i];
    const Reflector h = reflector(x[0], block_sum(squares, partial));
    if (threadIdx.x == 0) {
      d[k] = a[k * n + k];
      e[k] = h.beta;
    }
    if (h.tau == 0.0) continue;  // the same in all threads
    for (Index i = threadIdx.x; i < m; i += kThreads) v[i] = i == 0 ? 1.0 : h.inverse * x[i];
    __syncthreads();
    for (Index i = warp; i < m; i += kWarps) {
      double dot = 0.0;
      for (Index j = lane; j < m; j += kWarp) dot += rest[i * n + j] * v[j];
      dot = warp_sum(dot);
      if (lane == 0) w[i] = h.tau * dot;
    }
    __syncthreads();
    double product = 0.0;
    for (Index i = threadIdx.x; i < m; i += kThreads) product += v[i] * w[i];
    const double half = 0.5 * h.tau * block_sum(product, partial);
    for (Index i = threadIdx.x; i < m; i += kThreads) w[i] -= half * v[i];
    __syncthreads();
    for (Index i = warp; i < m; i += kWarps)
      for (Index j = lane; j < m; j += kWarp) rest[i * n + j] -= v[i] * w[j] + w[i] * v[j];
    __syncthreads();
  }
  if (threadIdx.x == 0) d[n - 1] = a[n * n - 1];
}

constexpr int kEigenvalues = 128;  // of a matrix, a block
constexpr Index kRows = 1024;      // staged at a time
constexpr int kHalvings = 56;
constexpr double kSmallestPivot = 0x1p-900;

// A block's share of the eigenvalues of matrix blockIdx.x / per.
__global__ void __launch_bounds__(kEigenvalues)
    bisect_kernel(const double* all_d, const double* all_e, Index n, Index per, double* evals) {
  __shared__ double staged_d[kRows], staged_e2[kRows], reach[kEigenvalues];
  const Index matrix = blockIdx.x / per;
  const double* const d = all_d + matrix * n;
  const double* const e = all_e + matrix * n;
  const Index index = blockIdx.x % per * kEigenvalues + threadIdx.x;

  // All eigenvalues are within `bound` of zero.
  double mine = 0.0;
  for (Index i = threadIdx.x; i < n; i += kEigenvalues) {
    const double left = i > 0 ? __builtin_fabs(e[i - 1]) : 0.0;
    const double right = i + 1 < n ? __builtin_fabs(e[i]) : 0.0;
    const double edge = __builtin_fabs(d[i]) + (left + right);
    mine = edge > mine ? edge : mine;
  }
  reach[threadIdx.x] = mine;
  __syncthreads();
  double bound = 0.0;
  for (int t = 0; t < kEigenvalues; ++t) bound = reach[t] > bound ? reach[t] : bound;
  bound += bound * 0x1p-50;

  double low = -bound, high = bound;
  for (int halving = 0; halving < kHalvings; ++halving) {
    const double x = 0.5 * (low + high);
    Index below = 0;
    double q = 1.0;
    for (Index begin = 0; begin < n; begin += kRows) {
      const Index rows = n - begin < kRows ? n - begin : kRows;
      if (halving == 0 || n > kRows) {  // one tile stays
        __syncthreads();
        for (Index i = threadIdx.x; i < rows; i += kEigenvalues) {
          staged_d[i] = d[begin + i];
          const double above = begin + i > 0 ? e[begin + i - 1] : 0.0;
          staged_e2[i] = above * above;
        }
        __syncthreads();
      }
      for (Index i = 0; i < rows; ++i) {
        q = (staged_d[i] - x) - staged_e2[i] / q;
        q = __builtin_fabs(q) < kSmallestPivot ? -kSmallestPivot : q;
        below += q < 0.0;
      }
    }
    if (below > index)
      high = x;
    else
      low = x;
  }
  if (index < n) evals[matrix * n + index] = 0.5 * (low + high);
}

}  // namespace

void device_tridiagonalize(double* A, Index count, Index n, double* d, double* e,
                           const cuda::Stream& stream) {
  PS_REQUIRE(n <= kDeviceOrder, "device_tridiagonalize: the order is too large");
  if (n == 0) return;
  const auto vectors = static_cast<std::size_t>(2 * n) * sizeof(double);
  const std::size_t whole = vectors + static_cast<std::size_t>(n * n) * sizeof(double);
  const bool staged = whole + kWarps * sizeof(double) <= cuda::shared_limit(stream);
  const std::size_t bytes = staged ? whole : vectors;
  cuda::allow_shared(stream, tridiagonalize_kernel, bytes);
  cuda::launch(stream, tridiagonalize_kernel, count, kThreads, bytes, A, n, d, e, staged);
}

void device_tridiagonal_eigvals(const double* d, const double* e, Index count, Index n,
                                double* evals, const cuda::Stream& stream) {
  const Index per = (n + kEigenvalues - 1) / kEigenvalues;
  cuda::launch(stream, bisect_kernel, count * per, kEigenvalues, 0, d, e, n, per, evals);
}

}  // namespace pyspectra::linalg
