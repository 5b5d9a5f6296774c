"""Block Krylov space of ``W^T W`` in single precision: where the leading directions roughly are.

Products and orthogonalisation take half of the time that they take in float64. What is found has
six digits or so, which is enough for a start: `pyspectra.spectra.triplets` multiplies it once in
float64, and the error of a singular value is then about the square of that of its vectors.

References
----------
Golub, Underwood, "The block Lanczos method for computing eigenvalues", Mathematical Software III
(1977).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.linalg.lapack import dpotrf, dtrtri

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra.spectra.block_krylov import BLOCK, Ritz, random_block
from pyspectra.types import FloatArray

__all__ = ["SingleArray", "SingleSpace"]

SingleArray = npt.NDArray[np.float32]

# A block whose directions differ in length by more than this would be mostly rounding errors.
_WEAKEST = 1e-4
_CLOSE = 6.0


@dataclass
class SingleSpace:
    """A basis, orthonormal up to rounding, that grows by a block at a time.

    Attributes
    ----------
    M : int
        Length of the vectors, more than a block has.
    normal : callable
        Takes an (M, b) block X of float32 and returns ``W^T W X``.
    start : ndarray of float64, shape (M, BLOCK), or None
        Orthonormal vectors to begin with; random ones by default.
    size : int
        Number of vectors that have been multiplied.
    worn : bool
        Whether the last block had directions that are no more than rounding: growing would add
        noise.
    """

    M: int
    normal: Callable[[SingleArray], SingleArray]
    start: FloatArray | None = field(default=None, repr=False)
    size: int = field(init=False, default=0)
    worn: bool = field(init=False, default=False)
    _rows: SingleArray = field(init=False, repr=False)  # the vectors
    _T: FloatArray = field(init=False, repr=False)
    _next: SingleArray = field(init=False, repr=False)  # (M, BLOCK), to be multiplied
    _coupling: FloatArray = field(init=False, repr=False)  # of that block and the one before
    _close: bool = field(init=False, default=False)  # whether the leading values are alike

    def __post_init__(self) -> None:
        room = min(self.M, 12 * BLOCK)
        self._rows = np.empty((room, self.M), np.float32)
        self._T = np.zeros((room, room))
        start = self.start
        if start is None:
            start, _ = _orthonormal(random_block(self.M, BLOCK, 0, 0))
        self._next = start.astype(np.float32)

    def grow(self) -> None:
        """Multiply the next block and orthogonalise what comes of it."""
        before, p = self.size, self.size + BLOCK
        self._make_room(p)
        self._rows[before:p] = self._next.T
        basis = HostArray(self._rows[:p], "float32")
        Z = self.normal(self._next)
        C, inside = ops.normal_product(basis, Z)
        assert inside is not None
        Z -= inside
        # What one projection leaves of the leading directions would grow from block to block.
        more, inside = ops.normal_product(basis, Z)
        assert inside is not None
        Z -= inside
        own = C[before:] + more[before:]
        self._T[before:p, before:p] = 0.5 * (own + own.T)
        if before:
            self._T[before - BLOCK : before, before:p] = self._coupling.T
            self._T[before:p, before - BLOCK : before] = self._coupling
        block, self._coupling = _orthonormal(Z.astype(np.float64))
        lengths = np.abs(np.diagonal(self._coupling))
        self.worn = not bool(np.min(lengths) > _WEAKEST * np.max(np.abs(C)))
        self._next = block.astype(np.float32)
        self.size = p

    def _make_room(self, p: int) -> None:
        room = len(self._rows)
        if p <= room:
            return
        grown = min(self.M, 2 * room)
        rows, T = np.empty((grown, self.M), np.float32), np.zeros((grown, grown))
        rows[:room], T[:room, :room] = self._rows, self._T
        self._rows, self._T = rows, T

    def basis(self, first: int = 0) -> SingleArray:
        """Return the vectors from the `first` on as rows, as far as they have been multiplied."""
        return self._rows[first : self.size]

    def ritz(self, count: int, added: FloatArray | None = None) -> Ritz:
        """Return the leading `count` approximations, fewer than the size of the space.

        They are those of ``W^T W``, or of it and a matrix whose range is in the space, `added`
        being that matrix in the basis. Vectors of small eigenvalues of T need float64, except where
        all eigenvalues in question are known to have about the same size.
        """
        p = self.size
        T = self._T[:p, :p]
        if added is not None:
            T = T + added
        elif self._close:
            T = T.astype(np.float32)
        values, vectors = eigh(T, driver="evd", check_finite=False)
        s = np.sqrt(np.maximum(values[::-1].astype(np.float64), 0.0))
        if added is None:
            self._close = bool(s[count - 1] > s[0] / _CLOSE)
        kept = np.ascontiguousarray(vectors[:, ::-1][:, :count])
        tail = self._coupling @ kept[p - BLOCK :].astype(np.float64)
        tail /= np.where(s[:count] > 0.0, s[:count], np.inf)
        return Ritz(s[:count], kept.astype(np.float64), tail.T @ tail, float(s[count]))

    def vectors(self, ritz: Ritz) -> FloatArray:
        """Return the approximate right singular vectors, shape (M, count), in single precision."""
        found = self._rows[: self.size].T @ ritz.vectors.astype(np.float32)
        return np.asarray(found, dtype=np.float64)


def _orthonormal(Z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return Q and R with ``Z = Q R``, by the Gram matrix; zeros where Z has dependent columns.

    In float64 this serves columns that were made in single precision.
    """
    R, failed = dpotrf(Z.T @ Z, lower=0, clean=1)
    inverse, singular = dtrtri(R) if not failed else (R, 1)
    if failed or singular:
        return np.zeros_like(Z), np.zeros_like(R)
    return Z @ inverse, R
