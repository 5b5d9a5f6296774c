// Lane shuffles for the two stages of tridiagonalize.inl.hpp.
// Included inside the anonymous namespace of a unit that has defined kLanes and included
// simd.inl.hpp.

template <int... L>
struct LaneList {};
template <int N, int... L>
struct Count : Count<N - 1, N - 1, L...> {};
template <int... L>
struct Count<0, L...> {
  using List = LaneList<L...>;
};
using AllLanes = Count<kLanes>::List;

// Lanes I... of the 2 * kLanes lanes of a and b.
template <int... I>
static inline vd pick(vd a, vd b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, I...);
#else
  return __builtin_shuffle(a, b, vi{I...});
#endif
}

// Lane L in all lanes.
template <int L, int... I>
static inline vd spread(vd x, LaneList<I...>) {
  return pick<(0 * I + L)...>(x, x);
}

// Lanes without bit H from a, the others from b; where asked, from the lane across (l ^ H).
template <int H, bool kCrossA, bool kCrossB, int... L>
static inline vd merge(vd a, vd b, LaneList<L...>) {
  return pick<((L & H) ? kLanes + (kCrossB ? L ^ H : L) : (kCrossA ? L ^ H : L))...>(a, b);
}

// x[0] becomes the vector whose lane l is the sum over x[l].
template <int H = 1>
static inline void sum_each(vd (&x)[kLanes]) {
  if constexpr (H < kLanes) {
#pragma GCC unroll 16
    for (int c = 0; c < kLanes; c += 2 * H)
      x[c] = merge<H, false, false>(x[c], x[c + H], AllLanes{}) +
             merge<H, true, true>(x[c], x[c + H], AllLanes{});
    sum_each<2 * H>(x);
  }
}

template <int H = 1>
static inline void transpose(vd (&x)[kLanes]) {
  if constexpr (H < kLanes) {
#pragma GCC unroll 16
    for (int c = 0; c < kLanes; ++c) {
      if (c & H) continue;
      const vd a = x[c], b = x[c + H];
      x[c] = merge<H, false, true>(a, b, AllLanes{});
      x[c + H] = merge<H, true, false>(a, b, AllLanes{});
    }
    transpose<2 * H>(x);
  }
}

// The sum over the lanes, in every lane.
template <int H = 1>
static inline vd sum_all(vd x) {
  if constexpr (H < kLanes) {
    return sum_all<2 * H>(x + merge<H, true, true>(x, x, AllLanes{}));
  } else {
    return x;
  }
}

static inline vi lane_numbers() {
  vi v;
#pragma GCC unroll 16
  for (int l = 0; l < kLanes; ++l) v[l] = l;
  return v;
}
static inline vd only(vi mask, vd x) { return (vd)((vi)x & mask); }
