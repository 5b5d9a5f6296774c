#include "linalg/normal_product.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 8;
template <typename Real>
constexpr int kVectors = sizeof(Real) == 4 ? 1 : 2;
template <typename Real>
constexpr int kRows = sizeof(Real) == 4 ? 24 : 12;
#include "core/half.inl.hpp"
#include "core/simd.inl.hpp"
#include "core/widen.inl.hpp"
#include "linalg/normal_product.inl.hpp"
}  // namespace

ProductKernels product_kernels_avx512() { return product_kernels(); }

}  // namespace pyspectra::linalg::detail
