#include "linalg/gram.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 8;
constexpr int kVectors = 3;
constexpr int kColumns = 8;
#include "core/half.inl.hpp"
#include "core/simd.inl.hpp"
#include "core/widen.inl.hpp"
#include "linalg/gram.inl.hpp"
}  // namespace

Kernels kernels_avx512() { return {kPanel, pack, tile}; }

}  // namespace pyspectra::linalg::detail
