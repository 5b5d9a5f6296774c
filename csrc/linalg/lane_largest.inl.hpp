// Symmetric matrices of eight draws side by side, a lane each: their largest eigenvalue, and
// whether it may exceed a number. Included inside the anonymous namespace of a unit that has
// defined kLanes and kBlock (rows and columns of a register tile) and included simd.inl.hpp.
//
// Everything below is of shape [...][kDraws]: entry, then draw. Units with shorter vectors take
// kVectors of them for the eight, one after the other. Of matrices the lower triangles count.

using pyspectra::Index;
using pyspectra::linalg::detail::kDraws;
using pyspectra::linalg::detail::kPadded;

constexpr int kVectors = kDraws / kLanes;
static_assert(kPadded % kBlock == 0);

static inline vd root(vd x) {
  for (int l = 0; l < kLanes; ++l) x[l] = __builtin_sqrt(x[l]);
  return x;
}

// Entries of a matrix, one for each draw, from those of a vector on. Rows have room for `stride`.
struct Lanes {
  double* data;
  Index stride;
  double* at(Index i, Index j) const { return data + (i * stride + j) * kDraws; }
  Lanes from(int vector) const { return {data + vector * kLanes, stride}; }
};

// sum x y over [begin, end), as four sums: one would wait for each of its additions.
static inline vd inner_product(const double* x, const double* y, Index begin, Index end) {
  vd parts[4] = {};
  Index i = begin;
  for (; i + 4 <= end; i += 4)
#pragma GCC unroll 4
    for (int a = 0; a < 4; ++a) parts[a] += load(x + (i + a) * kDraws) * load(y + (i + a) * kDraws);
  for (; i < end; ++i) parts[0] += load(x + i * kDraws) * load(y + i * kDraws);
  return (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

// What a sweep over the matrix works with, an entry a row: A becomes A - v w^T - w v^T where
// `updates`, and y = A u.
struct Sweep {
  const double *v, *w, *u;
  double* y;
};

// R rows from i on of a sweep, columns [begin, i + R).
template <int R, bool updates>
static inline void sweep_rows(Lanes A, const Sweep& s, Index begin, Index i) {
  vd v[R], w[R], u[R], y[R];
#pragma GCC unroll 4
  for (int a = 0; a < R; ++a) {
    v[a] = load(s.v + (i + a) * kDraws);
    w[a] = load(s.w + (i + a) * kDraws);
    u[a] = load(s.u + (i + a) * kDraws);
    y[a] = vd{};
  }
  double* const rows = A.at(i, 0);
  for (Index j = begin; j < i; ++j) {
    const vd vj = load(s.v + j * kDraws), wj = load(s.w + j * kDraws);
    const vd uj = load(s.u + j * kDraws);
    vd yj = load(s.y + j * kDraws);
#pragma GCC unroll 4
    for (int a = 0; a < R; ++a) {
      double* const at = rows + (a * A.stride + j) * kDraws;
      vd x = load(at);
      if constexpr (updates) {
        x = x - v[a] * wj - w[a] * vj;
        store(at, x);
      }
      y[a] += x * uj;
      yj += x * u[a];
    }
    store(s.y + j * kDraws, yj);
  }
#pragma GCC unroll 4
  for (int a = 0; a < R; ++a)
#pragma GCC unroll 4
    for (int b = 0; b <= a; ++b) {
      double* const at = rows + (a * A.stride + i + b) * kDraws;
      vd x = load(at);
      if constexpr (updates) {
        x = x - v[a] * w[b] - w[a] * v[b];
        store(at, x);
      }
      y[a] += x * u[b];
      if (b < a) y[b] += x * u[a];
    }
#pragma GCC unroll 4
  for (int a = 0; a < R; ++a) store(s.y + (i + a) * kDraws, y[a]);
}

template <bool updates>
static void sweep(Lanes A, const Sweep& s, Index begin, Index end) {
  Index i = begin;
  for (; (end - i) % kBlock != 0; ++i) sweep_rows<1, updates>(A, s, begin, i);
  for (; i < end; i += kBlock) sweep_rows<kBlock, updates>(A, s, begin, i);
}

// Householder's reduction (Golub, Van Loan, 8.3.1): diagonal to d, squares of the entries beside it
// to e2. One sweep takes a reflection in and multiplies the next one's vector, so that an entry is
// loaded and stored once for its four multiply-adds. Uses up A; `vectors` has room for four of
// length M.
static void reduce(Lanes A, Index M, double* d, double* e2, double* vectors) {
  double *v = vectors, *w = v + M * kDraws, *u = w + M * kDraws, *y = u + M * kDraws;
  bool updates = false;  // v and w hold a reflection that A has yet to take in
  for (Index k = 0; k < M; ++k) {
    const vd vk = updates ? load(v + k * kDraws) : vd{}, wk = updates ? load(w + k * kDraws) : vd{};
    store(d + k * kDraws, load(A.at(k, k)) - 2.0 * vk * wk);
    if (k + 1 == M) break;
    for (Index i = k + 1; i < M; ++i) {
      const vd x = load(A.at(i, k));
      store(u + i * kDraws,
            updates ? x - load(v + i * kDraws) * wk - load(w + i * kDraws) * vk : x);
    }
    const vd square = inner_product(u, u, k + 1, M);
    store(e2 + k * kDraws, square);
    if (k + 2 == M) continue;
    const vd first = load(u + (k + 1) * kDraws), norm = root(square);
    store(u + (k + 1) * kDraws, first + (first < 0.0 ? -norm : norm));
    // Half of u^T u; a column of zeros needs no reflection.
    const vd half = square + (first < 0.0 ? -first : first) * norm;
    const vd tau = half > 0.0 ? 1.0 / half : vd{};
    if (updates)
      sweep<true>(A, {v, w, u, y}, k + 1, M);
    else
      sweep<false>(A, {v, w, u, y}, k + 1, M);
    const vd part = 0.5 * tau * (tau * inner_product(u, y, k + 1, M));
    for (Index i = k + 1; i < M; ++i)
      store(y + i * kDraws, tau * load(y + i * kDraws) - part * load(u + i * kDraws));
    double *const next_u = v, *const next_y = w;
    v = u, w = y, u = next_u, y = next_y;
    updates = true;
  }
}

// Pivots of T - x I from one end of T, and the derivatives of their logarithms.
struct Pivots {
  vd inverse{}, own{}, slope{}, g{}, h{};
  vi below = vi{} == vi{};  // all were negative

  // What the pivots so far take from the next, whose entry beside it has the square `beside`.
  vd coupling(vd beside) const { return beside * inverse; }

  void step(vd diagonal, vd beside) {
    const vd c = coupling(beside), pivot = diagonal - c;
    below &= pivot < 0.0;
    inverse = 1.0 / pivot;
    const vd second = c * (slope - own * own) * inverse;
    own = (c * own - 1.0) * inverse;
    slope = second - own * own;
    g += own;
    h -= slope;
  }
};

// Laguerre's iteration of sign_draws.hpp, from where Gershgorin's theorem puts no eigenvalue. The
// pivots come from both ends and meet: a division waits for the one before it.
static vd laguerre(const double* d, const double* e2, Index M) {
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
  const Index middle = (M - 1) / 2;  // as many pivots before it as after it, or one less
  vi open = x > 0.0;
  for (int step = 0; step < kMostSteps && any(open); ++step) {
    Pivots top, bottom;
    vd above{}, under{};
    for (Index i = 0; i < middle; ++i) {
      const Index j = M - 1 - i;
      top.step(load(d + i * kDraws) - x, above);
      bottom.step(load(d + j * kDraws) - x, under);
      above = load(e2 + i * kDraws);
      under = load(e2 + (j - 1) * kDraws);
    }
    if (M % 2 == 0) {
      bottom.step(load(d + (middle + 1) * kDraws) - x, under);
      under = load(e2 + middle * kDraws);
    }
    // The pivot where both meet, and what each side's share of it does to its derivatives.
    const vd from_top = top.coupling(above), from_bottom = bottom.coupling(under);
    const vd pivot = load(d + middle * kDraws) - x - from_top - from_bottom;
    const vd inverse = 1.0 / pivot;
    const vd own = (from_top * top.own + from_bottom * bottom.own - 1.0) * inverse;
    const vd second = (from_top * (top.slope - top.own * top.own) +
                       from_bottom * (bottom.slope - bottom.own * bottom.own)) *
                      inverse;
    const vd g = top.g + bottom.g + own, h = top.h + bottom.h - (second - own * own);
    open &= top.below & bottom.below & (pivot < 0.0);  // else it has come but for rounding
    const vd spread = max(vd{}, (order - 1.0) * (order * h - g * g));
    const vd moved = order / (g + root(spread));
    x = open ? x - moved : x;
    open &= moved > kDone * x;
  }
  return x;
}

// One tile of the factors L D L^T of x I - A, rows from i and columns from j on, less what the
// columns before j take from it. `L` and `C` hold those of L and of L D.
static inline void remaining(Lanes A, Index i, Index j, Lanes L, Lanes C,
                             vd (&tile)[kBlock][kBlock]) {
#pragma GCC unroll 4
  for (int a = 0; a < kBlock; ++a)
#pragma GCC unroll 4
    for (int b = 0; b < kBlock; ++b)
      tile[a][b] = j < i || b <= a ? -load(A.at(i + a, j + b)) : vd{};
  for (Index k = 0; k < j; ++k) {
    vd y[kBlock];
#pragma GCC unroll 4
    for (int b = 0; b < kBlock; ++b) y[b] = load(L.at(j + b, k));
#pragma GCC unroll 4
    for (int a = 0; a < kBlock; ++a) {
      const vd x = load(C.at(a, k));
#pragma GCC unroll 4
      for (int b = 0; b < kBlock; ++b) tile[a][b] -= x * y[b];
    }
  }
}

// Whether x I - A is positive definite in each lane: the signs of the pivots of its factors L D L^T
// (Golub, Van Loan, 4.1). P: the order, a multiple of kPadded, with zeros in rows from M on. `work`
// has room for P + kBlock rows of A, and for one more.
static vi exceeds_all(vd x, Lanes A, Index P, double* work) {
  const Lanes L{work, A.stride}, C{L.at(P, 0), A.stride};
  double* const inverses = C.at(kBlock, 0);
  vi positive = vi{} == vi{};
  vd tile[kBlock][kBlock];
  for (Index i = 0; i < P; i += kBlock) {
    for (Index j = 0; j < i; j += kBlock) {
      remaining(A, i, j, L, C, tile);
#pragma GCC unroll 4
      for (int b = 0; b < kBlock; ++b) {
        vd before[kBlock];
#pragma GCC unroll 4
        for (int c = 0; c < b; ++c) before[c] = load(L.at(j + b, j + c));
        const vd inverse = load(inverses + (j + b) * kDraws);
#pragma GCC unroll 4
        for (int a = 0; a < kBlock; ++a) {
#pragma GCC unroll 4
          for (int c = 0; c < b; ++c) tile[a][b] -= tile[a][c] * before[c];
          store(C.at(a, j + b), tile[a][b]);
          store(L.at(i + a, j + b), tile[a][b] * inverse);
        }
      }
    }
    remaining(A, i, i, L, C, tile);
#pragma GCC unroll 4
    for (int b = 0; b < kBlock; ++b) {
      const vd pivot = x + tile[b][b], inverse = 1.0 / pivot;
      positive &= pivot > 0.0;
      store(inverses + (i + b) * kDraws, inverse);
#pragma GCC unroll 4
      for (int a = b + 1; a < kBlock; ++a) {
        const vd factor = tile[a][b] * inverse;
        store(L.at(i + a, i + b), factor);
#pragma GCC unroll 4
        for (int c = b + 1; c <= a; ++c) tile[a][c] -= factor * tile[c][b];
      }
    }
    if (!any(positive)) break;
  }
  return positive;
}
