#include "linalg/sign_draws.hpp"

namespace pyspectra::linalg::detail {
namespace {
constexpr int kLanes = 4;
constexpr int kBlock = 2;
#include "core/simd.inl.hpp"
#include "linalg/sign_draws.inl.hpp"
}  // namespace

SmallDraws small_draws_avx2() { return small_draws; }

}  // namespace pyspectra::linalg::detail
