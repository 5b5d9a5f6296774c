#include "linalg/gram.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

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
constexpr Index kPlaneBytes = Index{1} << 24;

struct AlignedFree {
  void operator()(double* p) const { ::operator delete(p, std::align_val_t{64}); }
};
using AlignedBuffer = std::unique_ptr<double[], AlignedFree>;

AlignedBuffer aligned_buffer(Index count) {
  return AlignedBuffer(static_cast<double*>(
      ::operator new(static_cast<std::size_t>(count) * sizeof(double), std::align_val_t{64})));
}

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
  const AlignedBuffer packed = aligned_buffer(cut.panels * kernels.panel * cut.slab);
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
  const AlignedBuffer packed = aligned_buffer(cut.panels * kernels.panel * cut.slab);
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

void gram_each(std::span<const MatrixView> X, std::span<double* const> out,
               const detail::Kernels& kernels) {
  const int threads = num_threads();
  const Index count = static_cast<Index>(X.size());
  // A thread has a matrix for itself as long as there is one for each; the last few are spread.
  const Index alone = count < 2 * threads ? 0 : count / threads * threads;
  if (alone > 0) parallel_for(alone, [&](Index i) { gram_one(X[i], out[i], kernels, 1); });
  for (Index i = alone; i < count; ++i) gram_one(X[i], out[i], kernels, threads);
}

// How many matrices from `first` on lie element beside element, as the slices of a convolution do.
Index interleaved(std::span<const MatrixView> X, Index first) {
  const MatrixView& base = X[first];
  const bool by_rows = base.row_stride > base.col_stride;
  const Index near = by_rows ? base.col_stride : base.row_stride;
  const Index far = by_rows ? base.row_stride : base.col_stride;
  const Index length = by_rows ? base.cols : base.rows;
  if (near < 2 || far < near * length) return 1;
  const Index bytes = base.rows * base.cols * item_size(base.dtype);
  const Index most = std::min(
      {static_cast<Index>(X.size()) - first, near, kPlaneBytes / std::max<Index>(1, bytes)});
  Index count = 1;
  for (; count < most; ++count) {
    const MatrixView& other = X[first + count];
    const auto* const expected =
        static_cast<const char*>(base.data) + count * item_size(base.dtype);
    if (other.data != expected || other.dtype != base.dtype || other.rows != base.rows ||
        other.cols != base.cols || other.row_stride != base.row_stride ||
        other.col_stride != base.col_stride)
      break;
  }
  return count;
}

// Lanes I... of the eight lanes of two vectors of four.
template <int... I, typename Four>
Four pick(Four a, Four b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, I...);
#else
  return __builtin_shuffle(a, b, decltype(a < b){I...});
#endif
}

// plane[k * size + c] = in[c * near + k] for four numbers c and four k.
template <typename T>
void deal_out_square(const T* in, Index near, T* plane, Index size) {
  typedef T Four __attribute__((vector_size(4 * sizeof(T))));
  Four x[4];
  for (int c = 0; c < 4; ++c) std::memcpy(&x[c], in + c * near, sizeof(Four));
  const Four a = pick<0, 4, 1, 5>(x[0], x[2]), b = pick<0, 4, 1, 5>(x[1], x[3]);
  const Four c = pick<2, 6, 3, 7>(x[0], x[2]), d = pick<2, 6, 3, 7>(x[1], x[3]);
  const Four y[4] = {pick<0, 4, 1, 5>(a, b), pick<2, 6, 3, 7>(a, b), pick<0, 4, 1, 5>(c, d),
                     pick<2, 6, 3, 7>(c, d)};
  for (int k = 0; k < 4; ++k) std::memcpy(plane + k * size, &y[k], sizeof(Four));
}

// Copies of `count` matrices that lie element beside element, each contiguous.
template <typename T>
void deal_out(const MatrixView& base, Index count, T* planes) {
  constexpr Index kBlock = 64, kLines = 16;
  const bool by_rows = base.row_stride > base.col_stride;
  const Index near = by_rows ? base.col_stride : base.row_stride;
  const Index far = by_rows ? base.row_stride : base.col_stride;
  const Index length = by_rows ? base.cols : base.rows, lines = by_rows ? base.rows : base.cols;
  const Index size = lines * length;
  parallel_for((lines + kLines - 1) / kLines, [&](Index task) {
    for (Index line = task * kLines; line < std::min(lines, (task + 1) * kLines); ++line)
      for (Index c0 = 0; c0 < length; c0 += kBlock) {
        const Index c1 = std::min(length, c0 + kBlock), squares = c0 + (c1 - c0) / 4 * 4;
        const T* const in = static_cast<const T*>(base.data) + line * far;
        T* const plane = planes + line * length;
        Index k = 0;
        if constexpr (sizeof(T) <= 4)  // four doubles are no vector everywhere
          for (; k + 4 <= count; k += 4)
            for (Index c = c0; c < squares; c += 4)
              deal_out_square(in + c * near + k, near, plane + k * size + c, size);
        for (Index r = 0; r < count; ++r)
          for (Index c = r < k ? squares : c0; c < c1; ++c) plane[r * size + c] = in[c * near + r];
      }
  });
}

void gram_interleaved(std::span<const MatrixView> X, std::span<double* const> out,
                      const detail::Kernels& kernels) {
  const MatrixView& base = X[0];
  const Index count = static_cast<Index>(X.size()), size = base.rows * base.cols;
  const Index item = item_size(base.dtype);
  const AlignedBuffer buffer = aligned_buffer((count * size * item + 7) / 8);
  void* const planes = buffer.get();
  if (item == 2)
    deal_out(base, count, static_cast<std::uint16_t*>(planes));
  else if (item == 4)
    deal_out(base, count, static_cast<float*>(planes));
  else
    deal_out(base, count, static_cast<double*>(planes));
  std::vector<MatrixView> dealt;
  const bool by_rows = base.row_stride > base.col_stride;
  for (Index k = 0; k < count; ++k)
    dealt.push_back({static_cast<char*>(planes) + k * size * item, base.dtype, base.rows, base.cols,
                     by_rows ? base.cols : 1, by_rows ? 1 : base.rows});
  gram_each(dealt, out, kernels);
}

}  // namespace

void gram_batch(std::span<const MatrixView> X, std::span<double* const> out) {
  PS_REQUIRE(X.size() == out.size(), "gram_batch: one output a matrix is needed");
  const detail::Kernels kernels = PS_SELECT_ISA(detail::kernels);
  const Index count = static_cast<Index>(X.size());
  for (Index begin = 0, end = 0; begin < count; begin = end) {
    Index together = 1;
    while (end < count && (together = interleaved(X, end)) == 1) ++end;
    if (end > begin)
      gram_each(X.subspan(begin, end - begin), out.subspan(begin, end - begin), kernels);
    if (end == count) break;
    gram_interleaved(X.subspan(end, together), out.subspan(end, together), kernels);
    end += together;
  }
}

}  // namespace pyspectra::linalg
