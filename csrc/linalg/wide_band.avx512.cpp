#include "linalg/wide_band.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 8;
#include "core/pace.inl.hpp"
#include "core/simd.inl.hpp"
// One after the other: each stage uses what the one before it defines.
// clang-format off
#include "linalg/householder.inl.hpp"
#include "linalg/reflector.inl.hpp"
#include "linalg/full_to_band.inl.hpp"
#include "linalg/band_to_tridiagonal.inl.hpp"
#include "linalg/tiles.inl.hpp"
#include "linalg/wide_band.inl.hpp"
// clang-format on
}  // namespace

WideBandKernels<double> wide_band_avx512() {
  return {kLanes, {product, factor}, begin_sweep, advance_sweep, finish_band};
}

}  // namespace pyspectra::linalg::detail
