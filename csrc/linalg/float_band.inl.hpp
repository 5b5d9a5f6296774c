// The kernels of float_band.hpp, once for every instruction set. Included inside the anonymous
// namespace of a unit that has defined kLanes and included simd.inl.hpp.

using pyspectra::Index;
using pyspectra::linalg::detail::kGroup;
using pyspectra::linalg::detail::kTileSize;
using pyspectra::linalg::detail::kWide;

constexpr int kParts = (int)kGroup / kLanes;  // vectors in a row
constexpr int kAtOnce = 16 / kParts > 4 ? 16 / kParts : 4;

static inline void widen_tile(const float* tile, double* out) {
  for (Index k = 0; k < kTileSize; ++k) out[k] = tile[k];
}

static void dots(const float* tile, const double* y, double* s) {
  alignas(64) double V[kTileSize];
  widen_tile(tile, V);
  for (Index k0 = 0; k0 < kWide; k0 += kAtOnce) {
    vd sum[kAtOnce][kParts];
#pragma GCC unroll 16
    for (int k = 0; k < kAtOnce; ++k)
#pragma GCC unroll 4
      for (int v = 0; v < kParts; ++v) sum[k][v] = load(s + (k0 + k) * kGroup + v * kLanes);
    for (Index i = 0; i < kWide; ++i) {
      vd row[kParts];
#pragma GCC unroll 4
      for (int v = 0; v < kParts; ++v) row[v] = load(y + i * kGroup + v * kLanes);
#pragma GCC unroll 16
      for (int k = 0; k < kAtOnce; ++k)
#pragma GCC unroll 4
        for (int v = 0; v < kParts; ++v) sum[k][v] += splat(V[i * kWide + k0 + k]) * row[v];
    }
#pragma GCC unroll 16
    for (int k = 0; k < kAtOnce; ++k)
#pragma GCC unroll 4
      for (int v = 0; v < kParts; ++v) store(s + (k0 + k) * kGroup + v * kLanes, sum[k][v]);
  }
}

static void add(const float* tile, const double* s, double* y) {
  alignas(64) double V[kTileSize];
  widen_tile(tile, V);
  for (Index i0 = 0; i0 < kWide; i0 += kAtOnce) {
    vd sum[kAtOnce][kParts];
#pragma GCC unroll 16
    for (int i = 0; i < kAtOnce; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kParts; ++v) sum[i][v] = load(y + (i0 + i) * kGroup + v * kLanes);
    for (Index k = 0; k < kWide; ++k) {
      vd row[kParts];
#pragma GCC unroll 4
      for (int v = 0; v < kParts; ++v) row[v] = load(s + k * kGroup + v * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < kAtOnce; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < kParts; ++v) sum[i][v] += splat(V[(i0 + i) * kWide + k]) * row[v];
    }
#pragma GCC unroll 16
    for (int i = 0; i < kAtOnce; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kParts; ++v) store(y + (i0 + i) * kGroup + v * kLanes, sum[i][v]);
  }
}
