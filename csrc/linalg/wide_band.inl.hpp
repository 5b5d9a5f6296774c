// The kernels of wide_band.hpp, once for every instruction set. Included inside the anonymous
// namespace of a unit, after band_to_tridiagonal.inl.hpp and tiles.inl.hpp.

typedef pyspectra::linalg::detail::WideSweep<Real> WideSweep;

constexpr Index kBandStride = pyspectra::linalg::detail::kBandStride<Real>;

// Columns of the wide band: kPair vectors of rows by kBand columns, and kColumns columns by as many
// vectors, fill the registers.
constexpr int kPair = kLanes == 16 ? 1 : 2, kColumns = sizeof(vd) == 64 ? 4 : 2;

// out = M B for a kWide x kWide matrix M (column-major) and B (kWide x kBand, row-major); out is
// column-major, kWide rows.
static void thin_product(const Real* M, Index stride, const Real* B, Real* out) {
  for (Index i = 0; i < kWide; i += kPair * kLanes) {
    vd sum[kBand][kPair];
#pragma GCC unroll 16
    for (int k = 0; k < kBand; ++k)
#pragma GCC unroll 2
      for (int v = 0; v < kPair; ++v) sum[k][v] = vd{};
    for (Index c = 0; c < kWide; ++c) {
      vd x[kPair];
#pragma GCC unroll 2
      for (int v = 0; v < kPair; ++v) x[v] = load(M + c * stride + i + v * kLanes);
#pragma GCC unroll 16
      for (int k = 0; k < kBand; ++k)
#pragma GCC unroll 2
        for (int v = 0; v < kPair; ++v) sum[k][v] += splat(B[c * kBand + k]) * x[v];
    }
#pragma GCC unroll 16
    for (int k = 0; k < kBand; ++k)
#pragma GCC unroll 2
      for (int v = 0; v < kPair; ++v) store(out + k * kWide + i + v * kLanes, sum[k][v]);
  }
}

