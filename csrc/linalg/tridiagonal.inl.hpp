// Pal-Walker-Kahan QL in kGroups vectors of lanes. Included inside the anonymous namespace of a
// unit that has defined kLanes and included simd.inl.hpp. Two groups: the recurrence of one fills
// the latency of the other.

using pyspectra::Index;

constexpr int kMaxGroups = 2;
constexpr double kEps2 = 0x1p-106;  // the unit roundoff 2^-53, squared
// Matrices come scaled to a norm in [1/2, 1). Squares below this couple nothing, and their
// reciprocals, which the recurrence takes, would overflow.
constexpr double kNegligible = 0x1p-960;

static inline vd root(vd x) {
  for (int l = 0; l < kLanes; ++l) x[l] = __builtin_sqrt(x[l]);
  return x;
}

// A group of lanes: rows [l, hi] are still coupled, [l, m] is the unreduced block to sweep.
struct Group {
  vi l, m, hi;
  vi sweeping;
  vd sigma, c, s, p, gamma;
};

// Moves l past every eigenvalue that stands alone and finds the end m of the block that starts at
// l.
template <int kWide>
static inline void deflate(Group& g, const double* d, const double* e2, Index offset) {
  vi open = g.l < g.hi;  // a lane is done when its last row stands alone
  g.sweeping = vi{};
  if (!any(open)) return;
  Index i = 0x7fffffffffffffffLL;
  for (int k = 0; k < kLanes; ++k)
    if (open[k] && g.l[k] < i) i = g.l[k];
  for (; any(open); ++i) {
    const vi row = splat_i(i);
    const double* at = d + i * kWide + offset;
    // The row after a lane's last one belongs to the padding; `row >= hi` decides there.
    const vd bound = max(splat(kEps2) * abs(load(at) * load(at + kWide)), splat(kNegligible));
    const vi split = (load(e2 + i * kWide + offset) <= bound) | (row >= g.hi);
    const vi hit = open & split & (row >= g.l);
    const vi alone = hit & (row == g.l);
    g.m = hit ? row : g.m;
    g.sweeping |= hit & ~alone;
    g.l = alone ? row + 1 : g.l;
    open &= ~(hit & ~alone) & (g.l < g.hi);
  }
}

template <int kWide>
static inline void choose_shift(Group& g, const double* d, const double* e2, Index offset) {
  vd top{}, next{}, square = splat(1.0);
  for (int k = 0; k < kLanes; ++k) {
    if (!g.sweeping[k]) continue;
    const Index at = g.l[k] * kWide + offset + k;
    top[k] = d[at];
    next[k] = d[at + kWide];
    square[k] = e2[at];
  }
  const vd rte = root(square);
  vd t = (next - top) / (rte + rte);
  t = max(min(t, splat(1e150)), splat(-1e150));
  const vd r = root(t * t + splat(1.0));
  const vd denominator = t < vd{} ? t - r : t + r;
  g.sigma = top - rte / denominator;
  g.c = splat(1.0);
  g.s = vd{};
  g.p = vd{};
  g.gamma = vd{};
}

template <int kWide>
static inline void step(Group& g, double* d, double* e2, Index i, Index offset) {
  const vi row = splat_i(i);
  const vi live = g.sweeping & (row >= g.l) & (row < g.m);
  const vi first = row == g.m - 1;
  double* const at_d = d + i * kWide + offset;
  double* const at_e = e2 + i * kWide + offset;
  const vd alpha = load(at_d), below = load(at_d + kWide);
  const vd bb = load(at_e), e2_below = load(at_e + kWide);

  const vd start = below - g.sigma;
  const vd gamma_old = first ? start : g.gamma;
  const vd p = first ? start * start : g.p;
  const vd r = p + bb;
  const vd inverse = splat(1.0) / r;
  const vd quotient = r / p;  // may overflow where c is negligible: not used there
  const vd c = p * inverse, s = bb * inverse;
  const vd gamma = c * (alpha - g.sigma) - s * gamma_old;
  const vd c_old = first ? splat(1.0) : g.c;
  const vd p_next = c > splat(1e-280) ? gamma * gamma * quotient : c_old * bb;

  store(at_d + kWide, live ? gamma_old + (alpha - gamma) : below);
  store(at_e + kWide, (live & ~first) ? g.s * r : e2_below);
  g.gamma = live ? gamma : g.gamma;
  g.p = live ? p_next : g.p;
  g.c = live ? c : g.c;
  g.s = live ? s : g.s;
}

template <int kWide>
static inline void finish(const Group& g, double* d, double* e2, Index offset) {
  const vd top = g.sigma + g.gamma, square = g.s * g.p;
  for (int k = 0; k < kLanes; ++k) {
    if (!g.sweeping[k]) continue;
    const Index at = g.l[k] * kWide + offset + k;
    d[at] = top[k];
    e2[at] = square[k];
  }
}

template <int kGroups>
static void ql_groups(double* d, double* e2, const Index* n, Index rows, bool* failed,
                      void (*check)()) {
  constexpr Index kRowFlops = 256;  // as long as a row of divisions takes
  Pace pace{check};
  constexpr int kWide = kLanes * kGroups;
  Group groups[kGroups];
  for (int q = 0; q < kGroups; ++q) {
    groups[q].l = groups[q].m = vi{};
    for (int k = 0; k < kLanes; ++k) groups[q].hi[k] = n[q * kLanes + k] - 1;
  }
  for (Index sweep = 0; sweep < 30 * rows; ++sweep) {
    Index low = rows, high = -1;
    for (int q = 0; q < kGroups; ++q) {
      Group& g = groups[q];
      deflate<kWide>(g, d, e2, q * kLanes);
      choose_shift<kWide>(g, d, e2, q * kLanes);
      for (int k = 0; k < kLanes; ++k) {
        if (!g.sweeping[k]) continue;
        low = g.l[k] < low ? g.l[k] : low;
        high = g.m[k] > high ? g.m[k] : high;
      }
    }
    if (high < 0) break;
    pace.spend(kRowFlops * (high - low));
    for (Index i = high - 1; i >= low; --i) {
#pragma GCC unroll 2
      for (int q = 0; q < kGroups; ++q) step<kWide>(groups[q], d, e2, i, q * kLanes);
    }
    for (int q = 0; q < kGroups; ++q) finish<kWide>(groups[q], d, e2, q * kLanes);
  }
  for (int q = 0; q < kGroups; ++q)
    for (int k = 0; k < kLanes; ++k) failed[q * kLanes + k] = groups[q].l[k] < groups[q].hi[k];
}

static void ql(Index groups, double* d, double* e2, const Index* n, Index rows, bool* failed,
               void (*check)()) {
  if (groups == 1)
    ql_groups<1>(d, e2, n, rows, failed, check);
  else
    ql_groups<kMaxGroups>(d, e2, n, rows, failed, check);
}
