// Eight draws of one small matrix side by side, a lane each, once for every instruction set.
// Included inside the anonymous namespace of a unit that has included lane_largest.inl.hpp, whose
// shapes these are.

using pyspectra::linalg::detail::kMostRows;
using pyspectra::linalg::detail::lane_stride;
using pyspectra::linalg::detail::LaneMatrix;
using pyspectra::linalg::detail::LaneSums;
using pyspectra::linalg::detail::LaneWords;
using pyspectra::linalg::detail::padded;
using pyspectra::linalg::detail::rows_at_once;

typedef unsigned long long Word;
typedef Word vw __attribute__((vector_size(kLanes * sizeof(Word))));
constexpr int kWordBits = 64;

static inline vw load_words(const LaneWords* words, int h) {
  vw x;
  __builtin_memcpy(&x, words->of + h * kLanes, sizeof x);
  return x;
}

// The entry with the signs of the highest bits.
static inline vd signed_as(double entry, vw bits) {
  return (vd)((vw)splat(entry) ^ (bits & (Word{1} << (kWordBits - 1))));
}

// Entries of rows [k, k + rows), which lie one after the other, with the signs of eight draws.
static void flip_tall(const LaneMatrix& W, Index k, Index rows, Lanes F) {
  for (int h = 0; h < kVectors; ++h) {
    const double* const entries = W.entries;
    Index e = k * W.M;
    vw bits = load_words(W.signs + e / kWordBits, h) << (Word)(e % kWordBits);
    for (Index r = 0; r < rows; ++r) {
      double* out = F.from(h).at(r, 0);
      for (Index i = 0; i < W.M;) {
        if (e % kWordBits == 0) bits = load_words(W.signs + e / kWordBits, h);
        const Index left = kWordBits - e % kWordBits, run = W.M - i < left ? W.M - i : left;
        for (Index n = 0; n < run; ++n, out += kDraws) {
          store(out, signed_as(entries[e + n], bits));
          bits += bits;
        }
        e += run;
        i += run;
      }
    }
  }
}

// The same where rows of this matrix are columns of the entries, N apart.
static void flip_wide(const LaneMatrix& W, Index k, Index rows, Lanes F) {
  static_assert(kMostRows <= kWordBits);
  for (int h = 0; h < kVectors; ++h)
    for (Index i = 0; i < W.M; ++i) {
      const Index e = i * W.N + k, past = e % kWordBits;
      vw bits = load_words(W.signs + e / kWordBits, h) << (Word)past;
      if (past + rows > kWordBits)
        bits |= load_words(W.signs + e / kWordBits + 1, h) >> (Word)(kWordBits - past);
      double* out = F.from(h).at(0, i);
      const double* const entries = W.entries + e;
      for (Index r = 0; r < rows; ++r, out += F.stride * kDraws) {
        store(out, signed_as(entries[r], bits));
        bits += bits;
      }
    }
}

// One tile of G, of kBlock rows and kPadded columns, to which the products of `rows` rows of F are
// added. Where it is a square on the diagonal its lower triangle is enough.
template <bool fresh, bool diagonal>
static inline void add_tile(Lanes F, Index rows, Lanes G, Index i, Index j) {
  constexpr bool triangle = diagonal && kBlock == kPadded;
  vd acc[kBlock][kPadded];
#pragma GCC unroll 4
  for (int a = 0; a < kBlock; ++a)
#pragma GCC unroll 4
    for (int b = 0; b < (triangle ? a + 1 : kPadded); ++b)
      acc[a][b] = fresh ? vd{} : load(G.at(i + a, j + b));
  const double *left = F.at(0, i), *right = F.at(0, j);
  const Index step = F.stride * kDraws;
  for (Index k = 0; k < rows; ++k, left += step, right += step) {
    vd y[kPadded];
#pragma GCC unroll 4
    for (int b = 0; b < kPadded; ++b) y[b] = load(right + b * kDraws);
#pragma GCC unroll 4
    for (int a = 0; a < kBlock; ++a) {
      const vd x = triangle ? y[a] : load(left + a * kDraws);
#pragma GCC unroll 4
      for (int b = 0; b < (triangle ? a + 1 : kPadded); ++b) acc[a][b] += x * y[b];
    }
  }
#pragma GCC unroll 4
  for (int a = 0; a < kBlock; ++a)
#pragma GCC unroll 4
    for (int b = 0; b < (triangle ? a + 1 : kPadded); ++b) store(G.at(i + a, j + b), acc[a][b]);
}

// G += F^T F, of `rows` rows of P columns; G = F^T F where `fresh`. Squares of tiles go together,
// whose columns of F are in the first cache.
template <bool fresh>
static void add_products(Lanes F, Index rows, Index P, Lanes G) {
  constexpr Index kSquare = 16;
  static_assert(kSquare % kPadded == 0);
  for (int h = 0; h < kVectors; ++h)
    for (Index i0 = 0; i0 < P; i0 += kSquare)
      for (Index j0 = 0; j0 <= i0; j0 += kSquare)
        for (Index i = i0; i < i0 + kSquare && i < P; i += kBlock) {
          const Index own = i / kPadded * kPadded;
          for (Index j = j0; j < j0 + kSquare && j < own; j += kPadded)
            add_tile<fresh, false>(F.from(h), rows, G.from(h), i, j);
          if (i0 == j0) add_tile<fresh, true>(F.from(h), rows, G.from(h), i, own);
        }
}

