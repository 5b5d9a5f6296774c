#include "linalg/bidiagonal.hpp"

#include <algorithm>
#include <utility>

#include "core/aligned.hpp"
#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"
#include "linalg/compact_wy.hpp"
#include "linalg/sweeps.hpp"
#include "linalg/tall_qr.hpp"
#include "linalg/wide_band.hpp"

namespace pyspectra::linalg {
namespace {

using detail::BidiagonalKernels;
using detail::kTileSize;
using detail::kUpperStride;
using detail::kWide;
using detail::UpperSweep;

using Factor = detail::Factor<double>;
using TileKernels = detail::TileKernels<double>;

void negate(const double* in, double* out) {
  for (Index k = 0; k < kTileSize; ++k) out[k] = -in[k];
}

void transpose(const double* in, double* out, double factor) {
  for (Index i0 = 0; i0 < kWide; i0 += 8)
    for (Index j = 0; j < kWide; ++j)
      for (Index i = i0; i < i0 + 8; ++i) out[j * kWide + i] = factor * in[i * kWide + j];
}

class Reduction {
 public:
  Reduction(detail::SquareTiles tiles, Index n)
      : kernels_(PS_SELECT_ISA(detail::bidiagonal)),
        tiles_(PS_SELECT_ISA(detail::wide_band).tiles),
        n_(n),
        blocks_(tiles.blocks),
        store_(std::move(tiles.data)),
        panels_(aligned_buffer<double>((4 * blocks_ + 5) * kTileSize)),
        band_(aligned_buffer<double>(band_size(blocks_))) {
    Z_ = panels_.get();
    X_ = Z_ + blocks_ * kTileSize;
    U_ = X_ + blocks_ * kTileSize;
    Ut_ = U_ + blocks_ * kTileSize;
    small_ = Ut_ + blocks_ * kTileSize;
    std::fill(band_.get(), band_.get() + band_size(blocks_), 0.0);
  }

  void run(double* d, double* e) {
    to_wide_band();
    store_.reset();
    to_narrow_band();
    const Index lanes = kernels_.lanes;
    const Buffer<double> work = aligned_buffer<double>((n_ + 4 * lanes) * 4 * lanes);
    kernels_.finish(band_.get(), n_, d, e, work.get(), check_interrupt);
  }

 private:
  // Three blocks of columns more than the matrix: the last steps of a sweep overhang it.
  static Index band_size(Index blocks) { return (blocks + 3) * kWide * (kUpperStride + 1); }

  double* tile(Index I, Index J) const { return store_.get() + (J * blocks_ + I) * kTileSize; }
  double* V(Index p, Index I) const { return tile(I, p); }
  double* Z(Index J) const { return Z_ + J * kTileSize; }    // minus T^T V^T A
  double* X(Index I) const { return X_ + I * kTileSize; }    // (A - V Z) U S
  double* U(Index J) const { return U_ + J * kTileSize; }    // reflectors from the right
  double* Ut(Index J) const { return Ut_ + J * kTileSize; }  // minus their transposes

  void to_wide_band() {
    double tau[kWide];
    double* const r = small_;
    double* const T = small_ + kTileSize;
    double* const S = small_ + 2 * kTileSize;
    for (Index p = 0; p < blocks_; ++p) {
      check_interrupt();
      const Index left = blocks_ - p - 1;
      if (p > 0) parallel_for(left + 1, [&](Index k) { update(p, p + k, p); });
      tiles_.factor(tile(p, p), (left + 1) * kWide, r, tau);
      keep_columns(p, r);
      if (left == 0) break;
      triangle(V(p, p), left + 1, tau, T);
      parallel_for(left, [&](Index k) { columns_from_left(p, p + 1 + k, T); });
      tiles_.factor(U(p + 1), left * kWide, r, tau);
      keep_rows(p, r);
      triangle(U(p + 1), left, tau, S);
      rows_from_right(p, S);
    }
  }

  // Tile (I, J) as the panels before p leave it.
  void update(Index p, Index I, Index J) {
    const Factor factors[2] = {{V(p - 1, I), kWide, 1, Z(J)}, {X(I), kWide, 1, Ut(J)}};
    tiles_.product(tile(I, J), factors, 2);
  }

