// Packing and the multiply kernel, once for every instruction set. Included inside the anonymous
// namespace of a unit that has defined kLanes (doubles a vector) and kVectors (vectors a panel),
// and included simd.inl.hpp, widen.inl.hpp and householder.inl.hpp. A register tile is kVectors
// vectors high and kLanes columns wide: kVectors * kLanes accumulators plus kVectors + 1 must fit
// the register file.

using pyspectra::DType;
using pyspectra::Index;
using pyspectra::linalg::detail::Slab;

constexpr int kPanel = kLanes * kVectors;

template <typename T>
static void pack_part(const Slab& s, Index k0, Index k1, Index p0, Index p1) {
  const Index rows = s.end - s.begin;
  const T* const in = (const T*)s.data + s.begin * s.long_stride;
  if (s.short_stride == 1) {
    // Rows are contiguous: a few of them are dealt out panel by panel, which writes in one stream.
    constexpr Index kRun = 32;
    for (Index r0 = k0; r0 < k1; r0 += kRun) {
      const Index r1 = r0 + kRun < k1 ? r0 + kRun : k1;
      for (Index p = p0; p < p1; ++p) {
        double* out = s.packed + (p * rows + r0) * kPanel;
        const T* from = in + r0 * s.long_stride + p * kPanel;
        const int width = (int)(s.M - p * kPanel < kPanel ? s.M - p * kPanel : kPanel);
        for (Index k = r0; k < r1; ++k) {
          if (width == kPanel) {
            for (int c = 0; c < kPanel; ++c) out[c] = widen(from[c]);
          } else {
            for (int c = 0; c < width; ++c) out[c] = widen(from[c]);
            for (int c = width; c < kPanel; ++c) out[c] = 0.0;
          }
          out += kPanel;
          from += s.long_stride;
        }
      }
    }
    return;
  }
  for (Index p = p0; p < p1; ++p)
    for (int part = 0; part < kPanel; part += kLanes) {
      const Index first = p * kPanel + part;
      const int width = (int)(s.M - first < kLanes ? s.M - first : kLanes);
      double* const out = s.packed + p * rows * kPanel + part;
      const T* const from = in + first * s.short_stride;
      Index k = k0;
      if (s.long_stride == 1 && width == kLanes) {
        // Columns are contiguous: squares of them are transposed in registers.
        for (; k + kLanes <= k1; k += kLanes) {
          vd x[kLanes];
#pragma GCC unroll 16
          for (int c = 0; c < kLanes; ++c) {
            double column[kLanes];
            for (int l = 0; l < kLanes; ++l) column[l] = widen(from[k + l + c * s.short_stride]);
            x[c] = load(column);
          }
          transpose(x);
#pragma GCC unroll 16
          for (int l = 0; l < kLanes; ++l) store(out + (k + l) * kPanel, x[l]);
        }
      }
      for (; k < k1; ++k) {
        const T* const row = from + k * s.long_stride;
        for (int c = 0; c < width; ++c) out[k * kPanel + c] = widen(row[c * s.short_stride]);
        for (int c = width < 0 ? 0 : width; c < kLanes; ++c) out[k * kPanel + c] = 0.0;
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

// Where a register tile of the result goes: `column` is its first element, columns are M apart, of
// which `width` exist; `height` rows exist. `fresh`: what is in its place does not count.
struct Target {
  double* column;
  Index M;
  int width, height;
  bool fresh;
};

// One column of a register tile, which is V vectors high.
template <int V>
static inline void put_column(double* column, const vd (&acc)[V], int height, bool fresh) {
  if (height >= V * kLanes) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v)
      store(column + v * kLanes, fresh ? acc[v] : load(column + v * kLanes) + acc[v]);
    return;
  }
  double block[V * kLanes];
#pragma GCC unroll 16
  for (int v = 0; v < V; ++v) store(block + v * kLanes, acc[v]);
  for (int r = 0; r < height; ++r) column[r] = fresh ? block[r] : column[r] + block[r];
}

// The lines of a tile are fetched while its sums are taken.
static inline void expect(const Target& t) {
  for (int c = 0; c < t.width; ++c)
    for (int r = 0; r < t.height; r += 8) __builtin_prefetch(t.column + c * t.M + r, 1);
}

// target(v, c) = sum_k a[k][v] * b[k][c], the register tile of V vectors by kLanes columns.
template <int V>
static inline void multiply(const double* a, const double* b, Index rows, const Target& target) {
  vd acc[kLanes][V];
#pragma GCC unroll 16
  for (int c = 0; c < kLanes; ++c)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) acc[c][v] = vd{};
  expect(target);
  for (Index k = 0; k < rows; ++k) {
    vd x[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) x[v] = load(a + v * kLanes);
#pragma GCC unroll 16
    for (int c = 0; c < kLanes; ++c) {
      const vd y = splat(b[c]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[c][v] += x[v] * y;
    }
    a += kPanel;
    b += kPanel;
  }
#pragma GCC unroll 16
  for (int c = 0; c < kLanes; ++c)
    if (c < target.width)
      put_column<V>(target.column + c * target.M, acc[c], target.height, target.fresh);
}

// The lower triangle of the square of 2 x 2 blocks on the diagonal, three blocks at once: alone,
// the last of them would wait for the latency of its few chains.
static inline void multiply_corner(const double* a, Index rows, const Target& target) {
  vd acc[kLanes][2], last[kLanes][1];
#pragma GCC unroll 16
  for (int c = 0; c < kLanes; ++c) acc[c][0] = acc[c][1] = last[c][0] = vd{};
  expect(target);
  for (Index k = 0; k < rows; ++k) {
    const vd x = load(a), y = load(a + kLanes);
#pragma GCC unroll 16
    for (int c = 0; c < kLanes; ++c) {
      const vd b = splat(a[c]);
      acc[c][0] += x * b;
      acc[c][1] += y * b;
      last[c][0] += y * splat(a[kLanes + c]);
    }
    a += kPanel;
  }
  double* const second = target.column + kLanes * (target.M + 1);
#pragma GCC unroll 16
  for (int c = 0; c < kLanes; ++c) {
    put_column<2>(target.column + c * target.M, acc[c], target.height, target.fresh);
    if (c + kLanes < target.width)
      put_column<1>(second + c * target.M, last[c], target.height - kLanes, target.fresh);
  }
}

// The register tiles of `vectors` vectors of rows, V at most.
template <int V>
static inline void multiply_at_most(int vectors, const double* a, const double* b, Index rows,
                                    const Target& target) {
  if constexpr (V > 1) {
    if (vectors < V) return multiply_at_most<V - 1>(vectors, a, b, rows, target);
  }
  multiply<V>(a, b, rows, target);
}

static inline int least(Index a, int b) { return a < b ? (int)a : b; }

// Panels [i0, i1) of rows by panel j of columns, i0 >= j, of the lower triangle.
static void tiles(const double* packed, Index rows, Index M, Index i0, Index i1, Index j,
                  double* out, bool fresh) {
  const double* const b = packed + j * rows * kPanel;
  for (int part = 0; part < kPanel && j * kPanel + part < M; part += kLanes) {
    const Index column = j * kPanel + part;
    const int width = least(M - column, kLanes);
    for (Index i = i0; i < i1; ++i) {
      const double* const a = packed + i * rows * kPanel;
      const Index row = i * kPanel;
      const int height = least(M - row, kPanel), vectors = (height + kLanes - 1) / kLanes;
      if (i != j) {
        multiply_at_most<kVectors>(vectors, a, b + part, rows,
                                   {out + column * M + row, M, width, height, fresh});
        continue;
      }
      // On the diagonal: blocks from `part` down, the last two columns of blocks together.
      const int left = vectors - part / kLanes;
      double* const corner = out + column * M + column;
      if (left == 2)
        multiply_corner(a + part, rows,
                        {corner, M, least(M - column, 2 * kLanes), height - part, fresh});
      else if (left > 2 || part == 0)
        multiply_at_most<kVectors>(left, a + part, a + part, rows,
                                   {corner, M, width, height - part, fresh});
    }
  }
}
