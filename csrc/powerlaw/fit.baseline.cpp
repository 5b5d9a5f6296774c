#include "powerlaw/fit.hpp"

namespace pyspectra::powerlaw::detail {
namespace {
constexpr int kLanes = 2;
// One after the other: each uses what the ones before it define.
// clang-format off
#include "core/pace.inl.hpp"
#include "core/simd.inl.hpp"
#include "core/elementary.inl.hpp"
#include "powerlaw/candidate.inl.hpp"
#include "powerlaw/fit.inl.hpp"
// clang-format on
}  // namespace

Kernels kernels_baseline() { return {logarithms, distance, scan}; }

}  // namespace pyspectra::powerlaw::detail
