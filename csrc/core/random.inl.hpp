// Philox in vector registers: one counter a lane. Included inside the anonymous namespace of a
// unit, after philox.inl.hpp, that has defined `constexpr int kLanes` (64-bit lanes a vector) and,
// on x86-64, included <immintrin.h>; it includes nothing itself.

typedef unsigned long long vu __attribute__((vector_size(kLanes * 8)));

#if defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__)
// One instruction, which compilers do not find in (a & 0xffffffff) * m.
template <>
struct MultiplyLow<vu> {
  static vu of(vu a, unsigned int m) {
#if defined(__AVX512F__)
    return (vu)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64((long long)m));
#elif defined(__AVX2__)
    return (vu)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x((long long)m));
#else
    return (vu)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x((long long)m));
#endif
  }
};
#endif

// The draws of one group of elements (philox.inl.hpp): vectors of counters are stored as they are.
static inline void philox_draws(unsigned long long group, unsigned int step, unsigned int stream,
                                unsigned long long key, unsigned short* out) {
  const unsigned int k0 = (unsigned int)key, k1 = (unsigned int)(key >> 32);
  const unsigned long long low = (group << 4) & 0xffffffffull, high = group >> 28;
  vu lane;
  for (int l = 0; l < kLanes; ++l) lane[l] = (unsigned long long)l;
#pragma GCC unroll 8
  for (int l = 0; l < 16; l += kLanes) {
    const Philox<vu> x =
        philox4x32<vu>({lane + (low + (unsigned long long)l), vu{} + high,
                        vu{} + (unsigned long long)step, vu{} + (unsigned long long)stream},
                       k0, k1);
    const vu first = (x.c0 & 0xffffffffull) | (x.c1 << 32);
    const vu second = (x.c2 & 0xffffffffull) | (x.c3 << 32);
    __builtin_memcpy(out + 4 * l, &first, sizeof first);
    __builtin_memcpy(out + 64 + 4 * l, &second, sizeof second);
  }
}
