#include "linalg/tridiagonalize.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 4;
#include "core/pace.inl.hpp"
#include "core/simd.inl.hpp"
// One after the other: each stage uses what the one before it defines.
// clang-format off
#include "linalg/householder.inl.hpp"
#include "linalg/reflector.inl.hpp"
#include "linalg/full_to_band.inl.hpp"
#include "linalg/band_to_tridiagonal.inl.hpp"
#include "linalg/tridiagonalize.inl.hpp"
// clang-format on
}  // namespace

TridiagonalizeKernel tridiagonalize_avx2() { return reduce; }

}  // namespace pyspectra::linalg::detail
