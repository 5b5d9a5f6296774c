// Vectors of kLanes numbers by the compiler's vector extension (GCC, Clang): the same source
// becomes SSE2, AVX2, AVX-512 or NEON code. Included inside the anonymous namespace of a unit that
// has defined `Real`, float or double, and `constexpr int kLanes`; it includes nothing itself and
// calls nothing with weak linkage.

typedef Real vd __attribute__((vector_size(kLanes * sizeof(Real))));
typedef decltype(vd{} < vd{}) vi;  // lanes as wide as those of vd: all ones where true

// An integer as wide as a lane.
template <typename>
struct LaneInteger {
  typedef long long type;
};
template <>
struct LaneInteger<float> {
  typedef int type;
};
typedef LaneInteger<Real>::type Lane;

static inline vd splat(Real x) { return x - vd{}; }
static inline vi splat_i(Lane x) { return x - vi{}; }

static inline vd load(const Real* p) {
  vd v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

static inline void store(Real* p, vd v) { __builtin_memcpy(p, &v, sizeof v); }

// 0, 1, 2, ... kLanes - 1
static inline vd iota() {
  vd v;
  for (int l = 0; l < kLanes; ++l) v[l] = l;
  return v;
}

static inline vd abs(vd x) {
  return (vd)((vi)x & splat_i((Lane)(~0ull >> (65 - 8 * sizeof(Lane)))));
}
static inline vd max(vd a, vd b) { return a > b ? a : b; }
static inline vd min(vd a, vd b) { return a < b ? a : b; }

static inline Real reduce_max(vd v) {
  Real m = v[0];
  for (int l = 1; l < kLanes; ++l) m = v[l] > m ? v[l] : m;
  return m;
}

static inline bool any(vi mask) {
  long long m = 0;
  for (int l = 0; l < kLanes; ++l) m |= mask[l];
  return m != 0;
}

// For elementary.inl.hpp.
static inline vi as_bits(vd x) { return (vi)x; }
static inline vd as_value(vi bits) { return (vd)bits; }
