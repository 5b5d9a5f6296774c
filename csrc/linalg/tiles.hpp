// Tiles of kWide x kWide numbers: what the kernels of large matrices (wide_band.hpp) have in
// common.
#pragma once

#include "core/types.hpp"

namespace pyspectra::linalg::detail {

constexpr Index kWide = 32;
constexpr Index kTileSize = kWide * kWide;

// A factor of a product of tiles: element (r, k) at a[r * row + k * step], b is row-major.
template <typename Real>
struct Factor {
  const Real* a;
  Index row, step;
  const Real* b;
};

// One instruction set's kernels on tiles of floats or doubles (tiles.inl.hpp).
template <typename Real>
struct TileKernels {
  // out (kWide x kWide, row-major) += the sum of `count` products of tiles.
  void (*product)(Real* out, const Factor<Real>* factors, int count);
  // Householder QR of a panel of `rows` x kWide, row-major, rows a multiple of kWide: R to `r`
  // (kWide x kWide), the reflectors replace the panel, their scales go to tau.
  void (*factor)(Real* panel, Index rows, Real* r, Real* tau);
};

}  // namespace pyspectra::linalg::detail
