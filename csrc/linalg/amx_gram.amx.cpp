#include "linalg/amx_gram.hpp"

#include <immintrin.h>

namespace pyspectra::linalg::detail {
namespace {

#include "core/half.inl.hpp"

constexpr int kPairs = 16, kColumns = 16;  // of a tile

// The terms of 16 x 16 pairs, the first halves of which stand before the second ones: as they are
// to `straight`, and turned to `turned`. Each term takes the leading bits of what is left.
template <int kTerms>
inline void pack_terms(float (&x)[2 * kPairs][kColumns], unsigned* straight, unsigned* turned) {
  for (int t = 0; t < kTerms; ++t) {
    unsigned* const out = straight + t * 4 * kAmxTile;
    unsigned* const across = turned + t * 4 * kAmxTile;
    for (int i = 0; i < kPairs; ++i)
      for (int c = 0; c < kColumns; ++c) {
        const unsigned low = float_bits(x[i][c]), high = float_bits(x[kPairs + i][c]);
        out[i * kColumns + c] = low >> 16 | (high & 0xffff0000u);
        x[i][c] -= bits_to_float(low & 0xffff0000u);
        x[kPairs + i][c] -= bits_to_float(high & 0xffff0000u);
      }
    for (int c = 0; c < kColumns; ++c)
      for (int i = 0; i < kPairs; ++i) across[c * kPairs + i] = out[i * kColumns + c];
  }
}

// One half of a panel's block: tiles of pairs of rows, by columns (16 columns of 16 pairs) to
// `columns`, by rows (16 pairs of 16 columns) to `rows`, for each term.
template <int kTerms, typename T, typename Widen>
inline void pack_tile(const MatrixView& W, Widen widen, Index first_row, Index first_column,
                      unsigned* columns, unsigned* rows) {
  const Index width = W.cols - first_column < kColumns ? W.cols - first_column : kColumns;
  const Index height = W.rows - first_row < 2 * kPairs ? W.rows - first_row : 2 * kPairs;
  const T* const in = (const T*)W.data + first_row * W.row_stride + first_column * W.col_stride;
  alignas(64) float x[2 * kPairs][kColumns] = {};  // even rows, then odd ones
  if (height == 2 * kPairs && width == kColumns && W.col_stride == 1) {
    for (int i = 0; i < 2 * kPairs; ++i)
      for (int c = 0; c < kColumns; ++c)
        x[i % 2 * kPairs + i / 2][c] = widen(in[i * W.row_stride + c]);
    pack_terms<kTerms>(x, rows, columns);
  } else if (height == 2 * kPairs && width == kColumns && W.row_stride == 1) {
    for (int c = 0; c < kColumns; ++c) {
      const T* const column = in + c * W.col_stride;
      for (int i = 0; i < kPairs; ++i) {
        x[c][i] = widen(column[2 * i]);
        x[kPairs + c][i] = widen(column[2 * i + 1]);
      }
    }
    pack_terms<kTerms>(x, columns, rows);
  } else {
    for (Index c = 0; c < width; ++c)
      for (Index i = 0; i < height; ++i)
        x[i % 2 * kPairs + i / 2][c] = widen(in[i * W.row_stride + c * W.col_stride]);
    pack_terms<kTerms>(x, rows, columns);
  }
}

template <int kTerms, typename T, typename Widen>
void pack_panel(const MatrixView& W, Widen widen, Index begin, Index blocks, Index p,
                unsigned* packed) {
  for (Index k = 0; k < blocks; ++k) {
    unsigned* const out = packed + (p * blocks + k) * kTerms * 4 * kAmxTile;
    for (Index half = 0; half < 2; ++half) {
      const Index column = p * kAmxPanel + half * kColumns;
      pack_tile<kTerms, T>(W, widen, begin + k * kAmxBlock, column < W.cols ? column : W.cols,
                           out + half * kAmxTile, out + (2 + half) * kAmxTile);
    }
  }
}

void pack(const MatrixView& W, Index begin, Index blocks, Index p, unsigned* packed) {
  if (W.dtype == DType::bfloat16)
    pack_panel<1, unsigned short>(
        W, [](unsigned short h) { return bfloat16_to_float(h); }, begin, blocks, p, packed);
  else if (W.dtype == DType::float16)
    pack_panel<2, unsigned short>(
        W, [](unsigned short h) { return float16_to_float(h); }, begin, blocks, p, packed);
  else
    pack_panel<3, float>(W, [](float x) { return x; }, begin, blocks, p, packed);
}

// Eight tiles of 16 rows of 64 bytes. In memory, since the compiler believes that loading it reads
// eight bytes and would leave out writes to the others.
alignas(64) constexpr unsigned char kConfig[64] = {
    1,  0, 0,  0, 0,  0, 0,  0, 0,  0,  0,  0,  0,  0,  0,  0,  // the palette
    64, 0, 64, 0, 64, 0, 64, 0, 64, 0,  64, 0,  64, 0,  64, 0,
    0,  0, 0,  0, 0,  0, 0,  0,                                   // bytes a row
    0,  0, 0,  0, 0,  0, 0,  0, 16, 16, 16, 16, 16, 16, 16, 16};  // rows

void configure() { _tile_loadconfig(kConfig); }

void release() { _tile_release(); }

// Adds a tile of sums to the doubles of its quarter of the panel's square.
inline void spill(const float* sums, double* out) {
  for (int r = 0; r < 16; ++r)
    for (int c = 0; c < 16; c += 8) {
      double* const at = out + r * kAmxPanel + c;
      const __m512d wide = _mm512_cvtps_pd(_mm256_load_ps(sums + 16 * r + c));
      _mm512_storeu_pd(at, _mm512_add_pd(_mm512_loadu_pd(at), wide));
    }
}

void multiply(const AmxSlab& slab, Index first, Index last, Index i, Index j, double* out) {
  alignas(64) float sums[4][kAmxTile];
  const Index block = 4 * kAmxTile * slab.terms;
  const unsigned* const left = slab.packed + j * slab.blocks * block;
  const unsigned* const right = slab.packed + i * slab.blocks * block + 2 * kAmxTile;
  // Float16: all four products of two terms. Float32: those of the leading six.
  const int most = slab.terms == 2 ? 2 : slab.terms - 1;
  for (Index k0 = first; k0 < last; k0 += kAmxSpilled) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const Index k1 = k0 + kAmxSpilled < last ? k0 + kAmxSpilled : last;
    for (Index k = k0; k < k1; ++k)
      for (int s = 0; s < slab.terms; ++s) {
        const unsigned* const a = left + k * block + s * 4 * kAmxTile;
        _tile_loadd(4, a, 64);
        _tile_loadd(5, a + kAmxTile, 64);
        for (int t = 0; t < slab.terms && s + t <= most; ++t) {
          const unsigned* const b = right + k * block + t * 4 * kAmxTile;
          _tile_loadd(6, b, 64);
          _tile_loadd(7, b + kAmxTile, 64);
          _tile_dpbf16ps(0, 4, 6);
          _tile_dpbf16ps(1, 4, 7);
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        }
      }
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
    for (int q = 0; q < 4; ++q) spill(sums[q], out + q / 2 * 16 * kAmxPanel + q % 2 * 16);
  }
}

}  // namespace

AmxKernels amx_kernels() { return {pack, configure, multiply, release}; }

}  // namespace pyspectra::linalg::detail
