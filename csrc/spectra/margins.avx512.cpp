#include "spectra/margins.hpp"

namespace pyspectra::spectra::detail {
namespace {
constexpr int kLanes = 8;
#include "core/half.inl.hpp"
#include "core/simd.inl.hpp"
#include "core/widen.inl.hpp"
#include "spectra/margins.inl.hpp"
}  // namespace

MarginKernels margin_kernels_avx512() { return {add, add_centred}; }

}  // namespace pyspectra::spectra::detail
