// How random words become the points of a replicate (bootstrap.hpp), on CPU and CUDA. Included
// inside the anonymous namespace of a unit; includes nothing.

// An index in [0, n) from a word of 32 bits, n < 2^32.
static inline PS_HD Index drawn_index(unsigned long long word, Index n) {
  return (Index)((word * (unsigned long long)n) >> 32);
}

// A multiple of 2^-53 in (0, 1] from two words of 32 bits; -ln of it is exponential.
static inline PS_HD double uniform(unsigned long long high, unsigned long long low) {
  const unsigned long long bits = (high << 32 | low) >> 11;
  return (double)(bits + 1) * 0x1p-53;
}
