#include "linalg/gram.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/aligned.hpp"
#include "core/error.hpp"
#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"

namespace pyspectra::linalg {
namespace {

// Rows of a slab, about: a panel of rows and one of columns then fit the first-level cache, up to
// the order kLarge the whole slab fits the second. Longer sums move the result less often.
constexpr Index kSlabRows = 192, kSlabRowsOfLarge = 256, kLarge = 1024;
constexpr Index kGroup = 20;  // panels of a slab that stay in the cache while all others go by
constexpr Index kUsed = 4;    // panels a thread from which on it packs for itself

// A matrix and how it is cut: into panels of the short side, slabs of rows of the long one.
struct Cut {
  const MatrixView& X;
  Index N, M, panels, slab;

  Cut(const MatrixView& X, Index panel)
      : X(X), N(std::max(X.rows, X.cols)), M(std::min(X.rows, X.cols)) {
    panels = (M + panel - 1) / panel;
    const Index about = M > kLarge ? kSlabRowsOfLarge : kSlabRows;
    const Index slabs = std::max<Index>(1, (N + about / 2) / about);
    slab = (N + slabs - 1) / slabs;
  }

  detail::Slab part(Index begin, double* packed) const {
    const bool tall = X.rows >= X.cols;
    return {X.data, X.dtype, tall ? X.row_stride : X.col_stride, tall ? X.col_stride : X.row_stride,
            M,      begin,   std::min(N, begin + slab),          packed};
  }
};

// Panels [i0, i1) of rows by panel j of columns: what is multiplied in one go.
struct Block {
  Index i0, i1, j;
};

// What columns [j0, j1) of panels have below the diagonal: a group of panels of rows stays in the
// cache while panels of columns go by.
std::vector<Block> blocks(Index panels, Index j0, Index j1) {
  std::vector<Block> out;
  for (Index i0 = j0; i0 < panels; i0 += kGroup) {
    const Index i1 = std::min(panels, i0 + kGroup);
    for (Index j = j0; j < std::min(j1, i1); ++j) out.push_back({std::max(i0, j), i1, j});
  }
  return out;
}

// Panels [j0, j1) of columns of the result, by one thread.
void gram_columns(const Cut& cut, Index j0, Index j1, double* out, const detail::Kernels& kernels) {
  const Buffer<double> packed = aligned_buffer<double>(cut.panels * kernels.panel * cut.slab);
  const std::vector<Block> all = blocks(cut.panels, j0, j1);
  for (Index begin = 0; begin < cut.N; begin += cut.slab) {
    const detail::Slab part = cut.part(begin, packed.get());
    const Index rows = part.end - begin;
    check_interrupt();
    kernels.pack(part, 0, rows, j0, cut.panels);
    for (const auto& [i0, i1, j] : all) {
      if (cut.M > kLarge) check_interrupt();
      kernels.tiles(packed.get(), rows, cut.M, i0, i1, j, out, begin == 0);
    }
  }
}

// The whole result, each slab by all threads.
void gram_shared(const Cut& cut, double* out, const detail::Kernels& kernels) {
  const Buffer<double> packed = aligned_buffer<double>(cut.panels * kernels.panel * cut.slab);
  const std::vector<Block> all = blocks(cut.panels, 0, cut.panels);
  for (Index begin = 0; begin < cut.N; begin += cut.slab) {
    const detail::Slab part = cut.part(begin, packed.get());
    const Index rows = part.end - begin;
    parallel_for(cut.panels, [&](Index p) { kernels.pack(part, 0, rows, p, p + 1); });
    parallel_for(static_cast<Index>(all.size()), [&](Index t) {
      const auto [i0, i1, j] = all[t];
      kernels.tiles(packed.get(), rows, cut.M, i0, i1, j, out, begin == 0);
    });
  }
}

// Where `parts` ranges of columns of about the same work begin.
std::vector<Index> shares(Index panels, Index parts) {
  std::vector<Index> begins{0};
  const Index all = panels * (panels + 1) / 2;
  for (Index j = 0, done = 0; j < panels; ++j) {
    const Index next = done + panels - j, due = static_cast<Index>(begins.size()) * all / parts;
    // At the panel whose end is nearest to where the share ends.
    if (next - due >= due - done && j > begins.back() && static_cast<Index>(begins.size()) < parts)
      begins.push_back(j);
    done = next;
  }
  return begins;
}

void gram_one(const MatrixView& X, double* out, const detail::Kernels& kernels, int threads) {
  const Cut cut(X, kernels.panel);
  if (cut.M == 0) return;
  if (threads == 1 || cut.panels == 1) return gram_columns(cut, 0, cut.panels, out, kernels);
  // To pack the same rows in every thread costs less than to wait for one another at every slab
  // and to hand the result from cache to cache, as long as the packed panels are used often.
  if (cut.panels < threads * kUsed) return gram_shared(cut, out, kernels);
  std::vector<Index> begins = shares(cut.panels, threads);
  begins.push_back(cut.panels);
  parallel_for(static_cast<Index>(begins.size()) - 1,
               [&](Index t) { gram_columns(cut, begins[t], begins[t + 1], out, kernels); });
}

}  // namespace

void gram_batch(std::span<const MatrixView> X, std::span<double* const> out) {
  PS_REQUIRE(X.size() == out.size(), "gram_batch: one output a matrix is needed");
  const detail::Kernels kernels = PS_SELECT_ISA(detail::kernels);
  const int threads = num_threads();
  const Index count = static_cast<Index>(X.size());
  // A thread has a matrix for itself as long as there is one for each; the last few are spread.
  const Index alone = count < 2 * threads ? 0 : count / threads * threads;
  if (alone > 0) parallel_for(alone, [&](Index i) { gram_one(X[i], out[i], kernels, 1); });
  for (Index i = alone; i < count; ++i) gram_one(X[i], out[i], kernels, threads);
}

}  // namespace pyspectra::linalg
