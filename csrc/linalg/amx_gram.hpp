// Gram matrices by the tile units of AMX, which multiply bfloat16 and add in float32.
//
// An entry of W is the sum of bfloat16 terms: one for bfloat16, two for float16 (11 = 8 + 3 bits)
// and three for float32, of whose nine products the six are taken that reach its last bit. Products
// of two bfloat16 are exact in float32. Sums are spilled to float64 every kSpilled rows, so that
// their roundings do not grow with N. The unit takes subnormal numbers as zero and may overflow
// where float32 does: what that does to eigenvalues is measured, with all other errors
// (float_band.hpp).
//
// N M^2 flops for bfloat16, 4 and 6 times as many for the others. On a 2 GHz Xeon core about 1
// TF/s. The same bits for any number of threads.
#pragma once

#include "core/types.hpp"

namespace pyspectra::linalg {

// Whether this machine has AMX with bfloat16 and the system lets this process use it.
bool amx_available();

// The lower triangle of the column-major M x M matrix `out` += W^T W for a W of any element type
// but float64 with at least as many rows as columns; tiles on the diagonal spill into the upper
// one.
void amx_gram(const MatrixView& W, double* out);

namespace detail {

constexpr Index kAmxPanel = 32;   // columns of W: two tiles
constexpr Index kAmxBlock = 32;   // rows of W a tile holds
constexpr Index kAmxTile = 256;   // pairs of entries
constexpr Index kAmxSpilled = 4;  // blocks of rows between two spills

// Pairs of rows of a block of W, packed: for panel p, block k and term t, two tiles by columns and
// two by rows, at ((p * blocks + k) * terms + t) * 4 * kAmxTile.
struct AmxSlab {
  const unsigned* packed;
  Index blocks;
  int terms;
};

// out[r * kAmxPanel + c] += sum over the rows of the blocks [k0, k1) of W(., 32 j + r) W(., 32 i +
// c). `pack` packs `blocks` blocks of panel p from row `begin` on. `configure` comes before the
// first call in a thread, `release` after the last.
struct AmxKernels {
  void (*pack)(const MatrixView& W, Index begin, Index blocks, Index p, unsigned* packed);
  void (*configure)();
  void (*multiply)(const AmxSlab& slab, Index k0, Index k1, Index i, Index j, double* out);
  void (*release)();
};
AmxKernels amx_kernels();

}  // namespace detail
}  // namespace pyspectra::linalg
