// Eigenvalues of symmetric matrices and singular values, float64, values only.
//
// eigvals: our own tridiagonalisation (tridiagonalize.hpp), one matrix a thread, and bisection of
// its result (bisection.hpp); those of order <= 12 by QL, all of a batch at once (tridiagonal.hpp).
// A matrix of order >= 1024 that comes alone is spread over all threads (wide_band.hpp), with the
// same bits for any number of them. A result does not depend on what shares its batch, but for the
// last bits of such a matrix. LAPACK's xSYTRD serves the baseline above n = 64.
//
// svdvals: our own bidiagonal form (bidiagonal.hpp) from order 96 on, of the triangle of a QR
// factorisation (tall_qr.hpp) where rows and columns are not equally many, and bisection of the
// symmetric tridiagonal matrix with a zero diagonal; LAPACK's xGESDD for smaller ones and on the
// baseline. One matrix a thread, a matrix that comes alone on all of them. LAPACK's work is done in
// steps (lapack_steps.hpp), so that all of it can be interrupted.
//
// Matrices with a norm near the ends of the range are scaled by a power of two first. The results
// are those of the scaled matrix, exactly, unless they leave the range.
//
// BLAS threads are the caller's business: hold BLAS to one thread for batches
// (pyspectra/ops/linalg.py).
#pragma once

#include <span>
#include <vector>

#include "core/types.hpp"
#include "linalg/symmetric_view.hpp"

namespace pyspectra::linalg {

// evals[k] receives n ascending eigenvalues. On a status other than ok they are NaN: not_finite for
// an infinity or NaN in the matrix, or an eigenvalue beyond the range of double.
std::vector<Status> eigvals_batch(std::span<const SymmetricView> A, std::span<double* const> evals);

// sv[k] receives min(rows, cols) descending singular values. The same holds for the status.
std::vector<Status> svdvals_batch(std::span<const MatrixView> X, std::span<double* const> sv);

}  // namespace pyspectra::linalg
