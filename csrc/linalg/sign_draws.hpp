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
// O(N M^2 + M^3) a draw and matrix, N >= M. Of small matrices eight draws are made at a time
// (lane_draws.hpp), since packing, calls and chains of dependent steps take most of the time of
// one. Larger ones go through gram.hpp and tridiagonalize.hpp, a draw a thread. The same bits for
// any number of threads, on one instruction set. Each thread has buffers of its own, for one matrix
// or eight small ones.
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
// `centred`: means of rows and columns of every matrix are taken away after that. Sixth powers of
// singular values must be in the range of double.
void sign_draws(const MatrixStack& stack, std::span<const std::uint8_t> bits, bool centred,
                std::span<SignDraw> out);

}  // namespace pyspectra::linalg
