"""The rates of a scheduler of torch at any step, without touching its optimizer."""

from __future__ import annotations

import copy
import warnings
from typing import Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pyspectra.errors import ArgumentTypeError, ArgumentValueError

_FUNCTION, _ARGUMENT = "ScheduleWrapper", "schedule"


class _Groups:
    """What a scheduler needs of an optimizer: groups whose rates it sets."""

    _opt_called = True

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = [
            {**{k: x for k, x in group.items() if k != "params"}, "lr": float(group["lr"])}
            for group in groups
        ]

    def step(self) -> None:
        """Be there: schedulers look whether it was called."""

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


class Simulated:
    """A fresh scheduler, asked for the rates of any step.

    Parameters
    ----------
    schedule : LRScheduler
        At its first step; most know only how to go on from there.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it goes by something else than the step, moves more than the rates, or has taken steps.
    """

    def __init__(self, schedule: LRScheduler) -> None:
        if isinstance(schedule, ReduceLROnPlateau):
            raise ArgumentTypeError(
                _FUNCTION, _ARGUMENT, "go by the step", "ReduceLROnPlateau, which goes by a metric"
            )
        if getattr(schedule, "cycle_momentum", False):
            raise ArgumentValueError(
                _FUNCTION,
                _ARGUMENT,
                "move the rates alone",
                f"{type(schedule).__name__} with cycle_momentum=True",
                "cycle_momentum=False",
            )
        if getattr(schedule, "last_epoch", 0) > 0:
            raise ArgumentValueError(
                _FUNCTION,
                _ARGUMENT,
                "be at its first step",
                f"one at step {schedule.last_epoch}",
                "load the state of the wrapper instead",
            )
        optimizer = schedule.optimizer
        self._fresh = copy.deepcopy(schedule, {id(optimizer): _Groups(optimizer.param_groups)})
        self._restart()

    def _restart(self) -> None:
        self._now: Any = copy.deepcopy(self._fresh)
        self._step = 0

    def __call__(self, step: int, group: int) -> float:
        """Return the rate of a group at a step."""
        if step < self._step:
            self._restart()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about the order of calls
            while self._step < step:
                self._now.step()
                self._step += 1
        return float(self._now.optimizer.param_groups[group]["lr"])
