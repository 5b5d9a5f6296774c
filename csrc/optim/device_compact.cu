#include "core/cuda/launch.hpp"
#include "optim/device_compact.hpp"

namespace pyspectra::optim::detail {
namespace {

#include "core/half.inl.hpp"
#include "core/philox.inl.hpp"
#include "optim/element.inl.hpp"
#include "optim/rules.inl.hpp"
//
#include "optim/device_elements.inl.hpp"
#include "optim/device_statistics.inl.hpp"

// --- ranks

constexpr unsigned int kWarp = 0xffffffffu;
constexpr int kLanes = 32, kWarps = kThreads / kLanes;
static_assert(kBlock == kLanes * kDrawGroup);  // a lane for each 128 elements of a piece

struct alignas(16) Bits {
  unsigned long long half[2];  // of 64 elements each

  __device__ int count() const { return __popcll(half[0]) + __popcll(half[1]); }
};

// The mask's bits of the 128 elements from `i`, a multiple of 128, on; zeros from `end` on.
__device__ Bits load_bits(const std::uint8_t* mask, Index i, Index end) {
  const std::uint8_t* const from = mask + i / 8;
  if (i + kDrawGroup <= end && reinterpret_cast<std::uintptr_t>(from) % alignof(Bits) == 0)
    return *reinterpret_cast<const Bits*>(from);
  Bits bits{};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Index left = end - i - 64 * half;
#pragma unroll
    for (int byte = 0; byte < 8; ++byte)
      if (8 * byte < left)
        bits.half[half] |= (unsigned long long)from[8 * half + byte] << (8 * byte);
    if (left < 64) bits.half[half] &= left <= 0 ? 0 : (1ull << left) - 1;
  }
  return bits;
}

// The child's elements in the lanes below this one, and in it.
__device__ int count_up_to_lane(int count) {
  const int lane = threadIdx.x % kLanes;
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) {
    const int below = __shfl_up_sync(kWarp, count, step);
    if (lane >= step) count += below;
  }
  return count;
}

// A tensor a block, a piece a warp at a time: writes Piece::rank.
__global__ void __launch_bounds__(kThreads) rank_kernel(const Planned* tensors, Piece* pieces) {
  __shared__ Index found[kWarps];
  const Planned& planned = tensors[blockIdx.x];
  const StepTensor& t = planned.t;
  if (t.children < 0) return;
  const int warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  Index before = 0;
  for (Index begin = 0; begin < t.size; begin += kWarps * kBlock) {
    const Index mine = begin + warp * kBlock;
    const int count = count_up_to_lane(load_bits(t.mask, mine + lane * kDrawGroup, t.size).count());
    if (lane == kLanes - 1) found[warp] = count;
    __syncthreads();
    Index rank = before;
    for (int k = 0; k < kWarps; ++k) {
      rank += k < warp ? found[k] : 0;
      before += found[k];
    }
    if (lane == 0 && mine < t.size) pieces[planned.first + mine / kBlock].rank = rank;
    __syncthreads();
  }
}

// The child among a thread's eight elements.
struct Child {
  unsigned int bits;  // bit k: element k is in it
  Index rank[2];      // of each run of four: the child's elements before it
};

// Lane l of each warp looks at the l-th 128 elements of the piece; a thread's are those of one
// lane.
__device__ Child child_of(const StepTensor& t, const Piece& piece) {
  const int lane = threadIdx.x % kLanes, group = threadIdx.x / 16, shift = 4 * (threadIdx.x % 16);
  const Bits bits = load_bits(t.mask, piece.begin + lane * kDrawGroup, piece.end);
  const int count = bits.count();
  const int before = __shfl_sync(kWarp, count_up_to_lane(count) - count, group);
  const unsigned long long low = __shfl_sync(kWarp, bits.half[0], group);
  const unsigned long long high = __shfl_sync(kWarp, bits.half[1], group);
  const unsigned long long below = (1ull << shift) - 1;
  const Index rank = piece.rank + before;
  return {(unsigned int)(low >> shift & 15u) | (unsigned int)(high >> shift & 15u) << 4,
          {rank + __popcll(low & below), rank + __popcll(low) + __popcll(high & below)}};
}

// Calls visit(k, rank) for the child's elements among a thread's, ranks below `size`.
template <typename Visit>
__device__ void for_child(const Child& child, Index size, const Visit& visit) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    Index rank = child.rank[half];
#pragma unroll
    for (int k = 4 * half; k < 4 * half + 4; ++k) {
      if ((child.bits >> k & 1) == 0) continue;
      if (rank < size) visit(k, rank);
      ++rank;
    }
  }
}

// --- the step

template <typename R, typename S>
__device__ void apply(const Scalars& s, S* p, const S* g, S* m, S* v, unsigned int child,
                      bool rest_decays) {
  if constexpr (kCanBeCompact<R>) {
    const R rule(s);
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      if ((child >> k & 1) != 0)
        rule(p[k], g[k], m[k], v[k], true);
      else if (rest_decays)
        p[k] = rule.rest(p[k]);
    }
  }
}

