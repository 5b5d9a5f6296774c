// The step on one chunk, once for every instruction set. Included inside the anonymous namespace of
// a unit after element.inl.hpp, masks.inl.hpp, rules.inl.hpp and statistics.inl.hpp.
//
// The chunk is walked in tiles that stay in the first-level cache: gradients are widened, scaled
// and masked into a buffer (float32 ones that need none of this are read in place), 16-bit
// parameters too; then one plain loop applies the rule, and for 32 and 64 bits mask F and the
// average with it. The compiler makes vectors of these loops,
// and since nothing is contracted or reordered they compute the bits of the scalar ones. Memory is
// read and written once.

template <typename T>
static inline void narrow(const float* x, T* out, Index n) {
  for (Index i = 0; i < n; ++i) out[i] = narrowed<T>(x[i]);
}

// In the type of the arithmetic: in place, or widened into `buffer`.
template <typename T, typename S>
static inline const S* widened(const T* x, S* buffer, Index n) {
  if constexpr (sizeof(T) == sizeof(S)) return (const S*)(const void*)x;
  for (Index i = 0; i < n; ++i) buffer[i] = widen(x[i]);
  return buffer;
}

// What a tile reads and writes. `draw` and `ema`, where they are not null, take mask F and the
// average into the loop of the rule: drawing then goes on while the loads of the rule are waited
// for, and nothing is read twice.
template <typename S>
struct Arrays {
  S* p;
  const S* g;
  S* m;
  S* v;
  const unsigned char* child = nullptr;
  const unsigned short* draw = nullptr;
  S* ema = nullptr;
};

template <bool kAllDecay, bool kDrawn, bool kAverages, typename R, typename S>
static void apply(const R& rule, const Scalars& s, int keep, const Arrays<S>& a, Index n) {
  S* const __restrict__ p = a.p;
  const S* const __restrict__ g = a.g;
  S* const __restrict__ m = a.m;
  S* const __restrict__ v = a.v;
  const unsigned char* const __restrict__ child = a.child;
  const unsigned short* const __restrict__ draw = a.draw;
  S* const __restrict__ ema = a.ema;
  const S scale = (S)s.grad_scale, inverse_p = (S)s.inverse_p, weight = (S)s.ema_weight;
  for (Index i = 0; i < n; ++i) {
    const bool decays = kAllDecay || child[i] != 0;
    S param = p[i], grad = g[i], first = 0, second = 0;
    if constexpr (kDrawn) grad = drawn(grad, scale, draw[i], keep, inverse_p);
    if constexpr (R::kMoments >= 1) first = m[i];
    if constexpr (R::kMoments >= 2) second = v[i];
    rule(param, grad, first, second, decays);
    p[i] = param;
    if constexpr (R::kMoments >= 1) m[i] = first;
    if constexpr (R::kMoments >= 2) v[i] = second;
    if constexpr (kAverages) ema[i] = averaged(ema[i], weight, param);
  }
}

template <bool kDrawn, bool kAverages, typename R, typename S>
static inline void apply_decay(const R& rule, const Scalars& s, int keep, const Arrays<S>& a,
                               Index n) {
  if (a.child != nullptr)
    apply<false, kDrawn, kAverages>(rule, s, keep, a, n);
  else
    apply<true, kDrawn, kAverages>(rule, s, keep, a, n);
}

template <typename R, typename S>
static inline void apply_rule(const Scalars& s, int keep, const Arrays<S>& a, Index n) {
  const R rule(s);
  if (a.draw != nullptr && a.ema != nullptr)
    apply<true, true, true>(rule, s, keep, a, n);
  else if (a.draw != nullptr)
    apply<true, true, false>(rule, s, keep, a, n);
  else if (a.ema != nullptr)
    apply_decay<false, true>(rule, s, keep, a, n);
  else
    apply_decay<false, false>(rule, s, keep, a, n);
}

template <typename S>
static void dispatch_rule(const StepOptions& o, const Scalars& s, const Arrays<S>& a, Index n) {
  switch (o.rule) {
#define PS_APPLY(name, Struct, moments) \
  case Rule::name:                      \
    return apply_rule<Struct<S>>(s, o.keep, a, n);
    PS_UPDATE_RULES(PS_APPLY)
#undef PS_APPLY
  }
}

template <typename R, typename S>
static inline void apply_rest(const Scalars& s, S* p, Index n) {
  if constexpr (kCanBeCompact<R>) {
    const R rule(s);
    for (Index i = 0; i < n; ++i) p[i] = rule.rest(p[i]);
  }
}

