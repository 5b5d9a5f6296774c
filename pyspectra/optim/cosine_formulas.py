"""The cosine schedules: their formulas, and ``LambdaLR`` builders over them.

A formula is a factor on a group's own rate; see :mod:`pyspectra.optim.schedules`.
"""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.optim.formulas import build, checked

__all__ = [
    "cosine_annealing",
    "cosine_with_warmup",
    "floors",
    "get_cosine_annealing_schedule",
    "get_cosine_schedule_with_warmup",
]


def cosine_with_warmup(
    step: int, *, warmup_steps: int, total_steps: int, cycles: float = 0.5, floor: float = 0.0
) -> float:
    """Linear warm-up from 0 to 1, then a cosine: ``max(0, (1 + cos(2 pi cycles x)) / 2)``.

    With a `floor` it is ``floor + (1 - floor)`` times that. x is the share of the steps after
    warm-up that are done. Half a cycle ends at `floor`. Loshchilov and Hutter 2017, arXiv
    1608.03983; the function of Hugging Face transformers, except that after `total_steps` the
    factor stays where it is, where theirs rises again.
    """
    if step < warmup_steps:
        return step / warmup_steps
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return floor + (1.0 - floor) * max(0.0, 0.5 * (1.0 + math.cos(2.0 * math.pi * cycles * done)))


def cosine_annealing(
    step: int, *, max_step: int, warmup_steps: int = 0, floor: float = 0.0
) -> float:
    """Cosine over all steps, ``floor + (1 - floor) (1 + cos(pi step / max_step)) / 2``.

    Before `warmup_steps` it is ``step / warmup_steps`` instead; the cosine does not wait for that,
    so that the rate falls a little where the warm-up ends. ``CosineAnnealing`` of OpenNMT-tf,
    except that after `max_step` the factor stays at `floor`, where theirs rises again.
    """
    if step < warmup_steps:
        return step / warmup_steps
    done = min(step, max_step) / max_step
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * done))


def floors(function: str, optimizer: Any, minimum: float) -> list[float]:
    """Return an absolute minimum as a share of the rate of each group.

    Raises
    ------
    ArgumentValueError
        If a group has a rate below it.
    """
    groups = getattr(optimizer, "param_groups", [])  # what is no optimizer is refused by others
    rates = [float(group.get("initial_lr", group["lr"])) for group in groups]
    for rate in rates:
        if minimum > rate:
            requirement = f"be at most the rate of each group, {rate:g}"
            raise ArgumentValueError(function, "minimum", requirement, f"{minimum:g}")
    return [minimum / rate if rate else 0.0 for rate in rates]


def get_cosine_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    num_cycles: float | None = None,
    last_epoch: int = -1,
    *,
    warmup_steps: int | None = None,
    total_steps: int | None = None,
    cycles: float | None = None,
    minimum: float = 0.0,
) -> LambdaLR:
    """Build a ``LambdaLR`` of torch from the formula :func:`cosine_with_warmup`.

    The arguments are those of the function of this name in Hugging Face transformers; each may be
    given by the name that `CosineWarmupLR` has for it instead.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Made with the rate of the peak.
    num_warmup_steps, warmup_steps : int
        Steps of linear warm-up; 0 for none.
    num_training_steps, total_steps : int
        All steps, the warm-up included.
    num_cycles, cycles : float, optional
        Waves of the cosine after the warm-up; half a wave, the default, ends at `minimum`.
    last_epoch : int
        Number of the last step, as in torch: -1 for a new run.
    minimum : float
        Absolute rate at which the cosine ends.

    Returns
    -------
    torch.optim.lr_scheduler.LambdaLR
        A scheduler whose `step` is to be called after each step of the optimizer.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, is missing, or comes by both names.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import get_cosine_schedule_with_warmup
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> schedule = get_cosine_schedule_with_warmup(optimizer, 2, 6)
    >>> [round(schedule.lr_lambdas[0](step), 4) for step in range(7)]
    [0.0, 0.5, 1.0, 0.8536, 0.5, 0.1464, 0.0]
    """
    name = "get_cosine_schedule_with_warmup"
    theirs = {
        "warmup_steps": ("num_warmup_steps", num_warmup_steps, warmup_steps),
        "total_steps": ("num_training_steps", num_training_steps, total_steps),
        "cycles": ("num_cycles", num_cycles, 0.5 if cycles is num_cycles is None else cycles),
    }
    given: dict[str, Any] = {}
    renamed: dict[str, str] = {}
    for own, (other, first, second) in theirs.items():
        if (first is None) == (second is None):
            got = "none" if first is None else f"another one as {own!r}"
            raise ArgumentTypeError(name, other, "be given once", got)
        given[own] = second if first is None else first
        if first is not None:
            renamed[own] = other
    with called_as(name, **renamed):
        values = checked(name, cosine_with_warmup, **given, minimum=minimum)
    floor = floors(name, optimizer, values.pop("minimum"))
    return build(optimizer, cosine_with_warmup, values, last_epoch, floor=floor)


def get_cosine_annealing_schedule(
    optimizer: Optimizer,
    *,
    max_step: int = 1_000_000,
    warmup_steps: int = 0,
    minimum: float = 0.0,
    last_epoch: int = -1,
) -> LambdaLR:
    """Build a ``LambdaLR`` of torch from the formula :func:`cosine_annealing`.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Made with the greatest rate.
    max_step : int
        The step at which the cosine ends.
    warmup_steps : int
        Steps of linear warm-up from 0, during which the cosine goes on unseen.
    minimum : float
        Absolute rate at which the cosine ends.
    last_epoch : int
        Number of the last step, as in torch: -1 for a new run.

    Returns
    -------
    torch.optim.lr_scheduler.LambdaLR
        A scheduler whose `step` is to be called after each step of the optimizer.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import get_cosine_annealing_schedule
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> schedule = get_cosine_annealing_schedule(optimizer, max_step=4, minimum=0.02)
    >>> [round(schedule.lr_lambdas[0](step), 4) for step in range(6)]
    [1.0, 0.8828, 0.6, 0.3172, 0.2, 0.2]
    """
    name = "get_cosine_annealing_schedule"
    values = checked(
        name, cosine_annealing, max_step=max_step, warmup_steps=warmup_steps, minimum=minimum
    )
    floor = floors(name, optimizer, values.pop("minimum"))
    return build(optimizer, cosine_annealing, values, last_epoch, floor=floor)
