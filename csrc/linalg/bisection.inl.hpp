// Sturm counts and the root finder of bisection.hpp, once for every instruction set. Included
// inside the anonymous namespace of a unit that has defined kLanes and kChains, the number of
// vectors of points at a time, so that one fills the latency of another, and included simd.inl.hpp.

using pyspectra::Index;
using pyspectra::linalg::detail::Bracket;
using pyspectra::linalg::detail::kDoneWidth;
using pyspectra::linalg::detail::kUnsure;
using pyspectra::linalg::detail::SturmMatrix;
using pyspectra::linalg::detail::SturmPoint;

typedef unsigned long long vu __attribute__((vector_size(kLanes * 8)));

constexpr int kPoints = kChains * kLanes;
constexpr int kExponentBits = 52;
constexpr long long kExponentMask = 0x7ff0000000000000LL, kBias = 1023;
constexpr unsigned long long kSign = 1ull << 63;

// The sequences of kPoints points: changes of sign, and the last entry as value * 2^exponent.
struct Sequences {
  vu changes[kChains];
  vd value[kChains];
  vi exponent[kChains];
};

static inline vu splat_u(unsigned long long x) { return x - vu{}; }

// The ones in each lane.
static inline vu ones(vu x) {
  x -= (x >> 1) & splat_u(0x5555555555555555u);
  x = (x & splat_u(0x3333333333333333u)) + ((x >> 2) & splat_u(0x3333333333333333u));
  x = (x + (x >> 4)) & splat_u(0x0f0f0f0f0f0f0f0fu);
  x += x >> 8;
  x += x >> 16;
  return (x + (x >> 32)) & splat_u(127);
}

// Changes of sign are only counted where asked for; the last entry's sign is their parity.
template <bool kCounted>
static inline void sequences(const SturmMatrix& matrix, const vd (&at)[kChains], Sequences& out) {
  vd last[kChains], now[kChains];
  vu changes[kChains], exponents[kChains], signs[kChains];  // the newest sign is the highest bit
#pragma GCC unroll 4
  for (int c = 0; c < kChains; ++c) {
    last[c] = vd{};
    now[c] = splat(1.0);
    changes[c] = exponents[c] = signs[c] = vu{};
  }
  const double *const f = matrix.f, *const g = matrix.g;
  const auto step = [&](Index i) {
    const vd factor = splat(f[i]), diagonal = splat(g[i]);
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      const vd next = (diagonal - at[c] * factor) * now[c] - last[c];
      if (kCounted) signs[c] = (signs[c] >> 1) | ((vu)next & splat_u(kSign));
      last[c] = now[c];
      now[c] = next;
    }
  };
  Index i = 0;
  for (Index s = 0; s < matrix.count; ++s) {
    const Index begin = i, end = matrix.stretches[s].end;
    if (s > 0) {
      const vd coupling = splat(matrix.stretches[s].coupling);
#pragma GCC unroll 4
      for (int c = 0; c < kChains; ++c) {
        // By a power of two that takes the larger of two entries, of which one is not zero, to
        // [1, 2).
        last[c] *= coupling;
        const vi exponent = (vi)max(abs(now[c]), abs(last[c])) & splat_i(kExponentMask);
        const vd scale = (vd)(splat_i(2 * kBias << kExponentBits) - exponent);
        exponents[c] += (vu)exponent >> kExponentBits;
        now[c] *= scale;
        last[c] *= scale;
      }
    }
    for (; i + 4 <= end; i += 4)
#pragma GCC unroll 4
      for (Index k = 0; k < 4; ++k) step(i + k);
    for (; i < end; ++i) step(i);
    if (!kCounted) continue;
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      // Each sign with the one before it, of which the first is left of the stretch before.
      changes[c] += ones((signs[c] ^ (signs[c] << 1)) >> (64 - (end - begin)));
      signs[c] &= splat_u(kSign);
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < kChains; ++c) {
    out.changes[c] = changes[c];
    out.value[c] = now[c];
    out.exponent[c] = (vi)exponents[c] - splat_i(kBias * (matrix.count - 1));
  }
}

static void count_below(const SturmMatrix& matrix, SturmPoint* points) {
  vd at[kChains];
  Sequences found;
  for (int k = 0; k < kPoints; ++k) at[k / kLanes][k % kLanes] = points[k].x;
  sequences<true>(matrix, at, found);
  for (int k = 0; k < kPoints; ++k) {
    points[k].value = found.value[k / kLanes][k % kLanes];
    points[k].exponent = found.exponent[k / kLanes][k % kLanes];
    points[k].below = (Index)found.changes[k / kLanes][k % kLanes];
  }
}

// The root is between a, the newest point, and b; c is the one that left the bracket. The next
// point is a + t (b - a).
struct Search {
  vd a, b, c, fa, fb, fc, t;
  vi ka, kb, kc;  // exponents of the values
  vi below, steps;
};

// Beyond so many steps, brackets are halved.
constexpr long long kMostSteps = 24;

// f 2^(k - other), whose size is bounded for products of three of them.
static inline vd times_power(vd f, vi k) {
  k = k > splat_i(256) ? splat_i(256) : k;
  k = k < splat_i(-256) ? splat_i(-256) : k;
  return f * (vd)((k + splat_i(kBias)) << kExponentBits);
}

