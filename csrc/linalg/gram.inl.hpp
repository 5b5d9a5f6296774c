// Packing and the multiply kernel, once for every instruction set. Included inside the anonymous
// namespace of a unit that has defined kLanes (doubles a vector), kVectors (vectors a panel) and
// kColumns (columns of a register tile, a divisor of the panel), and included simd.inl.hpp and
// widen.inl.hpp. kVectors * kColumns accumulators plus kVectors + 1 must fit the register file.

using pyspectra::DType;
using pyspectra::Index;
using pyspectra::linalg::detail::Slab;

constexpr int kPanel = kLanes * kVectors;
static_assert(kPanel % kColumns == 0);

template <typename T>
static void pack_part(const Slab& s, Index k0, Index k1, Index p0, Index p1) {
  const Index rows = s.end - s.begin;
  const T* const in = (const T*)s.data + s.begin * s.long_stride;
  if (s.short_stride == 1) {
    // Rows are contiguous: read them whole, one after the other, and deal them out to the panels.
    for (Index k = k0; k < k1; ++k) {
      const T* row = in + k * s.long_stride;
      for (Index p = p0; p < p1; ++p) {
        double* out = s.packed + (p * rows + k) * kPanel;
        const T* from = row + p * kPanel;
        if ((p + 1) * kPanel <= s.M) {
          for (int c = 0; c < kPanel; ++c) out[c] = widen(from[c]);
        } else {
          const int width = (int)(s.M - p * kPanel);
          for (int c = 0; c < width; ++c) out[c] = widen(from[c]);
          for (int c = width; c < kPanel; ++c) out[c] = 0.0;
        }
      }
    }
    return;
  }
  // Otherwise a transposition: short runs down each column keep both sides in cache.
  constexpr Index kRun = 64;
  for (Index p = p0; p < p1; ++p) {
    const Index first = p * kPanel;
    const int width = (int)(s.M - first < kPanel ? s.M - first : kPanel);
    double* out = s.packed + p * rows * kPanel;
    for (Index r0 = k0; r0 < k1; r0 += kRun) {
      const Index r1 = r0 + kRun < k1 ? r0 + kRun : k1;
      for (int c = 0; c < width; ++c)
        for (Index k = r0; k < r1; ++k)
          out[k * kPanel + c] = widen(in[k * s.long_stride + (first + c) * s.short_stride]);
      for (int c = width; c < kPanel; ++c)
        for (Index k = r0; k < r1; ++k) out[k * kPanel + c] = 0.0;
    }
  }
}

static void pack(const Slab& s, Index k0, Index k1, Index p0, Index p1) {
  switch (s.dtype) {
    case DType::float16:
      return pack_part<Half>(s, k0, k1, p0, p1);
    case DType::bfloat16:
      return pack_part<BFloat>(s, k0, k1, p0, p1);
    case DType::float32:
      return pack_part<float>(s, k0, k1, p0, p1);
    case DType::float64:
      return pack_part<double>(s, k0, k1, p0, p1);
  }
}

// acc[c][v] = sum_k a[k][v] * b[k][c], the register tile
static inline void multiply(const double* a, const double* b, Index rows,
                            double (&out)[kColumns][kPanel]) {
  vd acc[kColumns][kVectors];
#pragma GCC unroll 16
  for (int c = 0; c < kColumns; ++c)
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) acc[c][v] = vd{};
  for (Index k = 0; k < rows; ++k) {
    vd x[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) x[v] = load(a + v * kLanes);
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; ++c) {
      const vd y = splat(b[c]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) acc[c][v] += x[v] * y;
    }
    a += kPanel;
    b += kPanel;
  }
#pragma GCC unroll 16
  for (int c = 0; c < kColumns; ++c)
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) store(&out[c][v * kLanes], acc[c][v]);
}

static void tile(const double* packed, Index rows, Index M, Index ip, Index jp, double* out) {
  const double* a = packed + ip * rows * kPanel;
  const double* b = packed + jp * rows * kPanel;
  const Index i0 = ip * kPanel, j0 = jp * kPanel;
  const int height = (int)(M - i0 < kPanel ? M - i0 : kPanel);
  for (int s = 0; s < kPanel; s += kColumns) {
    if (j0 + s >= M) return;
    double block[kColumns][kPanel];
    multiply(a, b + s, rows, block);
    for (int c = 0; c < kColumns && j0 + s + c < M; ++c) {
      double* column = out + (j0 + s + c) * M + i0;
      for (int r = 0; r < height; ++r) column[r] += block[c][r];
    }
  }
}
