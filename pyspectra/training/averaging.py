"""The mean of checkpoints, computed a few elements at a time while it is written."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Final

import numpy as np

from pyspectra.edit.files import Checkpoint, Tensor
from pyspectra.types import FloatArray

__all__ = ["Mean"]

# Elements that are in memory at a time, of one checkpoint: a tensor is never read as a whole.
CHUNK: Final = 1 << 18


class Mean:
    """The mean of checkpoints that agree in names, shapes and types.

    Parameters
    ----------
    checkpoints : list of Checkpoint
        What is averaged.
    shares : list of float or None
        One for each, whose sum is 1; None for equal ones.

    Attributes
    ----------
    not_finite : list of str
        Names of the tensors so far whose mean holds a NaN or an infinity.
    """

    def __init__(self, checkpoints: list[Checkpoint], shares: list[float] | None) -> None:
        self.checkpoints = checkpoints
        self.shares = shares
        self.not_finite: list[str] = []

    def values(self, tensor: Tensor) -> Iterator[FloatArray]:
        """Yield the elements of the mean, float64, some at a time."""
        shares = self.shares or [1.0] * len(self.checkpoints)
        counted = [
            (share, checkpoint.tensors[tensor.key].chunks(CHUNK))
            for checkpoint, share in zip(self.checkpoints, shares, strict=True)
            if share > 0
        ]
        finite = True
        used = [share for share, _ in counted]
        for parts in zip(*(chunks for _, chunks in counted), strict=True):
            total = self._mean(zip(used, parts, strict=True))
            finite = finite and bool(np.isfinite(total).all())
            yield total
        if not finite:
            self.not_finite.append(tensor.key)

    def same_memory(self, tensor: Tensor) -> Hashable | None:
        """Return what is equal for tensors that are tied in every checkpoint."""
        identity = tuple(c.tensors[tensor.key].identity for c in self.checkpoints)
        return None if None in identity else identity

    def _mean(self, weighted: Iterable[tuple[float, FloatArray]]) -> FloatArray:
        """Return the mean; elements that are the same in all files stay as they are, bit by bit."""
        rest = iter(weighted)
        share, first = next(rest)
        total = first if self.shares is None else first * share
        same, count = np.ones(len(first), dtype=bool), 1
        with np.errstate(over="ignore", invalid="ignore"):
            for share, values in rest:
                total = total + (values if self.shares is None else values * share)
                same &= values.view(np.uint64) == first.view(np.uint64)
                count += 1
            # A sum rounds, overflows, and may have another sign of zero.
            return np.where(same, first, total / count if self.shares is None else total)
