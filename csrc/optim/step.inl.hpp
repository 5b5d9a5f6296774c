// The step on one chunk, once for every instruction set. Included inside the anonymous namespace of
// a unit after half.inl.hpp, random.inl.hpp and rules.inl.hpp.
//
// The chunk is walked in tiles that stay in the first-level cache: gradients are widened, scaled
// and masked into a buffer (float32 ones that need none of this are read in place), 16-bit
// parameters too; then one plain loop applies the rule. The compiler makes vectors of these loops,
// and since nothing is contracted or reordered they compute the bits of the scalar ones. Memory is
// read and written once.

constexpr Index kTile = 512;

struct Half {
  unsigned short bits;
};
struct BFloat {
  unsigned short bits;
};
static inline double widen(double x) { return x; }
static inline float widen(float x) { return x; }
static inline float widen(Half x) { return float16_to_float(x.bits); }
static inline float widen(BFloat x) { return bfloat16_to_float(x.bits); }

static inline unsigned int float_bits(float x) {
  unsigned int bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

// To nearest even; NaN stays NaN.
static inline unsigned short float_to_bfloat16(float x) {
  const unsigned int u = float_bits(x);
  const unsigned int rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return (unsigned short)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded);
}

// Up with the probability of the discarded fraction: 16 random bits carry into the upper half.
static inline unsigned short float_to_bfloat16(float x, unsigned short draw) {
  const unsigned int u = float_bits(x), magnitude = u & 0x7fffffffu;
  const unsigned int rounded = (u + draw) >> 16;
  const unsigned int special = (u >> 16) | (magnitude > 0x7f800000u ? 0x40u : 0u);
  return (unsigned short)(magnitude >= 0x7f800000u ? special : rounded);
}

