// Sums over a tile, the same bits on every instruction set: element i goes to lane i % 8, whatever
// the width of a register, and lanes are added in order. Included inside the anonymous namespace of
// a unit that has defined `constexpr int kLanes` (64-bit lanes a vector); includes nothing itself.

typedef double vsum __attribute__((vector_size(kLanes * 8)));
constexpr int kSumLanes = 8, kParts = kSumLanes / kLanes;

static inline vsum load_wide(const double* x) {
  vsum v;
  __builtin_memcpy(&v, x, sizeof v);
  return v;
}
// One instruction, which compilers do not find in a conversion of vectors.
static inline vsum load_wide(const float* x) {
#if defined(__AVX512F__)
  return (vsum)_mm512_cvtps_pd(_mm256_loadu_ps(x));
#elif defined(__AVX2__)
  return (vsum)_mm256_cvtps_pd(_mm_loadu_ps(x));
#else
  vsum v;
  for (int l = 0; l < kLanes; ++l) v[l] = x[l];
  return v;
#endif
}

static inline double in_order(const vsum* parts) {
  double total = 0;
#pragma GCC unroll 8
  for (int l = 0; l < kSumLanes; ++l) total += parts[l / kLanes][l % kLanes];
  return total;
}

template <typename S>
static double squares_of(const S* x, Index n) {
  vsum sum[kParts] = {};
  const auto add = [&](const S* a) {
#pragma GCC unroll 8
    for (int h = 0; h < kParts; ++h) {
      const vsum v = load_wide(a + h * kLanes);
      sum[h] += v * v;
    }
  };
  const Index whole = n - n % kSumLanes;
  for (Index k = 0; k < whole; k += kSumLanes) add(x + k);
  S last[kSumLanes] = {};  // the rest, filled up with zeros, which add nothing
  for (Index k = whole; k < n; ++k) last[k - whole] = x[k];
  add(last);
  return in_order(sum);
}

// The counts and the largest magnitude, which no order changes. Magnitudes are ordered as their
// bits are; NaN are the ones above infinity's.
template <typename S>
static void count_gradients(const S* __restrict__ g, Index n, StepStatistics& out) {
  using Bits = decltype(magnitude_bits(S{}));
  const Bits infinity = magnitude_bits((S)__builtin_inf());
  alignas(64) Bits bits[kTile];  // loops that do one thing each become vectors
  for (Index k = 0; k < n; ++k) bits[k] = magnitude_bits(g[k]);
  Bits largest = 0, bad = 0, zero = 0;
  for (Index k = 0; k < n; ++k) {
    const Bits known = bits[k] * (Bits)(bits[k] <= infinity);
    largest = known > largest ? known : largest;
  }
  for (Index k = 0; k < n; ++k) bad += bits[k] >= infinity ? 1 : 0;
  for (Index k = 0; k < n; ++k) zero += bits[k] == 0 ? 1 : 0;
  S value;
  __builtin_memcpy(&value, &largest, sizeof value);
  out.grad_max = (double)value > out.grad_max ? (double)value : out.grad_max;
  out.non_finite += (double)bad;
  out.zero += (double)zero;
}

// `drive`: what moves the parameter, see StepStatistics::rounded_away; where `child` is null, all
// elements decay if `decays`.
template <typename S>
static Index count_rounded_away(const S* __restrict__ before, const S* __restrict__ now,
                                const S* __restrict__ drive, bool decays,
                                const unsigned char* __restrict__ child, Index n) {
  using Bits = decltype(magnitude_bits(S{}));
  Bits lost = 0;
  if (!decays)
    for (Index k = 0; k < n; ++k) lost += (now[k] == before[k]) & (drive[k] != 0) ? 1 : 0;
  else if (child == nullptr)
    for (Index k = 0; k < n; ++k)
      lost += (now[k] == before[k]) & ((drive[k] != 0) | (before[k] != 0)) ? 1 : 0;
  else
    for (Index k = 0; k < n; ++k)
      lost +=
          (now[k] == before[k]) & ((drive[k] != 0) | ((before[k] != 0) & (child[k] != 0))) ? 1 : 0;
  return (Index)lost;
}

// Adds the sums of a tile to `out`.
template <typename S>
static void add_sums(const S* g, const S* before, const S* now, Index n, StepStatistics& out) {
  vsum gg[kParts] = {}, ww[kParts] = {}, uu[kParts] = {}, gu[kParts] = {};
  const auto add = [&](const S* a, const S* b, const S* c) {
#pragma GCC unroll 8
    for (int h = 0; h < kParts; ++h) {
      const vsum x = load_wide(a + h * kLanes), w = load_wide(b + h * kLanes);
      const vsum u = load_wide(c + h * kLanes) - w;
      gg[h] += x * x;
      ww[h] += w * w;
      uu[h] += u * u;
      gu[h] += x * u;
    }
  };
  const Index whole = n - n % kSumLanes;
  for (Index k = 0; k < whole; k += kSumLanes) add(g + k, before + k, now + k);
  S last[3][kSumLanes] = {};
  for (Index k = whole; k < n; ++k) {
    last[0][k - whole] = g[k];
    last[1][k - whole] = before[k];
    last[2][k - whole] = now[k];
  }
  add(last[0], last[1], last[2]);
  out.grad_squares += in_order(gg);
  out.param_squares += in_order(ww);
  out.update_squares += in_order(uu);
  out.grad_dot_update += in_order(gu);
}
