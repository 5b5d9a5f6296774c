"""A schedule around another one: later, slower, or never below a rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from pyspectra._support.arguments import check_count, check_number
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.optim.schedule_base import ScheduleLR
from pyspectra.optim.simulated_schedule import Simulated

__all__ = ["ScheduleWrapper"]


class ScheduleWrapper(ScheduleLR):
    """A schedule that starts late, moves every few steps, or never falls below a rate.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        As for any scheduler.
    schedule : callable or scheduler
        A function of the step that returns a factor; or a scheduler over the same optimizer, of
        this package or of torch, which is asked for values only: step the wrapper alone. Not
        ``ReduceLROnPlateau``, which goes by a metric.
    start : int
        Until this step the schedule stays at its value at 0.
    duration : int
        Training steps that make one step of the schedule.
    minimum : float
        Absolute rate below which no group falls, warm-up included.
    last_epoch : int
        Number of the last step, as in torch: -1 for a new run.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    ``lr(s) = max(schedule(max(s - start, 0) // duration), minimum)``: ``ScheduleWrapper`` of
    OpenNMT-tf. The state holds the numbers, not the schedule: resume with the same one, made anew.
    A scheduler of torch knows its rates only one after the other: a copy of it walks through them
    on groups of its own.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import NoamLR, ScheduleWrapper
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> noam = NoamLR(optimizer, model_dim=4, warmup_steps=2)
    >>> schedule = ScheduleWrapper(optimizer, noam, minimum=0.2)
    >>> rates = []
    >>> for _ in range(8):
    ...     rates.append(round(schedule.get_last_lr()[0], 3))
    ...     optimizer.step()
    ...     schedule.step()
    >>> rates
    [0.2, 0.354, 0.289, 0.25, 0.224, 0.204, 0.2, 0.2]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Callable[[int], float] | LRScheduler,
        *,
        start: int = 0,
        duration: int = 1,
        minimum: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        start = check_count("ScheduleWrapper", "start", start, least=0)
        duration = check_count("ScheduleWrapper", "duration", duration)
        minimum = check_number("ScheduleWrapper", "minimum", minimum, least=0.0)
        self._inner: Callable[[int, int], float]
        if isinstance(schedule, LRScheduler) and schedule.optimizer is not optimizer:
            raise ArgumentValueError(
                "ScheduleWrapper", "schedule", "be over the same optimizer", "one over another"
            )
        if isinstance(schedule, ScheduleLR):
            self._inner = schedule.rate
        elif isinstance(schedule, LambdaLR):
            factors = schedule.lr_lambdas
            self._inner = lambda step, group: (
                float(self.base_lrs[group]) * float(factors[group](step))
            )
        elif isinstance(schedule, LRScheduler):
            self._inner = Simulated(schedule)
        elif callable(schedule):
            factor = schedule
            self._inner = lambda step, group: (
                float(self.base_lrs[group]) * _number(factor(step), step)
            )
        else:
            raise ArgumentTypeError(
                "ScheduleWrapper",
                "schedule",
                "be a function of the step or a scheduler",
                f"an object of type {type(schedule).__name__}",
            )
        arguments = {"start": start, "duration": duration, "minimum": minimum}
        super().__init__(optimizer, arguments, last_epoch)

    def rate(self, step: int, group: int) -> float:
        """Learning rate of a group at a step."""
        inner = max(step - self.arguments["start"], 0) // self.arguments["duration"]
        rate = self._inner(inner, group)
        if not math.isfinite(rate):
            raise ArgumentValueError(
                "ScheduleWrapper", "schedule", "give finite numbers", f"{rate} at step {inner}"
            )
        return max(rate, float(self.arguments["minimum"]))


def _number(value: Any, step: int) -> float:
    """Return what a schedule gives at a step, if it is a number."""
    try:
        if isinstance(value, str):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentTypeError(
            "ScheduleWrapper", "schedule", "return a number", f"{value!r} at step {step}"
        ) from None
