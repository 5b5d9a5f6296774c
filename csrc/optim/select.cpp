#include "optim/select.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/error.hpp"
#include "core/parallel.hpp"

namespace pyspectra::optim {
namespace {

constexpr Index kBins = 1 << 16;
constexpr Index kGrain = 1 << 16;  // elements below which a thread of its own does not pay
constexpr std::uint32_t kSign = 0x80000000u, kInfinity = 0x7f800000u;

// 32 bits, so that a histogram stays in the second-level cache; a task takes fewer elements.
using Counts = std::vector<std::uint32_t>;
constexpr Index kLargestTask = Index{1} << 31;
using Arrays = std::span<const std::span<const float>>;

std::uint32_t ordered_bits(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (bits == kSign) return kSign;  // -0 is +0
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

float from_ordered_bits(std::uint32_t key) {
  return std::bit_cast<float>((key & kSign) != 0 ? key ^ kSign : ~key);
}

bool has_nan(std::span<const float> x) {
  std::uint32_t largest = 0;
  for (const float v : x) largest = std::max(largest, std::bit_cast<std::uint32_t>(v) & ~kSign);
  return largest > kInfinity;
}

// Calls body(stretch, index of its array, task) for stretches that cover all arrays, laid end to
// end and dealt evenly to `tasks` threads.
template <typename Body>
void for_stretches(Arrays arrays, Index total, Index tasks, const Body& body) {
  parallel_for(tasks, [&](Index task) {
    const Index first = total * task / tasks, last = total * (task + 1) / tasks;
    Index start = 0;
    for (std::size_t k = 0; k < arrays.size() && start < last; ++k) {
      const auto size = static_cast<Index>(arrays[k].size());
      const Index begin = std::max(first - start, Index{0}), end = std::min(last - start, size);
      if (begin < end) body(arrays[k].subspan(begin, end - begin), static_cast<Index>(k), task);
      start += size;
    }
  });
}

// The bin in which position `index` lies; `index` becomes the position within that bin.
std::uint32_t find_bin(const std::vector<Counts>& counts, Index& index) {
  for (Index bin = 0;; ++bin) {
    Index here = 0;
    for (const Counts& c : counts) here += c[bin];
    if (index < here) return static_cast<std::uint32_t>(bin);
    index -= here;
  }
}

}  // namespace

OrderStatistic order_statistic(Arrays arrays, Index index) {
  Index total = 0;
  for (const auto& a : arrays) total += static_cast<Index>(a.size());
  PS_REQUIRE(index >= 0 && index < total, "order_statistic: 'index' is out of range");
  const Index tasks = std::max(total / kLargestTask + 1,
                               std::min(total / kGrain, static_cast<Index>(num_threads())));

  constexpr Index kNone = std::numeric_limits<Index>::max();
  std::vector<Counts> counts(tasks, Counts(kBins, 0));
  std::vector<Index> nan_array(tasks, kNone);
  for_stretches(arrays, total, tasks, [&](std::span<const float> x, Index k, Index task) {
    Counts& c = counts[task];
    // In blocks that stay in cache between the two loops.
    for (std::size_t i = 0; i < x.size(); i += 4096) {
      const auto block = x.subspan(i, std::min<std::size_t>(4096, x.size() - i));
      if (has_nan(block)) nan_array[task] = std::min(nan_array[task], k);
      for (const float v : block) ++c[ordered_bits(v) >> 16];
    }
  });
  const Index nan = *std::min_element(nan_array.begin(), nan_array.end());
  if (nan != kNone) return {0.0f, nan};
  const std::uint32_t upper = find_bin(counts, index);

  for (Counts& c : counts) std::fill(c.begin(), c.end(), 0);
  for_stretches(arrays, total, tasks, [&](std::span<const float> x, Index, Index task) {
    Counts& c = counts[task];
    for (const float v : x) {
      const std::uint32_t key = ordered_bits(v);
      if (key >> 16 == upper) ++c[key & 0xffffu];
    }
  });
  return {from_ordered_bits(upper << 16 | find_bin(counts, index)), -1};
}

}  // namespace pyspectra::optim
