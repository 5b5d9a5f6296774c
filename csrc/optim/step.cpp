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
using detail::kBlock;
using detail::Piece;
using detail::Scalars;

#include "optim/scalars.inl.hpp"

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

}  // namespace

void check(std::span<const StepTensor> tensors, std::span<const StepOptions> options) {
  for (const StepOptions& o : options) {
    PS_REQUIRE(o.step >= 1 && o.step < (std::int64_t{1} << 32),
               "step: 'step' must be in [1, 2^32)");
    PS_REQUIRE(o.ema_every >= 1, "step: 'ema_every' must be positive");
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
    if (t.run < 1 || t.pitch < t.run) refuse(k, "'run' must be positive and 'pitch' not below it");
    const StepOptions& o = options[t.options];
    if (t.param == nullptr || t.grad == nullptr) refuse(k, "'param' and 'grad' are needed");
    const bool adam = o.rule != Rule::sgd, compact = t.children >= 0;
    const Index moments = compact ? t.children : t.size;
    if ((adam || o.momentum != 0) && moments != 0 && t.exp_avg == nullptr)
      refuse(k, "'exp_avg' is needed");
    if (adam && moments != 0 && t.exp_avg_sq == nullptr) refuse(k, "'exp_avg_sq' is needed");
    if (compact &&
        (t.mask == nullptr || !(o.rule == Rule::adamw || o.rule == Rule::adamw_alicemind)))
      refuse(k, "compact moments are for AdamW under a fixed mask");
    const bool narrow = t.dtype == DType::float16 || t.dtype == DType::bfloat16;
    if (t.master != nullptr && !narrow) refuse(k, "'master' is for parameters of 16 bits");
    if (o.keep != 0 && t.mask != nullptr) refuse(k, "has both a drawn and a fixed mask");
    const Index item = item_size(t.dtype), state = t.dtype == DType::float64 ? 8 : 4;
    add_range(ranges, t.param, t.size * item, item, true, "param", k);
    add_range(ranges, t.grad, t.size * item, item, false, "grad", k);
    add_range(ranges, t.exp_avg, moments * state, state, true, "exp_avg", k);
    add_range(ranges, t.exp_avg_sq, moments * state, state, true, "exp_avg_sq", k);
    add_range(ranges, t.ema, t.size * state, state, true, "ema", k);
    add_range(ranges, t.master, t.size * state, state, true, "master", k);
    add_range(ranges, t.mask, (t.size + 7) / 8, 1, false, "mask", k);
  }
  check_overlaps(ranges);
}

namespace {

// The tensors laid end to end, each rounded up to a multiple of `align`; a task is a stretch of
// that line, so that many small tensors share one and a large one has many.
struct Work {
  std::vector<Piece> pieces;
  std::vector<std::size_t> first;  // a task's first piece, and one past the last

  Work(std::span<const StepTensor> tensors, Index align) {
    Index length = 0;
    for (const StepTensor& t : tensors) length += padded(t.size, align);
    const Index chunk =
        padded(std::clamp(length / (4 * num_threads()), kSmallChunk, kLargeChunk), align);
    Index room = 0;
    for (Index k = 0; k < static_cast<Index>(tensors.size()); ++k) {
      const Index size = tensors[k].size;
      for (Index begin = 0, end; begin < size; begin = end) {
        if (room == 0) {
          first.push_back(pieces.size());
          room = chunk;
        }
        end = std::min(begin + room, size);
        pieces.push_back({k, begin, end, 0});
        room -= padded(end - begin, align);
      }
    }
    first.push_back(pieces.size());
  }

  static Index padded(Index size, Index align) { return (size + align - 1) / align * align; }

