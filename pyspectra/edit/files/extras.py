"""What a torch state dict holds beside its tensors, copied to a new one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyspectra._arrays import StoredArray, require_torch
from pyspectra.errors import FormatError
from pyspectra.weights.formats.pickle_values import Foreign, Global
from pyspectra.weights.formats.stored import StoredTensor
from pyspectra.weights.formats.wrappers import type_name

__all__ = ["as_bytes", "plain_copy"]

# torch.save recurses as deep as the value is nested.
_MAX_DEPTH: Final = 50


def plain_copy(file: Path, key: str, value: Any) -> Any:
    """Copy a value that is no tensor, as it will be saved again.

    Parameters
    ----------
    file : Path
        The checkpoint, for messages.
    key : str
        Name of the value.
    value : object
        As the reader of checkpoints returned it.

    Returns
    -------
    object
        Plain containers, numbers and text; a tensor inside of them is torch's.

    Raises
    ------
    FormatError
        If it holds an object of another class, which cannot be saved without its code, or is
        nested very deeply.
    """
    copies: dict[int, Any] = {}

    def copy(x: Any, depth: int) -> Any:
        if depth == 0:
            raise FormatError(f"{file}: {key!r} is nested too deeply to be copied.")
        if isinstance(x, Foreign | Global):
            raise FormatError(
                f"{file}: {key!r} holds an object of class {type_name(x)}, which cannot be copied. "
                "Hint: save only the module's state_dict()."
            )
        if not isinstance(x, Mapping | list | tuple | StoredArray):
            return x
        # What holds the same object twice, or itself, does so in the copy.
        if id(x) in copies:
            return copies[id(x)]
        if isinstance(x, Mapping):
            copies[id(x)] = made = OrderedDict() if isinstance(x, OrderedDict) else {}
            made.update({copy(k, depth - 1): copy(v, depth - 1) for k, v in x.items()})
            return made
        if isinstance(x, list):
            copies[id(x)] = items = list[Any]()
            items.extend(copy(v, depth - 1) for v in x)
            return items
        if isinstance(x, tuple):
            copies[id(x)] = tuple(copy(v, depth - 1) for v in x)
        else:
            copies[id(x)] = _torch_tensor(file, key, x)
        return copies[id(x)]

    return copy(value, _MAX_DEPTH)


def _torch_tensor(file: Path, key: str, stored: StoredArray) -> Any:
    torch = require_torch("copying torch tensors")
    usable = isinstance(stored, StoredTensor) and stored.problem is None
    if not isinstance(stored, StoredTensor) or not usable or not stored.type.is_copied:
        problem = stored.info.problem
        raise FormatError(f"{file}: {key!r} holds a tensor that is {problem}: it is not copied.")
    tensor = torch.empty(stored.shape, dtype=getattr(torch, stored.dtype))
    if tensor.numel():
        flat = as_bytes(tensor)
        with stored.open() as read:
            flat[:] = read(0, len(flat))
    return tensor


def as_bytes(tensor: Any) -> npt.NDArray[np.uint8]:
    """View a contiguous torch tensor as its bytes."""
    torch = require_torch("copying torch tensors")
    view: npt.NDArray[np.uint8] = tensor.reshape(-1).view(torch.uint8).numpy()
    return view
