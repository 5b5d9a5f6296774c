// Elements of any type as doubles, exactly. Included inside the anonymous namespace of a unit that
// has included half.inl.hpp.

struct Half {
  unsigned short bits;
};
struct BFloat {
  unsigned short bits;
};
static inline double widen(double x) { return x; }
static inline double widen(float x) { return (double)x; }
static inline double widen(Half x) { return (double)float16_to_float(x.bits); }
static inline double widen(BFloat x) { return (double)bfloat16_to_float(x.bits); }
