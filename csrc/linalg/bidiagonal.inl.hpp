// The kernels of bidiagonal.hpp on bands, once for every instruction set. Included inside the
// anonymous namespace of a unit, after full_to_band.inl.hpp, for doubles.

using pyspectra::linalg::detail::kUpperStride;
using pyspectra::linalg::detail::kWide;
using pyspectra::linalg::detail::UpperSweep;

// --- blocks of kWide x kWide of the wide band, column-major
// ----------------------------------------

// M := M - (M V) T V^T for rows [first, kWide); V is kWide x kBand, row-major. The rows before
// `first`, a multiple of kBand, stay.
static inline void reflect_right(double* M, Index first, const double* V, const double* T) {
  for (Index i = first; i < kWide; i += kLanes) {
    vd x[kBand];
#pragma GCC unroll 8
    for (int k = 0; k < kBand; ++k) x[k] = vd{};
    for (Index c = 0; c < kWide; ++c) {
      const vd m = load(M + c * kUpperStride + i);
#pragma GCC unroll 8
      for (int k = 0; k < kBand; ++k) x[k] += splat(V[c * kBand + k]) * m;
    }
#pragma GCC unroll 8
    for (int k = kBand - 1; k >= 0; --k) {
      vd s = x[0] * splat(T[k]);
#pragma GCC unroll 8
      for (int q = 1; q <= k; ++q) s += x[q] * splat(T[q * kBand + k]);
      x[k] = s;
    }
    for (Index c = 0; c < kWide; ++c) {
      vd s = load(M + c * kUpperStride + i), t = vd{};
#pragma GCC unroll 8
      for (int k = 0; k < kBand; k += 2) {
        s -= x[k] * splat(V[c * kBand + k]);
        t -= x[k + 1] * splat(V[c * kBand + k + 1]);
      }
      store(M + c * kUpperStride + i, s + t);
    }
  }
}

// M := M - V T^T (V^T M) for columns [first, kWide); Vc is V, column-major with kWide rows.
static inline void reflect_left(double* M, Index first, const double* Vc, const double* T) {
  constexpr int kPair = 2;
  for (Index c = first; c < kWide; c += kPair) {
    vd dots[kPair][kBand], z[kPair];
#pragma GCC unroll 2
    for (int q = 0; q < kPair; ++q)
#pragma GCC unroll 8
      for (int k = 0; k < kBand; ++k) dots[q][k] = vd{};
    for (Index i = 0; i < kWide; i += kLanes) {
      vd x[kPair];
#pragma GCC unroll 2
      for (int q = 0; q < kPair; ++q) x[q] = load(M + (c + q) * kUpperStride + i);
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
      z[q] = vd{};
#pragma GCC unroll 8
      for (int k = 0; k < kBand; ++k) z[q] += splat(dots[q][0][k]) * load(T + k * kBand);
    }
    for (Index i = 0; i < kWide; i += kLanes) {
      vd x[kPair];
#pragma GCC unroll 2
      for (int q = 0; q < kPair; ++q) x[q] = load(M + (c + q) * kUpperStride + i);
#pragma GCC unroll 8
      for (int k = 0; k < kBand; ++k) {
        const vd v = load(Vc + k * kWide + i);
#pragma GCC unroll 2
        for (int q = 0; q < kPair; ++q) x[q] -= v * splat(z[q][k]);
      }
#pragma GCC unroll 2
      for (int q = 0; q < kPair; ++q) store(M + (c + q) * kUpperStride + i, x[q]);
    }
  }
}

// The reflectors from the right that take the first kBand rows of M to a lower triangle, which is
// put in their place. A column's first kBand entries are a row of the panel.
static inline void factor_rows(double* M, UpperSweep& sweep) {
  double T[kBand][kBand], r[kTile];
  for (Index c = 0; c < kWide; ++c) store(sweep.v + c * kBand, load(M + c * kUpperStride));
  factor_panel<kBand>(sweep.v, kWide, r, T);
  for (Index c = 0; c < kWide; ++c)
    store(M + c * kUpperStride, c < kBand ? load(r + c * kBand) : vd{});
  for (int k = 0; k < kBand; ++k)
    for (int q = 0; q < kBand; ++q) sweep.t[k * kBand + q] = q < k ? 0.0 : T[k][q];
}

// The same from the left for the first kBand columns of M; the reflectors column-major.
static inline void factor_columns(double* M, double* Vc, double* t) {
  double T[kBand][kBand], r[kTile];
  alignas(64) double rows[kWide * kBand];
  for (Index i = 0; i < kWide; i += kLanes) {
    vd x[kLanes];
#pragma GCC unroll 8
    for (int c = 0; c < kLanes; ++c) x[c] = load(M + c * kUpperStride + i);
    transpose(x);
#pragma GCC unroll 8
    for (int c = 0; c < kLanes; ++c) store(rows + (i + c) * kBand, x[c]);
  }
  factor_panel<kBand>(rows, kWide, r, T);
  for (Index i = 0; i < kWide; i += kLanes) {
    vd x[kLanes];
#pragma GCC unroll 8
    for (int c = 0; c < kLanes; ++c) x[c] = load(rows + (i + c) * kBand);
    transpose(x);
#pragma GCC unroll 8
    for (int c = 0; c < kLanes; ++c) store(Vc + c * kWide + i, x[c]);
  }
  for (int k = 0; k < kBand; ++k)
    for (Index i = 0; i < kWide; ++i) M[k * kUpperStride + i] = i < kBand ? r[i * kBand + k] : 0.0;
  for (int k = 0; k < kBand; ++k)
    for (int q = 0; q < kBand; ++q) t[k * kBand + q] = q < k ? 0.0 : T[k][q];
}

