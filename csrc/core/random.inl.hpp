// Philox4x32-10: ten rounds of multiply and xor turn a 128-bit counter and a 64-bit key into 128
// random bits. No state: any element of any stream is computed alone, which is what makes a mask
// the same for every number of threads, shards and devices.
//
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
// Checked against that paper's known-answer vectors (Random123). Included inside the anonymous
// namespace of a unit that has defined `constexpr int kLanes` (64-bit lanes a vector) and, on
// x86-64, included <immintrin.h>; it includes nothing itself.

typedef unsigned long long vu __attribute__((vector_size(kLanes * 8)));

// The low 32 bits of each lane times m, all 64 bits of it. One instruction, which compilers do not
// find in (a & 0xffffffff) * m.
static inline vu multiply_low(vu a, unsigned int m) {
#if defined(__AVX512F__)
  return (vu)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64((long long)m));
#elif defined(__AVX2__)
  return (vu)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x((long long)m));
#elif defined(__SSE2__)
  return (vu)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x((long long)m));
#else
  return (a & 0xffffffffull) * (unsigned long long)m;
#endif
}

// Counter and result words in the low halves of 64-bit lanes, one counter a lane. What is in the
// high halves goes unread, so that the low half of a product needs no masking.
struct Philox {
  vu c0, c1, c2, c3;
};

static inline Philox philox4x32(Philox x, unsigned int k0, unsigned int k1) {
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const vu a = multiply_low(x.c0, 0xD2511F53u), b = multiply_low(x.c2, 0xCD9E8D57u);
    x = {(b >> 32) ^ x.c1 ^ (unsigned long long)k0, b, (a >> 32) ^ x.c3 ^ (unsigned long long)k1,
         a};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return x;
}

// 16-bit draws for the elements of a tensor, 128 at a time, from 16 counters (block, step, stream):
// with r = e % 128, element e takes half-word 4 (r / 64) + r % 4, low one of a word first, of block
// 16 (e / 128) + (r % 64) / 4. So vectors of counters are stored as they are.
constexpr int kDrawGroup = 128;

static inline void philox_draws(unsigned long long group, unsigned int step, unsigned int stream,
                                unsigned long long key, unsigned short* out) {
  const unsigned int k0 = (unsigned int)key, k1 = (unsigned int)(key >> 32);
  const unsigned long long low = (group << 4) & 0xffffffffull, high = group >> 28;
  vu lane;
  for (int l = 0; l < kLanes; ++l) lane[l] = (unsigned long long)l;
#pragma GCC unroll 8
  for (int l = 0; l < 16; l += kLanes) {
    const Philox x =
        philox4x32({lane + (low + (unsigned long long)l), vu{} + high,
                    vu{} + (unsigned long long)step, vu{} + (unsigned long long)stream},
                   k0, k1);
    const vu first = (x.c0 & 0xffffffffull) | (x.c1 << 32);
    const vu second = (x.c2 & 0xffffffffull) | (x.c3 << 32);
    __builtin_memcpy(out + 4 * l, &first, sizeof first);
    __builtin_memcpy(out + 64 + 4 * l, &second, sizeof second);
  }
}