// X T in place, X (kWide x kBand) column-major, T upper triangular.
static void times_triangle(Real* X, const Real* T) {
  for (Index i = 0; i < kWide; i += kLanes) {
    vd x[kBand];
#pragma GCC unroll 16
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
static inline void thin_update(Real* M, Index c0, Index c1, Index i0, const Real* A,
                               const Real* B) {
  for (Index c = c0; c < c1; c += kColumns)
    for (Index i = i0; i < kWide; i += kLanes) {
      vd x[kColumns];
#pragma GCC unroll 16
      for (int q = 0; q < kColumns; ++q) x[q] = load(M + (c + q) * kBandStride + i);
#pragma GCC unroll 16
      for (int k = 0; k < kBand; ++k) {
        const vd a = load(A + k * kWide + i);
#pragma GCC unroll 16
        for (int q = 0; q < kColumns; ++q) x[q] -= a * splat(B[(c + q) * kBand + k]);
      }
#pragma GCC unroll 16
      for (int q = 0; q < kColumns; ++q) store(M + (c + q) * kBandStride + i, x[q]);
    }
}

// Both ways between a block of kWide rows of kBand columns, column-major, and rows.
static inline void to_rows(const Real* in, Index stride, Real* out) {
  for (Index i = 0; i < kWide; i += kLanes) {
    vd x[kLanes];
#pragma GCC unroll 16
    for (int c = 0; c < kLanes; ++c) x[c] = load(in + c * stride + i);
    transpose(x);
#pragma GCC unroll 16
    for (int c = 0; c < kLanes; ++c) store(out + (i + c) * kBand, x[c]);
  }
}
static inline void to_columns(const Real* in, Real* out) {
  for (Index i = 0; i < kWide; i += kLanes) {
    vd x[kLanes];
#pragma GCC unroll 16
    for (int c = 0; c < kLanes; ++c) x[c] = load(in + (i + c) * kBand);
    transpose(x);
#pragma GCC unroll 16
    for (int c = 0; c < kLanes; ++c) store(out + c * kWide + i, x[c]);
  }
}

// QR of a block of kWide x kBand of the band: R stays in its place, the reflectors go to the sweep.
static inline void factor_block(Real* block, WideSweep& sweep) {
  Real T[kBand][kBand], r[kTile];
  to_rows(block, kBandStride, sweep.v);
  factor_panel<kBand>(sweep.v, kWide, r, T);
  for (int k = 0; k < kBand; ++k) {
    for (int q = 0; q < kBand; ++q) sweep.t[k * kBand + q] = q < k ? (Real)0 : T[k][q];
    Real* const column = block + k * kBandStride;
    for (Index i = 0; i < kWide; ++i) column[i] = i < kBand ? r[i * kBand + k] : (Real)0;
  }
}

static void begin_sweep(Real* band, Index s, WideSweep& sweep) {
  sweep.column = (s + 1) * kBand;
  factor_block(band + s * kBand * kBandStride + sweep.column, sweep);
}

// The diagonal block whole, column-major, from its lower triangle.
static inline void symmetric_block(const Real* block, Real* out) {
  for (Index j = 0; j < kWide; j += kLanes)
    for (Index i = j; i < kWide; i += kLanes) {
      vd x[kLanes];
#pragma GCC unroll 16
      for (int c = 0; c < kLanes; ++c) x[c] = load(block + (j + c) * kBandStride + i);
      if (i == j) {
        vd y[kLanes];
#pragma GCC unroll 16
        for (int c = 0; c < kLanes; ++c) y[c] = x[c];
        transpose(y);
        const vi lane = lane_numbers();
#pragma GCC unroll 16
        for (int c = 0; c < kLanes; ++c) x[c] = lane >= splat_i(c) ? x[c] : y[c];
      }
#pragma GCC unroll 16
      for (int c = 0; c < kLanes; ++c) store(out + (j + c) * kWide + i, x[c]);
      if (i == j) continue;
      transpose(x);
#pragma GCC unroll 16
      for (int c = 0; c < kLanes; ++c) store(out + (i + c) * kWide + j, x[c]);
    }
}

static inline void update_diagonal(Real* block, const WideSweep& sweep, const Real* Vc) {
  alignas(64) Real D[kWide * kWide], X[kWide * kBand], W[kWide * kBand];
  symmetric_block(block, D);
  thin_product(D, kWide, sweep.v, X);
  times_triangle(X, sweep.t);
  // half = -T^T (V^T X) / 2, then X += V half.
  Real m[kBand][kBand], half[kBand][kBand];
  for (int q = 0; q < kBand; ++q) {
    vd dots[kBand];
#pragma GCC unroll 16
    for (int k = 0; k < kBand; ++k) dots[k] = vd{};
    for (Index i = 0; i < kWide; i += kLanes) {
      const vd x = load(X + q * kWide + i);
#pragma GCC unroll 16
      for (int k = 0; k < kBand; ++k) dots[k] += x * load(Vc + k * kWide + i);
    }
    sum_each(dots);
    store(m[q], dots[0]);  // m[q][k] = v_k . x_q
  }
  for (int k = 0; k < kBand; ++k)
    for (int q = 0; q < kBand; ++q) {
      Real s = 0;
      for (int l = 0; l <= k; ++l) s += sweep.t[l * kBand + k] * m[q][l];
      half[k][q] = (Real)-0.5 * s;
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
static inline void apply_left(Real* E, const WideSweep& sweep, const Real* Vc) {
  alignas(64) Real z[kWide * kBand];
  for (Index c = kBand; c < kWide; c += kPair) {
    vd dots[kPair][kBand];
#pragma GCC unroll 2
    for (int q = 0; q < kPair; ++q)
#pragma GCC unroll 16
      for (int k = 0; k < kBand; ++k) dots[q][k] = vd{};
    for (Index i = 0; i < kWide; i += kLanes) {
      vd x[kPair];
#pragma GCC unroll 2
      for (int q = 0; q < kPair; ++q) x[q] = load(E + (c + q) * kBandStride + i);
#pragma GCC unroll 16
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
#pragma GCC unroll 16
      for (int k = 0; k < kBand; ++k) s += splat(d[k]) * load(sweep.t + k * kBand);
      store(z + (c + q) * kBand, s);
    }
  }
  thin_update(E, kBand, kWide, 0, Vc, z);
}

static void advance_sweep(Real* band, WideSweep& sweep) {
  alignas(64) Real Vc[kWide * kBand], P[kWide * kBand];
  Real* const D = band + sweep.column * kBandStride + sweep.column;
  Real* const E = D + kWide;
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

// The narrow band as band_to_tridiagonal.inl.hpp wants it.
static void take_narrow_band(const Real* band, Index n, Real* work) {
  const Index order = (n + kBand - 1) / kBand * kBand;
  for (Index k = 0; k < (order + 2 * kBand) * kColumn; ++k) work[k] = 0;
  for (Index j = 0; j < n; ++j) {
    const Index above = (j + kBand - 1) % kBand;  // rows of its block, which is stored whole
    Real* const out = work + j * kColumn + above;
    const Real* const in = band + j * kBandStride + j;
    for (int i = 0; i <= kBand && j + i < n; ++i) out[i] = in[i];
    for (Index i = 1; i <= above && above + 1 < kBand; ++i) out[-i] = in[-i * kBandStride];
  }
}

// A group that follows another one. It does not wait for each block: it lets the group before gain
// some columns, so that a cache line with its progress does not go to and fro at every step.
struct Follower {
  static constexpr Index kRoom = 8 * kBand;
  const pyspectra::linalg::detail::Following& following;
  Index await(Index wanted) const {
    return pyspectra::linalg::detail::await(following, wanted + kRoom);
  }
  void publish(Index done) const { pyspectra::linalg::detail::publish(following, done); }
};

static void chase_narrow_band(Real* work, Index n, Index first, Index last,
                              const pyspectra::linalg::detail::Following& following,
                              void (*check)()) {
  Pace pace{check};
  const Follower follower{following};
  chase_sweeps(work, n, first, last, follower, pace);
  follower.publish(pyspectra::linalg::detail::kAllDone);
}

static void read_tridiagonal(Real* work, Index n, double* d, double* e) {
  for (Index j = 0; j < n; ++j) d[j] = column_at(work, j)[kBand - 1];
  for (Index j = 0; j + 1 < n; ++j) e[j] = column_at(work, j)[kBand];
}
