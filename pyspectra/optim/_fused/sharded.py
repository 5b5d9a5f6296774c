"""Parameters that are sharded over processes (DTensor): this process's part, and its place.

Nothing communicates but `total`, and `laid_out` where two layouts differ.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def is_sharded(x: Tensor) -> bool:
    """Tell whether `x` is a DTensor, without importing what defines it."""
    if type(x) in (Tensor, torch.nn.Parameter):
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def local(x: Any) -> Tensor:
    """Return the part of `x` in this process (all of it where it is no DTensor); no copy."""
    return x.to_local() if is_sharded(x) else x  # type: ignore[no-any-return]


def whole(x: Any) -> Tensor:
    """Return all of `x` in each process; communicates if it is sharded."""
    return x.full_tensor() if is_sharded(x) else x  # type: ignore[no-any-return]


def _chunk(p: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First index and length of the local part, per axis."""
    chunk = p.__create_chunk_list__()[0]
    return tuple(chunk.offsets), tuple(chunk.sizes)


def place(owner: str, p: Tensor, name: str) -> tuple[int, int, int]:
    """Where the local elements of `p` stand in the whole: the kernel's offset, run and pitch.

    Raises
    ------
    ValueError
        If `p` holds partial sums, or is cut along two axes of which neither is the first.
    """
    size = max(1, p.numel())
    if not is_sharded(p):
        return 0, size, size
    if any(placement.is_partial() for placement in p.placements):  # type: ignore[attr-defined]
        raise ValueError(
            f"{owner}: parameter {name!r} must be sharded or replicated, got placements "
            f"{p.placements}."  # type: ignore[attr-defined]
        )
    offsets, sizes = _chunk(p)
    found = stretch(tuple(p.shape), offsets, sizes)
    if found is None:
        raise ValueError(
            f"{owner}: parameter {name!r} must be sharded along its first axis and one other "
            f"at most, got placements {p.placements}."  # type: ignore[attr-defined]
        )
    return found


def stretch(
    shape: Sequence[int], offsets: Sequence[int], sizes: Sequence[int]
) -> tuple[int, int, int] | None:
    """Offset, run and pitch of a box within a C-ordered array.

    Element i of the box, counted in C order, is element ``offset + (i // run) pitch + i % run`` of
    the array. None if no such numbers exist.
    """
    n = math.prod(sizes)
    if n == 0:
        return 0, 1, 1
    cut = [d for d in range(len(shape)) if sizes[d] != shape[d]]
    offset = sum(first * math.prod(shape[d + 1 :]) for d, first in enumerate(offsets))
    if not cut or cut[-1] == 0:
        return offset, n, n
    last = cut[-1]
    if any(d not in (0, last) for d in cut):
        return None
    return offset, math.prod(sizes[last:]), math.prod(shape[last:])


def part(whole: Any, p: Tensor) -> Any:
    """Cut out of an array of the shape of `p` what stands in this process."""
    if not is_sharded(p):
        return whole
    offsets, sizes = _chunk(p)
    return whole[tuple(slice(o, o + n) for o, n in zip(offsets, sizes, strict=True))]


def like(values: Tensor, p: Any) -> Tensor:
    """Make a local tensor the part of a DTensor that is laid out as `p`; no copy."""
    if not is_sharded(p):
        return values
    made: Tensor = type(p).from_local(
        values, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
    )
    return made


def laid_out(value: Any, p: Any) -> Tensor:
    """Lay out a tensor of the shape of `p` as `p` is; communicates if it is sharded otherwise."""
    if not is_sharded(p):
        return value.full_tensor() if is_sharded(value) else value  # type: ignore[no-any-return]
    if is_sharded(value):
        if value.device_mesh == p.device_mesh and tuple(value.placements) == tuple(p.placements):
            return value  # type: ignore[no-any-return]
        return value.redistribute(p.device_mesh, p.placements)  # type: ignore[no-any-return]
    return like(part(value, p).contiguous(), p)


def total(parts: Iterable[tuple[Tensor, float]]) -> float:
    """Sum over the elements of all tensors, in all processes, of some function of each.

    Parameters
    ----------
    parts : iterable of (Tensor, float)
        A tensor, and the sum over what of it is in this process. Tensors that are no DTensors are
        taken to be the same in all processes.

    Returns
    -------
    float
        The same in all processes: one addition over the processes per mesh and set of axes.
    """
    whole: list[float] = []
    shared: dict[Any, list[float]] = {}
    for x, value in parts:
        key = _cut(x)
        if key is None:
            whole.append(value)
        else:
            shared.setdefault(key, []).append(value)
    for (mesh, axes), values in shared.items():
        added = torch.tensor(math.fsum(values), dtype=torch.float64, device=mesh.device_type)
        _add(added, mesh, axes)
        whole.append(float(added))
    return math.fsum(whole)


Cut = tuple[Any, tuple[int, ...], Tensor]
"""A mesh, axes of it, and the numbers of the tensors that are cut up over these."""


def cuts(tensors: Iterable[Tensor], device: torch.device) -> list[Cut]:
    """Return over which processes which of `tensors` are cut up, their numbers on `device`."""
    shared: dict[Any, list[int]] = {}
    for k, x in enumerate(tensors):
        key = _cut(x)
        if key is not None:
            shared.setdefault(key, []).append(k)
    return [(mesh, axes, torch.tensor(k, device=device)) for (mesh, axes), k in shared.items()]


def add_over_processes(values: Tensor, over: Iterable[Cut]) -> None:
    """Add up, in place, what the processes have of each tensor; ``values[k]`` is of number k.

    Nothing is read back: `values` may be on a device.
    """
    for mesh, axes, places in over:
        added = values[places]
        _add(added, mesh, axes)
        values[places] = added


def _cut(x: Any) -> tuple[Any, tuple[int, ...]] | None:
    """Mesh and axes over which the elements of `x` are cut up; None if each process has all."""
    if not is_sharded(x):
        return None
    axes = tuple(i for i, placement in enumerate(x.placements) if not placement.is_replicate())
    return (x.device_mesh, axes) if axes else None


def _add(values: Tensor, mesh: Any, axes: tuple[int, ...]) -> None:
    for axis in axes:
        torch.distributed.all_reduce(values, group=mesh.get_group(axis))
