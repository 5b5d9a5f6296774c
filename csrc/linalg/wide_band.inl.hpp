// The kernels of wide_band.hpp, once for every instruction set. Included inside the anonymous
// namespace of a unit, after full_to_band.inl.hpp and band_to_tridiagonal.inl.hpp.

using pyspectra::linalg::detail::Factor;
using pyspectra::linalg::detail::kBandStride;
using pyspectra::linalg::detail::kWide;
using pyspectra::linalg::detail::WideSweep;

constexpr int kParts = (int)kWide / kLanes;  // vectors in a row of a tile

// Rows and vectors of the register tile: accumulators, one row's vectors and a splat must fit.
constexpr int kTileRows = 4, kTileVectors = kLanes == 8 ? 4 : 2;

static void product(double* out, const Factor* factors, int count) {
  for (int v0 = 0; v0 < kParts; v0 += kTileVectors)
    for (Index r0 = 0; r0 < kWide; r0 += kTileRows) {
      vd sum[kTileRows][kTileVectors];
#pragma GCC unroll 8
      for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < kTileVectors; ++v)
          sum[r][v] = load(out + (r0 + r) * kWide + (v0 + v) * kLanes);
      for (int f = 0; f < count; ++f) {
        const double* a = factors[f].a + r0 * factors[f].row;
        const double* b = factors[f].b + v0 * kLanes;
        const Index row = factors[f].row, step = factors[f].step;
        for (Index k = 0; k < kWide; ++k) {
          vd x[kTileVectors];
#pragma GCC unroll 8
          for (int v = 0; v < kTileVectors; ++v) x[v] = load(b + v * kLanes);
#pragma GCC unroll 8
          for (int r = 0; r < kTileRows; ++r) {
            const vd y = splat(a[r * row]);
#pragma GCC unroll 8
            for (int v = 0; v < kTileVectors; ++v) sum[r][v] += y * x[v];
          }
          a += step;
          b += kWide;
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < kTileVectors; ++v)
          store(out + (r0 + r) * kWide + (v0 + v) * kLanes, sum[r][v]);
    }
}

// One part of a panel's columns to the right of factored ones: x = V^T p, p -= V (T^T x).
static inline void apply_reflectors(double* p, Index rows, const double* v,
                                    const double (&T)[kBand][kBand]) {
  vd x[kBand], z[kBand];
#pragma GCC unroll 8
  for (int k = 0; k < kBand; ++k) x[k] = z[k] = vd{};
  for (Index i = 0; i < rows; ++i) {
    const vd row = load(p + i * kWide);
#pragma GCC unroll 8
    for (int k = 0; k < kBand; ++k) x[k] += splat(v[i * kWide + k]) * row;
  }
  for (int k = 0; k < kBand; ++k)
    for (int q = 0; q <= k; ++q) z[k] -= splat(T[q][k]) * x[q];
  for (Index i = 0; i < rows; ++i) {
    vd s = load(p + i * kWide), t = vd{};
#pragma GCC unroll 8
    for (int k = 0; k < kBand; k += 2) {
      s += splat(v[i * kWide + k]) * z[k];
      t += splat(v[i * kWide + k + 1]) * z[k + 1];
    }
    store(p + i * kWide, s + t);
  }
}

static void factor(double* panel, Index rows, double* r, double* tau) {
  double T[kBand][kBand], corner[kTile];
  for (Index k = 0; k < kWide * kWide; ++k) r[k] = 0.0;
  for (int part = 0; part < kParts; ++part) {
    const Index first = part * kBand;
    double* const p = panel + first * kWide + first;
    factor_panel<kWide>(p, rows - first, corner, T);
    for (int k = 0; k < kBand; ++k) tau[first + k] = T[k][k];
    for (int right = part + 1; right < kParts; ++right)
      apply_reflectors(panel + first * kWide + right * kBand, rows - first, p, T);
    // R takes the rows of this part; the reflectors are zero above it.
    for (int k = 0; k < kBand; ++k) {
      double* const row = panel + (first + k) * kWide;
      for (int c = 0; c < kBand; ++c) r[(first + k) * kWide + first + c] = corner[k * kBand + c];
      for (Index c = first + kBand; c < kWide; ++c) {
        r[(first + k) * kWide + c] = row[c];
        row[c] = 0.0;
      }
    }
  }
}

// Columns of the wide band: two vectors of rows and four columns at a time fill the registers.
constexpr int kPair = 2, kColumns = kLanes == 8 ? 4 : 2;

