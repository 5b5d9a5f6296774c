// Eight draws of one small matrix side by side, a lane each, once for every instruction set.
// Included inside the anonymous namespace of a unit that has defined kLanes and kBlock (rows and
// columns of a register tile) and included simd.inl.hpp.
//
// Everything below is of shape [...][kDraws]: entry, then draw. Units with shorter vectors take
// kVectors of them for the eight.

using pyspectra::Index;
using pyspectra::linalg::detail::kDraws;
using pyspectra::linalg::detail::kPadded;
using pyspectra::linalg::detail::kRows;
using pyspectra::linalg::detail::kSigns;
using pyspectra::linalg::detail::SmallStatistics;

constexpr int kVectors = kDraws / kLanes;
static_assert(kPadded % kBlock == 0);

static inline vd root(vd x) {
  for (int l = 0; l < kLanes; ++l) x[l] = __builtin_sqrt(x[l]);
  return x;
}

// G += F^T F for the lower tiles, of `rows` rows of P columns.
static void add_products(const double* F, Index rows, Index P, double* G) {
  for (int h = 0; h < kVectors; ++h) {
    const double* const f = F + h * kLanes;
    double* const g = G + h * kLanes;
    for (Index i = 0; i < P; i += kBlock) {
      for (Index j = 0; j <= i; j += kBlock) {
        vd acc[kBlock][kBlock];
#pragma GCC unroll 4
        for (int a = 0; a < kBlock; ++a)
#pragma GCC unroll 4
          for (int b = 0; b < kBlock; ++b) acc[a][b] = load(g + ((i + a) * P + j + b) * kDraws);
        for (Index k = 0; k < rows; ++k) {
          vd y[kBlock];
#pragma GCC unroll 4
          for (int b = 0; b < kBlock; ++b) y[b] = load(f + (k * P + j + b) * kDraws);
#pragma GCC unroll 4
          for (int a = 0; a < kBlock; ++a) {
            const vd x = load(f + (k * P + i + a) * kDraws);
#pragma GCC unroll 4
            for (int b = 0; b < kBlock; ++b) acc[a][b] += x * y[b];
          }
        }
#pragma GCC unroll 4
        for (int a = 0; a < kBlock; ++a)
#pragma GCC unroll 4
          for (int b = 0; b < kBlock; ++b) store(g + ((i + a) * P + j + b) * kDraws, acc[a][b]);
      }
    }
  }
}

// Entries with the signs of eight draws, and what each column adds up to.
static void flip_rows(const double* base, const unsigned char* patterns, Index rows, Index M,
                      Index P, double* F, double* totals) {
  for (Index k = 0; k < rows; ++k) {
    for (Index i = 0; i < M; ++i) {
      const vd w = splat(base[k * M + i]);
      const double* const signs = kSigns.of[patterns[k * M + i]];
#pragma GCC unroll 4
      for (int h = 0; h < kVectors; ++h) {
        const vd x = w * load(signs + h * kLanes);
        double* const total = totals + i * kDraws + h * kLanes;
        store(F + (k * P + i) * kDraws + h * kLanes, x);
        store(total, load(total) + x);
      }
    }
  }
}

