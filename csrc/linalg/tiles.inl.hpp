// Kernels on tiles of kWide x kWide numbers, once for every instruction set and both real types.
// Included inside the anonymous namespace of a unit, after full_to_band.inl.hpp.

using pyspectra::linalg::detail::kWide;
typedef pyspectra::linalg::detail::Factor<Real> Factor;

constexpr int kParts = (int)kWide / kLanes;  // vectors in a row of a tile

// Rows and vectors of the register tile: accumulators, one row's vectors and a splat must fit.
constexpr int kTileVectors = sizeof(vd) == 64 && kParts >= 4 ? 4 : 2;
constexpr int kTileRows = sizeof(vd) == 64 && kTileVectors == 2 ? 8 : 4;

constexpr int kTileBlocks = (int)(kWide / kTileRows) * (kParts / kTileVectors);
constexpr int kLine = 64 / (int)sizeof(Real);  // numbers in a cache line

// A product of tiles. With kAhead it meanwhile asks for the tile `next`, some lines each of its
// blocks: a tile that memory has to send is there when it is needed.
template <bool kAhead>
static inline void product_of(Real* out, const Factor* factors, int count, const Real* next) {
  // k between two lines, less one: a power of two.
  const Index mask = count * kLine * kTileBlocks / kWide - 1;
  for (int v0 = 0; v0 < kParts; v0 += kTileVectors)
    for (Index r0 = 0; r0 < kWide; r0 += kTileRows) {
      vd sum[kTileRows][kTileVectors];
#pragma GCC unroll 16
      for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < kTileVectors; ++v)
          sum[r][v] = load(out + (r0 + r) * kWide + (v0 + v) * kLanes);
      for (int f = 0; f < count; ++f) {
        const Real* a = factors[f].a + r0 * factors[f].row;
        const Real* b = factors[f].b + v0 * kLanes;
        const Index row = factors[f].row, step = factors[f].step;
        for (Index k = 0; k < kWide; ++k) {
          if (kAhead && (k & mask) == 0) {
            __builtin_prefetch(next, 0, 3);
            next += kLine;
          }
          vd x[kTileVectors];
#pragma GCC unroll 16
          for (int v = 0; v < kTileVectors; ++v) x[v] = load(b + v * kLanes);
#pragma GCC unroll 16
          for (int r = 0; r < kTileRows; ++r) {
            const vd y = splat(a[r * row]);
#pragma GCC unroll 16
            for (int v = 0; v < kTileVectors; ++v) sum[r][v] += y * x[v];
          }
          a += step;
          b += kWide;
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < kTileVectors; ++v)
          store(out + (r0 + r) * kWide + (v0 + v) * kLanes, sum[r][v]);
    }
}

static void product(Real* out, const Factor* factors, int count) {
  product_of<false>(out, factors, count, nullptr);
}
static void product_ahead(Real* out, const Factor* factors, int count, const Real* next) {
  product_of<true>(out, factors, count, next);
}

static void negated_transpose(const Real* in, Real* out) {
  for (Index i = 0; i < kWide; i += kLanes)
    for (Index j = 0; j < kWide; j += kLanes) {
      vd x[kLanes];
#pragma GCC unroll 16
      for (int c = 0; c < kLanes; ++c) x[c] = -load(in + (i + c) * kWide + j);
      transpose(x);
#pragma GCC unroll 16
      for (int c = 0; c < kLanes; ++c) store(out + (j + c) * kWide + i, x[c]);
    }
}

// A tile from columns of doubles, times `by`.
static void take_columns(const double* in, Index stride, double by, Real* out) {
  typedef double Wide __attribute__((vector_size(kLanes * 8), aligned(8)));
  for (Index j = 0; j < kWide; j += kLanes)
    for (Index i = 0; i < kWide; i += kLanes) {
      vd x[kLanes];
#pragma GCC unroll 16
      for (int c = 0; c < kLanes; ++c)
        x[c] = __builtin_convertvector(by * *(const Wide*)(in + (j + c) * stride + i), vd);
      transpose(x);
#pragma GCC unroll 16
      for (int c = 0; c < kLanes; ++c) store(out + (i + c) * kWide + j, x[c]);
    }
}

// One part of a panel's columns to the right of factored ones: x = V^T p, p -= V (T^T x).
static inline void apply_reflectors(Real* p, Index rows, const Real* v,
                                    const Real (&T)[kBand][kBand]) {
  vd x[kBand], z[kBand];
#pragma GCC unroll 16
  for (int k = 0; k < kBand; ++k) x[k] = z[k] = vd{};
  for (Index i = 0; i < rows; ++i) {
    const vd row = load(p + i * kWide);
#pragma GCC unroll 16
    for (int k = 0; k < kBand; ++k) x[k] += splat(v[i * kWide + k]) * row;
  }
  for (int k = 0; k < kBand; ++k)
    for (int q = 0; q <= k; ++q) z[k] -= splat(T[q][k]) * x[q];
  for (Index i = 0; i < rows; ++i) {
    vd s = load(p + i * kWide), t = vd{};
#pragma GCC unroll 16
    for (int k = 0; k < kBand; k += 2) {
      s += splat(v[i * kWide + k]) * z[k];
      t += splat(v[i * kWide + k + 1]) * z[k + 1];
    }
    store(p + i * kWide, s + t);
  }
}

static void factor(Real* panel, Index rows, Real* r, Real* tau) {
  Real T[kBand][kBand], corner[kTile];
  for (Index k = 0; k < kWide * kWide; ++k) r[k] = 0;
  for (int part = 0; part < kParts; ++part) {
    const Index first = part * kBand;
    Real* const p = panel + first * kWide + first;
    factor_panel<kWide>(p, rows - first, corner, T);
    for (int k = 0; k < kBand; ++k) tau[first + k] = T[k][k];
    for (int right = part + 1; right < kParts; ++right)
      apply_reflectors(panel + first * kWide + right * kBand, rows - first, p, T);
    // R takes the rows of this part; the reflectors are zero above it.
    for (int k = 0; k < kBand; ++k) {
      Real* const row = panel + (first + k) * kWide;
      for (int c = 0; c < kBand; ++c) r[(first + k) * kWide + first + c] = corner[k * kBand + c];
      for (Index c = first + kBand; c < kWide; ++c) {
        r[(first + k) * kWide + c] = row[c];
        row[c] = 0;
      }
    }
  }
}
