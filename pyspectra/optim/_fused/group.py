"""Hyper-parameters of a parameter group: their checks, and what they come to at a given step."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from pyspectra import ops
from pyspectra._support.random import Purpose, random_key

RULES = {"torch": "adamw", "alicemind": "adamw_alicemind"}
EMA_WARMUPS = ops.EMA_WARMUPS
MAX_SEED = 2**64


def number(owner: str, name: str, value: Any) -> float:
    """Return `value`, a number or a one-element tensor (as torch allows for lr), as a float."""
    try:
        out = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{owner}: {name!r} must be a number, got {value!r}.") from error
    if isinstance(value, bool):
        raise TypeError(f"{owner}: {name!r} must be a number, got {value!r}.")
    return out


def require(owner: str, condition: bool, name: str, requirement: str, value: object) -> None:
    """Raise ValueError unless `condition`."""
    if not condition:
        raise ValueError(f"{owner}: {name!r} must be {requirement}, got {value!r}.")


def _not_negative(owner: str, name: str, value: Any) -> None:
    inside = 0.0 <= number(owner, name, value) < math.inf
    require(owner, inside, name, "finite and at least 0", value)


def _betas(owner: str, name: str, value: Any) -> None:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{owner}: {name!r} must be a pair of numbers, got {value!r}.")
    for beta in value:
        require(owner, 0.0 <= number(owner, name, beta) < 1.0, name, "in [0, 1)", value)


def _mode(owner: str, name: str, value: Any) -> None:
    require(owner, value in (None, "F", "D"), name, "None, 'F' or 'D'", value)


def _order(owner: str, name: str, value: Any) -> None:
    require(owner, value in RULES, name, "'torch' or 'alicemind'", value)


def _reserve_p(owner: str, name: str, value: Any) -> None:
    # Below 2^-17 the quantised probability would be zero, and 1/p infinite.
    inside = 2.0**-17 < number(owner, name, value) <= 1.0
    require(owner, inside, name, "in (2^-17, 1]", value)


def _ema_decay(owner: str, name: str, value: Any) -> None:
    if value is not None:
        inside = 0.0 <= number(owner, name, value) <= 1.0
        require(owner, inside, name, "None or in [0, 1]", value)


def _ema_warmup(owner: str, name: str, value: Any) -> None:
    require(owner, value in EMA_WARMUPS, name, "None, 'tf' or 'power'", value)


def _whole(low: int, high: int, requirement: str) -> Callable[[str, str, Any], None]:
    def check(owner: str, name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{owner}: {name!r} must be {requirement}, got {value!r}.")
        require(owner, low <= value < high, name, requirement, value)

    return check


def flag(owner: str, name: str, value: Any) -> None:
    """Raise TypeError unless `value` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{owner}: {name!r} must be a bool, got {value!r}.")


_CHECKS: dict[str, Callable[[str, str, Any], object]] = {
    "lr": _not_negative,
    "eps": _not_negative,
    "weight_decay": _not_negative,
    "momentum": _not_negative,
    "dampening": number,
    "betas": _betas,
    "mode": _mode,
    "order": _order,
    "reserve_p": _reserve_p,
    "ema_decay": _ema_decay,
    "ema_warmup": _ema_warmup,
    "ema_every": _whole(1, 2**32, "a positive integer"),
    "seed": _whole(0, MAX_SEED, "an integer in [0, 2^64)"),
    "nesterov": flag,
    "decay_masked": flag,
    "compact": flag,
    "stochastic_rounding": flag,
    "master_weights": flag,
}

_NOT_OF_GROUPS = ("mask", "max_grad_norm", "statistics")


def check_group(owner: str, group: Mapping[str, Any]) -> None:
    """Check the hyper-parameters of one group of the class `owner`.

    Raises
    ------
    ValueError, TypeError
        Naming the argument.
    """
    for name in _NOT_OF_GROUPS:
        if name in group:
            raise ValueError(f"{owner}: {name!r} must be given to the optimizer, not to a group.")
    for name, check in _CHECKS.items():
        if name in group:
            check(owner, name, group[name])
    if group.get("compact") and group.get("mode") != "D":
        raise ValueError(
            f"{owner}: 'compact' must come with mode='D', got mode={group.get('mode')!r}."
        )
    if group.get("nesterov") and (float(group["momentum"]) <= 0 or float(group["dampening"]) != 0):
        raise ValueError(
            f"{owner}: 'nesterov' must come with a positive momentum and no dampening, got "
            f"momentum={group['momentum']!r}, dampening={group['dampening']!r}."
        )


