// Packing and the multiply kernel, once for every instruction set. Included inside the anonymous
// namespace of a unit that has defined kLanes (doubles a vector), kVectors (vectors a panel) and
// kColumns (columns of a register tile, a divisor of the panel), and included simd.inl.hpp and
// half.inl.hpp. kVectors * kColumns accumulators plus kVectors + 1 must fit the register file.

using pyspectra::DType;
using pyspectra::Index;
using pyspectra::linalg::detail::PackTask;

constexpr int kPanel = kLanes * kVectors;
static_assert(kPanel % kColumns == 0);

struct Half {
  unsigned short bits;
};
struct BFloat {
  unsigned short bits;
};
static inline double widen(double x) { return x; }
static inline double widen(float x) { return (double)x; }
static inline double widen(Half x) { return (double)float16_to_float(x.bits); }
static inline double widen(BFloat x) { return (double)bfloat16_to_float(x.bits); }

template <typename T>
static void pack_panel(const PackTask& t, Index panel_index) {
  const Index rows = t.end - t.begin;
  const Index first = panel_index * kPanel;
  const int width = (int)(t.M - first < kPanel ? t.M - first : kPanel);
  double* out = t.packed + panel_index * rows * kPanel;
  const T* in = (const T*)t.data + t.begin * t.long_stride + first * t.short_stride;
  if (t.short_stride == 1 && width == kPanel) {  // a row of the panel is contiguous
    for (Index k = 0; k < rows; ++k)
      for (int c = 0; c < kPanel; ++c) out[k * kPanel + c] = widen(in[k * t.long_stride + c]);
    return;
  }
  // Otherwise a transposition: short runs down each column keep both sides in cache.
  constexpr Index kRun = 16;
  for (Index k0 = 0; k0 < rows; k0 += kRun) {
    const Index k1 = k0 + kRun < rows ? k0 + kRun : rows;
    for (int c = 0; c < width; ++c)
      for (Index k = k0; k < k1; ++k)
        out[k * kPanel + c] = widen(in[k * t.long_stride + c * t.short_stride]);
    for (int c = width; c < kPanel; ++c)
      for (Index k = k0; k < k1; ++k) out[k * kPanel + c] = 0.0;
  }
}

static void pack(const PackTask& task, Index panel_index) {
  switch (task.dtype) {
    case DType::float16:
      return pack_panel<Half>(task, panel_index);
    case DType::bfloat16:
      return pack_panel<BFloat>(task, panel_index);
    case DType::float32:
      return pack_panel<float>(task, panel_index);
    case DType::float64:
      return pack_panel<double>(task, panel_index);
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
