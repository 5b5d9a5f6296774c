// First stage of the tridiagonal reduction: full to band, bandwidth kLanes, so that a row of a
// panel is one vector. Included after householder.inl.hpp.
//
// The lower triangle is held as strips: strip J has the kBand columns from J * kBand on, rows from
// its diagonal block down, row after row. A strip is a tall matrix with one vector a row, so the
// updates need no shuffles, and a panel's reflectors stay where its columns were. The order is
// padded to whole blocks with zero rows; reflectors are exactly zero there and leave them zero.

using pyspectra::Index;

constexpr int kBand = kLanes;
constexpr int kTile = kBand * kBand;
constexpr int kColumn = 2 * kBand;  // numbers that a column of the band is stored in
// Sums of squares that count as zero: see reflector.inl.hpp. A float cannot hold less.
constexpr double kDropped = sizeof(Real) == sizeof(float) ? 0x1p-100 : kNegligible;
constexpr Index kChunk = 64;  // rows whose operands stay in L1 while strips go by

constexpr int kWays = 4;  // sums side by side: shorter chains, and better rounding

struct Strips {
  Real* data;
  Index order;  // padded
  Real* at(Index J, Index row) const {
    return data + kBand * (order * J - kBand * (J * (J - 1) / 2) + row - kBand * J);
  }
};

// Reflector K of a panel: its column becomes v, the columns to the right are updated and the dots
// of the next column with all of them are taken, in one pass. Compiled for each K, so that taking a
// lane of a row is one instruction.
template <Index kStride, int K>
static vd reflect_rows(Real* p, Index rows, vd change) {
  constexpr int kNext = K + 1 < kBand ? K + 1 : K;
  const vi others = lane_numbers() != splat_i(K);
  vd partial[kWays] = {};
  const auto reflect = [&](Real* row, vd& sum) {
    const vd updated = only(others, load(row)) + splat(row[K]) * change;
    store(row, updated);
    sum += spread<kNext>(updated, AllLanes{}) * updated;
  };
  for (; rows >= kWays; rows -= kWays, p += kWays * kStride)
#pragma GCC unroll 4
    for (int w = 0; w < kWays; ++w) reflect(p + w * kStride, partial[w]);
  for (; rows > 0; --rows, p += kStride) reflect(p, partial[0]);
  return (partial[0] + partial[1]) + (partial[2] + partial[3]);
}

template <Index kStride, typename Lanes>
struct Passes;
template <Index kStride, int... K>
struct Passes<kStride, LaneList<K...>> {
  static constexpr vd (*of[])(Real*, Index, vd) = {reflect_rows<kStride, K>...};
};

// Householder QR of the rows x kBand matrix p, rows >= kBand, whose rows are kStride apart. R goes
// into the upper triangle of `r` (by rows), the reflectors V replace p, and I - V T V^T is their
// product.
template <Index kStride>
static void factor_panel(Real* p, Index rows, Real* r, Real (&T)[kBand][kBand]) {
  const vi lane = lane_numbers();
  // dots[j] = sum over rows below k of p[.][k] p[.][j]: the norm of column k, its products with the
  // columns to come and, as V stays in place, with the reflectors before: all a pass needs.
  vd partial[kWays] = {};
  Index i = 1;
  for (; i + kWays <= rows; i += kWays)
#pragma GCC unroll 4
    for (int w = 0; w < kWays; ++w)
      partial[w] += splat(p[(i + w) * kStride]) * load(p + (i + w) * kStride);
  for (; i < rows; ++i) partial[0] += splat(p[i * kStride]) * load(p + i * kStride);
  vd dots = (partial[0] + partial[1]) + (partial[2] + partial[3]);
  for (int k = 0; k < kBand; ++k) {
    Real* const top = p + k * kStride;
    const Reflector h = reflector(top[k], dots[k], kDropped);
    const Real inverse = (Real)h.inverse, tau = (Real)h.tau;
    const vd product = load(top) + dots * splat(inverse);  // v_k^T p, and v_k^T v_j for j < k
    const vd scaled = only(lane > splat_i(k), product * splat(-tau));
    for (int j = 0; j < k; ++j) {
      Real sum = 0;
      for (int q = j; q < k; ++q) sum += T[j][q] * product[q];
      T[j][k] = -tau * sum;
    }
    T[k][k] = tau;
    for (int j = k + 1; j < kBand; ++j) T[j][k] = 0.0;
    store(top, load(top) + scaled);
    top[k] = (Real)h.beta;
    if (k + 1 == rows) break;

    vd change = scaled * splat(inverse);
    change[k] = inverse;
    const vi others = lane != splat_i(k);  // v replaces what is there
    store(top + kStride, only(others, load(top + kStride)) + splat(top[kStride + k]) * change);
    dots = Passes<kStride, AllLanes>::of[k](p + (k + 2) * kStride, rows - k - 2, change);
  }
  for (int k = 0; k < kBand; ++k) {
    Real* const row = p + k * kStride;
    for (int j = 0; j < kBand; ++j) {
      r[k * kBand + j] = j >= k ? row[j] : (Real)0;
      row[j] = j < k ? row[j] : j == k ? (Real)1 : (Real)0;
    }
  }
}

