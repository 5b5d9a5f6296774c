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

// exp(x) for x <= 0, to about one ulp; what would be below 2^-1021 comes out as about 1e-308.
// Cody-Waite reduction x = k ln2 + r, |r| <= ln2/2, Taylor to r^13 (remainder 4e-18) by Estrin.
static inline vd exp_nonpositive(vd x) {
  x = max(x, splat(-707.0));
  const vd magic = splat(6755399441055744.0);  // 1.5 * 2^52: adding it rounds to an integer
  const vd t = x * splat(1.4426950408889634074) + magic;
  const vd k = t - magic;
  vd r = x - k * splat(6.93147180369123816490e-01);
  r = r - k * splat(1.90821492927058770002e-10);
  const vd r2 = r * r, r4 = r2 * r2, r8 = r4 * r4;
  const vd p01 = splat(1.0) + r;
  const vd p23 = splat(1.0 / 2) + r * splat(1.0 / 6);
  const vd p45 = splat(1.0 / 24) + r * splat(1.0 / 120);
  const vd p67 = splat(1.0 / 720) + r * splat(1.0 / 5040);
  const vd p89 = splat(1.0 / 40320) + r * splat(1.0 / 362880);
  const vd pab = splat(1.0 / 3628800) + r * splat(1.0 / 39916800);
  const vd pcd = splat(1.0 / 479001600) + r * splat(1.0 / 6227020800.0);
  const vd q0 = p01 + r2 * p23;
  const vd q1 = p45 + r2 * p67;
  const vd q2 = p89 + r2 * pab;
  const vd p = (q0 + r4 * q1) + r8 * (q2 + r4 * pcd);
  const vi scale = ((vi)t << 52) + splat_i(1023LL << 52);  // 2^k from the low bits of t
  return p * (vd)scale;
}
