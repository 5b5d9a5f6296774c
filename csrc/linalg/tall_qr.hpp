// A square matrix with the singular values of a dense one, in tiles: itself, or the triangle of its
// QR factorisation where it has more rows than columns. What bidiagonal.hpp starts from.
//
// Rows come in chunks, of any element type and strides, each as columns of tiles. A chunk is
// reduced panel by panel: Householder vectors of kWide columns of [R; chunk] where R has rows
// there, within the chunk where it has none yet (Buttari, Langou, Kurzak, Dongarra, Parallel
// Comput. 35, 2009, with one tree that is flat). 2 N M^2 - 2/3 M^3 flops in the product kernel, and
// 64 N M in panels. Each chunk is in the cache for a panel's two passes, the next panel is factored
// as soon as its columns are up to date, and no copy of the whole matrix is made: kChunk * kWide *
// M doubles.
//
// Backward stable. Which thread does what changes no bit.
#pragma once

#include <optional>

#include "core/aligned.hpp"
#include "core/types.hpp"
#include "linalg/tiles.hpp"

namespace pyspectra::linalg::detail {

// Tile (I, J) row-major at (J * blocks + I) * kTileSize, of as many rows as columns of tiles; zero
// past the edge.
struct SquareTiles {
  Buffer<double> data;
  Index blocks = 0;
  int exponent = 0;  // 2^-exponent X has these singular values; not 0 where entries are extreme
};

// X.rows >= X.cols >= 1. None where an entry is not finite.
std::optional<SquareTiles> square_tiles(const MatrixView& X);

}  // namespace pyspectra::linalg::detail