// The Gram matrix of what is left when means of rows and columns are taken away, from G and the
// columns' totals. Random signs leave small means, so that nothing cancels.
static void centre(double* G, double* totals, Index N, Index M, Index P, double* means) {
  for (int h = 0; h < kVectors; ++h) {
    double *const g = G + h * kLanes, *const t = totals + h * kLanes, *const u = means + h * kLanes;
    const vd share = splat(1.0 / (double)N), side = splat(1.0 / (double)M);
    for (Index i = 0; i < M; ++i) store(u + i * kDraws, vd{});
    vd mean{};
    for (Index i = 0; i < M; ++i) {
      const vd scaled = share * load(t + i * kDraws);
      vd row{};
      for (Index j = 0; j <= i; ++j) {
        double* const at = g + (i * P + j) * kDraws;
        const vd left = load(at) - scaled * load(t + j * kDraws);
        store(at, left);
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
      for (Index j = 0; j <= i; ++j) {
        double* const at = g + (i * P + j) * kDraws;
        store(at, load(at) - load(u + i * kDraws) - load(u + j * kDraws) + mean);
      }
  }
}

// Householder's reduction of the lower triangles (Golub, Van Loan, 8.3.1): diagonal to d, squares
// of the entries beside it to e2. Uses up G.
static void reduce(double* G, Index M, Index P, double* d, double* e2, double* v, double* w) {
  for (int h = 0; h < kVectors; ++h) {
    double* const g = G + h * kLanes;
    double *const x = v + h * kLanes, *const y = w + h * kLanes;
    const auto at = [&](Index i, Index j) { return g + (i * P + j) * kDraws; };
    for (Index k = 0; k + 2 < M; ++k) {
      store(d + k * kDraws + h * kLanes, load(at(k, k)));
      vd square{};
      for (Index i = k + 1; i < M; ++i) {
        const vd one = load(at(i, k));
        store(x + i * kDraws, one);
        store(y + i * kDraws, vd{});
        square += one * one;
      }
      store(e2 + k * kDraws + h * kLanes, square);
      const vd first = load(x + (k + 1) * kDraws), norm = root(square);
      const vd pivot = first + (first < 0.0 ? -norm : norm);
      store(x + (k + 1) * kDraws, pivot);
      // Half of v^T v; a column of zeros needs no reflection.
      const vd half = square + (first < 0.0 ? -first : first) * norm;
      const vd tau = half > 0.0 ? 1.0 / half : vd{};
      for (Index i = k + 1; i < M; ++i) {
        const vd own = load(x + i * kDraws);
        vd sum = load(at(i, i)) * own;
        for (Index j = k + 1; j < i; ++j) {
          const vd a = load(at(i, j));
          sum += a * load(x + j * kDraws);
          store(y + j * kDraws, load(y + j * kDraws) + a * own);
        }
        store(y + i * kDraws, load(y + i * kDraws) + sum);
      }
      vd inner{};
      for (Index i = k + 1; i < M; ++i) {
        const vd scaled = tau * load(y + i * kDraws);
        store(y + i * kDraws, scaled);
        inner += scaled * load(x + i * kDraws);
      }
      const vd part = 0.5 * tau * inner;
      for (Index i = k + 1; i < M; ++i) {
        const vd own = load(x + i * kDraws), other = load(y + i * kDraws) - part * own;
        store(y + i * kDraws, other);
        for (Index j = k + 1; j <= i; ++j)
          store(at(i, j),
                load(at(i, j)) - own * load(y + j * kDraws) - other * load(x + j * kDraws));
      }
    }
    if (M > 1) {
      const vd beside = load(at(M - 1, M - 2));
      store(d + (M - 2) * kDraws + h * kLanes, load(at(M - 2, M - 2)));
      store(e2 + (M - 2) * kDraws + h * kLanes, beside * beside);
    }
    store(d + (M - 1) * kDraws + h * kLanes, load(at(M - 1, M - 1)));
  }
}

// Laguerre's iteration of sign_draws.hpp, from where Gershgorin's theorem puts no eigenvalue.
static vd largest_eigenvalue(const double* d, const double* e2, Index M) {
  constexpr int kMostSteps = 100;
  constexpr double kDone = 0x1p-51;
  vd x{}, before{};
  for (Index i = 0; i < M; ++i) {
    const vd next = i + 1 < M ? root(load(e2 + i * kDraws)) : vd{};
    x = max(x, load(d + i * kDraws) + before + next);
    before = next;
  }
  x *= 1.0 + kDone;
  const vd order = splat((double)M);
  vi open = x > 0.0;
  for (int step = 0; step < kMostSteps && any(open); ++step) {
    vd g{}, h{}, own{}, slope{}, inverse{}, beside{};
    vi below = vi{} == vi{};
    for (Index i = 0; i < M; ++i) {
      const vd coupling = beside * inverse;
      const vd pivot = load(d + i * kDraws) - x - coupling;
      below &= pivot < 0.0;
      inverse = 1.0 / pivot;
      const vd second = coupling * (slope - own * own) * inverse;
      own = (coupling * own - 1.0) * inverse;
      slope = second - own * own;
      g += own;
      h -= slope;
      beside = load(e2 + i * kDraws);
    }
    open &= below;  // else it has come to the eigenvalue but for rounding
    const vd spread = max(vd{}, (order - 1.0) * (order * h - g * g));
    const vd moved = order / (g + root(spread));
    x = open ? x - moved : x;
    open &= moved > kDone * x;
  }
  return x;
}

static void small_draws(const double* base, const unsigned char* patterns, Index N, Index M,
                        bool centred, double* work, SmallStatistics& out) {
  const Index P = (M + kPadded - 1) / kPadded * kPadded;
  double* const G = work;
  double* const F = G + P * P * kDraws;
  double* const totals = F + kRows * P * kDraws;
  double *const d = totals + P * kDraws, *const e2 = d + P * kDraws;
  double *const v = e2 + P * kDraws, *const w = v + P * kDraws;
  for (Index i = 0; i < (P + kRows + 1) * P * kDraws; ++i) work[i] = 0.0;
  for (Index k = 0; k < N; k += kRows) {
    const Index rows = k + kRows < N ? kRows : N - k;
    flip_rows(base + k * M, patterns + k * M, rows, M, P, F, totals);
    add_products(F, rows, P, G);
  }
  if (centred) centre(G, totals, N, M, P, v);
  for (int h = 0; h < kVectors; ++h) {
    const double* const g = G + h * kLanes;
    vd sum{}, squares{};
    for (Index i = 0; i < M; ++i) {
      vd below{};
      for (Index j = 0; j < i; ++j) {
        const vd a = load(g + (i * P + j) * kDraws);
        below += a * a;
      }
      const vd own = load(g + (i * P + i) * kDraws);
      sum += own;
      squares += own * own + 2.0 * below;
    }
    store(out.sum + h * kLanes, sum);
    store(out.squares + h * kLanes, squares);
  }
  reduce(G, M, P, d, e2, v, w);
  for (int h = 0; h < kVectors; ++h)
    store(out.largest + h * kLanes, largest_eigenvalue(d + h * kLanes, e2 + h * kLanes, M));
}