def check_whole(owner: str, max_grad_norm: Any, statistics: Any) -> None:
    """Check what holds for all groups of an optimizer of the class `owner`.

    Raises
    ------
    ValueError, TypeError
        Naming the argument.
    """
    if max_grad_norm is not None:
        positive = number(owner, "max_grad_norm", max_grad_norm) > 0
        require(owner, positive, "max_grad_norm", "None or positive", max_grad_norm)
    flag(owner, "statistics", statistics)


def ema_decay_at(
    decay: float, warmup: str | None, n: int, *, power: float = 2.0 / 3.0, inv_gamma: float = 1.0
) -> float:
    """Decay of the moving average at its update number `n`, counted from 0.

    Notes
    -----
    ``"tf"``: d(n) = min(decay, (1 + n) / (10 + n)), TensorFlow's
    ``ExponentialMovingAverage(num_updates=n)``. ``"power"``: d(n) = min(decay,
    1 - (1 + n / inv_gamma)^-power), ``EMAWarmup`` of k-diffusion. None: d(n) = decay.
    """
    # csrc/optim/scalars.inl.hpp has the kernel's (a test compares the two): torch.compile cannot
    # trace into that one.
    if warmup == "tf":
        return min(decay, (1.0 + n) / (10.0 + n))
    if warmup == "power":
        return min(decay, 1.0 - math.pow(1.0 + n / inv_gamma, -power))
    return decay


def keep_threshold(reserve_p: float) -> int:
    """Quantise a probability to units of 2^-16, at least one of them."""
    return max(1, round(reserve_p * 65536.0))


def parameter_key(seed: int, name: str) -> int:
    """64-bit key of the random numbers of one parameter: of seed and name alone."""
    return random_key(Purpose.STEP, seed, name)


# What torch.compile puts before the names of a module, wherever that is in the model.
_COMPILED = re.compile(r"(?<![^.])_orig_mod\.")


def plain_names(names: list[str]) -> list[str]:
    """Take the prefixes of torch.compile and DistributedDataParallel off the names of a model.

    Random masks belong to names: they must be those of the plain model. A wrapper goes around all
    of a model, so ``module.`` is left where it is not before every name.
    """
    plain = [_COMPILED.sub("", name) for name in names]
    while plain and all(name.startswith("module.") for name in plain):
        plain = [_COMPILED.sub("", name.removeprefix("module.")) for name in plain]
    return plain if len({*plain}) == len(names) else names


def is_random(group: Mapping[str, Any]) -> bool:
    """Tell whether a step draws random numbers."""
    return group.get("mode") == "F" or bool(group["stochastic_rounding"])


def _host_lr(lr: Any) -> float:
    # One on a device is read there: to read it here would wait for the device.
    return 0.0 if getattr(lr, "is_cuda", False) else float(lr)


def step_options(rule: str, group: Mapping[str, Any], step: int, grad_scale: float) -> Any:
    """Hyper-parameters of a group at a step (counted from 1), as the kernel reads them."""
    values: dict[str, Any] = {}
    if group["ema_decay"] is not None:
        values["ema_decay"] = float(group["ema_decay"])
        values["ema_warmup"] = EMA_WARMUPS[group["ema_warmup"]]
        values["ema_every"] = group["ema_every"]
    if "betas" in group:
        values["beta1"], values["beta2"] = map(float, group["betas"])
        values["eps"] = float(group["eps"])
    else:
        values["momentum"] = float(group["momentum"])
        values["dampening"] = float(group["dampening"])
        values["nesterov"] = group["nesterov"]
    if group.get("mode") == "F":
        values["keep"] = keep_threshold(float(group["reserve_p"]))
    return ops.StepOptions(
        rule=ops.OPTIM_RULES[rule].code,
        lr=_host_lr(group["lr"]),
        weight_decay=float(group["weight_decay"]),
        step=step,
        grad_scale=grad_scale,
        decay_masked=group.get("decay_masked", True),
        stochastic_rounding=group["stochastic_rounding"],
        **values,
    )
