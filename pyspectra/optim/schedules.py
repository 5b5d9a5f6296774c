"""Learning-rate schedules as schedulers of torch.

A schedule is a factor on the learning rate that each parameter group was made with, as torch's
``LambdaLR`` has it: groups keep their ratios. Where the literature computes an absolute rate
(Noam, rsqrt, RNMT+), make the optimizer with ``lr=1.0`` and say `scale`, or with ``lr=scale``.
Steps count from zero: the factor at s is the one of the (s+1)-th ``optimizer.step()``.
"""

from __future__ import annotations

from torch.optim import Optimizer

from pyspectra.optim.cosine_formulas import (
    cosine_annealing,
    cosine_with_warmup,
    get_cosine_annealing_schedule,
    get_cosine_schedule_with_warmup,
)
from pyspectra.optim.formulas import (
    checked,
    get_inv_sqrt_schedule,
    get_noam_schedule,
    get_rnmtplus_schedule,
    get_rsqrt_schedule,
    inv_sqrt,
    noam,
    rnmtplus,
    rsqrt,
)
from pyspectra.optim.schedule_base import FlooredLR, FormulaLR

__all__ = [
    "CosineAnnealingLR",
    "CosineWarmupLR",
    "InvSqrtLR",
    "NoamLR",
    "RNMTPlusLR",
    "RsqrtLR",
    "get_cosine_annealing_schedule",
    "get_cosine_schedule_with_warmup",
    "get_inv_sqrt_schedule",
    "get_noam_schedule",
    "get_rnmtplus_schedule",
    "get_rsqrt_schedule",
]


class NoamLR(FormulaLR):
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


class RsqrtLR(FormulaLR):
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


class InvSqrtLR(FormulaLR):
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


class CosineWarmupLR(FlooredLR):
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
        Waves of the cosine after the warm-up; half a wave ends at `minimum`.
    minimum : float
        Absolute rate at which the cosine ends.
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
        minimum: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        arguments = checked(
            "CosineWarmupLR",
            cosine_with_warmup,
            warmup_steps=warmup_steps,
            total_steps=total_steps,
            cycles=cycles,
            minimum=minimum,
        )
        super().__init__(optimizer, arguments, last_epoch)


class CosineAnnealingLR(FlooredLR):
    """A cosine over all steps down to a minimum, see :func:`cosine_annealing`.

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

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    ``CosineAnnealing(eta_max, eta_min, max_step, warmup_steps)`` of OpenNMT-tf, with the rate of
    each group for `eta_max` and `minimum` for `eta_min`. The scheduler of this name in torch has
    other arguments and no warm-up.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import CosineAnnealingLR
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> schedule = CosineAnnealingLR(optimizer, max_step=4, warmup_steps=2, minimum=0.02)
    >>> [round(schedule.rate(step, 0), 4) for step in range(6)]
    [0.0, 0.05, 0.06, 0.0317, 0.02, 0.02]
    """

    formula = staticmethod(cosine_annealing)

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        max_step: int = 1_000_000,
        warmup_steps: int = 0,
        minimum: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        arguments = checked(
            "CosineAnnealingLR",
            cosine_annealing,
            max_step=max_step,
            warmup_steps=warmup_steps,
            minimum=minimum,
        )
        super().__init__(optimizer, arguments, last_epoch)


class RNMTPlusLR(FormulaLR):
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
