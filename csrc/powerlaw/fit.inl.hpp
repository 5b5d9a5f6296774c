// The arithmetic of the scan, once for every instruction set. Included inside the anonymous
// namespace of a unit that has defined kLanes and included simd.inl.hpp, elementary.inl.hpp and
// candidate.inl.hpp; see fit.hpp for formulas.

using pyspectra::Index;
using pyspectra::powerlaw::detail::ScanInput;
using pyspectra::powerlaw::detail::ScanResult;

// Two probes bound the deviation between them in exact arithmetic; rounding moves each side by a
// few ulps of one. A stretch is skipped only if its bound is below the best by more than this.
constexpr double kSlack = 1e-13;

constexpr Index kPointFlops = 32;  // an exponential and what is around it

static void logarithms(const double* x, Index n, double* out) {
  Index j = 0;
  for (; j + kLanes <= n; j += kLanes) store(out + j, log_positive(load(x + j)));
  for (; j < n; ++j) out[j] = log_positive(x[j]);
}

// |F_j - E_j| of the points j, j + 1, ... below `end`, where E_j = (j - i + shift) / m; zero in the
// lanes that are left over.
static inline vd deviations(const Candidate& c, const double* log_x, Index j, Index end) {
  const vd rank = splat((double)(j - c.i) + c.shift) + iota();
  if (j + kLanes <= end) return abs(model_cdf(c, load(log_x + j)) - rank * splat(c.inv_m));
  vd x = splat(log_x[end - 1]);
  if (j + kLanes <= c.n) {
    x = load(log_x + j);
  } else {
    for (int l = 0; j + l < end; ++l) x[l] = log_x[j + l];
  }
  const vd d = abs(model_cdf(c, x) - rank * splat(c.inv_m));
  return iota() < splat((double)(end - j)) ? d : vd{};
}

// max |F_j - E_j| over j in [begin, end)
static inline double deviation(const Candidate& c, const double* log_x, Index begin, Index end) {
  vd worst = splat(0.0);
  for (Index j = begin; j < end; j += kLanes) worst = max(worst, deviations(c, log_x, j, end));
  return reduce_max(worst);
}

static double distance(const double* log_x, Index i, Index n, double log_xmin, double beta,
                       double shift) {
  const Candidate c{i, n, log_xmin, beta, 1.0 / (double)(n - i), shift};
  return deviation(c, log_x, i, n) + shift * c.inv_m;
}

// Points where earlier candidates deviated most: the likeliest places to rule the next one out.
constexpr int kHot = 8 > kLanes ? 8 : kLanes;
struct HotPoints {
  Index at[kHot];
  int next;

  void add(Index j) {
    at[next] = j;
    next = (next + 1) % kHot;
  }
};

// max |F_j - E_j| over the hot points of candidate c (those before its tail count as its start)
static inline double hot_deviation(const Candidate& c, const double* log_x, const HotPoints& hot) {
  vd worst = splat(0.0);
  for (int h = 0; h < kHot; h += kLanes) {
    vd x, r;
    for (int l = 0; l < kLanes; ++l) {
      const Index at = hot.at[h + l] > c.i ? hot.at[h + l] : c.i;
      x[l] = log_x[at];
      r[l] = (double)(at - c.i) + c.shift;
    }
    worst = max(worst, abs(model_cdf(c, x) - r * splat(c.inv_m)));
  }
  return reduce_max(worst);
}

// Where in [begin, end) the deviation is largest.
static Index locate(const Candidate& c, const double* log_x, Index begin, Index end) {
  Index where = begin;
  double worst = -1.0;
  for (Index j = begin; j < end; j += kLanes) {
    const vd d = deviations(c, log_x, j, end);
    for (int l = 0; l < kLanes; ++l)
      if (d[l] > worst) {
        worst = d[l];
        where = j + l;
      }
  }
  return where;
}

