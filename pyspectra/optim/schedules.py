"""Learning-rate schedules as schedulers of torch.

A schedule is a factor on the learning rate that each parameter group was made with, as torch's
``LambdaLR`` has it: groups keep their ratios. Where the literature computes an absolute rate
(Noam, rsqrt, RNMT+), make the optimizer with ``lr=1.0`` and say `scale`, or with ``lr=scale``.
Steps count from zero: the factor at s is the one of the (s+1)-th ``optimizer.step()``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyspectra.errors import ArgumentValueError
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
    "get_cosine_schedule_with_warmup",
    "get_inv_sqrt_schedule",
    "get_noam_schedule",
    "get_rnmtplus_schedule",
    "get_rsqrt_schedule",
]

# --- schedulers ---------------------------------------------------------------------------------


class ScheduleLR(LRScheduler):
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
            Number of the step, from zero.
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
            What :meth:`state_dict` of the same class returned, over as many groups.

        Raises
        ------
        ValueError
            If it is not such a state.
        """
        name = f"{type(self).__name__}.load_state_dict"
        own = self.state_dict()
        if set(state_dict) != set(own) or set(state_dict["arguments"]) != set(self.arguments):
            requirement = f"be the state of a {type(self).__name__}"
            got = f"one with {sorted(map(str, state_dict))}"
            raise ArgumentValueError(name, "state_dict", requirement, got)
        groups = len(self.optimizer.param_groups)
        if len(state_dict["base_lrs"]) != groups:
            raise ArgumentValueError(
                name,
                "state_dict",
                f"have the {groups} parameter groups of the optimizer",
                str(len(state_dict["base_lrs"])),
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


class _FormulaLR(ScheduleLR):
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
        Factor on the rate.
    last_epoch : int
        Number of the last step, as in torch: -1 for a new run.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import NoamLR
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> schedule = NoamLR(optimizer, model_dim=4, warmup_steps=2)
    >>> [round(schedule.rate(step, 0), 4) for step in range(4)]
    [0.1768, 0.3536, 0.2887, 0.25]
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

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Made with ``lr=1.0`` if the rate is to be `scale` times the formula, and no more.
    warmup_steps : int
        Steps with the constant rate ``scale / sqrt(warmup_steps)``.
    scale : float
        Factor on the rate.
    last_epoch : int
        Number of the last step, as in torch: -1 for a new run.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import RsqrtLR
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> schedule = RsqrtLR(optimizer, warmup_steps=2)
    >>> [round(schedule.rate(step, 0), 4) for step in range(4)]
    [0.7071, 0.7071, 0.7071, 0.5774]
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

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Made with the rate of the peak.
    warmup_steps : int
        Steps until the peak, the rate of the optimizer.
    last_epoch : int
        Number of the last step, as in torch: -1 for a new run.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import InvSqrtLR
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> schedule = InvSqrtLR(optimizer, warmup_steps=2)
    >>> [round(schedule.rate(step, 0), 4) for step in range(4)]
    [0.05, 0.1, 0.0816, 0.0707]
    """

    formula = staticmethod(inv_sqrt)

    def __init__(self, optimizer: Optimizer, *, warmup_steps: int, last_epoch: int = -1) -> None:
        arguments = checked("InvSqrtLR", inv_sqrt, warmup_steps=warmup_steps)
        super().__init__(optimizer, arguments, last_epoch)


class CosineWarmupLR(_FormulaLR):
    """Linear warm-up to the optimizer's rate, then a cosine; see :func:`cosine_with_warmup`.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Made with the rate of the peak.
    warmup_steps : int
        Steps of linear warm-up; 0 for none.
    total_steps : int
        All steps, the warm-up included.
    cycles : float
        Waves of the cosine after the warm-up; half a wave ends at 0.
    last_epoch : int
        Number of the last step, as in torch: -1 for a new run.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import CosineWarmupLR
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> schedule = CosineWarmupLR(optimizer, warmup_steps=2, total_steps=6)
    >>> [round(schedule.rate(step, 0), 4) for step in range(7)]
    [0.0, 0.05, 0.1, 0.0854, 0.05, 0.0146, 0.0]
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

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Made with the rate of one replica.
    num_replicas : int
        Number of data-parallel replicas.
    warmup_steps : int
        Warm-up steps of each replica.
    start_step, end_step : int
        Steps between which the rate decays exponentially.
    scale : float
        Factor on the rate.
    last_epoch : int
        Number of the last step, as in torch: -1 for a new run.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import RNMTPlusLR
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> schedule = RNMTPlusLR(optimizer, num_replicas=4, warmup_steps=2,
    ...     start_step=10, end_step=20)
    >>> [round(schedule.rate(step, 0), 4) for step in range(10)]
    [0.1, 0.1375, 0.175, 0.2125, 0.1149, 0.05, 0.0218, 0.0095, 0.0041, 0.0018]
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