  // Z, and the row of tiles p as the reflectors from the left leave it, transposed.
  void columns_from_left(Index p, Index J, const double* T) {
    check_interrupt();
    alignas(64) double sum[kTileSize] = {}, z[kTileSize] = {};
    for (Index I = p; I < blocks_; ++I) {
      if (p > 0) update(p, I, J);
      const Factor one{V(p, I), 1, kWide, tile(I, J)};
      tiles_.product(sum, &one, 1);
    }
    const Factor turned{T, 1, kWide, sum};
    tiles_.product(z, &turned, 1);
    negate(z, Z(J));
    const Factor row{V(p, p), kWide, 1, Z(J)};
    tiles_.product(tile(p, J), &row, 1);
    transpose(tile(p, J), U(J), 1.0);
  }

  // X = (A - V Z) U S, and minus the transposes of U.
  void rows_from_right(Index p, const double* S) {
    double* const ZU = small_ + 3 * kTileSize;
    std::fill(ZU, ZU + kTileSize, 0.0);
    for (Index J = p + 1; J < blocks_; ++J) {
      const Factor one{Z(J), kWide, 1, U(J)};
      tiles_.product(ZU, &one, 1);
    }
    parallel_for(blocks_ - p - 1, [&](Index k) {
      check_interrupt();
      const Index I = p + 1 + k;
      alignas(64) double sum[kTileSize] = {};
      Factor factors[kTogether];
      int count = 0;
      for (Index J = p + 1; J < blocks_; ++J) {
        factors[count++] = {tile(I, J), kWide, 1, U(J)};
        if (count < kTogether && J + 1 < blocks_) continue;
        tiles_.product(sum, factors, count);
        count = 0;
      }
      const Factor left{V(p, I), kWide, 1, ZU}, right{sum, kWide, 1, S};
      tiles_.product(sum, &left, 1);
      std::fill(X(I), X(I) + kTileSize, 0.0);
      tiles_.product(X(I), &right, 1);
      transpose(U(I), Ut(I), -1.0);
    });
  }

  // T of I - V T V^T from a panel's reflectors and their scales.
  void triangle(const double* v, Index count, const double* tau, double* T) {
    double* const G = small_ + 4 * kTileSize;
    std::fill(G, G + kTileSize, 0.0);
    for (Index I = 0; I < count; ++I) {
      const Factor one{v + I * kTileSize, 1, kWide, v + I * kTileSize};
      tiles_.product(G, &one, 1);
    }
    detail::compact_wy(G, tau, T);
  }

  double* band_at(Index i, Index j) const { return band_.get() + j * kUpperStride + i; }

  void keep_columns(Index p, const double* r) {
    for (Index c = 0; c < kWide; ++c)
      for (Index i = 0; i <= c; ++i) *band_at(p * kWide + i, p * kWide + c) = r[i * kWide + c];
  }

  void keep_rows(Index p, const double* r) {
    for (Index c = 0; c < kWide; ++c)
      for (Index i = c; i < kWide; ++i)
        *band_at(p * kWide + i, (p + 1) * kWide + c) = r[c * kWide + i];
  }

  void to_narrow_band() {
    double* const band = band_.get();
    detail::in_waves<UpperSweep>(
        n_, kernels_.lanes, [&](Index s, UpperSweep& sweep) { kernels_.begin(band, s, sweep); },
        [&](UpperSweep& sweep) { kernels_.advance(band, sweep); });
  }

  // Products that one call of the kernel adds up: their right-hand tiles stay in the first-level
  // cache while the rows of the result go by.
  static constexpr int kTogether = 4;

  const BidiagonalKernels kernels_;
  const TileKernels tiles_;
  const Index n_, blocks_;
  Buffer<double> store_, panels_, band_;
  double *Z_, *X_, *U_, *Ut_, *small_;
};

}  // namespace

std::optional<int> bidiagonalize(const MatrixView& X, double* d, double* e) {
  auto tiles = detail::square_tiles(X);
  if (!tiles) return std::nullopt;
  const int exponent = tiles->exponent;
  Reduction(std::move(*tiles), X.cols).run(d, e);
  return exponent;
}

}  // namespace pyspectra::linalg
