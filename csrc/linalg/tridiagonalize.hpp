// Tridiagonal form of one symmetric matrix, for its eigenvalues: the orthogonal factor is not kept.
//
// In two stages, because the classical reduction (LAPACK's xSYTRD) does half of its work in
// matrix-vector products that read the whole trailing matrix once a column:
//
//   1. full to band, bandwidth B = vector lanes (8, 4, 2 for AVX-512, AVX2, baseline). Per panel of
//      B columns: Householder QR of the panel, W = A V T - V (...) / 2, A -= V W^T + W V^T (compact
//      WY). One sweep through the lower triangle applies a panel's update and forms the next one's
//      A V, so an entry is loaded and stored once per 4 B multiply-adds of its own: the arithmetic
//      units are the limit for any n. 4/3 n^3 flops.
//   2. band to tridiagonal by chasing bulges of B x B blocks down the band (Lang's variant, whose
//      bulges are only half removed): n^2 / 2B steps on blocks that fit in registers, about
//      7 B n^2 flops, and several sweeps at once to hide the latencies. The band fits in L2.
//
// On a Zen 5 core at 4.2 GHz (peak 134 GF/s with AVX-512, 67 with AVX2), as 4/3 n^3 / time:
//   AVX-512   45 GF/s at n = 128,  80 at 384,  90 at 768;  stage 1 alone   82, 107, 111
//   AVX2      32 GF/s at n = 128,  46 at 384,  49 at 768;  stage 1 alone   48,  55,  55
// where OpenBLAS's dsytrd (AVX2 kernels) has 18, 32, 36. The baseline unit, with two lanes and no
// fused multiply-add, has 12 to 15 and wins against those kernels only below n = 64 or so.
//
// What bounds it, on a core of a Xeon with AVX-512 (dgemm 100 GF/s at the clock of that hour): the
// update and the product of the first stage run at 95 from n = 192 on, panels take 6 % of it.
// Shares of the eigenvalues of one matrix: n = 384 filling 4 %, first stage 64, second 22,
// bisection 9; n = 96 4, 36, 34, 27; n = 48 3, 24, 34, 39. A step of the second stage is 100 cycles
// of shuffles and multiply-adds on two ports. Reading the matrix waits for the third-level cache.
//
// Backward stable. Measured errors of eigenvalues against known spectra reach 2e-14 of the norm of
// A at n = 1024, where dsytrd has 9e-15; against dsytrd, 3e-14 up to n = 1536. Small eigenvalues
// have no relative accuracy. On one instruction set the bits of the result depend on A alone;
// between instruction sets they are different, equally valid forms.
#pragma once

#include <optional>

#include "core/types.hpp"
#include "linalg/symmetric_view.hpp"

namespace pyspectra::linalg {

// Doubles of workspace for order n, about n^2 / 2 + 52 n. The same for every instruction set.
Index tridiagonalize_work(Index n);

// The tridiagonal form d (n) and e (n - 1) of 2^-x A for the x that is returned, 0 unless A's
// largest entry is extreme; none where an entry is not finite. Contiguous rows or columns, of which
// it reads the lower triangle once. `work` needs no alignment; no array may overlap another. It
// runs in the caller's thread: meant for the tasks of a parallel_for. It calls check_interrupt()
// about once a millisecond.
std::optional<int> tridiagonalize(const SymmetricView& a, double* d, double* e, double* work);

// The form of the column-major matrix `a` itself, of finite entries: a result beyond the range of
// double overflows.
void tridiagonalize(const double* a, Index n, Index lda, double* d, double* e, double* work);

namespace detail {

// n >= 2, `work` aligned to 64 bytes. `check` is check_interrupt.
using TridiagonalizeKernel = bool (*)(const SymmetricView& a, double* d, double* e, double* work,
                                      int& exponent, void (*check)());

TridiagonalizeKernel tridiagonalize_baseline();
TridiagonalizeKernel tridiagonalize_avx2();
TridiagonalizeKernel tridiagonalize_avx512();

}  // namespace detail
}  // namespace pyspectra::linalg
