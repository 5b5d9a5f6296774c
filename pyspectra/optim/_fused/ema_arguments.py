"""What an `EMA` is made from, and the checks of its arguments and states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyspectra._support.arguments import as_integer, check_number
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.optim._fused.names import plain_names
from pyspectra.optim._fused.wrappers import innermost


def of_power_warmup(name: str, value: float | None, default: float, warmup: str | None) -> float:
    """Return a parameter of ``warmup="power"``, which no other warm-up has."""
    if value is None:
        return default
    number = check_number("EMA", name, value, above=0.0)
    if warmup != "power":
        raise ArgumentValueError("EMA", name, "come with warmup='power'", f"warmup={warmup!r}")
    return number


def named(model_or_params: Any) -> dict[str, Tensor]:
    """Return the parameters by name, those that are frozen now included.

    Raises
    ------
    TypeError, ValueError
        If it is neither a module nor floating-point parameters, or there are none.
    """
    params: dict[str, Tensor]
    if isinstance(model_or_params, torch.nn.Module):
        params = {k: p for k, p in model_or_params.named_parameters() if p.is_floating_point()}
        got = f"a {type(model_or_params).__name__} without any"
    else:
        params, got = _of_iterable(model_or_params), "none"
    if not params:
        raise ArgumentValueError("EMA", "model_or_params", "have parameters to average", got)
    return dict(zip(plain_names([*params]), params.values(), strict=True))


def _of_iterable(given: Any) -> dict[str, Tensor]:
    if isinstance(given, Tensor) or not isinstance(given, Iterable):
        raise ArgumentTypeError(
            "EMA",
            "model_or_params",
            "be a module or an iterable of parameters",
            f"an object of type {type(given).__name__}",
        )
    params: dict[str, Tensor] = {}
    seen = set[int]()
    for i, item in enumerate(given):
        name, p = item if isinstance(item, tuple) else (str(i), item)
        if not isinstance(p, Tensor) or not p.is_floating_point():
            what = p.dtype if isinstance(p, Tensor) else f"an object of type {type(p).__name__}"
            raise ArgumentTypeError(
                "EMA", "model_or_params", "hold floating-point tensors", f"{what} for {name!r}"
            )
        if name in params or id(p) in seen:
            raise ArgumentValueError(
                "EMA", "model_or_params", "hold each parameter once", f"{name!r} twice"
            )
        params[name] = p
        seen.add(id(p))
    return params


def buffers_of(model_or_params: Any) -> dict[str, Tensor]:
    """Return the floating-point buffers of a model by name.

    Raises
    ------
    TypeError
        If it is no module.
    """
    if not isinstance(model_or_params, torch.nn.Module):
        raise ArgumentTypeError(
            "EMA",
            "model_or_params",
            "be a module where its buffers are averaged too",
            f"an object of type {type(model_or_params).__name__}",
        )
    found = {k: b for k, b in model_or_params.named_buffers() if b.is_floating_point()}
    return dict(zip(plain_names([*found]), found.values(), strict=True))


def moving(optimizers: Iterable[Any], params: Mapping[str, Tensor]) -> list[Optimizer]:
    """Return the torch optimizers inside what was given; each must move some of the parameters.

    Raises
    ------
    TypeError, ValueError
        If one is no optimizer of torch, or moves none of the parameters.
    """
    own = {id(p) for p in params.values()}
    found = []
    for given in optimizers:
        optimizer = innermost(given)
        if not isinstance(optimizer, Optimizer):
            raise ArgumentTypeError(
                "EMA.attach",
                "optimizer",
                "be a torch.optim.Optimizer",
                f"an object of type {type(given).__name__}",
            )
        if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
            raise ArgumentValueError(
                "EMA.attach",
                "optimizer",
                "move at least one of the averaged parameters",
                "none",
                "make EMA and optimizer from the same model object",
            )
        found.append(optimizer)
    return found


def plain_state(
    function: str, state_dict: Any, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return a state of an `EMA` over these parameters, under the names of the plain model.

    Parameters
    ----------
    function : str
        The public function that was given the state.
    state_dict : mapping
        What ``EMA.state_dict`` returned.
    params : mapping
        The parameters that can have an average.
    buffers : mapping
        The averaged buffers.

    Returns
    -------
    dict
        ``steps`` (a list, one count an optimizer), ``shadow``, ``frozen`` and ``buffers``.

    Raises
    ------
    TypeError, ValueError
        If it is no such state; the message says what is wrong.
    """
    if not isinstance(state_dict, Mapping):
        raise ArgumentTypeError(
            function, "state_dict", "be a mapping", f"an object of type {type(state_dict).__name__}"
        )
    if not {"steps", "shadow"} <= set(state_dict) <= {"steps", "shadow", "frozen", "buffers"}:
        raise ArgumentValueError(
            function,
            "state_dict",
            "have steps and shadow",
            str(sorted(map(str, state_dict))),
            "a state loads into the class that made it",
        )
    given = state_dict["steps"]
    steps = [*map(as_integer, given)] if isinstance(given, list) else [as_integer(given)]
    if not steps or any(n is None or n < 0 for n in steps):
        raise ArgumentValueError(function, "steps", "be an integer of at least 0", repr(given))
    shadow = _tensors(function, "shadow", state_dict["shadow"], params)
    frozen = [*plain_names([*map(str, state_dict.get("frozen", ()))])]
    averaged = _tensors(function, "buffers", state_dict.get("buffers", {}), buffers)
    missing = {k for k, p in params.items() if p.requires_grad} - {*shadow, *frozen}
    odd = sorted({*shadow} - {*params}, key=str) or sorted(missing)
    if odd:
        raise ArgumentValueError(
            function,
            "state_dict",
            "name the averaged parameters",
            f"{len(shadow)} names for {len(params)}, of which {odd[0]!r} is in one only",
        )
    if {*averaged} - {*buffers}:
        raise ArgumentValueError(
            function,
            "state_dict",
            "have averages of the same buffers",
            f"one of {min({*averaged} - {*buffers})!r}",
            "EMA(model, buffers=True) averages buffers too",
        )
    return {"steps": steps, "shadow": shadow, "frozen": frozen, "buffers": averaged}


def _tensors(
    function: str, argument: str, given: Any, own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return averages by plain name; those that have a parameter must fit it."""
    if not isinstance(given, Mapping):
        raise ArgumentTypeError(
            function,
            argument,
            "map names to averages",
            f"an object of type {type(given).__name__}",
        )
    found = dict(zip(plain_names([*map(str, given)]), given.values(), strict=True))
    for name, average in found.items():
        if not isinstance(average, Tensor) or not average.is_floating_point():
            got = average.dtype if isinstance(average, Tensor) else f"a {type(average).__name__}"
            requirement = f"map {name!r} to a floating-point tensor"
            raise ArgumentTypeError(function, argument, requirement, str(got))
        if name in own and tuple(average.shape) != tuple(own[name].shape):
            requirement = f"map {name!r} to a tensor of shape {tuple(own[name].shape)}"
            raise ArgumentValueError(function, argument, requirement, str(tuple(average.shape)))
    return found
