"""How averages outside of the kernel follow their parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyspectra.optim._fused import sharded
from pyspectra.optim._fused.averages import ema_decay_at
from pyspectra.optim._fused.tensors import state_dtype


def wide(p: Tensor) -> Tensor:
    """Return a copy of a parameter in the type of its average."""
    return p.detach().to(state_dtype(p), copy=True)


def laid_out(average: Tensor, p: Tensor) -> Tensor:
    """Return a copy of a saved average where its parameter is, and as that is sharded."""
    return sharded.laid_out(average.detach().to(p.device, state_dtype(p), copy=True), p)


def follow_all(shadow: dict[str, Tensor], params: Mapping[str, Tensor], weight: float) -> None:
    """Move the averages in `shadow` towards their parameters by a share of the way."""
    averages, weights = [], []
    with torch.no_grad():
        for name, p in params.items():
            if name not in shadow:
                continue
            average = shadow[name]
            if average.device != p.device:  # the model has moved
                average = shadow[name] = average.to(p.device)
            own, now = sharded.local(average), sharded.local(p.detach())
            if own.dtype is now.dtype:
                averages.append(own)
                weights.append(now)
            else:  # one at a time: a wide copy of all weights could be too much
                own.lerp_(now.to(own.dtype), weight)
        if averages:
            torch._foreach_lerp_(averages, weights, weight)


def most_steps(states: Iterable[Mapping[str, Any]]) -> int:
    """Return the steps of the parameter that has taken the most."""
    return max((int(state["step"]) for state in states if "step" in state), default=0)


def weight_at(group: Mapping[str, Any], taken: int) -> float:
    """Return the weight of the parameter in the average, 1 - decay, at a step counted from 1."""
    if taken % group["ema_every"]:
        return 0.0
    n = taken // group["ema_every"] - 1
    return 1.0 - ema_decay_at(group["ema_decay"], group["ema_warmup"], n)


def device_weight_at(group: Mapping[str, Any], taken: Tensor) -> Tensor:
    """Do as `weight_at` with a count that stays on its device: nothing waits for it."""
    n = (taken // group["ema_every"] - 1).double()
    decay = torch.full_like(n, group["ema_decay"])
    if group["ema_warmup"] == "tf":
        decay = torch.minimum(decay, (1.0 + n) / (10.0 + n))
    elif group["ema_warmup"] == "power":
        decay = torch.minimum(decay, 1.0 - (1.0 + n) ** (-2.0 / 3.0))
    return torch.where(taken % group["ema_every"] == 0, 1.0 - decay, torch.zeros_like(decay))


def follow(
    groups: Iterable[Mapping[str, Any]],
    state_of: Mapping[Tensor, Mapping[str, Any]],
    taken: int | Tensor,
    found_inf: Tensor | None = None,
) -> None:
    """Let the averages of parameters without a gradient take part in a step.

    Parameters
    ----------
    groups : iterable
        The optimizer's groups.
    state_of : mapping
        The states of its parameters. One that has taken no step is its own average.
    taken : int or Tensor
        Steps of the optimizer, this one included; a tensor where the device counts.
    found_inf : Tensor, optional
        Says on the device, where it is not 0, that this step was left out.
    """
    for group in groups:
        if group["ema_decay"] is None:
            continue
        still = [p for p in group["params"] if p.grad is None and "ema" in state_of.get(p, {})]
        if not still:
            continue
        weight: float | Tensor
        if isinstance(taken, Tensor):
            weight = device_weight_at(group, taken)
            if found_inf is not None:
                weight = torch.where(found_inf.to(weight.device) == 0, weight, 0.0)
        else:
            weight = weight_at(group, taken)
        for p in still:
            state = state_of[p]
            average = sharded.local(state["ema"])
            now = sharded.local(state["master"] if "master" in state else p.detach())
            share = weight.to(average) if isinstance(weight, Tensor) else weight
            average.lerp_(now.to(average.dtype), share)
