#include "linalg/bisection.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 8, kChains = 4;
// clang-format off
#include "core/simd.inl.hpp"
#include "linalg/bisection.inl.hpp"
// clang-format on
}  // namespace

BisectionKernels bisection_avx512() { return {kPoints, count_below, refine}; }

}  // namespace pyspectra::linalg::detail
