// Who has which elements in the kernels of a step, and how they come and go. A CUDA block has a
// piece of kBlock elements, a thread eight of them in two runs of four, 64 apart: accesses are 16
// bytes wide (8 for 16-bit types), and sixteen threads have 128 elements, as the draws of Philox
// want them. Included inside the anonymous namespace of a .cu file after step.hpp, half, philox and
// element .inl.hpp; includes nothing itself.

constexpr int kThreads = 512, kEach = 8;
constexpr unsigned int kAll = 0xff;  // bit k: element k of a thread
static_assert(kThreads * kEach == kBlock);

struct Place {
  Index first;  // of the first run; the other begins 64 elements later
  Index end;    // of the piece

  __device__ Index at(int k) const { return first + 64 * (k / 4) + k % 4; }
  __device__ bool holds(int k) const { return at(k) < end; }
};

__device__ Place place_in(const Piece& piece) {
  const Index group = threadIdx.x / 16, lane = threadIdx.x % 16;
  return {piece.begin + kDrawGroup * group + 4 * lane, piece.end};
}

template <typename T>
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Four {
  T x[4];
};

template <typename T>
__device__ bool is_aligned(const T* data) {
  return reinterpret_cast<std::uintptr_t>(data) % alignof(Four<T>) == 0;
}

// Bit k of `wanted`: element k is needed. Runs of four that nobody needs are not touched.
__device__ bool wants(unsigned int wanted, int half) { return (wanted >> half & 15u) != 0; }

template <typename T>
__device__ void load(const T* from, const Place& place, T* out, unsigned int wanted = kAll) {
  const bool aligned = is_aligned(from);
#pragma unroll
  for (int half = 0; half < kEach; half += 4) {
    if (!wants(wanted, half)) {
#pragma unroll
      for (int k = half; k < half + 4; ++k) out[k] = T{};
    } else if (aligned && place.at(half) + 4 <= place.end) {
      const Four<T> four = *reinterpret_cast<const Four<T>*>(from + place.at(half));
#pragma unroll
      for (int k = 0; k < 4; ++k) out[half + k] = four.x[k];
    } else {
#pragma unroll
      for (int k = half; k < half + 4; ++k) out[k] = place.holds(k) ? from[place.at(k)] : T{};
    }
  }
}

template <typename T>
__device__ void store(T* to, const Place& place, const T* x, unsigned int wanted = kAll) {
  const bool aligned = is_aligned(to);
#pragma unroll
  for (int half = 0; half < kEach; half += 4) {
    if (!wants(wanted, half)) continue;
    if (aligned && place.at(half) + 4 <= place.end) {
      Four<T> four;
#pragma unroll
      for (int k = 0; k < 4; ++k) four.x[k] = x[half + k];
      *reinterpret_cast<Four<T>*>(to + place.at(half)) = four;
    } else {
#pragma unroll
      for (int k = half; k < half + 4; ++k)
        if (place.holds(k)) to[place.at(k)] = x[k];
    }
  }
}

__device__ void load_draws(const StepTensor& t, std::uint32_t step, std::uint32_t stream,
                           const Place& place, unsigned short* out) {
  if (t.offset % kDrawGroup == 0 && t.run >= t.size) {
    const Index element = t.offset + place.first;
    philox_block(16 * (element / kDrawGroup) + element % 64 / 4, step, stream, t.key, out);
    return;
  }
  unsigned long long packed[2] =
      {};  // an array indexed in a loop that stays one would leave registers
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll 1
    for (int k = 0; k < 4; ++k) {
      const Index i = place.at(4 * half) + k;
      const Index whole = t.offset + i / t.run * t.pitch + i % t.run;
      packed[half] |= (unsigned long long)philox_draw(whole, step, stream, t.key) << (16 * k);
    }
  }
#pragma unroll
  for (int k = 0; k < kEach; ++k) out[k] = (unsigned short)(packed[k / 4] >> (16 * (k % 4)));
}

// Rounds and stores the parameter; p becomes what the average follows: the parameter as stored, or
// the master.
template <typename T, typename S>
__device__ void store_parameter(const StepTensor& t, const StepOptions& o, const Place& place, S* p,
                                unsigned int wanted = kAll) {
  if constexpr (sizeof(T) == sizeof(S)) {
    store((T*)t.param, place, (const T*)p, wanted);
  } else {
    T narrow[kEach];
    if (o.stochastic_rounding && t.dtype == DType::bfloat16) {
      unsigned short draw[kEach];
      load_draws(t, (std::uint32_t)o.step, 1, place, draw);
#pragma unroll
      for (int k = 0; k < kEach; ++k) narrow[k].bits = float_to_bfloat16(p[k], draw[k]);
    } else {
#pragma unroll
      for (int k = 0; k < kEach; ++k) narrow[k] = narrowed<T>(p[k]);
    }
    store((T*)t.param, place, narrow, wanted);
    if (t.master != nullptr) {
      store((S*)t.master, place, p, wanted);
    } else {
#pragma unroll
      for (int k = 0; k < kEach; ++k) p[k] = widen(narrow[k]);
    }
  }
}
