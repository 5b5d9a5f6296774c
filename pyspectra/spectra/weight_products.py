"""Products with a weight matrix, or with one and a low-rank update that is never formed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyspectra import ops
from pyspectra._arrays import HostArray, as_host
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.types import FloatArray

__all__ = ["WeightProducts", "read_factors"]

# Squares of what is outside of this come near the ends of the range of float32.
_EXTREME = (1e-9, 1e12)


# From this shorter side on, blocks of 96 columns give work to as many threads as blocks of rows do.
_LONG = 1536


@dataclass(frozen=True)
class WeightProducts:
    """A matrix ``W + B @ A`` as its products with blocks of vectors; its rows are its longer side.

    Attributes
    ----------
    W : HostArray
        (N, M) with N >= M.
    B, A : ndarray of float64 or None
        (N, r) and (r, M).
    size : float
        ``|W|_F + |B|_F |A|_F``: what rounding errors of the products are proportional to. NaN if
        anything is not finite.
    exponent : int
        The matrix is 2^-exponent times what was given.
    transposed : bool
        It is the transpose of what was given.
    """

    W: HostArray
    B: FloatArray | None
    A: FloatArray | None
    size: float
    exponent: int
    transposed: bool

    @property
    def N(self) -> int:
        """Longer side."""
        return self.W.shape[0]

    @property
    def M(self) -> int:
        """Shorter side."""
        return self.W.shape[1]

    @property
    def rounding(self) -> float:
        """Bound on the rounding error of the product with a unit vector, there or back."""
        rank = 0 if self.A is None else len(self.A)
        return (self.N + self.M + rank + 4) * float(np.finfo(np.float64).eps) * self.size

    def forward(self, X: FloatArray) -> FloatArray:
        """Return ``(W + B A) @ X``, shape (N, b)."""
        return ops.normal_product(self.W, _rows(X), self._update(X), transposed=False)[0]

    def backward(self, Y: FloatArray) -> FloatArray:
        """Return ``(W + B A).T @ Y``, shape (M, b)."""
        Z = self.backward_of_W(Y)
        if self.A is not None and self.B is not None:
            Z += self.A.T @ (self.B.T @ Y)
        return Z

    def normal(self, X: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return ``Y = (W + B A) @ X`` and ``(W + B A).T @ Y``."""
        Y, Z = ops.normal_product(self.W, _rows(X), self._update(X))
        assert Z is not None
        if self.A is not None and self.B is not None:
            Z += self.A.T @ (self.B.T @ Y)
        return Y, Z

    @property
    def single_rounding(self) -> float:
        """Bound on the error of a product in single precision, as `rounding` is one in double."""
        # What csrc/linalg/normal_product.hpp has, W and the vector rounded, and room beside.
        terms = 640 + (self.N + self.M) // 256
        return terms * 0.5 * float(np.finfo(np.float32).eps) * self.size

    def normal_single(self, X: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return ``(W + B A).T @ (W + B A) @ X`` in single precision, shape (M, b)."""
        start = self._update(np.asarray(X, np.float64))
        Y, Z = ops.normal_product(
            self.W, _rows(np.asarray(X, np.float32)), None if start is None else _single(start)
        )
        assert Z is not None
        if self.A is not None and self.B is not None:
            Z += _single(self.A.T @ (self.B.T @ Y))
        return Z

    def outer_single(self, Y: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return ``(W + B A) @ (W + B A).T @ Y`` in single precision, shape (N, b)."""
        start = None
        if self.A is not None and self.B is not None:
            start = _single(self.A.T @ (self.B.T @ np.asarray(Y, np.float64)))
        # Of the transposed matrix this is what reads it once.
        flat = HostArray(self.W.data.T, self.W.dtype)
        Z, out = ops.normal_product(flat, _rows(np.asarray(Y, np.float32)), start)
        assert out is not None
        update = self._update(np.asarray(Z, np.float64))
        return out if update is None else out + _single(update)

    def gram(self) -> FloatArray:
        """Return ``(W + B A).T @ (W + B A)``, shape (M, M), both triangles."""
        lower = ops.gram([self.W])[0]
        G = np.tril(lower)
        G += np.tril(lower, -1).T
        if self.A is not None and self.B is not None:
            half = (self.backward_of_W(self.B) + 0.5 * (self.A.T @ (self.B.T @ self.B))) @ self.A
            G += half + half.T
        return G

    def backward_of_W(self, Y: FloatArray) -> FloatArray:
        """Return ``W.T @ Y`` without the update."""
        if self.M < _LONG:
            return ops.transposed_product(self.W, _rows(Y))
        # Read by columns, few sums are open at a time and stay in the cache. Read by rows, every
        # block of rows adds to all sums of the product, which are too many for it.
        flat = HostArray(self.W.data.T, self.W.dtype)
        return ops.normal_product(flat, _rows(Y), transposed=False)[0]

    def dense(self) -> FloatArray:
        """Return the matrix as float64."""
        W = self.W.to_float64()
        return W if self.A is None or self.B is None else W + self.B @ self.A

    def _update(self, X: FloatArray) -> FloatArray | None:
        if self.A is None or self.B is None:
            return None
        return _rows(self.B @ (self.A @ X))


def _rows(X: ops.Block) -> ops.Block:
    return np.ascontiguousarray(X)


def _single(X: FloatArray) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(X, dtype=np.float32)


def read_factors(W: Any, function: str, argument: str = "W") -> WeightProducts:
    """Take a matrix, or a tuple ``(W, B, A)``, for its products.

    Parameters
    ----------
    W : array, tensor or tuple of three of them
        Matrices, of float16, bfloat16, float32 or float64 and any strides.
    function, argument : str
        Whom errors speak of.

    Returns
    -------
    WeightProducts

    Raises
    ------
    TypeError, ValueError
        If something is no real floating-point matrix, or is empty, or shapes disagree.
    """
    parts = W if isinstance(W, tuple) else (W,)
    if len(parts) not in (1, 3):
        got = f"a tuple of {len(parts)}"
        raise ArgumentTypeError(function, argument, "be a matrix or a tuple (W, B, A)", got)
    hosts = [as_host(part, function=function, argument=argument) for part in parts]
    for host in hosts:
        if host.ndim != 2:
            hint = "a convolution is kh*kw matrices W[:, :, i, j]"
            raise ArgumentValueError(function, argument, "be 2-D", f"shape {host.shape}", hint)
        if min(host.shape) == 0:
            raise ArgumentValueError(function, argument, "not be empty", f"shape {host.shape}")
    if len(hosts) == 3:
        shapes = [host.shape for host in hosts]
        (rows, cols), (b_rows, r), (a_rows, a_cols) = shapes
        if b_rows != rows or a_cols != cols or a_rows != r:
            need = "be (W, B, A) of shapes (n, m), (n, r) and (r, m)"
            raise ArgumentValueError(function, argument, need, f"shapes {shapes}")
    transposed = hosts[0].shape[0] < hosts[0].shape[1]
    main = hosts[0]
    B, A = (hosts[1].to_float64(), hosts[2].to_float64()) if len(hosts) == 3 else (None, None)
    if transposed:
        main = HostArray(main.data.T, main.dtype)
        B, A = (None, None) if A is None or B is None else (A.T, B.T)
    return _scaled(main, B, A, transposed)


def _scaled(
    W: HostArray, B: FloatArray | None, A: FloatArray | None, transposed: bool
) -> WeightProducts:
    size = _size(W, B, A)
    low, high = _EXTREME
    if low < size < high:
        return WeightProducts(W, B, A, size, 0, transposed)
    dense = W.to_float64()
    if A is not None and B is not None:
        with np.errstate(all="ignore"):
            dense = dense + B @ A
    if not np.isfinite(dense).all():
        return WeightProducts(W, None, None, math.nan, 0, transposed)
    largest = float(np.max(np.abs(dense)))
    exponent = math.frexp(largest)[1]
    scaled = HostArray(np.ldexp(dense, -exponent), "float64")
    return WeightProducts(scaled, None, None, _size(scaled, None, None), exponent, transposed)


def _size(W: HostArray, B: FloatArray | None, A: FloatArray | None) -> float:
    size = math.sqrt(ops.margins([W])[0].square)
    if A is not None and B is not None:
        with np.errstate(all="ignore"):
            size += float(np.linalg.norm(B)) * float(np.linalg.norm(A))
    return size
