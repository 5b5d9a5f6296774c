// The random numbers of one replicate, once for every instruction set. Included inside the
// anonymous namespace of a unit that has defined kLanes and included philox.inl.hpp,
// random.inl.hpp and replicate.inl.hpp; see bootstrap.hpp for the streams.

using pyspectra::Index;
using pyspectra::powerlaw::detail::kBlocks;
using pyspectra::powerlaw::detail::Stream;

// The words of the blocks `block`, `block` + 1, ..., one block a lane; low halves count.
static inline Philox<vu> words_of(const Stream& stream, std::uint64_t block) {
  vu lane;
  for (int l = 0; l < kLanes; ++l) lane[l] = block + static_cast<std::uint64_t>(l);
  return philox4x32<vu>(
      {lane, vu{}, vu{} + stream.replicate, vu{} + static_cast<std::uint64_t>(stream.number)},
      static_cast<unsigned>(stream.key), static_cast<unsigned>(stream.key >> 32));
}

static void indices(const Stream& stream, Index n, Index first, std::uint64_t* out) {
  for (int b = 0; b < kBlocks; b += kLanes) {
    const Philox<vu> x = words_of(stream, static_cast<std::uint64_t>(first + b));
    const vu word[4] = {x.c0, x.c1, x.c2, x.c3};
    for (int w = 0; w < 4; ++w, out += kLanes) {
      const vu drawn = MultiplyLow<vu>::of(word[w], static_cast<unsigned>(n)) >> 32;
      __builtin_memcpy(out, &drawn, sizeof drawn);
      const Index left = n - 4 * (first + b) - w;  // words from this one on, every fourth of them
      if (left > 4 * (kLanes - 1)) continue;
      for (int l = 0; l < kLanes; ++l)
        if (4 * l >= left) out[l] = static_cast<std::uint64_t>(n);
    }
  }
}

static void uniforms(const Stream& stream, Index first, double* out) {
  for (int b = 0; b < kBlocks; b += kLanes, out += 2 * kLanes) {
    const Philox<vu> x = words_of(stream, static_cast<std::uint64_t>(first + b));
    for (int l = 0; l < kLanes; ++l) {
      out[2 * l] = uniform(x.c0[l], x.c1[l] & 0xffffffffull);
      out[2 * l + 1] = uniform(x.c2[l], x.c3[l] & 0xffffffffull);
    }
  }
}
