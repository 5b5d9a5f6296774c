// 16-bit floats to float, exactly, and back, rounded; without branches, so that loops over them
// vectorise. Included inside the anonymous namespace of a unit; includes nothing itself. PS_HD:
// core/types.hpp.

static inline PS_HD float bits_to_float(unsigned int bits) {
  float f;
  __builtin_memcpy(&f, &bits, sizeof f);
  return f;
}

static inline PS_HD float bfloat16_to_float(unsigned short h) {
  return bits_to_float((unsigned int)h << 16);
}

static inline PS_HD float float16_to_float(unsigned short h) {
  // Exponent and mantissa in place, then times 2^112 to move the bias from 15 to 127. Subnormals
  // come out right because the product is normal; an exponent of all ones stays all ones.
  const unsigned int magnitude = (unsigned int)(h & 0x7fffu) << 13;
  const float scaled = bits_to_float(magnitude) * 0x1p112f;
  unsigned int bits;
  __builtin_memcpy(&bits, &scaled, sizeof bits);
  bits = magnitude >= 0x0f800000u ? (magnitude | 0x7f800000u) : bits;
  return bits_to_float(bits | ((unsigned int)(h & 0x8000u) << 16));
}

static inline PS_HD unsigned int float_bits(float x) {
  unsigned int bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

// To nearest even; NaN stays NaN.
static inline PS_HD unsigned short float_to_bfloat16(float x) {
  const unsigned int u = float_bits(x);
  const unsigned int rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return (unsigned short)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded);
}

// Up with the probability of the discarded fraction: 16 random bits carry into the upper half.
static inline PS_HD unsigned short float_to_bfloat16(float x, unsigned short draw) {
  const unsigned int u = float_bits(x), magnitude = u & 0x7fffffffu;
  const unsigned int rounded = (u + draw) >> 16;
  const unsigned int special = (u >> 16) | (magnitude > 0x7f800000u ? 0x40u : 0u);
  return (unsigned short)(magnitude >= 0x7f800000u ? special : rounded);
}

// To nearest even. Three cases by magnitude: subnormal results are rounded by adding a float whose
// last bit is worth 2^-24; normal ones by adding half a unit; the rest is infinity or NaN.
static inline PS_HD unsigned short float_to_float16(float x) {
  const unsigned int u = float_bits(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  const unsigned int subnormal = float_bits(bits_to_float(a) + 0.5f) - 0x3f000000u;
  const unsigned int normal = (a + 0xc8000fffu + ((a >> 13) & 1u)) >> 13;
  const unsigned int special = a > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const unsigned int bits = a < 0x38800000u ? subnormal : a < 0x47800000u ? normal : special;
  return (unsigned short)(bits | sign);
}