static void begin_sweep(double* band, Index s, UpperSweep& sweep) {
  sweep.column = (s + 1) * kBand;
  factor_rows(band + sweep.column * kUpperStride + s * kBand, sweep);
}

// The reflectors fill the diagonal block D; those that clear its first columns fill the block E to
// its right, whose first rows give the next ones.
static void advance_sweep(double* band, UpperSweep& sweep) {
  alignas(64) double Vc[kWide * kBand], t[kBand * kBand];
  double* const D = band + sweep.column * kUpperStride + sweep.column;
  double* const E = D + kWide * kUpperStride;
  reflect_right(D, 0, sweep.v, sweep.t);
  factor_columns(D, Vc, t);
  reflect_left(D, kBand, Vc, t);
  reflect_left(E, 0, Vc, t);
  factor_rows(E, sweep);
  reflect_right(E, kBand, sweep.v, sweep.t);
  sweep.column += kWide;
}

// --- the narrow band ---------------------------------------------------------------------------

// Element (i, j) at j * kNarrow + i, for i from j - 2 kBand to j + kBand.
constexpr Index kNarrow = 4 * kBand - 1;

// v from a vector x whose first entry is alpha = x[0]; beta and tau.
static inline vd vector_reflector(vd x, double& beta, double& tau) {
  const vi first = lane_numbers() == vi{};
  const vd tail = only(~first, x);
  const Reflector h = reflector(x[0], sum_all(tail * tail)[0]);
  beta = h.beta;
  tau = h.tau;
  return tail * splat(h.inverse) + only(first, splat(1.0));
}

// The first entries of kBand vectors.
static inline vd first_entries(const vd (&x)[kBand]) {
  const vi first = lane_numbers() == vi{};
  vd y[kBand];
#pragma GCC unroll 8
  for (int c = 0; c < kBand; ++c) y[c] = only(first, x[c]);
  sum_each(y);
  return y[0];
}

// One step of a sweep: v and tau act from the right on the block at (column, column).
static inline void chase_step(double* block, vd& v, double& tau) {
  const vi first = lane_numbers() == vi{};
  vd D[kBand], E[kBand], dots[kBand];
  vd s = vd{}, t = vd{};
#pragma GCC unroll 8
  for (int c = 0; c < kBand; ++c) D[c] = load(block + c * kNarrow);
#pragma GCC unroll 8
  for (int c = 0; c < kBand; c += 2) {
    s += D[c] * splat(v[c]);
    t += D[c + 1] * splat(v[c + 1]);
  }
  const vd y = (s + t) * splat(-tau);
#pragma GCC unroll 8
  for (int c = 0; c < kBand; ++c) D[c] += y * splat(v[c]);
  double beta, left;
  const vd w = vector_reflector(D[0], beta, left);
  double* const beside = block + kBand * kNarrow;
#pragma GCC unroll 8
  for (int c = 0; c < kBand; ++c) E[c] = load(beside + c * kNarrow);
#pragma GCC unroll 8
  for (int c = 0; c < kBand; ++c) dots[c] = E[c] * w;
  sum_each(dots);
  const vd z = dots[0] * splat(left);
#pragma GCC unroll 8
  for (int c = 0; c < kBand; ++c) E[c] -= w * splat(z[c]);
#pragma GCC unroll 8
  for (int c = 0; c < kBand; ++c) dots[c] = D[c] * w;
  sum_each(dots);
  const vd u = dots[0] * splat(left);
  store(block, only(first, splat(beta)));
#pragma GCC unroll 8
  for (int c = 1; c < kBand; ++c) store(block + c * kNarrow, D[c] - w * splat(u[c]));
  double next;
  v = vector_reflector(first_entries(E), next, tau);
  s = t = vd{};
#pragma GCC unroll 8
  for (int c = 0; c < kBand; c += 2) {
    s += E[c] * splat(v[c]);
    t += E[c + 1] * splat(v[c + 1]);
  }
  const vd x = (s + t) * splat(tau);
#pragma GCC unroll 8
  for (int c = 0; c < kBand; ++c) {
    const vd updated = E[c] - x * splat(v[c]);
    store(beside + c * kNarrow, only(~first, updated) + only(first, splat(c == 0 ? next : 0.0)));
  }
}

static void finish_band(const double* band, Index n, double* d, double* e, double* work,
                        void (*check)()) {
  Pace pace{check};
  for (Index k = 0; k < (n + 4 * kBand) * 4 * kBand; ++k) work[k] = 0.0;
  for (Index j = 0; j < n; ++j)
    for (Index i = j < kBand ? 0 : j - kBand; i <= j; ++i)
      work[j * kNarrow + i] = band[j * kUpperStride + i];
  for (Index row = 0; row + 1 < n; ++row) {
    pace.spend(16 * kBand * (n - row));
    double* const start = work + (row + 1) * kNarrow + row;
    vd x = vd{};
    for (int c = 0; c < kBand; ++c) x[c] = start[c * kNarrow];
    double beta, tau;
    vd v = vector_reflector(x, beta, tau);
    for (int c = 0; c < kBand; ++c) start[c * kNarrow] = c == 0 ? beta : 0.0;
    for (Index column = row + 1; column < n; column += kBand)
      chase_step(work + column * kNarrow + column, v, tau);
  }
  for (Index j = 0; j < n; ++j) d[j] = work[j * kNarrow + j];
  for (Index j = 0; j + 1 < n; ++j) e[j] = work[(j + 1) * kNarrow + j];
}
