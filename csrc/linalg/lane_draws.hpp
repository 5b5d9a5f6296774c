// Draws of random signs of small matrices (sign_draws.hpp), eight side by side, a lane of vectors
// each.
//
// The largest eigenvalue of several matrices together is that of few of them. A matrix is ruled out
// in a draw by mean and variance of its eigenvalues (Samuelson's inequality), which the draw needs
// anyway, or where x I - G has positive pivots, for the largest x of that draw so far: a fourth of
// the work of G's eigenvalue. What is left of several draws and matrices fills the lanes of eight
// reductions. Matrices go in the order of what their entries promise, largest first.
#pragma once

#include <cstdint>
#include <span>

#include "core/types.hpp"
#include "linalg/sign_draws.hpp"

namespace pyspectra::linalg {

// What sign_draws does, of matrices of any order; up to that of lanes_serve, it is the faster way.
void lane_draws(const MatrixStack& stack, std::span<const std::uint8_t> bits, bool centred,
                std::span<SignDraw> out);
bool lanes_serve(Index M);

// From sums over the eigenvalues, and the largest.
SignDraw sign_statistics(double sum, double squares, double largest);

namespace detail {

// Draws of one call of a kernel.
constexpr Index kDraws = 8;

// Rows and columns of its matrices go in tiles: their orders are rounded up to a multiple.
constexpr Index kPadded = 4;
constexpr Index padded(Index M) { return (M + kPadded - 1) / kPadded * kPadded; }

// Entries from one row of its matrices to the next. It is odd: a column whose entries were a power
// of two apart would have but a few lines of the cache.
constexpr Index lane_stride(Index M) { return padded(M) | 1; }
constexpr Index lane_size(Index M) { return padded(M) * lane_stride(M) * kDraws; }

// Rows of the longer side that a kernel takes in at a time. Of large matrices neither so many nor
// the Gram matrix fit the first cache: the more rows, the less often the latter is added to.
constexpr Index kMostRows = 32;
constexpr Index rows_at_once(Index M) { return M < 56 ? 16 : kMostRows; }

// The signs of 64 entries for each draw, the highest bit first; a one means minus.
struct LaneWords {
  std::uint64_t of[kDraws];
};

// N x M with N >= M. `entries` are rows of M one after the other, or, unless `is_tall`, columns of
// N; `signs` in their order.
struct LaneMatrix {
  const double* entries;
  const LaneWords* signs;
  Index N, M;
  bool is_tall;
};

// Of the eigenvalues of each draw, and of their squares.
struct LaneSums {
  double sum[kDraws], squares[kDraws];
};

// Gram matrices of eight draws are arrays [row][column][draw], lane_size(M) in all, of which the
// lower triangles count.
struct LaneKernels {
  // `work`: lane_gram_work.
  void (*gram)(const LaneMatrix& W, bool centred, double* gram, double* work, LaneSums& out);
  // The largest eigenvalue of each; uses up `gram`. `work`: lane_gram_work.
  void (*largest)(double* gram, Index M, double* work, double* largest);
  // Bit d is set where the largest eigenvalue of draw d is not below x[d]; leaves `gram` as it is.
  // A fourth of the work of `largest`. `work`: lane_factor_work.
  unsigned (*reaching)(double* gram, Index M, const double* x, double* work);
  // Above this order a matrix a thread is faster.
  Index most;
};

constexpr Index lane_gram_work(Index M) { return (rows_at_once(M) + 2) * lane_stride(M) * kDraws; }
constexpr Index lane_factor_work(Index M) {
  return lane_size(M) + (kPadded + 1) * lane_stride(M) * kDraws;
}

const LaneKernels& lane_kernels_baseline();
const LaneKernels& lane_kernels_avx2();
const LaneKernels& lane_kernels_avx512();

}  // namespace detail
}  // namespace pyspectra::linalg
