// The same bandwidth-bound loop under two thread pools, for pool_vs_openmp.py: y = a x + y over
// chunks, as an optimizer step inside a training loop would do it.
#include "core/parallel.hpp"

namespace {

constexpr long kChunk = 1 << 14;

void chunk(float* y, const float* x, long n, long c) {
  const long end = (c + 1) * kChunk < n ? (c + 1) * kChunk : n;
  for (long i = c * kChunk; i < end; ++i) y[i] = 0.5f * x[i] + y[i];
}

}  // namespace

extern "C" void axpy_pool(float* y, const float* x, long n) {
  pyspectra::parallel_for((n + kChunk - 1) / kChunk,
                          [&](pyspectra::Index c) { chunk(y, x, n, c); });
}

extern "C" void axpy_openmp(float* y, const float* x, long n) {
  const long chunks = (n + kChunk - 1) / kChunk;
#pragma omp parallel for schedule(static)
  for (long c = 0; c < chunks; ++c) chunk(y, x, n, c);
}