// a -= v W_j^T + w V_j^T for `rows` rows of a strip; Vt and Wt are minus V_j^T and W_j^T.
static inline void update(Real* a, Index rows, const Real* v, const Real* w, const Real* Vt,
                          const Real* Wt) {
  vd y[kBand], x[kBand];
#pragma GCC unroll 16
  for (int k = 0; k < kBand; ++k) {
    y[k] = load(Wt + k * kBand);
    x[k] = load(Vt + k * kBand);
  }
  for (Index i = 0; i < rows; ++i) {
    vd s = load(a), t = splat(v[0]) * y[0];
#pragma GCC unroll 16
    for (int k = 0; k < kBand; ++k) {
      s += splat(w[k]) * x[k];
      if (k > 0) t += splat(v[k]) * y[k];
    }
    store(a, s + t);
    a += kBand, v += kBand, w += kBand;
  }
}

// y += a v_j and y_j += a^T v for `rows` rows of a strip below its diagonal block. Sums within the
// call are added to what was there: short chains, rounding errors that grow with n / kBand.
static inline void multiply(const Real* a, Index rows, const Real* v, Real* y, const Real* vj,
                            Real* yj) {
  vd x[kBand], sum[kBand];
#pragma GCC unroll 16
  for (int c = 0; c < kBand; ++c) {
    x[c] = load(vj + c * kBand);
    sum[c] = vd{};
  }
  for (Index i = 0; i < rows; ++i) {
    const vd row = load(v);
    vd s = vd{}, t = vd{};
#pragma GCC unroll 16
    for (int c = 0; c < kBand; ++c) {
      const vd e = splat(a[c]);
      sum[c] += e * row;
      if (c % 2 == 0)
        s += e * x[c];
      else
        t += e * x[c];
    }
    store(y, load(y) + (s + t));
    a += kBand, v += kBand, y += kBand;
  }
#pragma GCC unroll 16
  for (int c = 0; c < kBand; ++c) store(yj + c * kBand, load(yj + c * kBand) + sum[c]);
}

// The same for a diagonal block, which is stored whole.
static inline void multiply_diagonal(const Real* a, const Real* v, Real* y) {
  for (int i = 0; i < kBand; ++i) {
    vd s = load(y + i * kBand);
#pragma GCC unroll 16
    for (int c = 0; c < kBand; ++c) s += splat(a[i * kBand + c]) * load(v + c * kBand);
    store(y + i * kBand, s);
  }
}

