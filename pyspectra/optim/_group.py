"""Hyper-parameters of a parameter group: their checks, and what they come to at a given step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pyspectra import ops

RULES = {"torch": "adamw", "alicemind": "adamw_alicemind"}
_CODES = ops.optim_rule_names()


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)  # also a one-element tensor, as torch allows for lr
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"ChildAdamW: {name!r} must be a number, got {value!r}.") from error
    if isinstance(value, bool):
        raise TypeError(f"ChildAdamW: {name!r} must be a number, got {value!r}.")
    return number


def _require(condition: bool, name: str, requirement: str, value: object) -> None:
    if not condition:
        raise ValueError(f"ChildAdamW: {name!r} must be {requirement}, got {value!r}.")


def _whole(name: str, value: object, low: int, high: int, requirement: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"ChildAdamW: {name!r} must be {requirement}, got {value!r}.")
    _require(low <= value < high, name, requirement, value)


def check_group(group: Mapping[str, Any]) -> None:
    """Check the hyper-parameters of one group.

    Raises
    ------
    ValueError, TypeError
        Naming the argument.
    """
    for name in ("lr", "eps", "weight_decay"):
        value = _number(name, group[name])
        _require(0.0 <= value < math.inf, name, "finite and at least 0", group[name])
    betas = group["betas"]
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"ChildAdamW: 'betas' must be a pair of numbers, got {betas!r}.")
    for beta in betas:
        _require(0.0 <= _number("betas", beta) < 1.0, "betas", "in [0, 1)", betas)
    _require(group["mode"] in (None, "F", "D"), "mode", "None, 'F' or 'D'", group["mode"])
    _require(group["order"] in RULES, "order", "'torch' or 'alicemind'", group["order"])
    p = _number("reserve_p", group["reserve_p"])
    # Below 2^-17 the quantised probability would be zero, and 1/p infinite.
    _require(2.0**-17 < p <= 1.0, "reserve_p", "in (2^-17, 1]", group["reserve_p"])
    if group["ema_decay"] is not None:
        decay = _number("ema_decay", group["ema_decay"])
        _require(0.0 <= decay <= 1.0, "ema_decay", "None or in [0, 1]", group["ema_decay"])
    _require(group["ema_warmup"] in (None, "tf"), "ema_warmup", "None or 'tf'", group["ema_warmup"])
    _whole("ema_every", group["ema_every"], 1, 2**32, "a positive integer")
    _whole("seed", group["seed"], 0, 2**64, "an integer in [0, 2^64)")
    for name in ("decay_masked", "stochastic_rounding"):
        if not isinstance(group[name], bool):
            raise TypeError(f"ChildAdamW: {name!r} must be a bool, got {group[name]!r}.")


def ema_updates(group: Mapping[str, Any], step: int) -> bool:
    """Tell whether the moving average takes part in this step (counted from 1)."""
    return group["ema_decay"] is not None and step % int(group["ema_every"]) == 0


def ema_decay_at(decay: float, warmup: str | None, n: int) -> float:
    """Decay of the moving average at its update number `n`, counted from 0.

    Notes
    -----
    ``"tf"``: d(n) = min(decay, (1 + n) / (10 + n)), TensorFlow's
    ``ExponentialMovingAverage(num_updates=n)``. None: d(n) = decay.
    """
    return decay if warmup is None else min(decay, (1.0 + n) / (10.0 + n))


def keep_threshold(reserve_p: float) -> int:
    """Quantise a probability to units of 2^-16, at least one of them."""
    return max(1, round(reserve_p * 65536.0))


parameter_key = ops.random_key


def step_options(group: Mapping[str, Any], step: int, grad_scale: float) -> Any:
    """Hyper-parameters of a group at a step, as the kernel reads them."""
    decay = 1.0
    if ema_updates(group, step):
        n = step // int(group["ema_every"]) - 1
        decay = ema_decay_at(float(group["ema_decay"]), group["ema_warmup"], n)
    return ops.StepOptions(
        rule=_CODES[RULES[group["order"]]],
        lr=float(group["lr"]),
        beta1=float(group["betas"][0]),
        beta2=float(group["betas"][1]),
        eps=float(group["eps"]),
        weight_decay=float(group["weight_decay"]),
        step=step,
        grad_scale=grad_scale,
        keep=keep_threshold(float(group["reserve_p"])) if group["mode"] == "F" else 0,
        decay_masked=group["decay_masked"],
        ema_decay=decay,
        stochastic_rounding=group["stochastic_rounding"],
    )
