#include "linalg/gram.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 4;
constexpr int kVectors = 3;
constexpr int kColumns = 4;
#include "core/half.inl.hpp"
#include "core/simd.inl.hpp"
#include "core/widen.inl.hpp"
#include "linalg/gram.inl.hpp"
}  // namespace

Kernels kernels_avx2() { return {kPanel, pack, tile}; }

}  // namespace pyspectra::linalg::detail