template <typename S>
__device__ void dispatch_rule(Rule rule, const Scalars& s, S* p, const S* g, S* m, S* v,
                              unsigned int child, bool rest_decays) {
  switch (rule) {
#define PS_APPLY(name, Struct, moments) \
  case Rule::name:                      \
    return apply<Struct<S>>(s, p, g, m, v, child, rest_decays);
    PS_UPDATE_RULES(PS_APPLY)
#undef PS_APPLY
  }
}

// One piece a block, pieces[first + blockIdx.x].
template <typename T, typename S, bool kStatistics>
__global__ void __launch_bounds__(kThreads)
    compact_kernel(Plan plan, Index first, const Prepared* prepared, StepStatistics* blocks) {
  constexpr bool kDirect = sizeof(T) == sizeof(S);
  const Index index = first + blockIdx.x;
  const Piece piece = plan.pieces[index];
  const StepTensor& t = plan.tensors[piece.tensor].t;
  const Prepared& group = prepared[t.options];
  if (group.skip) return;
  const StepOptions& o = group.o;
  const Scalars& s = group.s;
  const Place place = place_in(piece);
  const bool averages = t.ema != nullptr && s.ema_weight != 0;
  const bool rest_decays = o.decay_masked && s.decay != 0;
  const bool masters = !kDirect && t.master != nullptr;
  // Is anything to be done outside the child? 16-bit parameters are rounded again.
  const bool everywhere = !kDirect || kStatistics || averages || rest_decays;

  // What does not ask for the mask is on its way while that is looked at.
  T narrow[kEach], grad[kEach];
  S p[kEach], m[kEach] = {}, v[kEach] = {}, ema[kEach];
  if (masters) load((const S*)t.master, place, p);
  if (everywhere && !masters) load((const T*)t.param, place, narrow);
  if (averages) load((const S*)t.ema, place, ema);
  const Child child = child_of(t, piece);
  const unsigned int moved = everywhere ? kAll : child.bits;
  if (!everywhere) load((const T*)t.param, place, narrow, moved);
  load((const T*)plan.grads[piece.tensor], place, grad, kStatistics ? kAll : child.bits);
  for_child(child, t.children, [&](int k, Index rank) {
    m[k] = ((const S*)t.exp_avg)[rank];
    v[k] = ((const S*)t.exp_avg_sq)[rank];
  });

  S g[kEach], before[kEach];
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    if (!masters) p[k] = widen(narrow[k]);
    g[k] = scaled(grad[k], (S)s.grad_scale);
    before[k] = p[k];
  }
  dispatch_rule(o.rule, s, p, g, m, v, child.bits, rest_decays);

  store_parameter<T>(t, o, place, p, moved);
  for_child(child, t.children, [&](int k, Index rank) {
    ((S*)t.exp_avg)[rank] = m[k];
    ((S*)t.exp_avg_sq)[rank] = v[k];
  });
  if (averages) {
#pragma unroll
    for (int k = 0; k < kEach; ++k) ema[k] = averaged(ema[k], (S)s.ema_weight, p[k]);
    store((S*)t.ema, place, ema);
  }
  if constexpr (kStatistics) {
    S raw[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) raw[k] = widen(grad[k]);
    take_statistics(raw, before, p, m, s, o.decay_masked ? kAll : child.bits, place, piece.begin,
                    blocks[index]);
  }
}

template <typename T, typename S>
void launch(const Plan& plan, Index first, Index count, const Prepared* prepared,
            StepStatistics* blocks, const cuda::Stream& stream) {
  cuda::launch(stream, blocks == nullptr ? compact_kernel<T, S, false> : compact_kernel<T, S, true>,
               count, kThreads, 0, plan, first, prepared, blocks);
}

}  // namespace

void launch_compact(DType type, const Plan& plan, Index first, Index count,
                    const Prepared* prepared, StepStatistics* blocks, const cuda::Stream& stream) {
  switch (type) {
    case DType::float16:
      return launch<Half, float>(plan, first, count, prepared, blocks, stream);
    case DType::bfloat16:
      return launch<BFloat, float>(plan, first, count, prepared, blocks, stream);
    case DType::float32:
      return launch<float, float>(plan, first, count, prepared, blocks, stream);
    case DType::float64:
      return launch<double, double>(plan, first, count, prepared, blocks, stream);
  }
}

}  // namespace pyspectra::optim::detail

namespace pyspectra::optim {

void device_ranks(Index tensors, void* plan, const cuda::Stream& stream) {
  using namespace detail;
  auto* const from = static_cast<Planned*>(plan);
  cuda::launch(stream, rank_kernel, tensors, kThreads, 0, static_cast<const Planned*>(from),
               reinterpret_cast<Piece*>(from + tensors));
}

}  // namespace pyspectra::optim
