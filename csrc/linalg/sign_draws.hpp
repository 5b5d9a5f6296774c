// What random signs make of two statistics of a spectrum: draws of the test for structure
// (pyspectra/spectra/sign_test.py).
//
// Of a stack of matrices W_k of one shape with entries of random signs, whose eigenvalues lambda
// are those of all W_k^T W_k together:
//   spread  = sum lambda^2 / (sum lambda)^2, from traces of Gram matrices G_k,
//   largest = max lambda / sum lambda.
// The largest eigenvalue of G_k is that of its tridiagonal form T, where Laguerre's iteration comes
// down to it from a bound by Gershgorin's theorem: x - n / (g + sqrt((n - 1) (n h - g^2))), for g =
// sum 1 / (x - lambda) and h = sum 1 / (x - lambda)^2, which the pivots of T - x I and their
// derivatives give in 10 n operations. It never passes the largest eigenvalue, and converges
// cubically (Parlett, The Symmetric Eigenvalue Problem, 1980; Wilkinson, The Algebraic Eigenvalue
// Problem, 1965, 7.27-30).
//
// O(N M^2 + M^3) a draw and matrix, N >= M. Of small matrices eight draws are made at a time, a
// lane of vectors each (sign_draws.inl.hpp): packing and calls took most of the time of such a
// matrix, and the chains of its reduction are short. Larger ones go through gram.hpp and
// tridiagonalize.hpp, a draw a thread. The same bits for any number of threads, on one instruction
// set. Each thread has buffers of its own, for one matrix or eight small ones.
#pragma once

#include <cstdint>
#include <span>

#include "core/types.hpp"

namespace pyspectra::linalg {

// `count` matrices of rows x cols, row-major, one after the other.
struct MatrixStack {
  const double* data;
  Index count, rows, cols;
};

struct SignDraw {
  double spread, largest;  // both infinite where something is not finite, or nothing is left
};

// Draw number d takes its signs, in the order of the entries, from bits d s, d s + 1, ... for the s
// entries of the stack; of each byte the highest bit is the first one, and a one means minus.
// `centred`: means of rows and columns of every matrix are taken away after that. Fourth powers of
// entries must be in the range of double.
void sign_draws(const MatrixStack& stack, std::span<const std::uint8_t> bits, bool centred,
                std::span<SignDraw> out);

namespace detail {

// Draws of one call of a kernel; lengths of rows that it works on are multiples of kPadded.
constexpr Index kDraws = 8, kPadded = 4;

// The signs that the bits of a byte stand for, the highest bit first.
struct SignTable {
  double of[256][kDraws];
};
extern const SignTable kSigns;

// Of each draw.
struct SmallStatistics {
  double sum[kDraws], squares[kDraws], largest[kDraws];
};

// `base` has N rows of M <= N entries, `patterns` a byte of signs for each of them. `work`:
// small_draws_work.
using SmallDraws = void (*)(const double* base, const unsigned char* patterns, Index N, Index M,
                            bool centred, double* work, SmallStatistics& out);

SmallDraws small_draws_baseline();
SmallDraws small_draws_avx2();
SmallDraws small_draws_avx512();

// Rows of the longer side that a kernel takes in at a time.
constexpr Index kRows = 16;

constexpr Index small_draws_work(Index M) {
  const Index P = (M + kPadded - 1) / kPadded * kPadded;
  return (P + kRows + 5) * P * kDraws;
}

}  // namespace detail
}  // namespace pyspectra::linalg
