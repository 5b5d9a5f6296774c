"""Tensors as rows of the kernel's table: every address passes a check first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyspectra import ops
from pyspectra.optim._fused import sharded, tensors
from pyspectra.optim._fused.state import Kept, Layout


class Entry(NamedTuple):
    """One parameter of a step."""

    name: str
    p: Tensor
    group: Mapping[str, Any]
    state: dict[str, Any]
    rule: ops.OptimRule
    used: tuple[Kept, ...]  # what the kernel reads or writes of the state
    compact: bool
    momentum_start: int  # the step at which a momentum that was switched on begins


def row(
    owner: str, e: Entry, grad: Tensor, mask: Tensor | None, *, key: int, option: int
) -> tuple[int, ...]:
    """Return the row of the kernel's table for one parameter (columns: `ops.STEP_COLUMNS`).

    `mask` is the packed one in the order of the parameter's memory.

    Raises
    ------
    DeviceError, TypeError, ValueError
        If any of the tensors breaks the memory contract.
    """
    offset, run, pitch = sharded.place(owner, e.p, e.name)
    p = sharded.local(e.p)
    code = tensors.DTYPE_CODES.get(p.dtype)
    if code is None or not p.is_cpu or p.layout is not torch.strided or not p.is_contiguous():
        tensors.check_param(owner, e.p, e.name)
    assert code is not None
    if e.compact and not p.is_contiguous():
        raise ValueError(
            f"{owner}: parameter {e.name!r} must be contiguous for compact moments, got strides "
            f"{tuple(p.stride())} for shape {tuple(p.shape)}. Hint: compact=False."
        )
    size = p.numel()
    held = tensors.count_ones(e.state["mask"]) if e.compact else size
    lengths = {
        Layout.WHOLE: (tensors.state_dtype(p), size),
        Layout.MOMENT: (tensors.state_dtype(p), held),
        Layout.BITS: (torch.uint8, tensors.mask_bytes(size)),
    }
    values = {
        "param": p.data_ptr(),
        "grad": grad.data_ptr(),
        **{kept.column: _address(owner, e, kept, p, *lengths[kept.layout]) for kept in e.used},
        **({} if mask is None else {"mask": mask.data_ptr()}),
        "size": size,
        "children": held if e.compact else -1,
        "offset": offset,
        "run": run,
        "pitch": pitch,
        "key": key,
        "dtype": code,
        "options": option,
    }
    return tuple(values.get(column, 0) for column in ops.STEP_COLUMNS)


def _address(owner: str, e: Entry, kept: Kept, p: Tensor, dtype: torch.dtype, size: int) -> int:
    x = sharded.local(e.state[kept.key])
    flat = e.compact or kept.layout is Layout.BITS  # no shape of the parameter
    if (
        not isinstance(x, Tensor)
        or x.dtype is not dtype
        or x.numel() != size
        or x.device != p.device
        or not (x.is_contiguous() if flat else tensors.same_layout(x, p))
    ):
        got = f"{x.dtype} {tuple(x.shape)} on {x.device}" if isinstance(x, Tensor) else repr(x)
        raise TypeError(
            f"{owner}: state {kept.key!r} of {e.name!r} must be a contiguous {dtype} tensor of "
            f"{size} elements on {p.device}, got {got}. Hint: after changing type, shape, memory "
            "format or device of a parameter, build a new optimizer (and load the state into it)."
        )
    return x.data_ptr()