// Where parameters outside the child go that have no moments.
template <typename S>
static void decay_rest(Rule rule, const Scalars& s, S* p, Index n) {
  switch (rule) {
#define PS_REST(name, Struct, moments) \
  case Rule::name:                     \
    return apply_rest<Struct<S>>(s, p, n);
    PS_UPDATE_RULES(PS_REST)
#undef PS_REST
  }
}

template <typename T, typename S>
static void load_gradient(const T* __restrict__ grad, S scale, S* __restrict__ g, Index n) {
  for (Index i = 0; i < n; ++i) g[i] = scaled(grad[i], scale);
}

// The same under mask F.
template <typename T, typename S>
static void load_drawn(const T* __restrict__ grad, S scale, const unsigned short* __restrict__ draw,
                       int keep, S inverse_p, S* __restrict__ g, Index n) {
  for (Index i = 0; i < n; ++i) g[i] = drawn(grad[i], scale, draw[i], keep, inverse_p);
}

// The same under mask D.
template <typename T, typename S>
static void load_child(const T* __restrict__ grad, S scale, const unsigned char* __restrict__ child,
                       S* __restrict__ g, Index n) {
  for (Index i = 0; i < n; ++i) g[i] = scaled(grad[i], scale) * (S)child[i];
}

template <typename S>
static void average(const S* __restrict__ p, S weight, S* __restrict__ ema, Index n) {
  for (Index i = 0; i < n; ++i) ema[i] = averaged(ema[i], weight, p[i]);
}

// `put` reads a vector from each place that it takes an element from.
constexpr Index kRoom = kTile + 16;

// Buffers of one tile.
template <typename S>
struct Tile {
  alignas(64) S grad[kTile];
  alignas(64) S wide[kTile];  // parameters of 16 bits
  alignas(64) unsigned short draw[kDrawBuffer];
  alignas(64) unsigned char child[kTile];
};

// The rule on the elements [i, i + n) whose moments are whole, and the average if `ema` is not
// null. Returns the gradient that it took; with `fuse` only as stored.
template <typename T, typename S>
static const S* step_whole(const StepTensor& t, const StepOptions& o, const Scalars& s, Index i,
                           Index n, S* p, Tile<S>& tile, bool fuse, S* ema) {
  const T* const grad = (const T*)t.grad + i;
  const S* g = tile.grad;
  const unsigned short* draw = nullptr;
  if (t.mask != nullptr) {
    unpack(t.mask, i, n, tile.child);
    load_child(grad, (S)s.grad_scale, tile.child, tile.grad, n);
  } else if (o.keep != 0) {
    draw = draw_tile(t, (std::uint32_t)o.step, 0, i, n, tile.draw);
    if (fuse) {
      g = (const S*)(const void*)grad;
    } else {
      load_drawn(grad, (S)s.grad_scale, draw, o.keep, (S)s.inverse_p, tile.grad, n);
      draw = nullptr;
    }
  } else if (sizeof(T) == sizeof(S) && s.grad_scale == 1.0) {
    g = (const S*)(const void*)grad;
  } else {
    load_gradient(grad, (S)s.grad_scale, tile.grad, n);
  }
  S* const m = t.exp_avg == nullptr ? nullptr : (S*)t.exp_avg + i;
  S* const v = t.exp_avg_sq == nullptr ? nullptr : (S*)t.exp_avg_sq + i;
  const bool partly = t.mask != nullptr && !o.decay_masked;
  dispatch_rule<S>(o, s, {p, g, m, v, partly ? tile.child : nullptr, draw, ema}, n);
  return g;
}

// The same with compact moments, `rank` of them before these: the child's elements are picked,
// moved and put back among the others, which decay at most. Returns the size of the child here.
template <typename T, typename S>
static Index step_compact(const StepTensor& t, const StepOptions& o, const Scalars& s, Index i,
                          Index n, Index rank, S* p, Tile<S>& tile) {
  alignas(64) S moved[kRoom], wide[kTile];
  const unsigned char* const bits = t.mask + i / 8;
  const S scale = (S)s.grad_scale;
  const Index count = pick(widened((const T*)t.grad + i, wide, n), bits, n, tile.grad);
  if (scale != 1)
    for (Index k = 0; k < count; ++k) tile.grad[k] = tile.grad[k] * scale;
  pick(p, bits, n, moved);
  dispatch_rule<S>(o, s, {moved, tile.grad, (S*)t.exp_avg + rank, (S*)t.exp_avg_sq + rank}, count);
  if (o.decay_masked && s.decay != 0) decay_rest(o.rule, s, p, n);
  put(moved, bits, n, p);
  return count;
}

