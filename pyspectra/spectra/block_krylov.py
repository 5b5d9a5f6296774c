"""Block Krylov space of ``W^T W``: the leading singular directions after few products with W.

References
----------
Golub, Underwood, "The block Lanczos method for computing eigenvalues", Mathematical Software III
(1977). Musco, Musco, "Randomized block Krylov methods for stronger and faster approximate singular
value decomposition", NeurIPS 2015.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import eigh

from pyspectra._support.random import Purpose, generator
from pyspectra.types import FloatArray

__all__ = ["BLOCK", "KrylovSpace", "Ritz", "random_block"]

BLOCK = 16
"""Vectors at a time: as many as the kernel of the products has columns in its registers."""

# What projection leaves of a vector that lies in the space already, beside its length.
_NOISE = 1e-13

Normal = Callable[[FloatArray], "tuple[FloatArray | None, FloatArray]"]


@dataclass(frozen=True)
class Ritz:
    """What a Krylov space knows of the leading singular triplets.

    Attributes
    ----------
    s : ndarray of float64, shape (l,)
        Descending approximations, never above the singular values (up to rounding).
    vectors : ndarray of float64, shape (p, l)
        The right singular vectors in the basis of the space.
    residual_gram : ndarray of float64, shape (l, l)
        ``F^T F`` of the residuals ``F = W^T U - V S``; those of ``W V - U S`` are zero.
    next_s : float
        The approximation after the last; 0 if there is none.
    """

    s: FloatArray
    vectors: FloatArray
    residual_gram: FloatArray
    next_s: float


def random_block(M: int, count: int, part: int, number: int) -> FloatArray:
    """Draw independent normal numbers, shape (M, count): part and number tell blocks apart."""
    rng = generator(Purpose.SUBSPACE, 0, "svd_topk", part, number)
    return rng.standard_normal((M, count))


@dataclass
class KrylovSpace:
    """An orthonormal basis that grows by a block at a time.

    Attributes
    ----------
    M : int
        Length of the vectors.
    normal : callable
        Takes an (M, b) block X and returns ``W X`` (or None, if it is not at hand) and ``W^T W X``.
    basis : ndarray of float64, shape (M, p)
        Orthonormal columns: those that have been multiplied.
    """

    M: int
    normal: Normal
    _columns: FloatArray = field(init=False, repr=False)
    _T: FloatArray = field(init=False, repr=False)
    _images: list[FloatArray] = field(init=False, default_factory=list, repr=False)
    _p: int = field(init=False, default=0)
    _width: int = field(init=False, default=0)  # of the block that is multiplied next
    _coupling: FloatArray = field(init=False, repr=False)  # of that block and the one before
    _restarts: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        room = min(self.M, 16 * BLOCK)
        self._columns = np.zeros((self.M, room))
        self._T = np.zeros((room, room))
        block = np.linalg.qr(random_block(self.M, min(BLOCK, self.M), 0, 0))[0]
        self._width = block.shape[1]
        self._columns[:, : self._width] = block
        self._coupling = np.zeros((self._width, 0))

    @property
    def basis(self) -> FloatArray:
        """The columns that have been multiplied with W."""
        return self._columns[:, : self._p]

    @property
    def size(self) -> int:
        """Number of these columns."""
        return self._p

    @property
    def exhausted(self) -> bool:
        """Whether no direction is left outside."""
        return self._width == 0

    def image(self, vectors: FloatArray) -> FloatArray | None:
        """Return ``W @ basis @ vectors`` from what is kept of it; None if nothing is kept."""
        if not self._images:
            return None
        out = np.zeros((len(self._images[0]), vectors.shape[1]))
        first = 0
        for part in self._images:
            out += part @ vectors[first : first + part.shape[1]]
            first += part.shape[1]
        return out

    def grow(self) -> None:
        """Multiply the next block and orthogonalise what comes of it."""
        p, width = self._p, self._width
        block = np.ascontiguousarray(self._columns[:, p : p + width])
        image, Z = self.normal(block)
        if image is not None:
            self._images.append(image)
        self._p = p = p + width
        basis = self.basis
        C = basis.T @ Z
        Z -= basis @ C
        self._T[:p, p - width : p] = C
        self._T[p - width : p, :p] = C.T
        self._append(Z, min(width if width else BLOCK, self.M - p))

    def _append(self, Z: FloatArray, width: int) -> None:
        """Make an orthonormal block of Z, and of random directions where Z has too few."""
        p = self._p
        if width <= 0:
            self._width, self._coupling = 0, np.zeros((0, Z.shape[1]))
            return
        q, R = np.linalg.qr(Z)
        # A direction of which little was left holds rounding errors within the basis, so project
        # once more, now that all have one length.
        q -= self.basis @ (self.basis.T @ q)
        q, change = np.linalg.qr(q)
        R = change @ R
        scale = float(np.max(np.diagonal(self._T)[:p], initial=0.0))
        weak = np.abs(np.diagonal(R)) <= _NOISE * scale
        q, R = q[:, :width], R[:width]
        weak = weak[:width]
        if np.any(weak):
            # W has no more to give here: go on elsewhere, so that the space still grows.
            self._restarts += 1
            q = q.copy()
            q[:, weak] = random_block(self.M, int(np.count_nonzero(weak)), 1, self._restarts)
            R = R.copy()
            R[weak] = 0.0
            for _ in range(2):
                q -= self.basis @ (self.basis.T @ q)
                q, change = np.linalg.qr(q)
                R = change @ R
        while p + width > self._columns.shape[1]:
            self._widen()
        self._columns[:, p : p + width] = q
        self._width, self._coupling = width, R

    def _widen(self) -> None:
        room = min(self.M, 2 * self._columns.shape[1])
        columns, T = np.zeros((self.M, room)), np.zeros((room, room))
        columns[:, : self._columns.shape[1]] = self._columns
        T[: len(self._T), : len(self._T)] = self._T
        self._columns, self._T = columns, T

    def ritz(self, count: int) -> Ritz:
        """Return the leading `count` approximations (fewer if the space is smaller)."""
        p = self._p
        most = min(count + 1, p)
        values, vectors = eigh(
            self._T[:p, :p], subset_by_index=(p - most, p - 1), check_finite=False, driver="evr"
        )
        s = np.sqrt(np.maximum(values[::-1], 0.0))
        vectors = vectors[:, ::-1]
        kept = min(count, p)
        last = self._coupling.shape[1]
        tail = self._coupling @ vectors[p - last :, :kept] if last else np.zeros((0, kept))
        # F = W^T U - V S, column by column the coupling over s. Where it is lost in the rounding of
        # the squares it counts as zero: what follows computes F itself.
        noise = np.linalg.norm(tail, axis=0) <= _NOISE * p * float(values[-1])
        tail = tail / np.where(noise, np.inf, s[:kept])
        return Ritz(
            s=s[:kept],
            vectors=np.ascontiguousarray(vectors[:, :kept]),
            residual_gram=tail.T @ tail,
            next_s=float(s[kept]) if kept < most else 0.0,
        )
