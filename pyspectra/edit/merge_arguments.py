"""What `merge` is given, besides models: its method and the numbers that go with it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from typing import Any, Final

from pyspectra._arrays import is_torch_module
from pyspectra._support.arguments import (
    as_number,
    check_choice,
    check_flag,
    check_number,
    check_probability,
    check_seed,
    shown,
)
from pyspectra.edit.merge_job import Settings
from pyspectra.edit.merge_methods import METHODS, MergeMethod
from pyspectra.errors import ArgumentTypeError, ArgumentValueError

__all__ = ["SCOPES", "check_models", "check_settings"]

_FUNCTION: Final = "merge"
# Among what the largest numbers are looked for.
SCOPES: Final = ("tensor", "global")


def check_models(models: Any) -> list[Any]:
    """Return the models to merge as a list.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is one model, no sequence, or empty.
    """
    single = is_torch_module(models) or isinstance(models, Mapping | str | os.PathLike)
    if single or not isinstance(models, Sequence):
        hint = "a single one goes into a list, too" if single else None
        got = f"an object of type {type(models).__name__}"
        raise ArgumentTypeError(_FUNCTION, "models", "be a sequence of models", got, hint)
    if not models:
        raise ArgumentValueError(_FUNCTION, "models", "hold a model", "none")
    return list(models)


def check_settings(
    count: int,
    method: Any,
    *,
    weights: Any,
    density: Any,
    scale: Any,
    normalize: Any,
    scope: Any,
    seed: Any,
) -> Settings:
    """Return how `count` models are to be merged.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If something is of the wrong kind or range, or goes with another method.
    """
    name = check_choice(_FUNCTION, "method", method, tuple(m.name for m in METHODS))
    (record,) = (m for m in METHODS if m.name == name)
    _check_goes_with(record, "density", density, ("largest", "random"))
    _check_goes_with(record, "scope", scope, ("largest",))
    _check_goes_with(record, "seed", seed, ("random",))
    given = [1.0] * count if weights is None else _one_each("weights", weights, count)
    values = tuple(check_number(_FUNCTION, "weights", weight) for weight in given)
    if not any(values):
        raise ArgumentValueError(_FUNCTION, "weights", "not all be 0", repr(list(values)))
    if density is None:
        shares: list[Any] = [record.density] * count
    elif as_number(density) is not None:
        shares = [density] * count
    else:
        shares = _one_each("density", density, count)
    if normalize is not None:
        normalize = check_flag(_FUNCTION, "normalize", normalize)
    return Settings(
        method=record,
        weights=values,
        densities=tuple(check_probability(_FUNCTION, "density", share) for share in shares),
        scale=check_number(_FUNCTION, "scale", scale),
        is_mean=record.is_mean
        if normalize is None
        else check_flag(_FUNCTION, "normalize", normalize),
        scope=_scope(scope),
        seed=0 if seed is None else check_seed(_FUNCTION, "seed", seed),
    )


def _scope(scope: Any) -> str:
    return "tensor" if scope is None else check_choice(_FUNCTION, "scope", scope, SCOPES)


def _check_goes_with(record: MergeMethod, argument: str, value: Any, kept: Sequence[str]) -> None:
    if value is not None and record.keeps not in kept:
        methods = " or ".join(repr(m.name) for m in METHODS if m.keeps in kept)
        got = f"{shown(value)} with {record.name!r}"
        raise ArgumentValueError(_FUNCTION, argument, f"go with method {methods}", got)


def _one_each(argument: str, values: Any, count: int) -> list[Any]:
    try:
        if isinstance(values, Set | Mapping | str):  # without an order, or without numbers
            raise TypeError
        given = list(values)
    except TypeError as error:
        got = f"an object of type {type(values).__name__}"
        raise ArgumentTypeError(_FUNCTION, argument, "be a sequence of numbers", got) from error
    if len(given) != count:
        requirement = f"have one number for each of the {count} models"
        raise ArgumentValueError(_FUNCTION, argument, requirement, str(len(given)))
    return given