template <typename T>
static void store_rounded(const StepTensor& t, const StepOptions& o, Index i, Index n,
                          const float* p, unsigned short* buffer) {
  T* const param = (T*)t.param + i;
  if (o.stochastic_rounding && t.dtype == DType::bfloat16) {
    const unsigned short* d = draw_tile(t, (std::uint32_t)o.step, 1, i, n, buffer);
    for (Index k = 0; k < n; ++k) param[k].bits = float_to_bfloat16(p[k], d[k]);
  } else {
    narrow(p, param, n);
  }
}

template <typename T, typename S>
static void step_chunk(const StepTensor& t, const StepOptions& o, const Scalars& s,
                       const Piece& piece, StepStatistics* blocks) {
  constexpr bool kDirect = sizeof(T) == sizeof(S);
  Tile<S> tile;
  alignas(64) S before[kTile], drive[kTile], first[kRoom];
  const bool averages = t.ema != nullptr && s.ema_weight != 0;
  // Statistics look at the gradient that the rule took, so that it has to be somewhere.
  const bool fuse = kDirect && blocks == nullptr;
  const bool fuse_average = kDirect && averages && t.children < 0;
  Index rank = piece.rank;
  for (Index i = piece.begin; i < piece.end; i += kTile) {
    const Index n = piece.end - i < kTile ? piece.end - i : kTile;
    S* p = tile.wide;
    if constexpr (kDirect)
      p = (S*)t.param + i;
    else if (t.master != nullptr)
      p = (S*)t.master + i;
    else
      widened((const T*)t.param + i, tile.wide, n);
    if (blocks != nullptr) __builtin_memcpy(before, p, (std::size_t)n * sizeof *p);

    const S* driving = drive;
    if (t.children < 0) {
      S* const ema = fuse_average ? (S*)t.ema + i : nullptr;
      const S* const g = step_whole<T>(t, o, s, i, n, p, tile, fuse, ema);
      driving = t.exp_avg == nullptr ? g : (const S*)t.exp_avg + i;
    } else {
      const Index count = step_compact<T>(t, o, s, i, n, rank, p, tile);
      if (blocks != nullptr) {
        __builtin_memset(drive, 0, sizeof drive);
        if (count != 0)  // a child without elements may have no moments at all
          __builtin_memcpy(first, (const S*)t.exp_avg + rank, (std::size_t)count * sizeof *first);
        put(first, t.mask + i / 8, n, drive);
        unpack(t.mask, i, n, tile.child);
      }
      rank += count;
    }

    if constexpr (!kDirect) {
      store_rounded<T>(t, o, i, n, p, tile.draw);
      if (t.master == nullptr && (averages || blocks != nullptr))
        widened((const T*)t.param + i, tile.wide, n);
    }
    if (averages && !fuse_average) average(p, (S)s.ema_weight, (S*)t.ema + i, n);
    if (blocks != nullptr) {
      const unsigned char* const decaying =
          t.mask != nullptr && !o.decay_masked ? tile.child : nullptr;
      alignas(64) S raw[kTile];
      const S* const grad = widened((const T*)t.grad + i, raw, n);
      StepStatistics& out = blocks[(i - piece.begin) / kBlock];
      add_sums(grad, before, p, n, out);
      count_gradients(grad, n, out);
      if (s.lr != 0)
        out.rounded_away +=
            (double)count_rounded_away(before, p, driving, s.weight_decay != 0, decaying, n);
    }
  }
}

static void step(const StepTensor& t, const StepOptions& o, const Scalars& s, const Piece& piece,
                 StepStatistics* blocks) {
  switch (t.dtype) {
    case DType::float16:
      return step_chunk<Half, float>(t, o, s, piece, blocks);
    case DType::bfloat16:
      return step_chunk<BFloat, float>(t, o, s, piece, blocks);
    case DType::float32:
      return step_chunk<float, float>(t, o, s, piece, blocks);
    case DType::float64:
      return step_chunk<double, double>(t, o, s, piece, blocks);
  }
}

template <typename T, typename S>
static double squares_of_block(const StepTensor& t, Index begin, Index end) {
  alignas(64) S buffer[kTile];
  double total = 0;
  for (Index i = begin; i < end; i += kTile) {
    const Index n = end - i < kTile ? end - i : kTile;
    total += squares_of(widened((const T*)t.grad + i, buffer, n), n);
  }
  return total;
}

static double squares(const StepTensor& t, Index begin, Index end) {
  switch (t.dtype) {
    case DType::float16:
      return squares_of_block<Half, float>(t, begin, end);
    case DType::bfloat16:
      return squares_of_block<BFloat, float>(t, begin, end);
    case DType::float32:
      return squares_of_block<float, float>(t, begin, end);
    case DType::float64:
      return squares_of_block<double, double>(t, begin, end);
  }
  return 0;
}