// A proportion of the way from a to b, away from both by about a quarter of what is wide enough.
static inline vd inside(vd t, vd width) {
  const vd least = min(splat(0.25 * kDoneWidth) / width, splat(0.5));
  return min(max(t, least), splat(1.0) - least);
}

static inline void begin_search(Search& s, int lane, const Bracket& in) {
  s.a[lane] = in.low.x, s.fa[lane] = in.low.value, s.ka[lane] = in.low.exponent;
  s.b[lane] = in.high.x, s.fb[lane] = in.high.value, s.kb[lane] = in.high.exponent;
  s.c[lane] = s.b[lane], s.fc[lane] = s.fb[lane], s.kc[lane] = s.kb[lane];
  s.below[lane] = in.low.below;
  s.steps[lane] = 0;
}

// The zero of the line through a and b, as a proportion of the way.
static inline vd secant(const Search& s) {
  const vd ratio = abs(times_power(s.fa, s.ka - s.kb)), other = abs(s.fb);
  return ratio / (ratio + other);
}

// Takes in the new point, at x, which is above the root or below it.
static inline void narrow(Search& s, vd x, vd value, vi exponent, vi above) {
  const vi same = ~(above ^ (s.a > s.b));  // the new point is on a's side
  s.c = same ? s.a : s.b, s.fc = same ? s.fa : s.fb, s.kc = same ? s.ka : s.kb;
  s.b = same ? s.b : s.a, s.fb = same ? s.fb : s.fa, s.kb = same ? s.kb : s.ka;
  s.a = x, s.fa = value, s.ka = exponent;
  s.steps += splat_i(1);
}

// Values beside b's, f_a = A f_b and f_c = C f_b: the quadratic through the three, as a function of
// the value, is monotonic in the bracket where phi^2 < xi and (1 - phi)^2 < 1 - xi.
static inline void choose(Search& s) {
  const vd one = splat(1.0), inverse = one / s.fb;
  const vd A = times_power(s.fa, s.ka - s.kb) * inverse;
  const vd C = times_power(s.fc, s.kc - s.kb) * inverse;
  const vd ab = s.b - s.a, cb = s.c - s.b, ca = s.c - s.a;
  const vd lengths = one / (ab * cb), alpha = ca * cb * lengths, xi = -ab * ab * lengths;
  const vd A1 = A - one, C1 = C - one, CA = C - A;
  const vd values = one / (A1 * C1 * CA), phi = A1 * A1 * CA * values;
  const vi trusted =
      (phi * phi < xi) & ((one - phi) * (one - phi) < one - xi) & (s.steps < splat_i(kMostSteps));
  vd t = A * (C * CA + alpha * A1) * values;
  t = trusted ? t : splat(0.5);
  t = s.fb == vd{} ? one : t;
  s.t = inside(t, abs(ab));
}

template <bool kCounted>
static void search_all(const SturmMatrix& matrix, const Bracket* brackets, Index count,
                       double* roots) {
  Search search[kChains];
  Index bracket[kPoints];
  Index next = 0, open = 0;
  for (int k = 0; k < kPoints; ++k) {
    // A lane without a bracket follows the first one.
    bracket[k] = next < count ? next++ : -1;
    begin_search(search[k / kLanes], k % kLanes, brackets[bracket[k] < 0 ? 0 : bracket[k]]);
    open += bracket[k] >= 0;
  }
  for (int c = 0; c < kChains; ++c)
    search[c].t = inside(secant(search[c]), abs(search[c].b - search[c].a));
  while (open > 0) {
    vd at[kChains];
    Sequences found;
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c)
      at[c] = search[c].a + search[c].t * (search[c].b - search[c].a);
    sequences<kCounted>(matrix, at, found);
    for (int c = 0; c < kChains; ++c) {
      Search& s = search[c];
      const vi odd = (vi)((vu)s.below << 63);  // the sign that the last entry has below the root
      const vi above =
          kCounted ? (vi)found.changes[c] > s.below : ((vi)found.value[c] ^ odd) < vi{};
      narrow(s, at[c], found.value[c], found.exponent[c], above);
      const vi done = abs(s.b - s.a) <= splat(kDoneWidth);
      choose(s);
      if (!any(done)) continue;
      const vd root = s.a + secant(s) * (s.b - s.a);
      for (int l = 0; l < kLanes; ++l) {
        Index& owner = bracket[c * kLanes + l];
        if (!done[l] || owner < 0) continue;
        roots[owner] = root[l];
        if (next < count) {
          owner = next++;
          begin_search(s, l, brackets[owner]);
        } else {
          owner = -1;
          --open;
        }
      }
      const vi begun = s.steps == vi{};
      if (any(begun)) s.t = begun ? inside(secant(s), abs(s.b - s.a)) : s.t;
    }
  }
}

static void refine(const SturmMatrix& matrix, const Bracket* brackets, Index count, double* roots) {
  search_all<false>(matrix, brackets, count, roots);
  Bracket unsure[kPoints];
  Index owner[kPoints], held = 0;
  double found[kPoints];
  for (Index k = 0; k < count; ++k) {
    if (roots[k] - brackets[k].low.x < kUnsure || brackets[k].high.x - roots[k] < kUnsure) {
      owner[held] = k;
      unsure[held++] = brackets[k];
    }
    if (held == kPoints || (held > 0 && k + 1 == count)) {
      search_all<true>(matrix, unsure, held, found);
      for (Index u = 0; u < held; ++u) roots[owner[u]] = found[u];
      held = 0;
    }
  }
}
