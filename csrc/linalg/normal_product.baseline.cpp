#include "linalg/normal_product.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 2;
template <typename Real>
constexpr int kVectors = 2;
template <typename Real>
constexpr int kRows = 6;
#include "core/half.inl.hpp"
#include "core/simd.inl.hpp"
#include "core/widen.inl.hpp"
#include "linalg/normal_product.inl.hpp"
}  // namespace

ProductKernels product_kernels_baseline() { return product_kernels(); }

}  // namespace pyspectra::linalg::detail
