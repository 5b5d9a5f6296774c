#include "spectra/permute.hpp"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pyspectra::spectra::detail {
namespace {
constexpr int kLanes = 2;
#include "core/philox.inl.hpp"
#include "core/random.inl.hpp"
#include "spectra/permute.inl.hpp"
}  // namespace

PermuteKernels permute_kernels_baseline() { return {draw}; }

}  // namespace pyspectra::spectra::detail