// out = M B for a kWide x kWide matrix M (column-major) and B (kWide x kBand, row-major); out is
// column-major, kWide rows.
static void thin_product(const double* M, Index stride, const double* B, double* out) {
  for (Index i = 0; i < kWide; i += kPair * kLanes) {
    vd sum[kBand][kPair];
#pragma GCC unroll 8
    for (int k = 0; k < kBand; ++k)
#pragma GCC unroll 2
      for (int v = 0; v < kPair; ++v) sum[k][v] = vd{};
    for (Index c = 0; c < kWide; ++c) {
      vd x[kPair];
#pragma GCC unroll 2
      for (int v = 0; v < kPair; ++v) x[v] = load(M + c * stride + i + v * kLanes);
#pragma GCC unroll 8
      for (int k = 0; k < kBand; ++k)
#pragma GCC unroll 2
        for (int v = 0; v < kPair; ++v) sum[k][v] += splat(B[c * kBand + k]) * x[v];
    }
#pragma GCC unroll 8
    for (int k = 0; k < kBand; ++k)
#pragma GCC unroll 2
      for (int v = 0; v < kPair; ++v) store(out + k * kWide + i + v * kLanes, sum[k][v]);
  }
}

// X T in place, X (kWide x kBand) column-major, T upper triangular.
static void times_triangle(double* X, const double* T) {
  for (Index i = 0; i < kWide; i += kLanes) {
    vd x[kBand];
#pragma GCC unroll 8
    for (int k = 0; k < kBand; ++k) x[k] = load(X + k * kWide + i);
    for (int k = 0; k < kBand; ++k) {
      vd s = vd{};
      for (int q = 0; q <= k; ++q) s += x[q] * splat(T[q * kBand + k]);
      store(X + k * kWide + i, s);
    }
  }
}

// M -= A B^T for columns [c0, c1) and rows [i, kWide) of M (column-major): A is column-major with
// kWide rows, B row-major.
static inline void thin_update(double* M, Index c0, Index c1, Index i0, const double* A,
                               const double* B) {
  for (Index c = c0; c < c1; c += kColumns)
    for (Index i = i0; i < kWide; i += kLanes) {
      vd x[kColumns];
#pragma GCC unroll 8
      for (int q = 0; q < kColumns; ++q) x[q] = load(M + (c + q) * kBandStride + i);
#pragma GCC unroll 8
      for (int k = 0; k < kBand; ++k) {
        const vd a = load(A + k * kWide + i);
#pragma GCC unroll 8
        for (int q = 0; q < kColumns; ++q) x[q] -= a * splat(B[(c + q) * kBand + k]);
      }
#pragma GCC unroll 8
      for (int q = 0; q < kColumns; ++q) store(M + (c + q) * kBandStride + i, x[q]);
    }
}

// Both ways between a block of kWide rows of kBand columns, column-major, and rows.
static inline void to_rows(const double* in, Index stride, double* out) {
  for (Index i = 0; i < kWide; i += kLanes) {
    vd x[kLanes];
#pragma GCC unroll 8
    for (int c = 0; c < kLanes; ++c) x[c] = load(in + c * stride + i);
    transpose(x);
#pragma GCC unroll 8
    for (int c = 0; c < kLanes; ++c) store(out + (i + c) * kBand, x[c]);
  }
}
static inline void to_columns(const double* in, double* out) {
  for (Index i = 0; i < kWide; i += kLanes) {
    vd x[kLanes];
#pragma GCC unroll 8
    for (int c = 0; c < kLanes; ++c) x[c] = load(in + (i + c) * kBand);
    transpose(x);
#pragma GCC unroll 8
    for (int c = 0; c < kLanes; ++c) store(out + c * kWide + i, x[c]);
  }
}

// QR of a block of kWide x kBand of the band: R stays in its place, the reflectors go to the sweep.
static inline void factor_block(double* block, WideSweep& sweep) {
  double T[kBand][kBand], r[kTile];
  to_rows(block, kBandStride, sweep.v);
  factor_panel<kBand>(sweep.v, kWide, r, T);
  for (int k = 0; k < kBand; ++k) {
    for (int q = 0; q < kBand; ++q) sweep.t[k * kBand + q] = q < k ? 0.0 : T[k][q];
    double* const column = block + k * kBandStride;
    for (Index i = 0; i < kWide; ++i) column[i] = i < kBand ? r[i * kBand + k] : 0.0;
  }
}

static void begin_sweep(double* band, Index s, WideSweep& sweep) {
  sweep.column = (s + 1) * kBand;
  factor_block(band + s * kBand * kBandStride + sweep.column, sweep);
}

// The diagonal block whole, column-major, from its lower triangle.
static inline void symmetric_block(const double* block, double* out) {
  for (Index j = 0; j < kWide; j += kLanes)
    for (Index i = j; i < kWide; i += kLanes) {
      vd x[kLanes];
#pragma GCC unroll 8
      for (int c = 0; c < kLanes; ++c) x[c] = load(block + (j + c) * kBandStride + i);
      if (i == j) {
        vd y[kLanes];
#pragma GCC unroll 8
        for (int c = 0; c < kLanes; ++c) y[c] = x[c];
        transpose(y);
        const vi lane = lane_numbers();
#pragma GCC unroll 8
        for (int c = 0; c < kLanes; ++c) x[c] = lane >= splat_i(c) ? x[c] : y[c];
      }
#pragma GCC unroll 8
      for (int c = 0; c < kLanes; ++c) store(out + (j + c) * kWide + i, x[c]);
      if (i == j) continue;
      transpose(x);
#pragma GCC unroll 8
      for (int c = 0; c < kLanes; ++c) store(out + (i + c) * kWide + j, x[c]);
    }
}

