// Full -> band -> tridiagonal, with the scaling around it. Included inside the anonymous namespace
// of a unit, after householder.inl.hpp, full_to_band.inl.hpp and band_to_tridiagonal.inl.hpp.

// A power of two that takes `largest` to [1/2, 1) (nearly so at the ends of the range), and back.
static void scaling(double largest, double& scale, double& back) {
  unsigned long long bits;
  __builtin_memcpy(&bits, &largest, sizeof bits);
  unsigned long long exponent = (bits >> 52) & 0x7ff;
  exponent = exponent < 1 ? 1 : exponent > 2044 ? 2044 : exponent;
  const unsigned long long up = (2045 - exponent) << 52, down = (exponent + 1) << 52;
  __builtin_memcpy(&scale, &up, sizeof up);
  __builtin_memcpy(&back, &down, sizeof down);
}

static double largest_entry(const double* a, Index n, Index lda, Pace& pace) {
  vd most[2] = {};
  double rest = 0.0;
  for (Index j = 0; j < n; ++j) {
    const double* const column = a + j * lda;
    pace.spend(4 * (n - j));
    Index i = j;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
      most[0] = max(most[0], abs(load(column + i)));
      most[1] = max(most[1], abs(load(column + i + kLanes)));
    }
    for (; i < n; ++i) {
      const double x = __builtin_fabs(column[i]);
      rest = x > rest ? x : rest;
    }
  }
  const double vectors = reduce_max(max(most[0], most[1]));
  return vectors > rest ? vectors : rest;
}

static void fill_strips(const double* a, Index n, Index lda, double scale, const Strips& A,
                        Pace& pace) {
  for (Index j = 0; j < A.order; j += kBand) {
    pace.spend(16 * kBand * (A.order - j));
    double* out = A.at(j / kBand, j);
    for (int i = 0; i < kBand; ++i)
      for (int c = 0; c < kBand; ++c) {
        const Index low = j + (i > c ? c : i), high = j + (i > c ? i : c);
        out[i * kBand + c] = high < n ? a[low * lda + high] * scale : 0.0;
      }
    Index i = j + kBand;
    out += kTile;
    for (; i + kBand <= n; i += kBand, out += kTile) {
      vd x[kBand];
#pragma GCC unroll 8
      for (int c = 0; c < kBand; ++c) x[c] = load(a + (j + c) * lda + i) * splat(scale);
      transpose(x);
#pragma GCC unroll 8
      for (int c = 0; c < kBand; ++c) store(out + c * kBand, x[c]);
    }
    for (; i < A.order; ++i, out += kBand)
      for (int c = 0; c < kBand; ++c) out[c] = i < n ? a[(j + c) * lda + i] * scale : 0.0;
  }
}

static void reduce(const double* a, Index n, Index lda, double* d, double* e, double* work,
                   void (*check)()) {
  Pace pace{check};
  const Index order = (n + kBand - 1) / kBand * kBand, blocks = order / kBand;
  double scale, back;
  scaling(largest_entry(a, n, lda, pace), scale, back);
  const Strips A{work, order};
  double* const W = A.at(blocks, order);  // where the strips end
  double* const Y = W + order * kBand;
  double* const Vt = Y + order * kBand;
  double* const Wt = Vt + order * kBand;
  double* const band = Wt + order * kBand;
  fill_strips(a, n, lda, scale, A, pace);
  // Columns past the end: the last blocks of a sweep overhang it.
  for (Index k = 0; k < (order + 2 * kBand) * kColumn; ++k) band[k] = 0.0;
  to_band(A, W, Y, Vt, Wt, band, pace);
  chase_band(band, n, pace);
  for (Index j = 0; j < n; ++j) d[j] = column_at(band, j)[kBand - 1] * back;
  for (Index j = 0; j + 1 < n; ++j) e[j] = column_at(band, j)[kBand] * back;
}
