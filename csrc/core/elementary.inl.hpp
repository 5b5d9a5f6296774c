// exp and log from correctly rounded operations alone, so that their bits are the same on every
// instruction set and device (if nothing is contracted). V is double, or a vector of them where
// simd.inl.hpp came before. Included inside the anonymous namespace of a unit; includes nothing.

// 2^k where t = k + 1.5 * 2^52: the low bits of t are k.
static inline PS_HD double power_of_two(double t) {
  unsigned long long bits;
  __builtin_memcpy(&bits, &t, sizeof bits);
  bits = (bits << 52) + (1023ull << 52);
  __builtin_memcpy(&t, &bits, sizeof t);
  return t;
}

constexpr double kLn2High =
    6.93147180369123816490e-01;  // its last bits are zero: k times it is exact
constexpr double kLn2Low = 1.90821492927058770002e-10;

// exp(x) for x <= 0, to about one ulp; what would be below 2^-1021 comes out as about 1e-308.
// Cody-Waite reduction x = k ln2 + r, |r| <= ln2/2, Taylor to r^13 (remainder 4e-18) by Estrin.
template <typename V>
static inline PS_HD V exp_nonpositive(V x) {
  x = x > -707.0 ? x : V{} - 707.0;
  constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  const V t = x * 1.4426950408889634074 + kMagic;
  const V k = t - kMagic;
  V r = x - k * kLn2High;
  r = r - k * kLn2Low;
  const V r2 = r * r, r4 = r2 * r2, r8 = r4 * r4;
  const V p01 = 1.0 + r;
  const V p23 = 1.0 / 2 + r * (1.0 / 6);
  const V p45 = 1.0 / 24 + r * (1.0 / 120);
  const V p67 = 1.0 / 720 + r * (1.0 / 5040);
  const V p89 = 1.0 / 40320 + r * (1.0 / 362880);
  const V pab = 1.0 / 3628800 + r * (1.0 / 39916800);
  const V pcd = 1.0 / 479001600 + r * (1.0 / 6227020800.0);
  const V q0 = p01 + r2 * p23;
  const V q1 = p45 + r2 * p67;
  const V q2 = p89 + r2 * pab;
  const V p = (q0 + r4 * q1) + r8 * (q2 + r4 * pcd);
  return p * power_of_two(t);
}

// log(x) for x > 0, to about one ulp. x = 2^k (1 + f) with 1 + f in (sqrt(1/2), sqrt(2)]; with
// s = f / (2 + f), log(1 + f) = 2 artanh(s) = f - f^2/2 + s (f^2/2 + R), R = 2/3 s^2 + 2/5 s^4 +
// ... to s^24 (remainder below 2^-59 of the whole).
static inline PS_HD double log_positive(double x) {
  int k = -1023;
  if (x < 0x1p-1022) {
    x *= 0x1p54;
    k -= 54;
  }
  unsigned long long bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  k += (int)(bits >> 52);
  bits = (bits & 0xfffffffffffffull) | (1023ull << 52);
  double m;
  __builtin_memcpy(&m, &bits, sizeof m);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    k += 1;
  }
  const double f = m - 1.0, s = f / (2.0 + f), z = s * s, z2 = z * z;
  double odd = 2.0 / 23, even = 2.0 / 25;
  odd = 2.0 / 19 + z2 * odd;
  even = 2.0 / 21 + z2 * even;
  odd = 2.0 / 15 + z2 * odd;
  even = 2.0 / 17 + z2 * even;
  odd = 2.0 / 11 + z2 * odd;
  even = 2.0 / 13 + z2 * even;
  odd = 2.0 / 7 + z2 * odd;
  even = 2.0 / 9 + z2 * even;
  odd = 2.0 / 3 + z2 * odd;
  even = 2.0 / 5 + z2 * even;
  const double R = z * odd + z2 * even, half = 0.5 * f * f, whole = (double)k;
  return whole * kLn2High - ((half - (s * (half + R) + whole * kLn2Low)) - f);
}