static inline void update_diagonal(double* block, const WideSweep& sweep, const double* Vc) {
  alignas(64) double D[kWide * kWide], X[kWide * kBand], W[kWide * kBand];
  symmetric_block(block, D);
  thin_product(D, kWide, sweep.v, X);
  times_triangle(X, sweep.t);
  // half = -T^T (V^T X) / 2, then X += V half.
  double m[kBand][kBand], half[kBand][kBand];
  for (int q = 0; q < kBand; ++q) {
    vd dots[kBand];
#pragma GCC unroll 8
    for (int k = 0; k < kBand; ++k) dots[k] = vd{};
    for (Index i = 0; i < kWide; i += kLanes) {
      const vd x = load(X + q * kWide + i);
#pragma GCC unroll 8
      for (int k = 0; k < kBand; ++k) dots[k] += x * load(Vc + k * kWide + i);
    }
    sum_each(dots);
    store(m[q], dots[0]);  // m[q][k] = v_k . x_q
  }
  for (int k = 0; k < kBand; ++k)
    for (int q = 0; q < kBand; ++q) {
      double s = 0.0;
      for (int l = 0; l <= k; ++l) s += sweep.t[l * kBand + k] * m[q][l];
      half[k][q] = -0.5 * s;
    }
  for (Index i = 0; i < kWide; i += kLanes)
    for (int q = 0; q < kBand; ++q) {
      vd x = load(X + q * kWide + i);
      for (int k = 0; k < kBand; ++k) x += load(Vc + k * kWide + i) * splat(half[k][q]);
      store(X + q * kWide + i, x);
    }
  to_rows(X, kWide, W);
  for (Index j = 0; j < kWide; j += kLanes) {
    thin_update(block, j, j + kLanes, j, Vc, W);
    thin_update(block, j, j + kLanes, j, X, sweep.v);
  }
}

// E -= V (T^T V^T E) for the columns of E from kBand on.
static inline void apply_left(double* E, const WideSweep& sweep, const double* Vc) {
  alignas(64) double z[kWide * kBand];
  for (Index c = kBand; c < kWide; c += kPair) {
    vd dots[kPair][kBand];
#pragma GCC unroll 2
    for (int q = 0; q < kPair; ++q)
#pragma GCC unroll 8
      for (int k = 0; k < kBand; ++k) dots[q][k] = vd{};
    for (Index i = 0; i < kWide; i += kLanes) {
      vd x[kPair];
#pragma GCC unroll 2
      for (int q = 0; q < kPair; ++q) x[q] = load(E + (c + q) * kBandStride + i);
#pragma GCC unroll 8
      for (int k = 0; k < kBand; ++k) {
        const vd v = load(Vc + k * kWide + i);
#pragma GCC unroll 2
        for (int q = 0; q < kPair; ++q) dots[q][k] += v * x[q];
      }
    }
#pragma GCC unroll 2
    for (int q = 0; q < kPair; ++q) {
      sum_each(dots[q]);
      vd s = vd{};
      const vd d = dots[q][0];
#pragma GCC unroll 8
      for (int k = 0; k < kBand; ++k) s += splat(d[k]) * load(sweep.t + k * kBand);
      store(z + (c + q) * kBand, s);
    }
  }
  thin_update(E, kBand, kWide, 0, Vc, z);
}

static void advance_sweep(double* band, WideSweep& sweep) {
  alignas(64) double Vc[kWide * kBand], P[kWide * kBand];
  double* const D = band + sweep.column * kBandStride + sweep.column;
  double* const E = D + kWide;
  to_columns(sweep.v, Vc);
  update_diagonal(D, sweep, Vc);
  thin_product(E, kBandStride, sweep.v, P);
  times_triangle(P, sweep.t);
  thin_update(E, 0, kWide, 0, P, sweep.v);
  factor_block(E, sweep);
  to_columns(sweep.v, Vc);
  apply_left(E, sweep, Vc);
  sweep.column += kWide;
}

static void finish_band(const double* band, Index n, double* d, double* e, double* work,
                        void (*check)()) {
  Pace pace{check};
  const Index order = (n + kBand - 1) / kBand * kBand;
  for (Index k = 0; k < (order + 2 * kBand) * kColumn; ++k) work[k] = 0.0;
  for (Index j = 0; j < n; ++j) {
    double* const out = work + j * kColumn + (j + kBand - 1) % kBand;
    const double* const in = band + j * kBandStride + j;
    for (int i = 0; i <= kBand && j + i < n; ++i) out[i] = in[i];
  }
  chase_band(work, n, pace);
  for (Index j = 0; j < n; ++j) d[j] = column_at(work, j)[kBand - 1];
  for (Index j = 0; j + 1 < n; ++j) e[j] = column_at(work, j)[kBand];
}
