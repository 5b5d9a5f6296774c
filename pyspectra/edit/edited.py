"""What an edit of a model in files reports: the new path, and what changed."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["EditedCheckpoint", "EditedTensor"]


@dataclass(frozen=True)
class EditedTensor:
    """What became of one tensor.

    Attributes
    ----------
    key : str
        Its name.
    shape : tuple of int
        Its shape.
    n_changed : int
        Elements that have another value than before.
    n_zeros : int
        Elements that are zero now.
    """

    key: str
    shape: tuple[int, ...]
    n_changed: int
    n_zeros: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class EditedCheckpoint:
    """A model that an edit has written.

    Attributes
    ----------
    path : str
        What was written.
    tensors : tuple of EditedTensor
        Those that the edit has computed anew; all others are copies, bit by bit.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np, pyspectra as ps
    >>> from safetensors.numpy import save_file
    >>> folder = Path(tempfile.mkdtemp())
    >>> save_file({"fc.weight": np.arange(12.0).reshape(3, 4)}, folder / "m.safetensors")
    >>> done = ps.prune(folder / "m.safetensors", 0.5, out=folder / "half.safetensors")
    >>> done.tensors[0].key, done.tensors[0].n_zeros, done.tensors[0].n_changed
    ('fc.weight', 6, 5)
    """

    path: str
    tensors: tuple[EditedTensor, ...]
