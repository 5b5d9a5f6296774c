#include "powerlaw/fit.hpp"

namespace pyspectra::powerlaw::detail {
namespace {
constexpr int kLanes = 2;
#include "core/simd.inl.hpp"
#include "powerlaw/fit.inl.hpp"
}  // namespace

Kernels kernels_baseline() { return {distance, scan}; }

}  // namespace pyspectra::powerlaw::detail
