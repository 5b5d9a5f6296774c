// Full -> band -> tridiagonal, with the scaling around it. Included inside the anonymous namespace
// of a unit, after householder.inl.hpp, full_to_band.inl.hpp and band_to_tridiagonal.inl.hpp.

using pyspectra::linalg::SymmetricView;

// The power of two 2^-exponent that takes `largest` to [1/2, 1), or near it at the ends of the
// range.
static double scaling(double largest, int& exponent) {
  unsigned long long bits;
  __builtin_memcpy(&bits, &largest, sizeof bits);
  unsigned long long field = (bits >> 52) & 0x7ff;
  field = field < 1 ? 1 : field > 2044 ? 2044 : field;
  exponent = (int)field - 1022;
  const unsigned long long scale = (2045 - field) << 52;
  double out;
  __builtin_memcpy(&out, &scale, sizeof out);
  return out;
}

// Magnitudes compare as integers, where NaN is above everything.
static inline vi magnitude(vd x) { return (vi)abs(x); }
static inline vi larger(vi a, vi b) { return a > b ? a : b; }

static double largest_of(vi magnitudes) {
  long long most = 0;
  for (int l = 0; l < kLanes; ++l) most = magnitudes[l] > most ? magnitudes[l] : most;
  double out;
  __builtin_memcpy(&out, &most, sizeof out);
  return out;
}

// A block of the diagonal, whole, from its lower triangle.
static inline vi fill_diagonal(const SymmetricView& a, Index j, double scale, double* out) {
  vi most = vi{};
  for (int i = 0; i < kBand; ++i) {
    vd row = vd{};
    for (int c = 0; c < kBand; ++c) {
      const Index low = j + (i > c ? c : i), high = j + (i > c ? i : c);
      if (high < a.n) row[c] = a.data[high * a.row_stride + low * a.col_stride];
    }
    most = larger(most, magnitude(row));
    store(out + i * kBand, row * splat(scale));
  }
  return most;
}

// The strips from a matrix of contiguous columns, and its largest magnitude.
static vi fill_from_columns(const SymmetricView& a, double scale, const Strips& A, Pace& pace) {
  vi most = vi{};
  for (Index j = 0; j < A.order; j += kBand) {
    pace.spend(16 * kBand * (A.order - j));
    double* out = A.at(j / kBand, j);
    most = larger(most, fill_diagonal(a, j, scale, out));
    const double* const in = a.data + j * a.col_stride;
    Index i = j + kBand;
    out += kTile;
    for (; i + kBand <= a.n; i += kBand, out += kTile) {
      vd x[kBand];
#pragma GCC unroll 8
      for (int c = 0; c < kBand; ++c) {
        x[c] = load(in + c * a.col_stride + i);
        most = larger(most, magnitude(x[c]));
        x[c] *= splat(scale);
      }
      transpose(x);
#pragma GCC unroll 8
      for (int c = 0; c < kBand; ++c) store(out + c * kBand, x[c]);
    }
    for (; i < A.order; ++i, out += kBand) {
      vd row = vd{};
      if (i < a.n)
        for (int c = 0; c < kBand; ++c) row[c] = in[c * a.col_stride + i];
      most = larger(most, magnitude(row));
      store(out, row * splat(scale));
    }
  }
  return most;
}

// The same from contiguous rows.
static vi fill_from_rows(const SymmetricView& a, double scale, const Strips& A, Pace& pace) {
  vi most = vi{};
  for (Index i = 0; i < A.order; ++i) {
    pace.spend(16 * (i + kBand));
    const double* const in = a.data + i * a.row_stride;
    const Index last = i / kBand;
    if (i == last * kBand) most = larger(most, fill_diagonal(a, i, scale, A.at(last, i)));
    for (Index J = 0; J < last; ++J) {
      const vd row = i < a.n ? load(in + J * kBand) : vd{};
      most = larger(most, magnitude(row));
      store(A.at(J, i), row * splat(scale));
    }
  }
  return most;
}

// False where an entry is not finite. The result is that of 2^-exponent A, whose largest entry is
// near one where A's is near an end of the range.
static bool reduce(const SymmetricView& a, double* d, double* e, double* work, int& exponent,
                   void (*check)()) {
  constexpr double kLow = 0x1p-64, kHigh = 0x1p64, kMost = 0x1.fffffffffffffp+1023;
  Pace pace{check};
  const Index n = a.n, order = (n + kBand - 1) / kBand * kBand, blocks = order / kBand;
  const Strips A{work, order};
  double* const W = A.at(blocks, order);  // where the strips end
  double* const Y = W + order * kBand;
  double* const Vt = Y + order * kBand;
  double* const Wt = Vt + order * kBand;
  double* const band = Wt + order * kBand;
  const auto fill = [&](double scale) {
    return largest_of(a.row_stride == 1 ? fill_from_columns(a, scale, A, pace)
                                        : fill_from_rows(a, scale, A, pace));
  };
  const double largest = fill(1.0);
  if (!(largest <= kMost)) return false;
  exponent = 0;
  if (largest != 0.0 && (largest < kLow || largest > kHigh)) fill(scaling(largest, exponent));
  // Columns past the end: the last blocks of a sweep overhang it.
  for (Index k = 0; k < (order + 2 * kBand) * kColumn; ++k) band[k] = 0.0;
  to_band(A, W, Y, Vt, Wt, band, pace);
  chase_band(band, n, pace);
  for (Index j = 0; j < n; ++j) d[j] = column_at(band, j)[kBand - 1];
  for (Index j = 0; j + 1 < n; ++j) e[j] = column_at(band, j)[kBand];
  return true;
}
