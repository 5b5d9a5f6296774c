#include "optim/step.hpp"

#include <algorithm>
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

#include "core/elementary.inl.hpp"
#include "optim/rules.inl.hpp"
#include "optim/scalars.inl.hpp"

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
      throw RefusedTensor(static_cast<Index>(k), "'mask' has " + std::to_string(found[k]) +
                                                     " ones, but the moments have " +
                                                     std::to_string(tensors[k].children) +
                                                     " elements");
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

}  // namespace pyspectra::optim
