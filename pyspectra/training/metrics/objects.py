"""Metric objects, ours and torchmetrics': their numbers by name, and those of all ranks."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pyspectra._arrays import require_torch
from pyspectra._support.arguments import as_number
from pyspectra.errors import ArgumentTypeError
from pyspectra.training.metric_kinds import canonical

__all__ = ["computed", "gathered"]

_Metric = TypeVar("_Metric")

# torchmetrics names its classes by the task too.
_TASK = re.compile(r"^(binary|multiclass|multilabel)_")


def computed(metric: Any, name: str | None = None) -> dict[str, float]:
    """Return what a metric object computes as plain numbers, for `History.log`.

    Parameters
    ----------
    metric : object
        One with ``compute()``: of this package, or of torchmetrics, collections included.
    name : str, optional
        Name of a number that has none; by default that of the class, in the words of histories:
        ``MeanAbsoluteError`` is ``mae``.

    Returns
    -------
    dict of str to float
        Several numbers under one name are ``<name>_0``, ``<name>_1`` ...

    Raises
    ------
    TypeError
        If it has no ``compute()``.
    """
    if not callable(getattr(metric, "compute", None)):
        got = f"an object of type {type(metric).__name__}"
        raise ArgumentTypeError("computed", "metric", "have a method compute()", got)
    values = metric.compute()
    if not isinstance(values, Mapping):
        values = {_name_of(metric) if name is None else name: values}
    numbers: dict[str, float] = {}
    for key, value in values.items():
        own = canonical(_snake(str(key)))
        numbers |= _numbers(own, value)
    return numbers


def _numbers(name: str, value: Any) -> dict[str, float]:
    number = as_number(value)
    if number is not None:
        return {name: number}
    items = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(items, list | tuple):
        raise ArgumentTypeError(
            "computed", "metric", f"compute numbers, also for {name!r}", type(value).__name__
        )
    numbers: dict[str, float] = {}
    for i, item in enumerate(items):
        numbers |= _numbers(f"{name}_{i}", item)
    return numbers


def _name_of(metric: Any) -> str:
    name = _snake(type(metric).__name__)
    if name == "mean_squared_error" and getattr(metric, "squared", True) is False:
        return "rmse"
    return name


def _snake(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return _TASK.sub("", words)


def gathered(metric: _Metric, group: Any = None) -> _Metric:
    """Return a metric of this package with the batches of all ranks; every rank must call it.

    Parameters
    ----------
    metric : Regression or Classification
        The metric of this rank, which stays as it is.
    group : torch.distributed.ProcessGroup, optional
        The ranks; all by default.

    Returns
    -------
    Regression or Classification
        The same on every rank; where no process group exists, a copy.
    """
    distributed = require_torch("gathering metrics").distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return copy.deepcopy(metric)
    parts: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(parts, metric, group=group)
    whole = copy.deepcopy(parts[0])
    for part in parts[1:]:  # in the order of ranks, so that all have the same bits
        whole.merge(part)
    return whole  # type: ignore[no-any-return]
