// What both masks are made of: 16-bit draws for F (and for stochastic rounding), packed bits for D.
// Included inside the anonymous namespace of a unit after random.inl.hpp; includes nothing itself.

// Draws for the consecutive elements [first, first + n) of a whole tensor, n <= kTile; the buffer
// has room for the groups that they touch, and the returned pointer is where `first` landed.
constexpr Index kDrawBuffer = kTile + 2 * kDrawGroup;

static const unsigned short* draw_run(std::uint64_t key, std::uint32_t step, std::uint32_t stream,
                                      Index first, Index n, unsigned short* buffer) {
  const Index group = first / kDrawGroup, skipped = first % kDrawGroup;
  for (Index done = 0; done < skipped + n; done += kDrawGroup)
    philox_draws((unsigned long long)(group + done / kDrawGroup), step, stream, key, buffer + done);
  return buffer + skipped;
}

// Draws for elements [i, i + n) of a tensor that may be a slice of the whole one.
static const unsigned short* draw_tile(const StepTensor& t, std::uint32_t step,
                                       std::uint32_t stream, Index i, Index n,
                                       unsigned short* buffer) {
  const Index row = i / t.run, column = i % t.run;
  if (column + n <= t.run)
    return draw_run(t.key, step, stream, t.offset + row * t.pitch + column, n, buffer);
  unsigned short part[kDrawBuffer];
  for (Index done = 0; done < n;) {
    const Index r = (i + done) / t.run, c = (i + done) % t.run;
    const Index length = t.run - c < n - done ? t.run - c : n - done;
    const unsigned short* const d =
        draw_run(t.key, step, stream, t.offset + r * t.pitch + c, length, part);
    __builtin_memcpy(buffer + done, d, (std::size_t)length * sizeof *d);
    done += length;
  }
  return buffer;
}

static void draws(std::uint64_t key, std::uint32_t step, std::uint32_t stream, Index offset,
                  Index size, std::uint16_t* out) {
  unsigned short buffer[kDrawBuffer];
  for (Index i = 0; i < size; i += kTile) {
    const Index n = size - i < kTile ? size - i : kTile;
    const unsigned short* d = draw_run(key, step, stream, offset + i, n, buffer);
    __builtin_memcpy(out + i, d, (std::size_t)n * sizeof *d);
  }
}

// Eight bits to eight bytes of 0 or 1 at a time: copies of the byte, one bit kept in each, moved to
// the lowest place (0x7f + 2^k reaches the highest bit and never carries over). `first` is a
// multiple of 8 and `child` has room for n rounded up to one. Byte k of a word is bit k: all
// machines that this is compiled for are little-endian.
static void unpack(const unsigned char* bits, Index first, Index n, unsigned char* child) {
  constexpr unsigned long long kOnes = 0x0101010101010101ull;
  const unsigned char* const from = bits + first / 8;
  for (Index k = 0; k < (n + 7) / 8; ++k) {
    const unsigned long long kept = ((unsigned long long)from[k] * kOnes) & 0x8040201008040201ull;
    const unsigned long long eight = ((kept + 0x7f * kOnes) >> 7) & kOnes;
    __builtin_memcpy(child + 8 * k, &eight, sizeof eight);
  }
}

// 64 bits from bit `i`, a multiple of 8, on; those from n on are 0.
static inline unsigned long long word_at(const unsigned char* bits, Index i, Index n) {
  unsigned long long word = 0;
  const Index left = n - i;
  __builtin_memcpy(&word, bits + i / 8, (std::size_t)(left < 64 ? (left + 7) / 8 : 8));
  return left < 64 ? word & ((1ull << left) - 1) : word;
}

// Gathers the elements of `x` from `first` on whose bit is set to the front of `out`, and returns
// how many there are. `put` is the way back: elements whose bit is set are replaced, in order.
template <typename S>
static Index pick(const S* x, const unsigned char* bits, Index first, Index n, S* out) {
  Index count = 0;
  for (Index i = first; i < n; i += 64)
    for (unsigned long long word = word_at(bits, i, n); word != 0; word &= word - 1)
      out[count++] = x[i + __builtin_ctzll(word)];
  return count;
}

