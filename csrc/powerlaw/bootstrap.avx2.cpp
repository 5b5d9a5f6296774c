#include "powerlaw/bootstrap.hpp"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pyspectra::powerlaw::detail {
namespace {
constexpr int kLanes = 4;
// One after the other: each uses what the ones before it define.
// clang-format off
#include "core/philox.inl.hpp"
#include "core/random.inl.hpp"
#include "powerlaw/replicate.inl.hpp"
#include "powerlaw/bootstrap.inl.hpp"
// clang-format on
}  // namespace

DrawKernels draws_avx2() { return {indices, uniforms}; }

}  // namespace pyspectra::powerlaw::detail
