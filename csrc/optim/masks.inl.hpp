// What both masks are made of: 16-bit draws for F (and for stochastic rounding), packed bits for D.
// Included inside the anonymous namespace of a unit after random.inl.hpp; includes nothing itself.

constexpr Index kTile = 512;

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

static void philox(const std::uint32_t* counter, const std::uint32_t* key, std::uint32_t* out) {
  const Philox<vu> x =
      philox4x32<vu>({vu{} + (unsigned long long)counter[0], vu{} + (unsigned long long)counter[1],
                      vu{} + (unsigned long long)counter[2], vu{} + (unsigned long long)counter[3]},
                     key[0], key[1]);
  out[0] = (std::uint32_t)x.c0[0];
  out[1] = (std::uint32_t)x.c1[0];
  out[2] = (std::uint32_t)x.c2[0];
  out[3] = (std::uint32_t)x.c3[0];
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

// The places of a byte's bits, then anything.
struct BytePlaces {
  unsigned short of[256][8];
  constexpr BytePlaces() : of{} {
    for (int byte = 0; byte < 256; ++byte)
      for (int bit = 0, k = 0; bit < 8; ++bit)
        if (byte >> bit & 1) of[byte][k++] = (unsigned short)bit;
  }
};
static constexpr BytePlaces kBytePlaces;

// Places of the child's elements in [first, first + n), counted from `first`, a multiple of 8;
// `place` has room for n + 8. Returns how many. All eight of a byte are written and the next byte
// overwrites those that were none: no branches.
static Index find_children(const unsigned char* bits, Index first, Index n, unsigned short* place) {
  typedef unsigned short Eight __attribute__((vector_size(16)));
  const unsigned char* const from = bits + first / 8;
  Index count = 0;
  for (Index k = 0; 8 * k < n; ++k) {
    unsigned int byte = from[k];
    if (n - 8 * k < 8) byte &= (1u << (n - 8 * k)) - 1;
    Eight places;
    __builtin_memcpy(&places, kBytePlaces.of[byte], sizeof places);
    places += (unsigned short)(8 * k);
    __builtin_memcpy(place + count, &places, sizeof places);
    count += __builtin_popcount(byte);
  }
  return count;
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
