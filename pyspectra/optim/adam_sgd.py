"""Adam and SGD of torch with the fused step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pyspectra.optim._fused.base import FusedOptimizer, Params

__all__ = ["SGD", "Adam"]


class Adam(FusedOptimizer):
    """``torch.optim.Adam`` in one fused pass, with an optional moving average of the weights.

    Parameters
    ----------
    params, lr, betas, eps, weight_decay
        As in ``torch.optim.Adam``. The decay is an L2 penalty: it enters the gradient.
    ema_decay, ema_warmup, ema_every, seed, stochastic_rounding
        As in `ChildAdamW`.
    master_weights, max_grad_norm, statistics
        As in `ChildAdamW`.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv 1412.6980.
    """

    _decoupled = False

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        ema_decay: float | None = None,
        ema_warmup: str | None = "tf",
        ema_every: int = 1,
        seed: int = 0,
        stochastic_rounding: bool = False,
        master_weights: bool = False,
        max_grad_norm: float | None = None,
        statistics: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "ema_decay": ema_decay,
            "ema_warmup": ema_warmup,
            "ema_every": ema_every,
            "seed": seed,
            "stochastic_rounding": stochastic_rounding,
            "master_weights": master_weights,
        }
        super().__init__(params, defaults, max_grad_norm=max_grad_norm, statistics=statistics)

    def _rule(self, group: Mapping[str, Any]) -> str:
        return "adam"


class SGD(FusedOptimizer):
    """``torch.optim.SGD`` in one fused pass, with an optional moving average of the weights.

    Parameters
    ----------
    params, lr, momentum, dampening, weight_decay, nesterov
        As in ``torch.optim.SGD``. The decay is an L2 penalty: it enters the gradient.
    ema_decay, ema_warmup, ema_every, seed, stochastic_rounding
        As in `ChildAdamW`. torch's states do not count steps: after loading one, the warm-up of
        the average starts anew.
    master_weights, max_grad_norm, statistics
        As in `ChildAdamW`.

    References
    ----------
    Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML
    2013 (in torch's form of it).
    """

    _moments = ("momentum_buffer",)
    _decoupled = False

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        ema_decay: float | None = None,
        ema_warmup: str | None = "tf",
        ema_every: int = 1,
        seed: int = 0,
        stochastic_rounding: bool = False,
        master_weights: bool = False,
        max_grad_norm: float | None = None,
        statistics: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "ema_decay": ema_decay,
            "ema_warmup": ema_warmup,
            "ema_every": ema_every,
            "seed": seed,
            "stochastic_rounding": stochastic_rounding,
            "master_weights": master_weights,
        }
        super().__init__(params, defaults, max_grad_norm=max_grad_norm, statistics=statistics)

    def _rule(self, group: Mapping[str, Any]) -> str:
        return "sgd" if group["momentum"] == 0 else "sgd_momentum"
