#include "linalg/bidiagonal.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 4;
#include "core/pace.inl.hpp"
#include "core/simd.inl.hpp"
// One after the other: each uses what the one before it defines.
// clang-format off
#include "linalg/householder.inl.hpp"
#include "linalg/reflector.inl.hpp"
#include "linalg/full_to_band.inl.hpp"
#include "linalg/bidiagonal.inl.hpp"
// clang-format on
}  // namespace

BidiagonalKernels bidiagonal_avx2() { return {kLanes, begin_sweep, advance_sweep, finish_band}; }

}  // namespace pyspectra::linalg::detail
