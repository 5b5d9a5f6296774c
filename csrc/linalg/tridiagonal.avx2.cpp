#include "linalg/tridiagonal.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 4;
#include "core/pace.inl.hpp"
#include "core/simd.inl.hpp"
#include "linalg/tridiagonal.inl.hpp"
}  // namespace

TridiagonalKernels tridiagonal_avx2() { return {kLanes, kMaxGroups, ql}; }

}  // namespace pyspectra::linalg::detail
