// Philox4x32-10: ten rounds of multiply and xor turn a 128-bit counter and a 64-bit key into 128
// random bits. No state: any element of any stream is computed alone, which is what makes a mask
// the same for every number of threads, shards and devices.
//
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
// Checked against that paper's known-answer vectors (Random123). Included inside the anonymous
// namespace of a unit; includes nothing itself.

// The low 32 bits of `a` (of each of its lanes) times m, all 64 bits of it.
template <typename W>
struct MultiplyLow {
  static PS_HD W of(W a, unsigned int m) { return (a & 0xffffffffull) * (unsigned long long)m; }
};

// Counter and result words in the low halves of 64-bit words (or of the lanes of a vector of them,
// one counter a lane). What is in the high halves goes unread, so that the low half of a product
// needs no masking.
template <typename W>
struct Philox {
  W c0, c1, c2, c3;
};

template <typename W>
static inline PS_HD Philox<W> philox4x32(Philox<W> x, unsigned int k0, unsigned int k1) {
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const W a = MultiplyLow<W>::of(x.c0, 0xD2511F53u), b = MultiplyLow<W>::of(x.c2, 0xCD9E8D57u);
    x = {(b >> 32) ^ x.c1 ^ (unsigned long long)k0, b, (a >> 32) ^ x.c3 ^ (unsigned long long)k1,
         a};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return x;
}

// 16-bit draws for the elements of a tensor, 128 at a time, from 16 counters (block, step, stream):
// with r = e % 128, element e takes half-word 4 (r / 64) + r % 4, low one of a word first, of block
// 16 (e / 128) + (r % 64) / 4. So one counter serves two runs of four elements, 64 apart.
constexpr int kDrawGroup = 128;

// The eight draws of one block, half-word k at out[k].
static inline PS_HD void philox_block(unsigned long long block, unsigned int step,
                                      unsigned int stream, unsigned long long key,
                                      unsigned short* out) {
  const Philox<unsigned long long> x = philox4x32<unsigned long long>(
      {block, block >> 32, step, stream}, (unsigned int)key, (unsigned int)(key >> 32));
  const unsigned long long words[4] = {x.c0, x.c1, x.c2, x.c3};
#pragma GCC unroll 4
  for (int w = 0; w < 4; ++w) {
    out[2 * w] = (unsigned short)words[w];
    out[2 * w + 1] = (unsigned short)(words[w] >> 16);
  }
}

// The draw of one element, where it comes without its neighbours.
static inline PS_HD unsigned short philox_draw(unsigned long long element, unsigned int step,
                                               unsigned int stream, unsigned long long key) {
  const unsigned int r = (unsigned int)(element % kDrawGroup);
  const unsigned long long block = 16 * (element / kDrawGroup) + r % 64 / 4;
  const Philox<unsigned long long> x = philox4x32<unsigned long long>(
      {block, block >> 32, step, stream}, (unsigned int)key, (unsigned int)(key >> 32));
  const unsigned int half = 4 * (r / 64) + r % 4;
  const unsigned long long word = half < 2 ? x.c0 : half < 4 ? x.c1 : half < 6 ? x.c2 : x.c3;
  return (unsigned short)(word >> (16 * (half % 2)));
}
