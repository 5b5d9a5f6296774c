#include "optim/step.hpp"

#include <immintrin.h>

namespace pyspectra::optim::detail {
namespace {
constexpr int kLanes = 8;
#include "core/half.inl.hpp"
#include "core/philox.inl.hpp"
#include "core/random.inl.hpp"
#include "optim/element.inl.hpp"
#include "optim/masks.inl.hpp"
#include "optim/rules.inl.hpp"
#include "optim/statistics.inl.hpp"
#include "optim/step.inl.hpp"
}  // namespace

Kernels kernels_avx512() { return {step, squares, count_bits, draws}; }

}  // namespace pyspectra::optim::detail
