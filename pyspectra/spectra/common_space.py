"""One Krylov space for a matrix W and for W + B A.

With ``G = W^T B + A^T B^T B / 2`` the two operators differ by ``C = G A + A^T G^T``:

    (W + B A)^T (W + B A) = W^T W + C,

and the range of C is spanned by the columns of A^T and of W^T B. A block Krylov space of W^T W that
begins with these is therefore one of the other operator too. Its projection is ``T + Q^T C Q``, and
what leads out of the space is the same for both, so that the products with W are taken once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pyspectra.spectra.block_krylov import BLOCK, Ritz, random_block
from pyspectra.spectra.single_space import SingleSpace
from pyspectra.spectra.weight_products import WeightProducts
from pyspectra.types import FloatArray

__all__ = ["UpdatedSpace", "common_space"]

# What a column of the first block has beside those before it, at least, to be no rounding.
_LEAST_NEW = 1e-6


@dataclass
class UpdatedSpace:
    """What a Krylov space of ``W^T W`` tells of W + B A; it serves as `SingleSpace` does.

    Attributes
    ----------
    space : SingleSpace
        That of W, which grows with this one. The range of C is in its first block.
    A : ndarray of float64, shape (r, M)
        Second factor of the update.
    half : ndarray of float64, shape (M, r)
        The matrix G.
    """

    space: SingleSpace
    A: FloatArray = field(repr=False)
    half: FloatArray = field(repr=False)
    _parts: list[tuple[FloatArray, FloatArray]] = field(init=False, default_factory=list)
    _seen: int = field(init=False, default=0)  # vectors whose products with A and G are known

    @property
    def size(self) -> int:
        """Number of vectors that have been multiplied."""
        return self.space.size

    @property
    def worn(self) -> bool:
        """Whether the last block had directions that are no more than rounding."""
        return self.space.worn

    def grow(self) -> None:
        """Multiply the next block and orthogonalise what comes of it."""
        self.space.grow()

    def ritz(self, count: int) -> Ritz:
        """Return the leading `count` approximations, fewer than the size of the space."""
        new = self.space.basis(self._seen).astype(np.float64)
        self._parts.append((new @ self.half, new @ self.A.T))
        self._seen = self.size
        left, right = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        product = left @ right.T
        return self.space.ritz(count, product + product.T)

    def vectors(self, ritz: Ritz) -> FloatArray:
        """Return the approximate right singular vectors, shape (M, count), in single precision."""
        return self.space.vectors(ritz)


def common_space(
    before: WeightProducts, after: WeightProducts
) -> tuple[SingleSpace, UpdatedSpace] | None:
    """Return one space for W and for W + B A, as each sees it.

    Parameters
    ----------
    before, after : WeightProducts
        W, and the same W with an update.

    Returns
    -------
    tuple of SingleSpace and UpdatedSpace, or None
        None where `after` has no factors, where they are more than one block can begin with, or
        where they are too dependent.
    """
    A, B = after.A, after.B
    if A is None or B is None or before.exponent or not 0 < 2 * len(A) <= BLOCK:
        return None
    image = before.backward_of_W(B)
    more = random_block(before.M, BLOCK - 2 * len(A), 0, 0)
    first = np.column_stack([A.T, image, more])
    start, R = np.linalg.qr(first)
    if np.any(np.abs(np.diagonal(R)) <= _LEAST_NEW * np.linalg.norm(first, axis=0)):
        return None
    space = SingleSpace(before.M, before.normal_single, start)
    return space, UpdatedSpace(space, A, image + 0.5 * (A.T @ (B.T @ B)))
