"""Gram matrices, element decoding and matrices whose spectra are known.

References
----------
IEEE 754-2019, 3.4 (binary16); bfloat16 is the upper half of binary32.
Golub, Van Loan, "Matrix Computations", 4th ed.: 2.7.6 for the rounding bound of a product, 4.8.6
for the eigenvalues of the second difference.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def decode_half(bits: int) -> float:
    """Value of a binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits."""
    return _decode(bits, exponent_bits=5, fraction_bits=10)


def decode_bfloat16(bits: int) -> float:
    """Value of a bfloat16: 1 sign, 8 exponent (bias 127), 7 fraction bits."""
    return _decode(bits, exponent_bits=8, fraction_bits=7)


def _decode(bits: int, exponent_bits: int, fraction_bits: int) -> float:
    bias = 2 ** (exponent_bits - 1) - 1
    sign = -1.0 if bits >> (exponent_bits + fraction_bits) & 1 else 1.0
    exponent = bits >> fraction_bits & (2**exponent_bits - 1)
    fraction = bits & (2**fraction_bits - 1)
    if exponent == 2**exponent_bits - 1:
        return sign * math.inf if fraction == 0 else math.nan
    if exponent == 0:
        return sign * math.ldexp(fraction, 1 - bias - fraction_bits)
    return sign * math.ldexp(fraction + 2**fraction_bits, exponent - bias - fraction_bits)


def encode_bfloat16(values: Array) -> npt.NDArray[np.uint16]:
    """Bit patterns of float64 values rounded towards zero to bfloat16."""
    bits = np.ascontiguousarray(values.astype(np.float32)).view(np.uint32)
    return (bits >> np.uint32(16)).astype(np.uint16)


def gram(X: Array) -> Array:
    """X^T X of the shorter side: the sum over the longer side of products of columns."""
    X = X if X.shape[0] >= X.shape[1] else X.T
    return np.asarray(X.T @ X)


def gram_magnitude(X: Array) -> Array:
    """|X|^T |X|, to which the rounding error of `gram` is proportional, elementwise."""
    return gram(np.abs(X))


def second_difference(n: int) -> tuple[Array, Array]:
    """The matrix tridiag(-1, 2, -1) and its eigenvalues 2 - 2 cos(pi k / (n + 1)), ascending."""
    A = 2.0 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    return A, 2.0 - 2.0 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))


def with_spectrum(evals: Array, rng: np.random.Generator) -> Array:
    """A dense symmetric matrix with these eigenvalues, to rounding."""
    n = len(evals)
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = (q * evals) @ q.T
    return np.asarray((A + A.T) / 2.0)


def with_singular_values(sv: Array, N: int, rng: np.random.Generator) -> Array:
    """An N x len(sv) matrix with these singular values, to rounding."""
    u, _ = np.linalg.qr(rng.standard_normal((N, len(sv))))
    v, _ = np.linalg.qr(rng.standard_normal((len(sv), len(sv))))
    return np.asarray((u * sv) @ v.T)


def bidiagonal_values(d: Array, e: Array) -> Array:
    """Descending singular values of an upper bidiagonal matrix.

    Golub, Kahan, SIAM J. Numer. Anal. B 2 (1965): they are the upper half of the eigenvalues of the
    symmetric tridiagonal matrix with a zero diagonal and d_1, e_1, d_2, ... beside it.
    """
    beside = np.zeros(2 * len(d) - 1)
    beside[::2], beside[1::2] = d, e
    return np.linalg.eigvalsh(np.diag(beside, 1) + np.diag(beside, -1))[: len(d) - 1 : -1]
