#include "linalg/gram.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 4;
constexpr int kVectors = 3;
#include "core/half.inl.hpp"
#include "core/simd.inl.hpp"
#include "core/widen.inl.hpp"
// It uses what the two before it define.
// clang-format off
#include "linalg/householder.inl.hpp"
#include "linalg/gram.inl.hpp"
// clang-format on
}  // namespace

Kernels kernels_avx2() { return {kPanel, pack, tiles}; }

}  // namespace pyspectra::linalg::detail
