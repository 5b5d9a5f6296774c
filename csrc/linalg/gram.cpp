#include "linalg/gram.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "core/error.hpp"
#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"

namespace pyspectra::linalg {
namespace {

constexpr Index kSlabBytes = Index{1} << 20;
constexpr Index kMinSlabRows = 256;
constexpr Index kZeroed = 512;  // columns of the result at a time

struct AlignedFree {
  void operator()(double* p) const { ::operator delete(p, std::align_val_t{64}); }
};
using AlignedBuffer = std::unique_ptr<double[], AlignedFree>;

AlignedBuffer aligned_buffer(Index count) {
  return AlignedBuffer(static_cast<double*>(
      ::operator new(static_cast<std::size_t>(count) * sizeof(double), std::align_val_t{64})));
}

void gram_one(const MatrixView& X, double* out, const detail::Kernels& kernels) {
  const bool tall = X.rows >= X.cols;
  const Index N = tall ? X.rows : X.cols, M = tall ? X.cols : X.rows;
  for (Index j = 0; j < M; j += kZeroed) {
    check_interrupt();
    std::memset(out + j * M, 0,
                static_cast<std::size_t>(std::min(kZeroed, M - j) * M) * sizeof(double));
  }
  if (M == 0) return;
  const Index P = kernels.panel, panels = (M + P - 1) / P;
  const Index fitting = kSlabBytes / (panels * P * static_cast<Index>(sizeof(double)));
  const Index slab = std::min(N, std::max(kMinSlabRows, fitting));
  const AlignedBuffer packed = aligned_buffer(panels * P * slab);

  for (Index begin = 0; begin < N; begin += slab) {
    const Index end = std::min(N, begin + slab);
    const detail::Slab part{X.data,
                            X.dtype,
                            tall ? X.row_stride : X.col_stride,
                            tall ? X.col_stride : X.row_stride,
                            M,
                            begin,
                            end,
                            packed.get()};
    const Index rows = end - begin;
    if (part.short_stride == 1) {
      constexpr Index kChunk = 32;  // rows a task
      parallel_for((rows + kChunk - 1) / kChunk, [&](Index t) {
        kernels.pack(part, t * kChunk, std::min(rows, (t + 1) * kChunk), 0, panels);
      });
    } else {
      parallel_for(panels, [&](Index p) { kernels.pack(part, 0, rows, p, p + 1); });
    }
    parallel_for(panels * (panels + 1) / 2, [&](Index t) {
      Index jp = 0;  // the t-th tile of the lower triangle, column by column
      for (Index height = panels; t >= height; t -= height--) ++jp;
      kernels.tile(packed.get(), rows, M, jp + t, jp, out);
    });
  }
}

}  // namespace

void gram_batch(std::span<const MatrixView> X, std::span<double* const> out) {
  PS_REQUIRE(X.size() == out.size(), "gram_batch: one output a matrix is needed");
  const detail::Kernels kernels = PS_SELECT_ISA(detail::kernels);
  const auto one = [&](Index i) { gram_one(X[i], out[i], kernels); };
  const Index count = static_cast<Index>(X.size());
  if (count >= 2 * num_threads()) {
    parallel_for(count, one);
  } else {
    for (Index i = 0; i < count; ++i) one(i);
  }
}

}  // namespace pyspectra::linalg
