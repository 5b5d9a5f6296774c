// Sturm counts of bisection.hpp, once for every instruction set. Included inside the anonymous
// namespace of a unit that has defined kLanes and included simd.inl.hpp.

using pyspectra::Index;
using pyspectra::linalg::detail::kRescaled;

constexpr int kChains = 4;  // vectors of points at a time, so that one fills the latency of another

// A power of two that takes x, not zero, to [1, 2).
static inline vd inverse_scale(vd x) {
  const vi exponent = (vi)x & splat_i(0x7ff0000000000000LL);
  return (vd)(splat_i(0x7fe0000000000000LL) - exponent);
}

static void count_below(const double* d, const double* e2, Index n, const double* x,
                        double* below) {
  vd at[kChains], last[kChains], now[kChains];
  vi changes[kChains];
#pragma GCC unroll 4
  for (int c = 0; c < kChains; ++c) {
    at[c] = load(x + c * kLanes);
    last[c] = splat(1.0);
    now[c] = splat(d[0]) - at[c];
    changes[c] = now[c] < vd{} ? splat_i(1) : vi{};
  }
  const auto step = [&](Index i) {
    const vd diagonal = splat(d[i]), coupling = splat(e2[i - 1]);
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      const vd next = (diagonal - at[c]) * now[c] - coupling * last[c];
      const vi sign = (vi)next ^ (vi)now[c];
      changes[c] -= sign >> 63;
      last[c] = now[c];
      now[c] = next;
    }
  };
  Index i = 1;
  for (; i + kRescaled <= n; i += kRescaled) {
#pragma GCC unroll 4
    for (Index k = 0; k < kRescaled; ++k) step(i + k);
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      const vd scale = inverse_scale(max(abs(now[c]), abs(last[c])));
      now[c] *= scale;
      last[c] *= scale;
    }
  }
  for (; i < n; ++i) step(i);
#pragma GCC unroll 4
  for (int c = 0; c < kChains; ++c)
    for (int l = 0; l < kLanes; ++l) below[c * kLanes + l] = (double)changes[c][l];
}