template <typename S>
static void put(const S* from, const unsigned char* bits, Index first, Index n, S* x) {
  for (Index i = first; i < n; i += 64)
    for (unsigned long long word = word_at(bits, i, n); word != 0; word &= word - 1)
      x[i + __builtin_ctzll(word)] = *from++;
}

#if defined(__AVX512F__)

static Index pick(const float* x, const unsigned char* bits, Index n, float* out) {
  Index count = 0, i = 0;
  for (; i + 16 <= n; i += 16) {
    unsigned short chosen;
    __builtin_memcpy(&chosen, bits + i / 8, sizeof chosen);
    // Through a register: compressing stores are slow on some machines.
    _mm512_storeu_ps(out + count, _mm512_maskz_compress_ps(chosen, _mm512_loadu_ps(x + i)));
    count += __builtin_popcount(chosen);
  }
  return count + pick<float>(x, bits, i, n, out + count);
}

static void put(const float* from, const unsigned char* bits, Index n, float* x) {
  Index count = 0, i = 0;
  for (; i + 16 <= n; i += 16) {
    unsigned short chosen;
    __builtin_memcpy(&chosen, bits + i / 8, sizeof chosen);
    const __m512 next = _mm512_maskz_expand_ps(chosen, _mm512_loadu_ps(from + count));
    _mm512_mask_storeu_ps(x + i, chosen, next);
    count += __builtin_popcount(chosen);
  }
  put<float>(from + count, bits, i, n, x);
}

#elif defined(__AVX2__)

// For each byte: the places of its ones, and for each place the number of ones before it.
struct ByteTables {
  unsigned char place[256][8], rank[256][8];
  constexpr ByteTables() : place{}, rank{} {
    for (int byte = 0; byte < 256; ++byte)
      for (int bit = 0, k = 0; bit < 8; ++bit) {
        rank[byte][bit] = (unsigned char)k;
        if (byte >> bit & 1) place[byte][k++] = (unsigned char)bit;
      }
  }
};
static constexpr ByteTables kByteTables;

static inline __m256i eight_indices(const unsigned char* table) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(const void*)table));
}

static Index pick(const float* x, const unsigned char* bits, Index n, float* out) {
  Index count = 0, i = 0;
  for (; i + 8 <= n; i += 8) {
    const unsigned char chosen = bits[i / 8];
    const __m256i places = eight_indices(kByteTables.place[chosen]);
    _mm256_storeu_ps(out + count, _mm256_permutevar8x32_ps(_mm256_loadu_ps(x + i), places));
    count += __builtin_popcount(chosen);
  }
  return count + pick<float>(x, bits, i, n, out + count);
}

static void put(const float* from, const unsigned char* bits, Index n, float* x) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  Index count = 0, i = 0;
  for (; i + 8 <= n; i += 8) {
    const unsigned char chosen = bits[i / 8];
    const __m256i ranks = eight_indices(kByteTables.rank[chosen]);
    const __m256 next = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from + count), ranks);
    const __m256i here = _mm256_and_si256(_mm256_set1_epi32(chosen), bit);
    _mm256_maskstore_ps(x + i, _mm256_cmpeq_epi32(here, bit), next);
    count += __builtin_popcount(chosen);
  }
  put<float>(from + count, bits, i, n, x);
}

#endif

template <typename S>
static Index pick(const S* x, const unsigned char* bits, Index n, S* out) {
  return pick<S>(x, bits, 0, n, out);
}

template <typename S>
static void put(const S* from, const unsigned char* bits, Index n, S* x) {
  put<S>(from, bits, 0, n, x);
}

static Index count_bits(const std::uint8_t* bits, Index begin, Index end) {
  Index count = 0, i = begin;
  for (; i + 64 <= end; i += 64) {
    unsigned long long word;
    __builtin_memcpy(&word, bits + i / 8, sizeof word);
    count += __builtin_popcountll(word);
  }
  for (; i < end; ++i) count += bits[i / 8] >> (i % 8) & 1;
  return count;
}
