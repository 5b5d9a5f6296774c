"""The processes of a distributed run: sums over all of them, and one that writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from pyspectra.errors import ArgumentTypeError

__all__ = ["Alone", "Group", "Record", "is_distributed", "mean_of", "numbers", "processes"]


class Alone:
    """One process, which asks no other.

    Attributes
    ----------
    is_first : bool
        Whether it is the one that writes.
    sums : bool
        Whether numbers of several processes are put together.
    """

    sums = False

    def __init__(self, *, is_first: bool = True) -> None:
        self.is_first = is_first

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order. All of them have to call it."""
        return [value]

    def agree(self, value: int) -> int:
        """Return the value of the first process. All of them have to call it."""
        return value


class Group(Alone):
    """The processes of a group of torch.distributed."""

    sums = True

    def __init__(self, group: Any) -> None:
        super().__init__(is_first=torch.distributed.get_rank(group) == 0)
        self._group = group

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order. All of them have to call it."""
        out: list[Any] = [None] * torch.distributed.get_world_size(self._group)
        torch.distributed.all_gather_object(out, value, group=self._group)
        return out

    def agree(self, value: int) -> int:
        """Return the value of the first process. All of them have to call it."""
        return int(self.gather(value)[0])


def is_distributed() -> bool:
    """Tell whether several processes train together: none may then pass a batch by itself."""
    d = torch.distributed
    return d.is_available() and d.is_initialized() and d.get_world_size() > 1


def processes(function: str, group: Any) -> Alone:
    """Return the processes of a group; without one this process alone.

    In a distributed run without a group only the first process writes.

    Raises
    ------
    ArgumentTypeError
        If it is no group.
    """
    available = torch.distributed.is_available() and torch.distributed.is_initialized()
    if group is None:
        return Alone(is_first=not available or torch.distributed.get_rank() == 0)
    if not available or not isinstance(group, torch.distributed.ProcessGroup):
        raise ArgumentTypeError(
            function,
            "process_group",
            "be a process group of torch.distributed, which is initialised",
            f"an object of type {type(group).__name__}",
        )
    return Group(group)


@dataclass(frozen=True)
class Record:
    """What one process has to say of a step.

    Attributes
    ----------
    step : int
    epoch : float or None
    n : int or None
        Samples.
    values : dict of str to float or Tensor
    """

    step: int
    epoch: float | None
    n: int | None
    values: Mapping[str, Any]


def numbers(records: Sequence[Record]) -> list[Record]:
    """Return records whose values are floats; tensors are fetched with one wait per device."""
    places = [
        (k, name, value)
        for k, record in enumerate(records)
        for name, value in record.values.items()
    ]
    tensors = [(k, name, value) for k, name, value in places if isinstance(value, Tensor)]
    found: list[dict[str, float]] = [
        {n: v for n, v in record.values.items() if not isinstance(v, Tensor)} for record in records
    ]
    for device in {value.device for _, _, value in tensors}:
        own = [(k, name, value) for k, name, value in tensors if value.device == device]
        stacked = torch.stack([value.detach().reshape(()).double() for _, _, value in own])
        for (k, name, _), number in zip(own, stacked.cpu().tolist(), strict=True):
            found[k][name] = number
    return [Record(r.step, r.epoch, r.n, values) for r, values in zip(records, found, strict=True)]


def mean_of(records: Sequence[Record]) -> Record:
    """Return the mean of the records that several processes have of one step.

    It is weighted by their samples.
    """
    first = records[0]
    counts = [record.n for record in records]
    known = [n for n in counts if n is not None]
    weights = cast("list[int]", counts) if len(known) == len(counts) else [1] * len(counts)
    names = dict.fromkeys(name for record in records for name in record.values)
    values = {}
    for name in names:
        own = [(r.values[name], w) for r, w in zip(records, weights, strict=True)
               if name in r.values]  # fmt: skip
        values[name] = sum(v * w for v, w in own) / sum(w for _, w in own)
    return Record(first.step, first.epoch, sum(known) if known else None, values)
