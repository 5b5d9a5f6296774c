#include "linalg/wide_band.hpp"

namespace pyspectra::linalg::detail {
namespace {
#include "core/pace.inl.hpp"

namespace of_doubles {
constexpr int kLanes = 4;
#include "core/simd.inl.hpp"
// One after the other: each stage uses what the one before it defines.
// clang-format off
#include "linalg/householder.inl.hpp"
#include "linalg/reflector.inl.hpp"
#include "linalg/full_to_band.inl.hpp"
#include "linalg/band_to_tridiagonal.inl.hpp"
#include "linalg/tiles.inl.hpp"
#include "linalg/wide_band.inl.hpp"
// clang-format on
}  // namespace of_doubles

namespace of_floats {
typedef float Real;
constexpr int kLanes = 8;
#include "core/simd_real.inl.hpp"
// One after the other: each stage uses what the one before it defines.
// clang-format off
#include "linalg/householder.inl.hpp"
#include "linalg/reflector.inl.hpp"
#include "linalg/full_to_band.inl.hpp"
#include "linalg/band_to_tridiagonal.inl.hpp"
#include "linalg/tiles.inl.hpp"
#include "linalg/wide_band.inl.hpp"
// clang-format on
}  // namespace of_floats
}  // namespace

WideBandKernels<double> wide_band_avx2() {
  using namespace of_doubles;
  return {kLanes,           {product, factor}, product_ahead,   negated_transpose,
          take_columns,     begin_sweep,       advance_sweep,   kSweeps,
          take_narrow_band, chase_narrow_band, read_tridiagonal};
}

WideBandKernels<float> wide_band_float_avx2() {
  using namespace of_floats;
  return {kLanes,           {product, factor}, product_ahead,   negated_transpose,
          take_columns,     begin_sweep,       advance_sweep,   kSweeps,
          take_narrow_band, chase_narrow_band, read_tridiagonal};
}

}  // namespace pyspectra::linalg::detail
