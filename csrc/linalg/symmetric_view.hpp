#pragma once

#include "core/types.hpp"

namespace pyspectra::linalg {

// A symmetric n x n matrix of which the lower triangle (column-major) is read: element (i, j),
// i >= j, at data[i * row_stride + j * col_stride]. Never written to.
struct SymmetricView {
  const double* data;
  Index n;
  Index row_stride, col_stride;
  double at(Index i, Index j) const { return data[i * row_stride + j * col_stride]; }
};

}  // namespace pyspectra::linalg
