"""The formulas of the learning-rate schedules, each once, and ``LambdaLR`` builders over them.

A formula is a factor on a group's own rate; see :mod:`pyspectra.optim.schedules`.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pyspectra._support.arguments import check_count, check_number
from pyspectra.errors import ArgumentTypeError, ArgumentValueError

__all__ = [
    "Formula",
    "build",
    "checked",
    "get_inv_sqrt_schedule",
    "get_noam_schedule",
    "get_rnmtplus_schedule",
    "get_rsqrt_schedule",
    "inv_sqrt",
    "noam",
    "rnmtplus",
    "rsqrt",
]

Formula = Callable[..., float]


# --- the formulas -------------------------------------------------------------------------------


def noam(step: int, *, model_dim: int, warmup_steps: int, scale: float = 1.0) -> float:
    """Linear warm-up, then the inverse square root: ``scale d^-1/2 min(t^-1/2, t w^-3/2)``.

    With t = step + 1. Vaswani et al. 2017, arXiv 1706.03762, section 5.3; ``NoamDecay`` of
    OpenNMT-tf.
    """
    t = step + 1
    return (
        scale
        / math.sqrt(model_dim)
        * min(1 / math.sqrt(t), t / (warmup_steps * math.sqrt(warmup_steps)))
    )


def rsqrt(step: int, *, warmup_steps: int, scale: float = 1.0) -> float:
    """Constant, then the inverse square root: ``scale / sqrt(max(step, w))``.

    ``RsqrtDecay`` of OpenNMT-tf.
    """
    return scale / math.sqrt(max(step, warmup_steps))


def inv_sqrt(step: int, *, warmup_steps: int) -> float:
    """Linear warm-up to 1, then the inverse square root: ``min(t/w, sqrt(w/t))``, t = step + 1.

    Noam's curve with its peak at 1; ``inverse_sqrt`` of fairseq.
    """
    t = step + 1
    return t / warmup_steps if t <= warmup_steps else math.sqrt(warmup_steps / t)


def rnmtplus(
    step: int,
    *,
    num_replicas: int,
    warmup_steps: int = 500,
    start_step: int = 600_000,
    end_step: int = 1_200_000,
    scale: float = 1.0,
) -> float:
    """Warm-up to n, a plateau, exponential decay: ``scale min(1+t(n-1)/(np), n, n(2n)^x)``.

    With t = step and ``x = (s - n t) / (e - s)``. Chen et al. 2018, arXiv 1804.09849, equation 1;
    ``RNMTPlusDecay`` of OpenNMT-tf.
    """
    n = num_replicas
    exponent = (start_step - n * step) / (end_step - start_step)
    # Before the decay the third term exceeds n; its power could overflow there.
    decay = n if exponent >= 0 else n * (2.0 * n) ** exponent
    return scale * min(1 + step * (n - 1) / (n * warmup_steps), n, decay)


# --- arguments ----------------------------------------------------------------------------------


# Where zero makes sense; every other count divides.
_MAY_BE_ZERO = {
    ("cosine_with_warmup", "warmup_steps"),
    ("cosine_annealing", "warmup_steps"),
    ("rnmtplus", "start_step"),
}


def checked(function: str, formula: Formula, /, **arguments: Any) -> dict[str, Any]:
    """Check the arguments of a formula on behalf of a public function, and return them."""
    for name, value in arguments.items():
        if name in ("scale", "cycles"):
            arguments[name] = check_number(function, name, value, above=0.0)
        elif name == "minimum":
            arguments[name] = check_number(function, name, value, least=0.0)
        else:
            least = 0 if (formula.__name__, name) in _MAY_BE_ZERO else 1
            arguments[name] = check_count(function, name, value, least=least)
    for low, high, strict in (
        ("warmup_steps", "total_steps", False),
        ("warmup_steps", "max_step", False),
        ("start_step", "end_step", True),
    ):
        if high in arguments:
            first, last = arguments[low], arguments[high]
            if last < first or (strict and last == first):
                wanted = "exceed" if strict else "be at least"
                raise ArgumentValueError(function, high, f"{wanted} {low!r} = {first}", str(last))
    return arguments


# --- builders -----------------------------------------------------------------------------------


def factor(formula: Formula, values: dict[str, Any], step: Any) -> float:
    """Return a formula's value at a step of any library's integers, as a plain number."""
    return float(formula(operator.index(step), **values))


def build(
    optimizer: Optimizer, formula: Formula, values: dict[str, Any], last: int, **by_group: Any
) -> LambdaLR:
    """Build torch's scheduler from a formula.

    `by_group` are arguments that each group has its own value of, as lists.
    """
    if not isinstance(optimizer, Optimizer):
        raise ArgumentTypeError(
            f"the schedule {formula.__name__}",
            "optimizer",
            "be a torch.optim.Optimizer",
            f"an object of type {type(optimizer).__name__}",
        )
    groups = range(len(optimizer.param_groups))
    own = [{**values, **{k: x[i] for k, x in by_group.items()}} for i in groups]
    # A partial can be pickled, a lambda cannot.
    factors: list[Callable[[int], float]] = [
        functools.partial(factor, formula, each) for each in own
    ]
    name = f"the schedule {formula.__name__}"
    return LambdaLR(optimizer, factors, check_count(name, "last_epoch", last, least=-1))


def get_noam_schedule(
    optimizer: Optimizer,
    *,
    model_dim: int,
    warmup_steps: int,
    scale: float = 1.0,
    last_epoch: int = -1,
) -> LambdaLR:
    """Build a ``LambdaLR`` of torch from the formula :func:`noam`.

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
    >>> from pyspectra.optim import get_noam_schedule
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> schedule = get_noam_schedule(optimizer, model_dim=4, warmup_steps=2)
    >>> [round(schedule.lr_lambdas[0](step), 4) for step in range(4)]
    [0.1768, 0.3536, 0.2887, 0.25]
    """
    name = "get_noam_schedule"
    values = checked(name, noam, model_dim=model_dim, warmup_steps=warmup_steps, scale=scale)
    return build(optimizer, noam, values, last_epoch)


def get_rsqrt_schedule(
    optimizer: Optimizer, *, warmup_steps: int, scale: float = 1.0, last_epoch: int = -1
) -> LambdaLR:
    """Build a ``LambdaLR`` of torch from the formula :func:`rsqrt`.

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
    >>> from pyspectra.optim import get_rsqrt_schedule
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> schedule = get_rsqrt_schedule(optimizer, warmup_steps=2)
    >>> [round(schedule.lr_lambdas[0](step), 4) for step in range(4)]
    [0.7071, 0.7071, 0.7071, 0.5774]
    """
    values = checked("get_rsqrt_schedule", rsqrt, warmup_steps=warmup_steps, scale=scale)
    return build(optimizer, rsqrt, values, last_epoch)


def get_inv_sqrt_schedule(
    optimizer: Optimizer, *, warmup_steps: int, last_epoch: int = -1
) -> LambdaLR:
    """Build a ``LambdaLR`` of torch from the formula :func:`inv_sqrt`.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Made with the rate of the peak.
    warmup_steps : int
        Steps until the peak, the rate of the optimizer.
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
    >>> from pyspectra.optim import get_inv_sqrt_schedule
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> schedule = get_inv_sqrt_schedule(optimizer, warmup_steps=2)
    >>> [round(schedule.lr_lambdas[0](step), 4) for step in range(4)]
    [0.5, 1.0, 0.8165, 0.7071]
    """
    values = checked("get_inv_sqrt_schedule", inv_sqrt, warmup_steps=warmup_steps)
    return build(optimizer, inv_sqrt, values, last_epoch)


def get_rnmtplus_schedule(
    optimizer: Optimizer,
    *,
    num_replicas: int,
    warmup_steps: int = 500,
    start_step: int = 600_000,
    end_step: int = 1_200_000,
    scale: float = 1.0,
    last_epoch: int = -1,
) -> LambdaLR:
    """Build a ``LambdaLR`` of torch from the formula :func:`rnmtplus`.

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
    >>> from pyspectra.optim import get_rnmtplus_schedule
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> schedule = get_rnmtplus_schedule(optimizer, num_replicas=4, warmup_steps=2,
    ...     start_step=10, end_step=20)
    >>> [round(schedule.lr_lambdas[0](step), 4) for step in range(10)]
    [1.0, 1.375, 1.75, 2.125, 1.1487, 0.5, 0.2176, 0.0947, 0.0412, 0.0179]
    """
    values = checked(
        "get_rnmtplus_schedule",
        rnmtplus,
        num_replicas=num_replicas,
        warmup_steps=warmup_steps,
        start_step=start_step,
        end_step=end_step,
        scale=scale,
    )
    return build(optimizer, rnmtplus, values, last_epoch)