// W from Y = A V: with X = Y T, W = X - V (T^T V^T X) / 2, so that Q^T A Q = A - V W^T - W V^T.
// W replaces Y. Also minus the transposes, block by block, for update().
static void finish_panel(const Real* V, Real* Y, Index rows, const Real (&T)[kBand][kBand],
                         Real* Vt, Real* Wt) {
  vd m[kBand] = {}, x[kBand], half[kBand];
  for (Index b = 0; b < rows; b += kBand) {
    vd block[kBand] = {};
    for (int l = 0; l < kBand; ++l) {
      const vd row = load(Y + (b + l) * kBand);
#pragma GCC unroll 16
      for (int k = 0; k < kBand; ++k) block[k] += splat(V[(b + l) * kBand + k]) * row;
    }
#pragma GCC unroll 16
    for (int k = 0; k < kBand; ++k) m[k] += block[k];
  }
#pragma GCC unroll 16
  for (int k = 0; k < kBand; ++k) {
    x[k] = load(&T[k][0]);
    half[k] = vd{};
  }
  for (int k = 0; k < kBand; ++k) {  // half = -T^T (m T) / 2, a row of m T at a time
    vd row = vd{};
    for (int q = 0; q < kBand; ++q) row += splat(m[k][q]) * load(&T[q][0]);
#pragma GCC unroll 16
    for (int q = 0; q < kBand; ++q) half[q] -= splat((Real)0.5 * T[k][q]) * row;
  }
  for (Index b = 0; b < rows; b += kBand) {
    vd w[kBand], v[kBand];
#pragma GCC unroll 16
    for (int l = 0; l < kBand; ++l) {
      const Real* const at = V + (b + l) * kBand;
      Real* const out = Y + (b + l) * kBand;
      vd s = vd{}, t = vd{};
#pragma GCC unroll 16
      for (int k = 0; k < kBand; ++k) {
        s += splat(out[k]) * x[k];
        t += splat(at[k]) * half[k];
      }
      store(out, s + t);
    }
#pragma GCC unroll 16
    for (int l = 0; l < kBand; ++l) {
      w[l] = -load(Y + (b + l) * kBand);
      v[l] = -load(V + (b + l) * kBand);
    }
    transpose(w);
    transpose(v);
#pragma GCC unroll 16
    for (int l = 0; l < kBand; ++l) {
      store(Wt + (b + l) * kBand, w[l]);
      store(Vt + (b + l) * kBand, v[l]);
    }
  }
}

// Block p of the matrix's columns: its diagonal block and the R below it go into the band, as
// band_to_tridiagonal.inl.hpp wants them: row 0 belongs to the block of that before.
static void keep_band(const Real* diagonal, const Real* r, Index p, Real* band) {
  for (int c = 0; c < kBand; ++c) {
    const Index column = p * kBand + c;
    Real* const out = band + column * kColumn + (column + kBand - 1) % kBand;
    for (int i = c > 0; i < kBand; ++i) out[i - c] = diagonal[i * kBand + c];
    for (int i = 0; i <= c; ++i) out[kBand + i - c] = r[i * kBand + c];
  }
}

static void to_band(const Strips& A, Real* W, Real* Y, Real* Vt, Real* Wt, Real* band, Pace& pace) {
  const Index blocks = A.order / kBand;
  alignas(64) Real T[kBand][kBand], r[kTile];
  for (Index p = 0; p < blocks; ++p) {
    const Index first = (p + 1) * kBand, rows = A.order - first;
    // The previous panel's update reaches this panel now and the rest together with its product.
    const Real* const V0 = p > 0 ? A.at(p - 1, 0) : nullptr;  // indexed by the matrix's rows
    Real* const panel = A.at(p, p * kBand);
    if (p > 0)
      update(panel, rows + kBand, V0 + p * kTile, W + p * kTile, Vt + p * kTile, Wt + p * kTile);
    for (int k = 0; k < kTile; ++k) r[k] = 0.0;
    if (rows > 0) factor_panel<kBand>(panel + kTile, rows, r, T);
    keep_band(panel, r, p, band);
    if (rows == 0) break;
    const Real* const V = A.at(p, 0);
    for (Index k = first * kBand; k < A.order * kBand; ++k) Y[k] = 0.0;
    for (Index i0 = first; i0 < A.order; i0 += kChunk) {
      const Index i1 = i0 + kChunk < A.order ? i0 + kChunk : A.order;
      pace.spend(8 * kBand * kChunk * (i1 - first));
      for (Index J = p + 1; J * kBand < i1; ++J) {
        const Index j0 = J * kBand;
        Index i = i0 > j0 ? i0 : j0;
        Real* a = A.at(J, i);
        if (p > 0)
          update(a, i1 - i, V0 + i * kBand, W + i * kBand, Vt + j0 * kBand, Wt + j0 * kBand);
        if (i == j0) {
          multiply_diagonal(a, V + j0 * kBand, Y + j0 * kBand);
          i += kBand;
          a += kTile;
        }
        multiply(a, i1 - i, V + i * kBand, Y + i * kBand, V + j0 * kBand, Y + j0 * kBand);
      }
    }
    const Index skip = first * kBand;
    finish_panel(V + skip, Y + skip, rows, T, Vt + skip, Wt + skip);
    Real* const swap = W;
    W = Y;
    Y = swap;
  }
}
