#include "linalg/amx_gram.hpp"

#include <algorithm>
#include <vector>

#if defined(PYSPECTRA_AMX_UNIT)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "core/aligned.hpp"
#include "core/error.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"

namespace pyspectra::linalg {

#if defined(PYSPECTRA_AMX_UNIT)
namespace {

using namespace detail;

constexpr Index kSlab = 2048;     // rows of W that are packed at a time
constexpr Index kChunk = 8;       // blocks of a panel that stay in the first-level cache
constexpr Index kPanelsHeld = 8;  // panels of a task, which stay in the second-level cache

bool granted() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kTile = 1u << 24, kBFloat = 1u << 22;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kTile) == 0 || (d & kBFloat) == 0)
    return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

int terms_of(DType dtype) { return dtype == DType::bfloat16 ? 1 : dtype == DType::float16 ? 2 : 3; }

// Columns of `out` of the panels [j0, j1). The blocks are taken in chunks: those of panel i stay in
// the first-level cache while the panels j go by.
void multiply_panels(const AmxKernels& kernels, const AmxSlab& slab, Index M, Index j0, Index j1,
                     double* out) {
  constexpr Index kSquare = kAmxPanel * kAmxPanel;
  alignas(64) double sums[kPanelsHeld * kSquare];
  kernels.configure();
  for (Index i = j0; i * kAmxPanel < M; ++i) {
    const Index end = std::min(j1, i + 1);
    std::fill_n(sums, (end - j0) * kSquare, 0.0);
    for (Index k = 0; k < slab.blocks; k += kChunk)
      for (Index j = j0; j < end; ++j)
        kernels.multiply(slab, k, std::min(slab.blocks, k + kChunk), i, j,
                         sums + (j - j0) * kSquare);
    const Index height = std::min(kAmxPanel, M - i * kAmxPanel);
    for (Index j = j0; j < end; ++j)
      for (Index r = 0; r < std::min(kAmxPanel, M - j * kAmxPanel); ++r) {
        const double* const sum = sums + (j - j0) * kSquare + r * kAmxPanel;
        double* const column = out + (j * kAmxPanel + r) * M + i * kAmxPanel;
        for (Index c = 0; c < height; ++c) column[c] += sum[c];
      }
  }
  kernels.release();
}

}  // namespace

bool amx_available() {
  static const bool available = granted();
  return available && current_isa() == Isa::avx512;
}

void amx_gram(const MatrixView& W, double* out) {
  PS_REQUIRE(amx_available(), "amx_gram: this machine has no AMX");
  PS_REQUIRE(W.rows >= W.cols && W.dtype != DType::float64,
             "amx_gram: the matrix must be tall, and not of float64");
  const AmxKernels kernels = amx_kernels();
  const int terms = terms_of(W.dtype);
  const Index panels = (W.cols + kAmxPanel - 1) / kAmxPanel;
  const Index most = (std::min(kSlab, W.rows) + kAmxBlock - 1) / kAmxBlock;
  const Buffer<unsigned> packed = aligned_buffer<unsigned>(panels * most * terms * 4 * kAmxTile);
  const Index held = std::clamp<Index>(panels / 16, 1, kPanelsHeld);
  for (Index begin = 0; begin < W.rows; begin += kSlab) {
    const Index blocks = (std::min(kSlab, W.rows - begin) + kAmxBlock - 1) / kAmxBlock;
    parallel_for(panels, [&](Index p) { kernels.pack(W, begin, blocks, p, packed.get()); });
    const AmxSlab slab{packed.get(), blocks, terms};
    parallel_for((panels + held - 1) / held, [&](Index t) {
      multiply_panels(kernels, slab, W.cols, t * held, std::min(panels, (t + 1) * held), out);
    });
  }
}

#else

bool amx_available() { return false; }
void amx_gram(const MatrixView&, double*) {
  PS_REQUIRE(false, "amx_gram: this build has no unit for AMX");
}

#endif

}  // namespace pyspectra::linalg
