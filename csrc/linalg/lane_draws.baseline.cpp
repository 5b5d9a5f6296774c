#include "linalg/lane_draws.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 2;
constexpr int kBlock = 2;
constexpr pyspectra::Index kMostOrder = 48;
#include "core/simd.inl.hpp"
// The first defines what the second uses.
// clang-format off
#include "linalg/lane_largest.inl.hpp"
#include "linalg/lane_draws.inl.hpp"
// clang-format on
}  // namespace

const LaneKernels& lane_kernels_baseline() { return kKernels; }

}  // namespace pyspectra::linalg::detail
