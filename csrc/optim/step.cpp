#include "optim/step.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"

namespace pyspectra::optim {
namespace {

// Elements a task. Long runs keep the hardware prefetchers going (65536 is an eighth faster than
// 16384 on 22 million parameters); few parameters must still spread over the threads.
constexpr Index kLargeChunk = 65536, kSmallChunk = 8192;
constexpr Index kAlign = 128;  // chunks of a tensor begin at multiples of it

struct Range {
  std::uintptr_t begin, end;
  bool written;
  const char* role;
  Index tensor;
};

[[noreturn]] void refuse(Index tensor, const std::string& what) {
  throw std::invalid_argument("step: tensor " + std::to_string(tensor) + ": " + what);
}

void add_range(std::vector<Range>& ranges, const void* data, Index bytes, Index alignment,
               bool written, const char* role, Index tensor) {
  if (data == nullptr || bytes == 0) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  if (begin % static_cast<std::uintptr_t>(alignment) != 0)
    refuse(tensor, std::string("'") + role + "' is not aligned to its element type");
  ranges.push_back({begin, begin + static_cast<std::uintptr_t>(bytes), written, role, tensor});
}

// After sorting by address, a range overlaps an earlier one exactly if it begins before the
// furthest end so far; reading twice is harmless.
void check_overlaps(std::vector<Range>& ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  const Range* any = nullptr;
  const Range* written = nullptr;
  for (const Range& r : ranges) {
    const Range* const other = r.written ? any : written;
    if (other != nullptr && r.begin < other->end)
      refuse(r.tensor, std::string("'") + r.role + "' overlaps '" + other->role + "' of tensor " +
                           std::to_string(other->tensor) +
                           ". Hint: arrays that are written must not share memory");
    if (any == nullptr || r.end > any->end) any = &r;
    if (r.written && (written == nullptr || r.end > written->end)) written = &r;
  }
}

void check(std::span<const StepTensor> tensors, std::span<const StepOptions> options) {
  for (const StepOptions& o : options) {
    PS_REQUIRE(o.step >= 1 && o.step < (std::int64_t{1} << 32),
               "step: 'step' must be in [1, 2^32)");
    PS_REQUIRE(o.keep >= 0 && o.keep <= 65536, "step: 'keep' must be in [0, 65536]");
  }
  std::vector<Range> ranges;
  ranges.reserve(tensors.size() * 6);
  for (Index k = 0; k < static_cast<Index>(tensors.size()); ++k) {
    const StepTensor& t = tensors[k];
    if (t.options < 0 || t.options >= static_cast<Index>(options.size()))
      refuse(k, "'options' is out of range");
    if (t.size < 0 || t.offset < 0) refuse(k, "'size' and 'offset' must not be negative");
    if (t.size == 0) continue;
    const StepOptions& o = options[t.options];
    if (t.param == nullptr || t.grad == nullptr) refuse(k, "'param' and 'grad' are needed");
    const bool adam = o.rule != Rule::sgd;
    if ((adam || o.momentum != 0) && t.exp_avg == nullptr) refuse(k, "'exp_avg' is needed");
    if (adam && t.exp_avg_sq == nullptr) refuse(k, "'exp_avg_sq' is needed");
    if (o.keep != 0 && t.mask != nullptr) refuse(k, "has both a drawn and a fixed mask");
    const Index item = item_size(t.dtype), state = t.dtype == DType::float64 ? 8 : 4;
    add_range(ranges, t.param, t.size * item, item, true, "param", k);
    add_range(ranges, t.grad, t.size * item, item, false, "grad", k);
    add_range(ranges, t.exp_avg, t.size * state, state, true, "exp_avg", k);
    add_range(ranges, t.exp_avg_sq, t.size * state, state, true, "exp_avg_sq", k);
    add_range(ranges, t.ema, t.size * state, state, true, "ema", k);
    add_range(ranges, t.mask, (t.size + 7) / 8, 1, false, "mask", k);
  }
  check_overlaps(ranges);
}

detail::Scalars scalars(const StepOptions& o) {
  const auto count = static_cast<double>(o.step);
  const double correction1 = 1.0 - std::pow(o.beta1, count);
  const double root2 = std::sqrt(1.0 - std::pow(o.beta2, count));
  const bool alicemind = o.rule == Rule::adamw_alicemind;
  detail::Scalars s{};
  s.lr = o.lr;
  s.decay = o.lr * o.weight_decay;
  s.keep_weight = 1.0 - s.decay;
  s.weight_decay = o.weight_decay;
  s.beta1 = o.beta1;
  s.one_minus_beta1 = 1.0 - o.beta1;
  s.beta2 = o.beta2;
  s.one_minus_beta2 = 1.0 - o.beta2;
  s.eps = o.eps;
  s.step_size = alicemind ? o.lr * root2 / correction1 : o.lr / correction1;
  s.root_scale = 1.0 / root2;
  s.momentum = o.momentum;
  s.gain = o.step == 1 ? 1.0 : 1.0 - o.dampening;
  s.nesterov = o.nesterov ? o.momentum : 0.0;
  s.grad_scale = o.grad_scale;
  s.inverse_p = o.keep == 0 ? 1.0 : 65536.0 / o.keep;
  s.ema_weight = 1.0 - o.ema_decay;
  return s;
}

}  // namespace

void step(std::span<const StepTensor> tensors, std::span<const StepOptions> options) {
  check(tensors, options);
  const detail::Kernels kernels = PS_SELECT_ISA(detail::kernels);
  std::vector<detail::Scalars> values;
  for (const StepOptions& o : options) values.push_back(scalars(o));
  // The tensors laid end to end, each rounded up to kAlign; a task is a stretch of that line, so
  // that many small tensors share one and a large one has many.
  std::vector<Index> start(tensors.size() + 1, 0);
  for (std::size_t k = 0; k < tensors.size(); ++k)
    start[k + 1] = start[k] + (tensors[k].size + kAlign - 1) / kAlign * kAlign;
  const Index share = start.back() / (4 * num_threads()) / kAlign * kAlign;
  const Index chunk = std::clamp(share, kSmallChunk, kLargeChunk);
  parallel_for((start.back() + chunk - 1) / chunk, [&](Index task) {
    const Index first = task * chunk, last = std::min(first + chunk, start.back());
    std::size_t k = std::upper_bound(start.begin(), start.end(), first) - start.begin() - 1;
    for (; k < tensors.size() && start[k] < last; ++k) {
      const StepTensor& t = tensors[k];
      const Index begin = std::max(first - start[k], Index{0});
      const Index end = std::min(last - start[k], t.size);
      if (begin < end) kernels.step(t, options[t.options], values[t.options], begin, end);
    }
  });
}

void draws(std::uint64_t key, std::uint32_t step, std::uint32_t stream, Index offset, Index size,
           std::uint16_t* out) {
  PS_SELECT_ISA(detail::kernels).draws(key, step, stream, offset, size, out);
}

void philox(const std::uint32_t counter[4], const std::uint32_t key[2], std::uint32_t out[4]) {
  PS_SELECT_ISA(detail::kernels).philox(counter, key, out);
}

}  // namespace pyspectra::optim
