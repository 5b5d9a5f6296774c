"""Models in files: the same files with new values for what an edit changes, a tensor at a time."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pyspectra._support.progress import Advance
from pyspectra.edit.edited import EditedCheckpoint, EditedTensor
from pyspectra.edit.files import CHUNK, Checkpoint, Target, Tensor, write_checkpoint
from pyspectra.edit.files.rounding import from_bytes, round_to, within_range
from pyspectra.edit.matrices import Recompute
from pyspectra.types import FloatArray

__all__ = ["write_edited"]


def write_edited(
    target: Target,
    model: Checkpoint,
    changes: Mapping[str, Recompute],
    inputs: Sequence[Path],
    advance: Advance,
) -> EditedCheckpoint:
    """Write a model with new values for some of its tensors.

    Parameters
    ----------
    target : Target
        Where to.
    model : Checkpoint
        The model.
    changes : Mapping
        How tensors change, by their keys.
    inputs : sequence of Path
        Files that belong to the model: none is replaced.
    advance : callable
        Told the name of each tensor that is done.

    Returns
    -------
    EditedCheckpoint
    """
    # A weight under several names is asked for by that of them which comes first in its file.
    keys: dict[Hashable, str] = {}
    for key in changes:
        keys[model.tensors[key].identity or key] = key
    edited: dict[str, EditedTensor] = {}

    def new_values(tensor: Tensor) -> Iterator[FloatArray] | None:
        key = keys.get(tensor.identity or tensor.key)
        values = None if key is None else changes[key]()
        return None if key is None or values is None else parts(key, tensor, values.reshape(-1))

    def parts(key: str, tensor: Tensor, values: FloatArray) -> Iterator[FloatArray]:
        n_changed = n_zeros = done = 0
        for old in tensor.chunks(CHUNK):
            part = within_range(values[done : done + len(old)], tensor.dtype.name)
            done += len(old)
            new = from_bytes(round_to(part, tensor.dtype.name).view(np.uint8), tensor.dtype)
            n_changed += int(np.count_nonzero(new != old))
            n_zeros += int(np.count_nonzero(new == 0.0))
            yield new
        edited[key] = EditedTensor(key, tensor.shape, n_changed, n_zeros)

    write_checkpoint(target, model, new_values, inputs=inputs, advance=advance)
    in_order = tuple(edited[key] for key in changes if key in edited)
    return EditedCheckpoint(str(target.path), in_order)
