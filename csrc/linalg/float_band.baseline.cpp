#include "linalg/float_band.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 2;
#include "core/simd.inl.hpp"
#include "linalg/float_band.inl.hpp"
}  // namespace

FloatBandKernels float_band_baseline() { return {dots, add}; }

}  // namespace pyspectra::linalg::detail
