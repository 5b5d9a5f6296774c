// Vectors of kLanes doubles by the compiler's vector extension (GCC, Clang): the same source
// becomes SSE2, AVX2, AVX-512 or NEON code. Included inside the anonymous namespace of a unit that
// has defined `constexpr int kLanes`; it includes nothing itself and calls nothing with weak
// linkage.

typedef double vd __attribute__((vector_size(kLanes * 8)));
typedef decltype(vd{} < vd{}) vi;  // 64-bit lanes: all ones where true

static inline vd splat(double x) { return x - vd{}; }
static inline vi splat_i(long long x) { return x - vi{}; }

static inline vd load(const double* p) {
  vd v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

static inline void store(double* p, vd v) { __builtin_memcpy(p, &v, sizeof v); }

// 0, 1, 2, ... kLanes - 1
static inline vd iota() {
  vd v;
  for (int l = 0; l < kLanes; ++l) v[l] = l;
  return v;
}

static inline vd abs(vd x) { return (vd)((vi)x & splat_i(0x7fffffffffffffffLL)); }
static inline vd max(vd a, vd b) { return a > b ? a : b; }
static inline vd min(vd a, vd b) { return a < b ? a : b; }

static inline double reduce_max(vd v) {
  double m = v[0];
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
