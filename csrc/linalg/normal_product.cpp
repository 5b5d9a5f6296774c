#include "linalg/normal_product.hpp"

#include <algorithm>
#include <vector>

#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/lent.hpp"
#include "core/parallel.hpp"

namespace pyspectra::linalg {
namespace {

constexpr Index kChunks = 16;    // of rows, with sums of their own
constexpr Index kSumRows = 128;  // rows of Z a task
constexpr Index kMostRows = detail::kBlockRows;
constexpr Index kKeptBytes = Index{7}
                             << 18;  // of converted rows: the second-level cache holds 2 MiB

// Kept from one call to the next, since fresh memory costs as much as the sums that go into it;
// larger ones go back to the system.
template <typename Real>
struct Buffers {
  std::vector<Real> x, sums, packed, y;

  void trim() {
    constexpr std::size_t kKept = (std::size_t{1} << 24) / sizeof(Real);
    for (auto* buffer : {&x, &sums, &packed, &y})
      if (buffer->capacity() > kKept) std::vector<Real>().swap(*buffer);
  }
};

// Row-major (rows x b) to panels of `panel` columns, one after the other, zero past the last
// column.
template <typename Real>
void to_panels(const Real* from, Index rows, Index b, Index panel, Real* to) {
  for (Index first = 0; first < b; first += panel) {
    const Index width = std::min(panel, b - first);
    for (Index i = 0; i < rows; ++i, to += panel) {
      std::copy_n(from + i * b + first, width, to);
      std::fill(to + width, to + panel, Real{0});
    }
  }
}

template <typename Real>
void from_panels(const Real* from, Index rows, Index b, Index panel, Real* to) {
  for (Index first = 0; first < b; first += panel) {
    const Index width = std::min(panel, b - first);
    for (Index i = 0; i < rows; ++i, from += panel) std::copy_n(from, width, to + i * b + first);
  }
}

template <typename Real>
void multiply(const detail::ProductSteps<Real>& steps, const MatrixView& W, const Real* X, Index b,
              Real* Y, Real* Z) {
  constexpr Index kBlockCols = detail::kBlockCols<Real>;
  const Index N = W.rows, M = W.cols, panel = steps.panel;
  const Index groups = (b + panel - 1) / panel, width = groups * panel;
  if (b == 0) return;
  Lent<Buffers<Real>> buffers;
  std::vector<Real>&x = (*buffers).x, &sums = (*buffers).sums;
  x.resize(X == nullptr ? 0 : M * width);
  if (X != nullptr) to_panels(X, M, b, panel, x.data());

  const Index blocks = (N + kMostRows - 1) / kMostRows, chunks = std::min(blocks, kChunks);
  // For Z the converted rows serve again, unless there is no room for them in the cache.
  constexpr Index piece = kMostRows * detail::kPackedRow<Real>;
  const Index pieces = (M + kBlockCols - 1) / kBlockCols;
  const bool kept =
      X != nullptr && Z != nullptr && pieces * piece * Index{sizeof(Real)} <= kKeptBytes;
  if (Z != nullptr) sums.resize(std::max<Index>(chunks, 1) * M * width);
  parallel_for(chunks, [&](Index c) {
    Lent<Buffers<Real>> own;
    std::vector<Real>&packed = (*own).packed, &y = (*own).y;
    packed.resize((kept ? pieces : 1) * piece);
    std::vector<detail::Packed<Real>> converted(pieces);
    y.resize(kMostRows * width);
    Real* const z = Z == nullptr ? nullptr : sums.data() + c * M * width;
    if (z != nullptr) std::fill_n(z, M * width, Real{0});
    for (Index t = c * blocks / chunks; t < (c + 1) * blocks / chunks; ++t) {
      check_interrupt();
      const Index i0 = t * kMostRows, rows = std::min(kMostRows, N - i0);
      const auto convert = [&](Index j0, Index cols) {
        Real* const to = packed.data() + (kept ? j0 / kBlockCols * piece : 0);
        return steps.pack(W, i0, rows, j0, cols, to);
      };
      to_panels(Y + i0 * b, rows, b, panel, y.data());
      for (Index j0 = 0; X != nullptr && j0 < M; j0 += kBlockCols) {
        const Index cols = std::min(kBlockCols, M - j0);
        const detail::Packed<Real> a = converted[j0 / kBlockCols] = convert(j0, cols);
        for (Index g = 0; g < groups; ++g)
          steps.accumulate(a, rows, cols, x.data() + (g * M + j0) * panel,
                           y.data() + g * rows * panel);
      }
      if (X != nullptr) from_panels(y.data(), rows, b, panel, Y + i0 * b);
      if (z == nullptr) continue;
      for (Index j0 = 0; j0 < M; j0 += kBlockCols) {
        const Index cols = std::min(kBlockCols, M - j0);
        const detail::Packed<Real> a = kept ? converted[j0 / kBlockCols] : convert(j0, cols);
        const detail::Packed<Real> transposed{a.a, a.col_step, a.row_step};
        for (Index g = 0; g < groups; ++g)
          steps.accumulate(transposed, cols, rows, y.data() + g * rows * panel,
                           z + (g * M + j0) * panel);
      }
    }
  });
  if (Z == nullptr) return;
  // The first chunk's sums take up the others', piece by piece and always in the same order.
  parallel_for((M * width + kSumRows * panel - 1) / (kSumRows * panel), [&](Index t) {
    const Index first = t * kSumRows * panel, last = std::min(M * width, first + kSumRows * panel);
    for (Index c = 1; c < chunks; ++c)
      for (Index k = first; k < last; ++k) sums[k] += sums[c * M * width + k];
  });
  if (chunks == 0) std::fill(sums.begin(), sums.end(), Real{0});
  from_panels(sums.data(), M, b, panel, Z);
}

}  // namespace

void normal_product(const MatrixView& W, const double* X, Index b, double* Y, double* Z) {
  const detail::ProductKernels kernels = PS_SELECT_ISA(detail::product_kernels);
  multiply(b <= kernels.of_few.panel ? kernels.of_few : kernels.in_double, W, X, b, Y, Z);
}

void normal_product(const MatrixView& W, const float* X, Index b, float* Y, float* Z) {
  multiply(PS_SELECT_ISA(detail::product_kernels).in_float, W, X, b, Y, Z);
}

}  // namespace pyspectra::linalg
