// What happens to one element before and after the rule; step.hpp has the formulas. Included inside
// the anonymous namespace of a unit after half.inl.hpp; includes nothing itself.

struct Half {
  unsigned short bits;
};
struct BFloat {
  unsigned short bits;
};
static inline PS_HD double widen(double x) { return x; }
static inline PS_HD float widen(float x) { return x; }
static inline PS_HD float widen(Half x) { return float16_to_float(x.bits); }
static inline PS_HD float widen(BFloat x) { return bfloat16_to_float(x.bits); }

// To nearest even.
template <typename T>
static inline PS_HD T narrowed(float x);
template <>
inline PS_HD Half narrowed<Half>(float x) {
  return {float_to_float16(x)};
}
template <>
inline PS_HD BFloat narrowed<BFloat>(float x) {
  return {float_to_bfloat16(x)};
}

template <typename T, typename S>
static inline PS_HD S scaled(T grad, S scale) {
  return widen(grad) * scale;
}

// The gradient under mask F.
template <typename T, typename S>
static inline PS_HD S drawn(T grad, S scale, unsigned short draw, int keep, S inverse_p) {
  return scaled(grad, scale) * ((int)draw < keep ? inverse_p : (S)0);
}

template <typename S>
static inline PS_HD S averaged(S ema, S weight, S p) {
  return ema - weight * (ema - p);
}

// Magnitudes are ordered as their bits are; NaN are the ones above infinity's.
static inline PS_HD unsigned int magnitude_bits(float x) { return float_bits(x) & 0x7fffffffu; }
static inline PS_HD unsigned long long magnitude_bits(double x) {
  unsigned long long bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits & 0x7fffffffffffffffull;
}
