// Sums over a tile, the same bits on every instruction set: element i goes to lane i % 8, whatever
// the width of a register, and lanes are added in order. Included inside the anonymous namespace of
// a unit that has defined `constexpr int kLanes` (64-bit lanes a vector); includes nothing itself.

typedef double vsum __attribute__((vector_size(kLanes * 8)));
typedef float vhalf __attribute__((vector_size(kLanes * 4)));
constexpr int kSumLanes = 8, kParts = kSumLanes / kLanes;

static inline vsum load_wide(const double* x) {
  vsum v;
  __builtin_memcpy(&v, x, sizeof v);
  return v;
}
static inline vsum load_wide(const float* x) {
  vhalf v;
  __builtin_memcpy(&v, x, sizeof v);
  return __builtin_convertvector(v, vsum);
}

static inline double in_order(const vsum* parts) {
  double total = 0;
  for (int l = 0; l < kSumLanes; ++l) total += parts[l / kLanes][l % kLanes];
  return total;
}

// Eight elements from `x`; the last ones of a tile are filled up with zeros, which add nothing.
template <typename S>
struct Eight {
  S filled[kSumLanes] = {};
  const S* from;
  Eight(const S* x, Index k, Index n) : from(x + k) {
    if (n - k >= kSumLanes) return;
    for (Index l = 0; l < n - k; ++l) filled[l] = x[k + l];
    from = filled;
  }
  vsum part(int h) const { return load_wide(from + h * kLanes); }
};

template <typename S>
static double squares_of(const S* x, Index n) {
  vsum sum[kParts] = {};
  for (Index k = 0; k < n; k += kSumLanes) {
    const Eight<S> a(x, k, n);
#pragma GCC unroll 8
    for (int h = 0; h < kParts; ++h) sum[h] += a.part(h) * a.part(h);
  }
  return in_order(sum);
}

// Adds a tile to `out`. `drive`: what moves the parameter, see StepStatistics::rounded_away;
// `child` null where weight decay applies to all.
template <typename S>
static void add_tile(const S* g, const S* before, const S* now, const S* drive, bool moves,
                     bool decays, const unsigned char* child, Index n, StepStatistics& out) {
  vsum gg[kParts] = {}, ww[kParts] = {}, uu[kParts] = {}, gu[kParts] = {};
  for (Index k = 0; k < n; k += kSumLanes) {
    const Eight<S> grads(g, k, n), old(before, k, n), recent(now, k, n);
#pragma GCC unroll 8
    for (int h = 0; h < kParts; ++h) {
      const vsum x = grads.part(h), w = old.part(h), u = recent.part(h) - w;
      gg[h] += x * x;
      ww[h] += w * w;
      uu[h] += u * u;
      gu[h] += x * u;
    }
  }
  out.grad_squares += in_order(gg);
  out.param_squares += in_order(ww);
  out.update_squares += in_order(uu);
  out.grad_dot_update += in_order(gu);

  using Bits = decltype(magnitude_bits(S{}));
  const Bits infinity = magnitude_bits((S)__builtin_inf());
  Bits largest = 0;
  unsigned int bad = 0, zero = 0, lost = 0;
  for (Index k = 0; k < n; ++k) {
    const Bits bits = magnitude_bits(g[k]), known = bits > infinity ? 0 : bits;
    largest = known > largest ? known : largest;
    bad += bits >= infinity;
    zero += bits == 0;
  }
  for (Index k = 0; k < n; ++k) {
    const bool decaying = decays & (child == nullptr || child[k] != 0) & (before[k] != 0);
    lost += is_lost(before[k], now[k], drive[k], decaying);
  }
  S value;
  __builtin_memcpy(&value, &largest, sizeof value);
  out.grad_max = (double)value > out.grad_max ? (double)value : out.grad_max;
  out.non_finite += bad;
  out.zero += zero;
  out.rounded_away += moves ? lost : 0;
}
