"""Models in memory: copies that share what their originals share, and writing into them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyspectra._arrays import array_info, is_torch_tensor, require_torch
from pyspectra.edit.files.rounding import round_to, within_range
from pyspectra.errors import ArgumentValueError
from pyspectra.types import FloatArray

__all__ = ["check_writable", "copied", "write"]


def copied(function: str, value: Any) -> Any:
    """Copy a state dict: tensors that share memory (tied weights) share that of the copies."""
    try:
        return copy.deepcopy(_copyable(value, {}))
    except RecursionError as error:
        got = "mappings that are nested too deeply to be copied"
        raise ArgumentValueError(function, "model", "be a plain state dict", got) from error


def _copyable(value: Any, copies: dict[int, Any]) -> Any:
    """Put what deepcopy refuses into another form: nothing is copied yet.

    What holds one mapping twice, or itself, does so in the copy: `copies` are known by identity.
    """
    if id(value) in copies:
        return copies[id(value)]
    if isinstance(value, Mapping):
        # A dict keeps its class and what it carries besides (torch's _metadata); an open .npz or a
        # read-only view becomes a plain dict.
        same = copy.copy(value) if isinstance(value, dict) else {}
        copies[id(value)] = same
        for key, item in value.items():
            same[key] = _copyable(item, copies)
        return same
    if is_torch_tensor(value):
        if not value.is_leaf:
            value = value.detach()
        info = array_info(value)
        if info is not None and info.identity is not None and _repeats(value.shape, value.stride()):
            return value.contiguous()
    return value


def _repeats(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Tell whether elements (of an expanded tensor, of overlapping windows) share memory.

    No element of an axis may come before the end of what the finer axes span: true of every view
    that slices and transposes make.
    """
    end = 0
    for step, n in sorted((abs(s), n) for n, s in zip(shape, strides, strict=True) if n > 1):
        if step <= end:
            return True
        end += (n - 1) * step
    return False


def check_writable(function: str, key: str, tensor: Any) -> None:
    """Raise ArgumentValueError unless each element of a tensor can be written to by itself."""
    strides = tensor.stride() if is_torch_tensor(tensor) else tensor.strides
    if _repeats(tensor.shape, strides):
        got = f"elements of {key!r} that share memory"
        raise ArgumentValueError(function, "model", "be writable", got, "make it contiguous")
    if not is_torch_tensor(tensor) and not tensor.flags.writeable:
        raise ArgumentValueError(function, "model", "be writable", f"{key!r}, which is not")


def write(tensor: Any, values: FloatArray) -> None:
    """Write float64 values into a tensor: rounded once, the largest finite number at most."""
    name = str(tensor.dtype).rpartition(".")[2] if is_torch_tensor(tensor) else tensor.dtype.name
    rounded = round_to(within_range(values, name), name)
    rounded = rounded.astype(rounded.dtype.newbyteorder("="), copy=False)
    if not is_torch_tensor(tensor):
        tensor[...] = rounded.view(tensor.dtype) if name == "bfloat16" else rounded
        return
    torch = require_torch("an edit")
    with torch.no_grad():
        if name == "bfloat16":  # as integers of the same size, which torch takes from numpy
            tensor.copy_(torch.from_numpy(rounded.view(np.int16)).view(torch.bfloat16))
        else:
            tensor.copy_(torch.from_numpy(rounded))