// max |F_j - E_j| of candidate c, or some value above `best` as soon as it is known to exceed it.
static double bounded_distance(const ScanInput& in, const Candidate& c, double best, HotPoints& hot,
                               Pace& pace) {
  pace.spend(kPointFlops);
  {
    const double d = hot_deviation(c, in.log_x, hot);
    if (d > best) return d;
  }

  // Probes: every stride-th point after i, and the ends. scratch keeps F at each.
  const Index first = c.i / in.stride + 1;                // probe[first] is the first probe after i
  const Index count = (c.n - 1) / in.stride - first + 1;  // may be <= 0
  const double step = (double)in.stride * c.inv_m;
  const double offset = ((double)(first * in.stride - c.i) + c.shift) * c.inv_m;
  double lower = 0.0;
  pace.spend(kPointFlops * (count > 0 ? count : 0));
  for (Index k = 0; k < count; k += kLanes) {
    vd x = splat(in.probe[first + count - 1]);
    vd rank = splat((double)(count - 1));
    if (k + kLanes <= count) {
      x = load(in.probe + first + k);
      rank = splat((double)k) + iota();
    } else {
      for (int l = 0; k + l < count; ++l) {
        x[l] = in.probe[first + k + l];
        rank[l] = (double)(k + l);
      }
    }
    const vd F = model_cdf(c, x);
    store(in.scratch + k, F);
    const vd d = abs(F - (splat(offset) + rank * splat(step)));
    const double worst = reduce_max(d);
    if (worst > lower) {
      lower = worst;
      if (lower > best + kSlack) {
        // Probe ranks are (offset + k step), a rounding away from (j - i) inv_m: slack as above.
        int lane = 0;
        for (int l = 1; l < kLanes; ++l) lane = d[l] > d[lane] ? l : lane;
        Index at = k + lane < count ? k + lane : count - 1;
        hot.add((first + at) * in.stride);
        return lower;
      }
    }
  }

  // Exact values: stretches between probes, those whose bound leaves room for the maximum. The
  // maximum so far starts from the probes less the slack, and is met again exactly below.
  double exact = 0.0;
  const double floor = lower - kSlack;
  Index begin = c.i;
  double F_begin = 0.0;
  for (Index k = 0; k <= count; ++k) {
    const Index end = k < count ? (first + k) * in.stride + 1 : c.n;
    if (begin >= end) break;
    const double F_end = k < count ? in.scratch[k] : 1.0;
    const double E_begin = ((double)(begin - c.i) + c.shift) * c.inv_m;
    const double E_end = ((double)(end - 1 - c.i) + c.shift) * c.inv_m;
    const double above = F_end - E_begin, below = E_end - F_begin;
    const double upper = (above > below ? above : below) + kSlack;
    const double known = exact > floor ? exact : floor;
    if (upper > known) {
      // A probe belongs to the stretch that ends with it.
      const Index from = k == 0 ? begin : begin + 1;
      pace.spend(kPointFlops * (end - from));
      const double d = deviation(c, in.log_x, from, end);
      if (d > exact) {
        exact = d;
        if (exact > best) {
          hot.add(locate(c, in.log_x, from, end));
          return exact;
        }
      }
    }
    F_begin = F_end;
    begin = end - 1;
    if (k == count) break;
  }
  return exact;
}

// Which of the candidates i, i + 1, ..., one a lane, deviate by more than `best` allows at a hot
// point: what hot_deviation would find of each, in the time of one.
static inline vi ruled_out(const ScanInput& in, Index i, double best, const HotPoints& hot) {
  const vd start = splat((double)i) + iota();
  const vd m = splat((double)in.n) - start, inv_m = 1.0 / m;
  const vd T = load(in.tail_sum + i), log_xmin = load(in.log_x + i);
  const vd beta = T > splat(kDegenerate) ? (m - in.correction) / T : vd{};
  const vd limit = best - in.shift * inv_m;
  vi out = vi{};
  for (int h = 1; h <= kHot; ++h) {
    const Index at = hot.at[(hot.next + kHot - h) % kHot];
    if (at < i + kLanes - 1) continue;
    const vd rank = splat((double)at) - start + in.shift;
    out |= abs(model_cdf(log_xmin, beta, splat(in.log_x[at])) - rank * inv_m) > limit;
    if (!any(~out)) break;
  }
  return out;
}

static ScanResult scan(const ScanInput& in) {
  ScanResult result{-1, 0.0};
  double best = 1.0;  // an invalid candidate counts as D = 1, so nothing above 1 is wanted
  HotPoints hot;
  Pace pace{in.check};
  hot.next = 0;
  for (int h = 0; h < kHot; ++h) hot.at[h] = (in.n - 1) * (h + 1) / kHot;

  const auto consider = [&](Index i) {
    double beta;
    if (!find_exponent(in.n - i, in.tail_sum[i], in.correction, beta)) return;
    if (in.distinct && i > 0 && in.log_x[i] == in.log_x[i - 1]) return;
    const double m = (double)(in.n - i);
    const Candidate c{i, in.n, in.log_x[i], beta, 1.0 / m, in.shift};
    const double step = in.shift * c.inv_m;
    const double limit = best - step;
    const double deviation = bounded_distance(in, c, limit, hot, pace);
    if (deviation > limit) return;
    const double d = deviation + step;
    if (d < best || result.index < 0 ? d <= best : (d == best && i < result.index)) {
      best = d;
      result.index = i;
      result.D = d;
    }
  };
  if (in.likely >= in.first && in.likely <= in.last) consider(in.likely);
  // A sparse first pass finds a good bound; the second pass is then mostly a glance at hot points,
  // of a vector of candidates at a time.
  const Index sparse = (in.last - in.first) / 32 + 1;
  for (Index i = in.first; i <= in.last; i += sparse) consider(i);
  Index i = in.first;
  for (; i + kLanes <= in.last + 1; i += kLanes) {
    pace.spend(kPointFlops);
    const vi out = ruled_out(in, i, best, hot);
    for (int l = 0; l < kLanes; ++l)
      if (!out[l] && (i + l - in.first) % sparse != 0) consider(i + l);
  }
  for (; i <= in.last; ++i)
    if ((i - in.first) % sparse != 0) consider(i);
  return result;
}
