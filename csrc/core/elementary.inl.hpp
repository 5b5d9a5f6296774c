// exp and log from correctly rounded operations alone, so that their bits are the same on every
// instruction set and device (if nothing is contracted). V is double, or a vector of them where
// simd.inl.hpp came before. Included inside the anonymous namespace of a unit; includes nothing.

static inline PS_HD long long as_bits(double x) {
  long long bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
static inline PS_HD double as_value(long long bits) {
  double x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
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
  return p * as_value((as_bits(t) << 52) + (1023LL << 52));  // 2^k: the low bits of t are k
}

// log(x) for x > 0, to about one ulp. x = 2^k (1 + f) with 1 + f in (sqrt(1/2), sqrt(2)]; with
// s = f / (2 + f), log(1 + f) = 2 artanh(s) = f - f^2/2 + s (f^2/2 + R), R = 2/3 s^2 + 2/5 s^4 +
// ... to s^24 (remainder below 2^-59 of the whole).
template <typename V>
static inline PS_HD V log_positive(V x) {
  const auto tiny = x < 0x1p-1022;
  const auto bits = as_bits(tiny ? x * 0x1p54 : x);
  // The exponent's field, as the last bits of a number between 2^52 and 2^53.
  const V field = as_value((bits >> 52) | (1075LL << 52)) - 0x1p52;
  const V low = field - (tiny ? V{} + 1077.0 : V{} + 1023.0);
  const V mantissa = as_value((bits & 0xfffffffffffffLL) | (1023LL << 52));
  const auto large = mantissa > 1.4142135623730951;
  const V m = large ? mantissa * 0.5 : mantissa, k = large ? low + 1.0 : low;
  const V f = m - 1.0, s = f / (2.0 + f), z = s * s, z2 = z * z;
  V odd = 2.0 / 19 + z2 * (2.0 / 23), even = 2.0 / 21 + z2 * (2.0 / 25);
  odd = 2.0 / 15 + z2 * odd;
  even = 2.0 / 17 + z2 * even;
  odd = 2.0 / 11 + z2 * odd;
  even = 2.0 / 13 + z2 * even;
  odd = 2.0 / 7 + z2 * odd;
  even = 2.0 / 9 + z2 * even;
  odd = 2.0 / 3 + z2 * odd;
  even = 2.0 / 5 + z2 * even;
  const V R = z * odd + z2 * even, half = 0.5 * f * f;
  return k * kLn2High - ((half - (s * (half + R) + k * kLn2Low)) - f);
}
