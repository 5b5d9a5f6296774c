#include "linalg/lane_draws.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 8;
constexpr int kBlock = 4;
constexpr pyspectra::Index kMostOrder = 128;
#include "core/simd.inl.hpp"
// The first defines what the second uses.
// clang-format off
#include "linalg/lane_largest.inl.hpp"
#include "linalg/lane_draws.inl.hpp"
// clang-format on
}  // namespace

const LaneKernels& lane_kernels_avx512() { return kKernels; }

}  // namespace pyspectra::linalg::detail
