#include <algorithm>
#include <numeric>

#include "core/cuda/launch.hpp"
#include "optim/device_compact.hpp"
#include "optim/device_plan.hpp"
#include "optim/device_step.hpp"

namespace pyspectra::optim::detail {
namespace {

#include "core/elementary.inl.hpp"
#include "core/half.inl.hpp"
#include "core/philox.inl.hpp"
#include "optim/element.inl.hpp"
#include "optim/rules.inl.hpp"
#include "optim/scalars.inl.hpp"
//
#include "optim/device_elements.inl.hpp"
#include "optim/device_statistics.inl.hpp"

// --- the step

// Bit k: element k is in the child network.
__device__ unsigned int load_child(const std::uint8_t* mask, const Place& place) {
  unsigned int bits = 0;
#pragma unroll
  for (int half = 0; half < kEach; half += 4) {
    const Index i = place.at(half);
    if (i < place.end) bits |= (mask[i / 8] >> (i % 8) & 15u) << half;
  }
  return bits;
}

template <typename R, typename S>
__device__ void apply(const Scalars& s, S* p, const S* g, S* m, S* v, unsigned int decays) {
  const R rule(s);
#pragma unroll
  for (int k = 0; k < kEach; ++k) rule(p[k], g[k], m[k], v[k], (decays >> k & 1) != 0);
}

template <typename S>
__device__ void dispatch_rule(Rule rule, const Scalars& s, S* p, const S* g, S* m, S* v,
                              unsigned int decays) {
  switch (rule) {
#define PS_APPLY(name, Struct, moments) \
  case Rule::name:                      \
    return apply<Struct<S>>(s, p, g, m, v, decays);
    PS_UPDATE_RULES(PS_APPLY)
#undef PS_APPLY
  }
}

// One piece a block, pieces[first + blockIdx.x].
template <typename T, typename S, bool kStatistics>
__global__ void __launch_bounds__(kThreads)
    step_kernel(Plan plan, Index first, const Prepared* prepared, StepStatistics* blocks) {
  constexpr bool kDirect = sizeof(T) == sizeof(S);
  const Index index = first + blockIdx.x;
  const Piece piece = plan.pieces[index];
  const StepTensor& t = plan.tensors[piece.tensor].t;
  const Prepared& group = prepared[t.options];
  if (group.skip) return;
  const StepOptions& o = group.o;
  const Scalars& s = group.s;
  const Place place = place_in(piece);

  // All loads before the first use of any.
  T narrow[kEach], grad[kEach];
  S p[kEach], m[kEach] = {}, v[kEach] = {}, ema[kEach];
  load((const T*)t.param, place, narrow);
  load((const T*)plan.grads[piece.tensor], place, grad);
  if (t.exp_avg != nullptr) load((const S*)t.exp_avg, place, m);
  if (t.exp_avg_sq != nullptr) load((const S*)t.exp_avg_sq, place, v);
  const bool averages = t.ema != nullptr && s.ema_weight != 0;
  if (averages) load((const S*)t.ema, place, ema);
  const unsigned int child = t.mask == nullptr ? kAll : load_child(t.mask, place);
  if (!kDirect && t.master != nullptr) {
    load((const S*)t.master, place, p);
  } else {
#pragma unroll
    for (int k = 0; k < kEach; ++k) p[k] = widen(narrow[k]);
  }

  S g[kEach], before[kEach];
#pragma unroll
  for (int k = 0; k < kEach; ++k) g[k] = scaled(grad[k], (S)s.grad_scale);
  unsigned short draw[kEach];
  if (t.mask != nullptr) {
#pragma unroll
    for (int k = 0; k < kEach; ++k) g[k] = g[k] * (S)(child >> k & 1);
  } else if (o.keep != 0) {
    load_draws(t, (std::uint32_t)o.step, 0, place, draw);
#pragma unroll
    for (int k = 0; k < kEach; ++k)
      g[k] = drawn(grad[k], (S)s.grad_scale, draw[k], o.keep, (S)s.inverse_p);
  }
  const unsigned int decays = o.decay_masked ? kAll : child;
  if constexpr (kStatistics) {
#pragma unroll
    for (int k = 0; k < kEach; ++k) before[k] = p[k];
  }
  dispatch_rule(o.rule, s, p, g, m, v, decays);

  store_parameter<T>(t, o, place, p);
  if (t.exp_avg != nullptr) store((S*)t.exp_avg, place, m);
  if (t.exp_avg_sq != nullptr) store((S*)t.exp_avg_sq, place, v);
  if (averages) {
#pragma unroll
    for (int k = 0; k < kEach; ++k) ema[k] = averaged(ema[k], (S)s.ema_weight, p[k]);
    store((S*)t.ema, place, ema);
  }
  if constexpr (kStatistics) {
    S raw[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) raw[k] = widen(grad[k]);
    take_statistics(raw, before, p, t.exp_avg != nullptr ? m : g, s, decays, place, piece.begin,
                    blocks[index]);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) squares_kernel(Plan plan, Index first, double* blocks) {
  __shared__ double staged[kBlock];
  const Index index = first + blockIdx.x;
  const Piece piece = plan.pieces[index];
  const Place place = place_in(piece);
  T grad[kEach];
  load((const T*)plan.grads[piece.tensor], place, grad);
  double value[kEach];
#pragma unroll
  for (int k = 0; k < kEach; ++k) value[k] = (double)widen(grad[k]) * (double)widen(grad[k]);
  const double total = sum_block(value, place, piece.begin, staged);
  if (threadIdx.x == 0) blocks[index] = total;
}

// --- between the launches over the elements

constexpr int kSumThreads = 256, kStaged = 2048;

// out[tensor][field] = sum (kMaximum: the greatest) over the tensor's pieces, in their order; a
// tensor a block, a field a thread, values staged so that the chain of additions waits for no load.
template <int kFields, int kMaximum>
__global__ void __launch_bounds__(kSumThreads)
    sum_kernel(Plan plan, const double* blocks, const Prepared* prepared, double* out) {
  __shared__ double staged[kStaged];
  const Planned& planned = plan.tensors[blockIdx.x];
  // Statistics stay what they were where the step was left out.
  if (prepared != nullptr && prepared[planned.t.options].skip) return;
  const Index values = (planned.t.size + kBlock - 1) / kBlock * kFields;
  const double* const from = blocks + planned.first * kFields;
  const int field = threadIdx.x;
  double total = 0.0;
  for (Index begin = 0; begin < values; begin += kStaged) {
    const Index n = values - begin < kStaged ? values - begin : kStaged;
    __syncthreads();
    for (Index k = threadIdx.x; k < n; k += kSumThreads) staged[k] = from[begin + k];
    __syncthreads();
    if (field >= kFields) continue;
    if (field == kMaximum) {
      for (Index k = field; k < n; k += kFields) total = staged[k] > total ? staged[k] : total;
    } else {
#pragma unroll 8
      for (Index k = field; k < n; k += kFields) total += staged[k];
    }
  }
  if (field < kFields) out[(Index)blockIdx.x * kFields + field] = total;
}

// Sum to about twice the precision; pyspectra/optim takes it exactly on the CPU, so that the two
// round to the same double but for near ties.
__device__ double careful_sum(const double* x, Index n) {
  double sum = 0.0, error = 0.0;
  for (Index k = 0; k < n; ++k) {
    const double t = sum + x[k], back = t - sum;
    error += (sum - (t - back)) + (x[k] - back);
    sum = t;
  }
  const double careful = sum + error;
  return careful - careful == 0.0 ? careful : sum;  // an infinity has no error term
}

constexpr Index kAddresses = 448;  // in the 4 KiB that arguments may have
struct AddressList {
  const void* of[kAddresses];
};

__global__ void write_kernel(AddressList addresses, Index count, const void** out) {
  for (Index k = threadIdx.x; k < count; k += blockDim.x) out[k] = addresses.of[k];
}

constexpr int kOptions = 16;  // those of one launch travel as its argument
struct OptionList {
  DeviceOptions of[kOptions];
};

__global__ void prepare_kernel(OptionList options, Index first, Index count, DeviceBuffers buffers,
                               Index tensors) {
  __shared__ double scale;
  const bool skip = buffers.found_inf != nullptr && *buffers.found_inf != 0.0f;
  if (threadIdx.x == 0) {
    const double unscale = buffers.loss_scale == nullptr ? 1.0 : 1.0 / (double)*buffers.loss_scale;
    scale = unscale;
    if (buffers.max_grad_norm < __builtin_inf()) {
      const double norm = __builtin_sqrt(careful_sum(buffers.squares, tensors)) * unscale;
      const double factor = buffers.max_grad_norm / (norm + 1e-6);
      scale = unscale * (factor >= 1.0 ? 1.0 : factor);  // NaN stays NaN
    }
    if (buffers.statistics != nullptr && !skip) buffers.statistics[tensors * 8] = unscale;
  }
  __syncthreads();
  for (Index k = threadIdx.x; k < count; k += blockDim.x) {
    const DeviceOptions& given = options.of[k];
    Prepared& out = static_cast<Prepared*>(buffers.prepared)[first + k];
    StepOptions o = given.values;
    o.step = *given.step + 1;
    if (given.lr != nullptr) o.lr = (double)*given.lr;
    o.grad_scale = o.grad_scale * scale;
    out.o = o;
    out.s = scalars(o);
    out.skip = skip;
    if (!skip) *given.step = o.step;
  }
}

template <typename T, typename S>
void launch_step(const Plan& plan, Index first, Index count, const Prepared* prepared,
                 StepStatistics* blocks, const cuda::Stream& stream) {
  cuda::launch(stream, blocks == nullptr ? step_kernel<T, S, false> : step_kernel<T, S, true>,
               count, kThreads, 0, plan, first, prepared, blocks);
}

void launch_step(DType type, const Plan& plan, Index first, Index count, const Prepared* prepared,
                 StepStatistics* blocks, const cuda::Stream& stream) {
  switch (type) {
    case DType::float16:
      return launch_step<Half, float>(plan, first, count, prepared, blocks, stream);
    case DType::bfloat16:
      return launch_step<BFloat, float>(plan, first, count, prepared, blocks, stream);
    case DType::float32:
      return launch_step<float, float>(plan, first, count, prepared, blocks, stream);
    case DType::float64:
      return launch_step<double, double>(plan, first, count, prepared, blocks, stream);
  }
}

void launch_squares(DType type, const Plan& plan, Index first, Index count, double* blocks,
                    const cuda::Stream& stream) {
  const auto launch = [&](auto* kernel) {
    cuda::launch(stream, kernel, count, kThreads, 0, plan, first, blocks);
  };
  switch (type) {
    case DType::float16:
      return launch(squares_kernel<Half>);
    case DType::bfloat16:
      return launch(squares_kernel<BFloat>);
    case DType::float32:
      return launch(squares_kernel<float>);
    case DType::float64:
      return launch(squares_kernel<double>);
  }
}

void launch_squares(const Index count[kKinds], const Plan& plan, const DeviceBuffers& buffers,
                    Index tensors, const cuda::Stream& stream) {
  Index first = 0;
  for (int k = 0; k < kKinds; k += 2) {
    const Index pieces = count[k] + count[k + 1];
    launch_squares(static_cast<DType>(k / 2), plan, first, pieces, buffers.blocks, stream);
    first += pieces;
  }
  cuda::launch(stream, sum_kernel<1, -1>, tensors, kSumThreads, 0, plan,
               static_cast<const double*>(buffers.blocks), static_cast<const Prepared*>(nullptr),
               buffers.squares);
}

void write_addresses(std::span<const void* const> grads, const DeviceBuffers& buffers,
                     const cuda::Stream& stream) {
  const auto total = static_cast<Index>(grads.size());
  for (Index first = 0; first < total; first += kAddresses) {
    AddressList list{};
    const Index n = std::min(kAddresses, total - first);
    std::copy_n(grads.begin() + first, n, list.of);
    cuda::launch(stream, write_kernel, 1, 128, 0, list, n, buffers.grads + first);
  }
}

}  // namespace
}  // namespace pyspectra::optim::detail

namespace pyspectra::optim {

Index device_prepared_bytes(Index options) {
  return options * static_cast<Index>(sizeof(detail::Prepared));
}

DevicePlan device_plan(std::span<const StepTensor> tensors, std::span<const StepOptions> options) {
  check(tensors, options);
  const Index n = static_cast<Index>(tensors.size());
  std::vector<detail::Planned> planned(tensors.size());
  std::vector<detail::Piece> pieces;
  DevicePlan plan{};
  for (int kind = 0; kind < kKinds; ++kind) {
    const std::size_t before = pieces.size();
    for (Index k = 0; k < n; ++k) {
      const StepTensor& t = tensors[k];
      if (2 * static_cast<int>(t.dtype) + (t.children >= 0 ? 1 : 0) != kind) continue;
      planned[k] = {t, static_cast<Index>(pieces.size())};
      for (Index begin = 0; begin < t.size; begin += detail::kBlock)
        pieces.push_back({k, begin, std::min(begin + detail::kBlock, t.size), 0});
    }
    plan.count[kind] = static_cast<Index>(pieces.size() - before);
  }
  const std::size_t head = planned.size() * sizeof(detail::Planned);
  plan.bytes.resize(head + pieces.size() * sizeof(detail::Piece));
  std::copy_n(reinterpret_cast<const unsigned char*>(planned.data()), head, plan.bytes.data());
  std::copy_n(reinterpret_cast<const unsigned char*>(pieces.data()),
              pieces.size() * sizeof(detail::Piece), plan.bytes.data() + head);
  return plan;
}

void device_squares(const Index count[kKinds], Index tensors, std::span<const void* const> grads,
                    const DeviceBuffers& buffers, const cuda::Stream& stream) {
  using namespace detail;
  if (tensors == 0) return;
  const Plan plan = plan_of(buffers, tensors);
  write_addresses(grads, buffers, stream);
  launch_squares(count, plan, buffers, tensors, stream);
}

void device_step(const Index count[kKinds], Index tensors, std::span<const DeviceOptions> options,
                 std::span<const void* const> grads, const DeviceBuffers& buffers,
                 const cuda::Stream& stream) {
  using namespace detail;
  if (tensors == 0) return;
  const Plan plan = plan_of(buffers, tensors);
  write_addresses(grads, buffers, stream);
  Index start[kKinds + 1] = {};
  std::partial_sum(count, count + kKinds, start + 1);
  if (buffers.max_grad_norm < __builtin_inf() && !buffers.squares_are_taken)
    launch_squares(count, plan, buffers, tensors, stream);
  for (Index first = 0; first < static_cast<Index>(options.size()); first += kOptions) {
    OptionList list{};
    const Index n = std::min<Index>(kOptions, static_cast<Index>(options.size()) - first);
    std::copy_n(options.begin() + first, n, list.of);
    cuda::launch(stream, prepare_kernel, 1, 32, 0, list, first, n, buffers, tensors);
  }
  const auto* const prepared = static_cast<const Prepared*>(buffers.prepared);
  auto* const blocks =
      buffers.statistics == nullptr ? nullptr : reinterpret_cast<StepStatistics*>(buffers.blocks);
  for (int k = 0; k < kKinds; k += 2) {
    const auto type = static_cast<DType>(k / 2);
    launch_step(type, plan, start[k], count[k], prepared, blocks, stream);
    launch_compact(type, plan, start[k + 1], count[k + 1], prepared, blocks, stream);
  }
  if (blocks != nullptr) {
    // Of the fields of StepStatistics the second, grad_max, is no sum.
    cuda::launch(stream, sum_kernel<8, 1>, tensors, kSumThreads, 0, plan,
                 static_cast<const double*>(buffers.blocks), prepared, buffers.statistics);
  }
}

}  // namespace pyspectra::optim
