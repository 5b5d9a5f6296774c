#include <algorithm>

#include "core/cuda/launch.hpp"
#include "linalg/device_chase.hpp"

namespace pyspectra::linalg {
namespace {

#include "linalg/reflector.inl.hpp"

constexpr int kThreads = 128;
constexpr Index kPitch = kDeviceBand + 1;  // no two rows of a column in one bank
constexpr int kDone = 0x7fffffff;

// Where (row, column) of the lower triangle stands.
__device__ double& entry(double* a, Index band, Index row, Index column) {
  return a[2 * band * column + row - column];
}

// x = (alpha, tail) of `length` in a column of `a` or of a block: its reflector, the same in all
// threads, and v in shared memory after the next barrier.
__device__ Reflector column_reflector(const double* x, Index stride, Index length, double* v) {
  double tail = 0.0;
  for (Index i = 1; i < length; ++i) tail += x[i * stride] * x[i * stride];
  const Reflector h = reflector(x[0], tail);
  for (Index i = threadIdx.x; i < length; i += kThreads)
    v[i] = i == 0 ? 1.0 : h.inverse * x[i * stride];
  return h;
}

// Waits until the sweep before has done `steps` steps.
__device__ void wait_for(const int* progress, int steps) {
  if (threadIdx.x == 0) {
    while (*(const volatile int*)progress < steps) {
    }
    __threadfence();
  }
  __syncthreads();
}

__device__ void announce(int* progress, int steps) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    *(volatile int*)progress = steps;
  }
}

__global__ void __launch_bounds__(kThreads)
    chase_kernel(double* bands, Index n, Index band, Index blocks, int* all_progress) {
  __shared__ double D[kDeviceBand * kPitch], B[kDeviceBand * kPitch];
  __shared__ double v[kDeviceBand], next[kDeviceBand], w[kDeviceBand], y[kDeviceBand];
  __shared__ int taken;
  double* const a = bands + blockIdx.x / blocks * 2 * band * n;
  int* const progress = all_progress + blockIdx.x / blocks * n;
  int* const counter = progress + n - 1;  // the last column has no sweep
  for (;;) {
    __syncthreads();
    if (threadIdx.x == 0) taken = atomicAdd(counter, 1);
    __syncthreads();
    const Index sweep = taken;
    if (sweep + 2 >= n) return;
    if (sweep > 0) wait_for(progress + sweep - 1, 2);
    Index begin = sweep + 1, length = begin + band < n ? band : n - begin;
    double* const x = &entry(a, band, begin, sweep);
    Reflector h = column_reflector(x, 1, length, v);
    __syncthreads();
    for (Index i = threadIdx.x; i < length; i += kThreads) x[i] = i == 0 ? h.beta : 0.0;
    for (int step = 0; length > 0; ++step) {
      if (step > 0 && sweep > 0) wait_for(progress + sweep - 1, step + 2);
      // The block on the diagonal, both triangles, and the one below it.
      const Index below = begin + length;
      const Index rows = below + band < n ? band : n - below;
      for (Index k = threadIdx.x; k < length * length; k += kThreads) {
        const Index i = k % length, j = k / length;
        const double value = i >= j ? entry(a, band, begin + i, begin + j) : 0.0;
        if (i >= j) D[i * kPitch + j] = D[j * kPitch + i] = value;
      }
      for (Index k = threadIdx.x; k < rows * length; k += kThreads)
        B[k % rows * kPitch + k / rows] = entry(a, band, below + k % rows, begin + k / rows);
      __syncthreads();

      // D <- H D H = D - v w^T - w v^T, B <- B H = B - y v^T
      for (Index i = threadIdx.x; i < length + rows; i += kThreads) {
        const double* const row = i < length ? D + i * kPitch : B + (i - length) * kPitch;
        double dot = 0.0;
        for (Index j = 0; j < length; ++j) dot += row[j] * v[j];
        (i < length ? w[i] : y[i - length]) = h.tau * dot;
      }
      __syncthreads();
      double half = 0.0;
      for (Index j = 0; j < length; ++j) half += v[j] * w[j];
      half *= 0.5 * h.tau;
      for (Index k = threadIdx.x; k < length * length; k += kThreads) {
        const Index i = k % length, j = k / length;
        if (i < j) continue;
        const double low = w[i] - half * v[i], high = w[j] - half * v[j];
        entry(a, band, begin + i, begin + j) = D[i * kPitch + j] - (v[i] * high + low * v[j]);
      }
      for (Index k = threadIdx.x; k < rows * length; k += kThreads)
        B[k % rows * kPitch + k / rows] -= y[k % rows] * v[k / rows];
      __syncthreads();

      // The first column of B back to one entry, by the reflector of the step to come.
      if (rows > 0) {
        h = column_reflector(B, kPitch, rows, next);
        __syncthreads();
        for (Index j = threadIdx.x; j < length; j += kThreads) {
          double dot = 0.0;
          for (Index i = 0; i < rows; ++i) dot += next[i] * B[i * kPitch + j];
          w[j] = h.tau * dot;
        }
        __syncthreads();
        for (Index k = threadIdx.x; k < rows * length; k += kThreads) {
          const Index i = k % rows, j = k / rows;
          const double value = B[i * kPitch + j] - next[i] * w[j];
          entry(a, band, below + i, begin + j) = j > 0 ? value : i > 0 ? 0.0 : h.beta;
        }
        for (Index i = threadIdx.x; i < rows; i += kThreads) v[i] = next[i];
      }
      announce(progress + sweep, step + 1);
      begin = below;
      length = rows;
    }
    announce(progress + sweep, kDone);
  }
}

}  // namespace

void device_chase(double* a, Index count, Index n, Index band, int* progress,
                  const cuda::Stream& stream) {
  PS_REQUIRE(band >= 1 && band <= kDeviceBand, "device_chase: the band is too wide");
  if (n < 3) return;
  // A sweep is two steps behind the one before it, so no more can be under way in a matrix.
  const Index blocks = std::clamp<Index>(n / (2 * band) + 1, 1, 256);
  cuda::launch(stream, chase_kernel, count * blocks, kThreads, 0, a, n, band, blocks, progress);
}

}  // namespace pyspectra::linalg
