// 16-bit floats to float, exactly, without branches (so that loops over them vectorise). Included
// inside the anonymous namespace of a unit; includes nothing itself.

static inline float bits_to_float(unsigned int bits) {
  float f;
  __builtin_memcpy(&f, &bits, sizeof f);
  return f;
}

static inline float bfloat16_to_float(unsigned short h) {
  return bits_to_float((unsigned int)h << 16);
}

static inline float float16_to_float(unsigned short h) {
  // Exponent and mantissa in place, then times 2^112 to move the bias from 15 to 127. Subnormals
  // come out right because the product is normal; an exponent of all ones stays all ones.
  const unsigned int magnitude = (unsigned int)(h & 0x7fffu) << 13;
  const float scaled = bits_to_float(magnitude) * 0x1p112f;
  unsigned int bits;
  __builtin_memcpy(&bits, &scaled, sizeof bits);
  bits = magnitude >= 0x0f800000u ? (magnitude | 0x7f800000u) : bits;
  return bits_to_float(bits | ((unsigned int)(h & 0x8000u) << 16));
}