  // Calls body(piece, its index) for all of them, in parallel.
  template <typename Body>
  void run(const Body& body) {
    parallel_for(static_cast<Index>(first.size()) - 1, [&](Index task) {
      for (std::size_t k = first[task]; k < first[task + 1]; ++k) body(pieces[k], k);
    });
  }
};

// Where each piece of a tensor with compact moments begins in them. Counted at every call, which
// costs a thirtieth of the step: a count kept from before could outlive its mask.
void rank_pieces(Work& work, std::span<const StepTensor> tensors, const detail::Kernels& kernels) {
  const auto compact = [](const StepTensor& t) { return t.children >= 0; };
  if (std::none_of(tensors.begin(), tensors.end(), compact)) return;
  std::vector<Index> count(work.pieces.size());
  work.run([&](const Piece& p, std::size_t k) {
    const StepTensor& t = tensors[p.tensor];
    count[k] = compact(t) ? kernels.count_bits(t.mask, p.begin, p.end) : 0;
  });
  std::vector<Index> found(tensors.size(), 0);
  for (std::size_t k = 0; k < count.size(); ++k) {
    Piece& p = work.pieces[k];
    p.rank = found[p.tensor];
    found[p.tensor] += count[k];
  }
  for (std::size_t k = 0; k < found.size(); ++k)
    if (compact(tensors[k]) && found[k] != tensors[k].children)
      refuse(static_cast<Index>(k), "'mask' has " + std::to_string(found[k]) +
                                        " ones, but the moments have " +
                                        std::to_string(tensors[k].children) + " elements");
}

// Calls add(tensor, block) in the order of the elements.
template <typename T, typename Add>
void sum_blocks(const Work& work, const std::vector<T>& blocks, const Add& add) {
  std::size_t b = 0;
  for (const Piece& p : work.pieces)
    for (Index begin = p.begin; begin < p.end; begin += kBlock) add(p.tensor, blocks[b++]);
}

// The first block of each piece, then how many there are.
std::vector<std::size_t> block_starts(const Work& work) {
  std::vector<std::size_t> starts{0};
  for (const Piece& p : work.pieces)
    starts.push_back(starts.back() + (p.end - p.begin + kBlock - 1) / kBlock);
  return starts;
}

void add(StepStatistics& total, const StepStatistics& x) {
  total.grad_squares += x.grad_squares;
  total.grad_max = std::max(total.grad_max, x.grad_max);
  total.param_squares += x.param_squares;
  total.update_squares += x.update_squares;
  total.grad_dot_update += x.grad_dot_update;
  total.non_finite += x.non_finite;
  total.zero += x.zero;
  total.rounded_away += x.rounded_away;
}

}  // namespace

void step(std::span<const StepTensor> tensors, std::span<const StepOptions> options,
          StepStatistics* statistics) {
  check(tensors, options);
  const detail::Kernels kernels = PS_SELECT_ISA(detail::kernels);
  std::vector<Scalars> values;
  for (const StepOptions& o : options) values.push_back(scalars(o));
  Work work(tensors, statistics == nullptr ? kAlign : kBlock);
  rank_pieces(work, tensors, kernels);
  const auto move = [&](const Piece& p, StepStatistics* blocks) {
    const StepTensor& t = tensors[p.tensor];
    kernels.step(t, options[t.options], values[t.options], p, blocks);
  };
  if (statistics == nullptr)
    return work.run([&](const Piece& p, std::size_t) { move(p, nullptr); });
  const std::vector<std::size_t> starts = block_starts(work);
  std::vector<StepStatistics> blocks(starts.back());
  work.run([&](const Piece& p, std::size_t k) { move(p, blocks.data() + starts[k]); });
  std::fill(statistics, statistics + tensors.size(), StepStatistics{});
  sum_blocks(work, blocks, [&](Index k, const StepStatistics& x) { add(statistics[k], x); });
}

void grad_squares(std::span<const StepTensor> tensors, double* out) {
  const detail::Kernels kernels = PS_SELECT_ISA(detail::kernels);
  Work work(tensors, kBlock);
  const std::vector<std::size_t> starts = block_starts(work);
  std::vector<double> blocks(starts.back());
  work.run([&](const Piece& p, std::size_t k) {
    for (Index begin = p.begin, b = 0; begin < p.end; begin += kBlock, ++b)
      blocks[starts[k] + b] =
          kernels.squares(tensors[p.tensor], begin, std::min(begin + kBlock, p.end));
  });
  std::fill(out, out + tensors.size(), 0.0);
  sum_blocks(work, blocks, [&](Index k, double x) { out[k] += x; });
}

void draws(std::uint64_t key, std::uint32_t step, std::uint32_t stream, Index offset, Index size,
           std::uint16_t* out) {
  PS_SELECT_ISA(detail::kernels).draws(key, step, stream, offset, size, out);
}

void philox(const std::uint32_t counter[4], const std::uint32_t key[2], std::uint32_t out[4]) {
  PS_SELECT_ISA(detail::kernels).philox(counter, key, out);
}

}  // namespace pyspectra::optim
