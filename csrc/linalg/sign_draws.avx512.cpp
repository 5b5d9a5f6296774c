#include "linalg/sign_draws.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 8;
constexpr int kBlock = 4;
#include "core/simd.inl.hpp"
#include "linalg/sign_draws.inl.hpp"
}  // namespace

SmallDraws small_draws_avx512() { return small_draws; }

}  // namespace pyspectra::linalg::detail