// To nearest even. Three cases by magnitude: subnormal results are rounded by adding a float whose
// last bit is worth 2^-24; normal ones by adding half a unit; the rest is infinity or NaN.
static inline unsigned short float_to_float16(float x) {
  const unsigned int u = float_bits(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  const unsigned int subnormal = float_bits(bits_to_float(a) + 0.5f) - 0x3f000000u;
  const unsigned int normal = (a + 0xc8000fffu + ((a >> 13) & 1u)) >> 13;
  const unsigned int special = a > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const unsigned int bits = a < 0x38800000u ? subnormal : a < 0x47800000u ? normal : special;
  return (unsigned short)(bits | sign);
}

static inline void narrow(const float* x, Half* out, Index n) {
  for (Index i = 0; i < n; ++i) out[i].bits = float_to_float16(x[i]);
}
static inline void narrow(const float* x, BFloat* out, Index n) {
  for (Index i = 0; i < n; ++i) out[i].bits = float_to_bfloat16(x[i]);
}

// Draws for elements [first, first + n), n <= kTile; the buffer has room for the whole groups that
// they touch, and the returned pointer is where `first` landed.
constexpr Index kDrawBuffer = kTile + 2 * kDrawGroup;

static const unsigned short* draw_tile(std::uint64_t key, std::uint32_t step, std::uint32_t stream,
                                       Index first, Index n, unsigned short* buffer) {
  const Index group = first / kDrawGroup, skipped = first % kDrawGroup;
  for (Index done = 0; done < skipped + n; done += kDrawGroup)
    philox_draws((unsigned long long)(group + done / kDrawGroup), step, stream, key, buffer + done);
  return buffer + skipped;
}

static void draws(std::uint64_t key, std::uint32_t step, std::uint32_t stream, Index offset,
                  Index size, std::uint16_t* out) {
  unsigned short buffer[kDrawBuffer];
  for (Index i = 0; i < size; i += kTile) {
    const Index n = size - i < kTile ? size - i : kTile;
    const unsigned short* d = draw_tile(key, step, stream, offset + i, n, buffer);
    __builtin_memcpy(out + i, d, (std::size_t)n * sizeof *d);
  }
}

static void philox(const std::uint32_t* counter, const std::uint32_t* key, std::uint32_t* out) {
  const Philox x =
      philox4x32({vu{} + (unsigned long long)counter[0], vu{} + (unsigned long long)counter[1],
                  vu{} + (unsigned long long)counter[2], vu{} + (unsigned long long)counter[3]},
                 key[0], key[1]);
  out[0] = (std::uint32_t)x.c0[0];
  out[1] = (std::uint32_t)x.c1[0];
  out[2] = (std::uint32_t)x.c2[0];
  out[3] = (std::uint32_t)x.c3[0];
}

template <bool kAllDecay, typename R, typename S>
static void apply(const R& rule, S* __restrict__ p, const S* __restrict__ g, S* __restrict__ m,
                  S* __restrict__ v, const unsigned char* __restrict__ child, Index n) {
  for (Index i = 0; i < n; ++i) {
    const bool decays = kAllDecay || child[i] != 0;
    S a = p[i], first = 0, second = 0;
    if constexpr (R::kMoments >= 1) first = m[i];
    if constexpr (R::kMoments >= 2) second = v[i];
    rule(a, g[i], first, second, decays);
    p[i] = a;
    if constexpr (R::kMoments >= 1) m[i] = first;
    if constexpr (R::kMoments >= 2) v[i] = second;
  }
}

template <typename R, typename S>
static inline void apply_rule(const Scalars& s, S* p, const S* g, S* m, S* v,
                              const unsigned char* child, Index n) {
  const R rule(s);
  if (child != nullptr)
    apply<false>(rule, p, g, m, v, child, n);
  else
    apply<true>(rule, p, g, m, v, child, n);
}

template <typename S>
static void dispatch_rule(Rule rule, const Scalars& s, S* p, const S* g, S* m, S* v,
                          const unsigned char* child, Index n) {
  switch (rule) {
    case Rule::adamw:
      return apply_rule<AdamW<S>>(s, p, g, m, v, child, n);
    case Rule::adamw_alicemind:
      return apply_rule<AdamWAliceMind<S>>(s, p, g, m, v, child, n);
    case Rule::adam:
      return apply_rule<Adam<S>>(s, p, g, m, v, child, n);
    case Rule::sgd:
      return m != nullptr ? apply_rule<Momentum<S>>(s, p, g, m, v, child, n)
                          : apply_rule<Descent<S>>(s, p, g, m, v, child, n);
  }
}

template <typename T, typename S>
static void load_gradient(const T* __restrict__ grad, S scale, S* __restrict__ g, Index n) {
  for (Index i = 0; i < n; ++i) g[i] = widen(grad[i]) * scale;
}

// The same under mask F.
template <typename T, typename S>
static void load_drawn(const T* __restrict__ grad, S scale, const unsigned short* __restrict__ draw,
                       int keep, S inverse_p, S* __restrict__ g, Index n) {
  for (Index i = 0; i < n; ++i)
    g[i] = widen(grad[i]) * scale * ((int)draw[i] < keep ? inverse_p : (S)0);
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

// The same under mask D.
template <typename T, typename S>
static void load_child(const T* __restrict__ grad, S scale, const unsigned char* __restrict__ child,
                       S* __restrict__ g, Index n) {
  for (Index i = 0; i < n; ++i) g[i] = widen(grad[i]) * scale * (S)child[i];
}

template <typename S>
static void average(const S* __restrict__ p, S weight, S* __restrict__ ema, Index n) {
  for (Index i = 0; i < n; ++i) ema[i] = ema[i] - weight * (ema[i] - p[i]);
}

template <typename T, typename S>
static void step_chunk(const StepTensor& t, const StepOptions& o, const Scalars& s, Index begin,
                       Index end) {
  constexpr bool kDirect = sizeof(T) == sizeof(S);
  alignas(64) S buffered[kTile];
  alignas(64) S wide[kDirect ? 1 : kTile];
  alignas(64) unsigned short buffer[kDrawBuffer];
  alignas(64) unsigned char child[kTile];
  const std::uint32_t count = (std::uint32_t)o.step;
  for (Index i = begin; i < end; i += kTile) {
    const Index n = end - i < kTile ? end - i : kTile;
    const T* const grad = (const T*)t.grad + i;
    const S* g = buffered;
    if (t.mask != nullptr) {
      unpack(t.mask, i, n, child);
      load_child(grad, (S)s.grad_scale, child, buffered, n);
    } else if (o.keep != 0) {
      load_drawn(grad, (S)s.grad_scale, draw_tile(t.key, count, 0, t.offset + i, n, buffer), o.keep,
                 (S)s.inverse_p, buffered, n);
    } else if (kDirect && s.grad_scale == 1.0) {
      g = (const S*)(const void*)grad;
    } else {
      load_gradient(grad, (S)s.grad_scale, buffered, n);
    }
    T* const param = (T*)t.param + i;
    S* p;
    if constexpr (kDirect) {
      p = param;
    } else {
      for (Index k = 0; k < n; ++k) wide[k] = widen(param[k]);
      p = wide;
    }
    S* const m = t.exp_avg == nullptr ? nullptr : (S*)t.exp_avg + i;
    S* const v = t.exp_avg_sq == nullptr ? nullptr : (S*)t.exp_avg_sq + i;
    const bool partly = t.mask != nullptr && !o.decay_masked;
    dispatch_rule<S>(o.rule, s, p, g, m, v, partly ? child : nullptr, n);
    if constexpr (!kDirect) {
      bool rounded = false;
      if constexpr (sizeof(T) == sizeof(BFloat)) {
        if (o.stochastic_rounding && t.dtype == DType::bfloat16) {
          const unsigned short* d = draw_tile(t.key, count, 1, t.offset + i, n, buffer);
          for (Index k = 0; k < n; ++k) param[k].bits = float_to_bfloat16(wide[k], d[k]);
          rounded = true;
        }
      }
      if (!rounded) narrow(wide, param, n);
      if (t.ema != nullptr)
        for (Index k = 0; k < n; ++k) wide[k] = widen(param[k]);
    }
    if (t.ema != nullptr) average(p, (S)s.ema_weight, (S*)t.ema + i, n);
  }
}

static void step(const StepTensor& t, const StepOptions& o, const Scalars& s, Index begin,
                 Index end) {
  switch (t.dtype) {
    case DType::float16:
      return step_chunk<Half, float>(t, o, s, begin, end);
    case DType::bfloat16:
      return step_chunk<BFloat, float>(t, o, s, begin, end);
    case DType::float32:
      return step_chunk<float, float>(t, o, s, begin, end);
    case DType::float64:
      return step_chunk<double, double>(t, o, s, begin, end);
  }
}
