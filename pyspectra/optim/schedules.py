"""Learning-rate schedules as schedulers of torch.

A schedule is a factor on the learning rate that each parameter group was made with, as torch's
``LambdaLR`` has it: groups keep their ratios. Where the literature computes an absolute rate
(Noam, rsqrt, RNMT+), make the optimizer with ``lr=1.0`` and say `scale`, or with ``lr=scale``.
Steps count from zero: the factor at s is the one of the (s+1)-th ``optimizer.step()``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from pyspectra._support.arguments import check_count, check_number
from pyspectra.optim.formulas import (
    Formula,
    checked,
    cosine_with_warmup,
    get_cosine_schedule_with_warmup,
    get_inv_sqrt_schedule,
    get_noam_schedule,
    get_rnmtplus_schedule,
    get_rsqrt_schedule,
    inv_sqrt,
    noam,
    rnmtplus,
    rsqrt,
)

__all__ = [
    "CosineWarmupLR",
    "InvSqrtLR",
    "NoamLR",
    "RNMTPlusLR",
    "RsqrtLR",
    "ScheduleWrapper",
    "get_cosine_schedule_with_warmup",
    "get_inv_sqrt_schedule",
    "get_noam_schedule",
    "get_rnmtplus_schedule",
    "get_rsqrt_schedule",
]

# --- schedulers ---------------------------------------------------------------------------------


class _ScheduleLR(LRScheduler):
    """Sets every group's rate from the step alone, so that a resumed run meets the same ones."""

    arguments: dict[str, Any]

    def __init__(self, optimizer: Optimizer, arguments: dict[str, Any], last_epoch: int) -> None:
        self.arguments = arguments
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, group: int) -> float:
        """Learning rate of a group at a step.

        Parameters
        ----------
        step : int
            From zero.
        group : int
            Position in ``optimizer.param_groups``.

        Returns
        -------
        float
            The absolute rate.
        """
        raise NotImplementedError

    def get_lr(self) -> list[float | Tensor]:
        """Learning rates of the groups at the current step."""
        return [self.rate(self.last_epoch, i) for i in range(len(self.base_lrs))]

    def state_dict(self) -> dict[str, Any]:
        """Return the state: numbers alone, so that ``torch.load(weights_only=True)`` reads it."""
        return {
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "base_lrs": [float(lr) for lr in self.base_lrs],
            "_last_lr": [float(lr) for lr in self._last_lr],
            "arguments": dict(self.arguments),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a state, arguments included, and set the rates of the groups.

        torch's schedulers leave the rates to the optimizer's state. Setting them here as well
        makes the order in which the two are made and loaded irrelevant.

        Parameters
        ----------
        state_dict : dict
            From :meth:`state_dict` of the same class, over as many groups.

        Raises
        ------
        ValueError
            If it is not such a state.
        """
        name = f"{type(self).__name__}.load_state_dict"
        own = self.state_dict()
        if set(state_dict) != set(own) or set(state_dict["arguments"]) != set(self.arguments):
            raise ValueError(f"{name}: 'state_dict' must be the state of a {type(self).__name__}.")
        groups = len(self.optimizer.param_groups)
        if len(state_dict["base_lrs"]) != groups:
            raise ValueError(
                f"{name}: 'state_dict' must have the {groups} parameter groups of the optimizer, "
                f"got {len(state_dict['base_lrs'])}."
            )
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        self.base_lrs = list(state_dict["base_lrs"])
        self._last_lr = list(state_dict["_last_lr"])
        self.arguments = dict(state_dict["arguments"])
        for group, base, rate in zip(
            self.optimizer.param_groups, self.base_lrs, self._last_lr, strict=True
        ):
            group["initial_lr"] = base
            if isinstance(group["lr"], Tensor):
                # A captured graph reads this very tensor.
                group["lr"].fill_(rate)
            else:
                group["lr"] = float(rate)


class _FormulaLR(_ScheduleLR):
    formula: Formula

    def rate(self, step: int, group: int) -> float:
        return float(self.base_lrs[group]) * type(self).formula(step, **self.arguments)


class NoamLR(_FormulaLR):
    """Noam's schedule, see :func:`noam`.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Made with ``lr=1.0`` if the rate is to be `scale` times the formula, and no more.
    model_dim : int
        Width of the model.
    warmup_steps : int
        Steps until the peak, ``scale / sqrt(model_dim * warmup_steps)``.
    scale : float
        Factor.
    last_epoch : int
        As in torch.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """

    formula = staticmethod(noam)

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        model_dim: int,
        warmup_steps: int,
        scale: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        arguments = checked(
            "NoamLR", noam, model_dim=model_dim, warmup_steps=warmup_steps, scale=scale
        )
        super().__init__(optimizer, arguments, last_epoch)


class RsqrtLR(_FormulaLR):
    """Reciprocal square root of the step, constant before `warmup_steps`; see :func:`rsqrt`.

    Parameters as in :class:`NoamLR`.
    """

    formula = staticmethod(rsqrt)

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        warmup_steps: int,
        scale: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        arguments = checked("RsqrtLR", rsqrt, warmup_steps=warmup_steps, scale=scale)
        super().__init__(optimizer, arguments, last_epoch)


class InvSqrtLR(_FormulaLR):
    """Linear warm-up to the optimizer's rate, then inverse square root; see :func:`inv_sqrt`.

    Parameters as in :class:`NoamLR`; the optimizer's rate is the peak.
    """

    formula = staticmethod(inv_sqrt)

    def __init__(self, optimizer: Optimizer, *, warmup_steps: int, last_epoch: int = -1) -> None:
        arguments = checked("InvSqrtLR", inv_sqrt, warmup_steps=warmup_steps)
        super().__init__(optimizer, arguments, last_epoch)


class CosineWarmupLR(_FormulaLR):
    """Linear warm-up to the optimizer's rate, then a cosine; see :func:`cosine_with_warmup`.

    Parameters as in :class:`NoamLR`; `total_steps` includes the warm-up.
    """

    formula = staticmethod(cosine_with_warmup)

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        warmup_steps: int,
        total_steps: int,
        cycles: float = 0.5,
        last_epoch: int = -1,
    ) -> None:
        arguments = checked(
            "CosineWarmupLR",
            cosine_with_warmup,
            warmup_steps=warmup_steps,
            total_steps=total_steps,
            cycles=cycles,
        )
        super().__init__(optimizer, arguments, last_epoch)


class RNMTPlusLR(_FormulaLR):
    """The schedule of RNMT+, see :func:`rnmtplus`.

    Parameters as in :class:`NoamLR`; `num_replicas` is the number of data-parallel replicas,
    `start_step` and `end_step` bound the exponential decay.
    """

    formula = staticmethod(rnmtplus)

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        num_replicas: int,
        warmup_steps: int = 500,
        start_step: int = 600_000,
        end_step: int = 1_200_000,
        scale: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        arguments = checked(
            "RNMTPlusLR",
            rnmtplus,
            num_replicas=num_replicas,
            warmup_steps=warmup_steps,
            start_step=start_step,
            end_step=end_step,
            scale=scale,
        )
        super().__init__(optimizer, arguments, last_epoch)


class ScheduleWrapper(_ScheduleLR):
    """A schedule that starts late, moves every few steps, or never falls below a rate.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        As for any scheduler.
    schedule : callable, scheduler of this module, or LambdaLR
        A function of the step that returns a factor; or a scheduler over the same optimizer,
        which is asked for values only: step the wrapper alone.
    start : int
        Until this step the schedule stays at its value at 0.
    duration : int
        Training steps that make one step of the schedule.
    minimum : float
        Absolute rate below which no group falls, warm-up included.
    last_epoch : int
        As in torch.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    ``lr(s) = max(schedule(max(s - start, 0) // duration), minimum)``: ``ScheduleWrapper`` of
    OpenNMT-tf. The state holds the numbers, not the schedule: resume with the same one.
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
        if isinstance(schedule, (_ScheduleLR, LambdaLR)) and schedule.optimizer is not optimizer:
            raise ValueError("ScheduleWrapper: 'schedule' must be over the same optimizer.")
        if isinstance(schedule, _ScheduleLR):
            self._inner = schedule.rate
        elif isinstance(schedule, LambdaLR):
            factors = schedule.lr_lambdas
            self._inner = lambda step, group: float(self.base_lrs[group]) * factors[group](step)
        elif callable(schedule):
            factor = schedule
            self._inner = lambda step, group: (
                float(self.base_lrs[group]) * _number(factor(step), step)
            )
        else:
            raise TypeError(
                "ScheduleWrapper: 'schedule' must be a function of the step, a scheduler of "
                f"pyspectra.optim or a LambdaLR, got an object of type {type(schedule).__name__}."
            )
        arguments = {"start": start, "duration": duration, "minimum": minimum}
        super().__init__(optimizer, arguments, last_epoch)

    def rate(self, step: int, group: int) -> float:
        """Learning rate of a group at a step."""
        inner = max(step - self.arguments["start"], 0) // self.arguments["duration"]
        rate = self._inner(inner, group)
        if not math.isfinite(rate):
            raise ValueError(
                f"ScheduleWrapper: 'schedule' must give finite numbers, got {rate} at step {inner}."
            )
        return max(rate, float(self.arguments["minimum"]))


def _number(value: Any, step: int) -> float:
    """Return what a schedule gives at a step, if it is a number."""
    try:
        if isinstance(value, str):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"ScheduleWrapper: 'schedule' must return a number, got {value!r} at step {step}."
        ) from None