// What the columns of F add up to.
static void add_totals(Lanes F, Index rows, Index M, double* totals, bool fresh) {
  for (Index i = 0; i < M; ++i)
    for (int h = 0; h < kVectors; ++h) {
      double* const total = totals + i * kDraws + h * kLanes;
      vd sum = fresh ? vd{} : load(total);
      for (Index k = 0; k < rows; ++k) sum += load(F.from(h).at(k, i));
      store(total, sum);
    }
}

// The Gram matrix of what is left when means of rows and columns are taken away, from G and the
// columns' totals. Random signs leave small means, so that nothing cancels.
static void centre(Lanes G, const double* totals, Index N, Index M, double* means) {
  const vd share = splat(1.0 / (double)N), side = splat(1.0 / (double)M);
  for (int h = 0; h < kVectors; ++h) {
    const Lanes g = G.from(h);
    const double* const t = totals + h * kLanes;
    double* const u = means + h * kLanes;
    for (Index i = 0; i < M; ++i) store(u + i * kDraws, vd{});
    vd mean{};
    for (Index i = 0; i < M; ++i) {
      const vd scaled = share * load(t + i * kDraws);
      vd row{};
      for (Index j = 0; j <= i; ++j) {
        const vd left = load(g.at(i, j)) - scaled * load(t + j * kDraws);
        store(g.at(i, j), left);
        row += left;
        if (j < i) store(u + j * kDraws, load(u + j * kDraws) + left);
      }
      store(u + i * kDraws, load(u + i * kDraws) + row);
    }
    for (Index i = 0; i < M; ++i) {
      const vd own = side * load(u + i * kDraws);
      store(u + i * kDraws, own);
      mean += side * own;
    }
    for (Index i = 0; i < M; ++i)
      for (Index j = 0; j <= i; ++j)
        store(g.at(i, j), load(g.at(i, j)) - load(u + i * kDraws) - load(u + j * kDraws) + mean);
  }
}

static void add_up(Lanes G, Index M, LaneSums& out) {
  for (int h = 0; h < kVectors; ++h) {
    const Lanes g = G.from(h);
    vd sum{}, squares{};
    for (Index i = 0; i < M; ++i) {
      vd below{};
      for (Index j = 0; j < i; ++j) {
        const vd a = load(g.at(i, j));
        below += a * a;
      }
      const vd own = load(g.at(i, i));
      sum += own;
      squares += own * own + 2.0 * below;
    }
    store(out.sum + h * kLanes, sum);
    store(out.squares + h * kLanes, squares);
  }
}

static void lane_gram(const LaneMatrix& W, bool centred, double* gram, double* work,
                      LaneSums& out) {
  const Index P = padded(W.M), most = rows_at_once(W.M);
  const Lanes G{gram, lane_stride(W.M)}, F{work, lane_stride(W.M)};
  double *const totals = F.at(most, 0), *const means = totals + P * kDraws;
  for (Index r = 0; r < most; ++r)
    for (Index i = W.M * kDraws; i < P * kDraws; ++i) F.at(r, 0)[i] = 0.0;
  for (Index k = 0; k < W.N; k += most) {
    const Index rows = k + most < W.N ? most : W.N - k;
    if (W.is_tall)
      flip_tall(W, k, rows, F);
    else
      flip_wide(W, k, rows, F);
    if (centred) add_totals(F, rows, W.M, totals, k == 0);
    if (k == 0)
      add_products<true>(F, rows, P, G);
    else
      add_products<false>(F, rows, P, G);
  }
  if (centred) centre(G, totals, W.N, W.M, means);
  add_up(G, W.M, out);
}

static void lane_largest(double* gram, Index M, double* work, double* largest) {
  double *const d = work, *const e2 = d + M * kDraws, *const vectors = e2 + M * kDraws;
  const Lanes G{gram, lane_stride(M)};
  for (int h = 0; h < kVectors; ++h) {
    reduce(G.from(h), M, d, e2, vectors);
    store(largest + h * kLanes, laguerre(d, e2, M));
  }
}

static unsigned lane_reaching(double* gram, Index M, const double* x, double* work) {
  const Lanes G{gram, lane_stride(M)};
  unsigned reaching = 0;
  for (int h = 0; h < kVectors; ++h) {
    const vi exceeded = exceeds_all(load(x + h * kLanes), G.from(h), padded(M), work);
    for (int l = 0; l < kLanes; ++l)
      if (!exceeded[l]) reaching |= 1u << (h * kLanes + l);
  }
  return reaching;
}

static constexpr pyspectra::linalg::detail::LaneKernels kKernels{lane_gram, lane_largest,
                                                                 lane_reaching, kMostOrder};
