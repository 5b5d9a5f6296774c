"""AdamW with the fused step of `ChildAdamW`, without a mask."""

from __future__ import annotations

from torch import Tensor

from pyspectra.optim._fused.base import Params
from pyspectra.optim.child_adamw import ChildAdamW

__all__ = ["AdamW"]


class AdamW(ChildAdamW):
    """``torch.optim.AdamW`` in one fused pass, with an optional moving average of the weights.

    `ChildAdamW` without a mask: see there for the parameters, the formulas and the averages.

    Parameters
    ----------
    params, lr, betas, eps, weight_decay
        As in ``torch.optim.AdamW``.
    order, ema_decay, ema_warmup, ema_every, seed, stochastic_rounding
        As in `ChildAdamW`.
    master_weights, max_grad_norm, statistics
        As in `ChildAdamW`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        order: str = "torch",
        ema_decay: float | None = None,
        ema_warmup: str | None = "tf",
        ema_every: int = 1,
        seed: int = 0,
        stochastic_rounding: bool = False,
        master_weights: bool = False,
        max_grad_norm: float | None = None,
        statistics: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            order=order,
            ema_decay=ema_decay,
            ema_warmup=ema_warmup,
            ema_every=ema_every,
            seed=seed,
            stochastic_rounding=stochastic_rounding,
            master_weights=master_weights,
            max_grad_norm=max_grad_norm,
            statistics=statistics,
        )
