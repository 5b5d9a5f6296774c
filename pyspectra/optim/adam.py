"""Adam of torch with the fused step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from pyspectra.optim._fused.base import FusedOptimizer, Params
from pyspectra.optim._fused.options import SharedOptions
from pyspectra.optim._fused.saved_groups import Family

__all__ = ["Adam"]


class Adam(FusedOptimizer):
    """``torch.optim.Adam`` in one fused pass, with an optional moving average of the weights.

    Parameters
    ----------
    params : iterable
        Parameters, ``(name, parameter)`` pairs (``model.named_parameters()``) or groups of either.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range; the message names it.

    Notes
    -----
    One step, t its number: g += wd p; m += (1 - b1)(g - m); v = b2 v + (1 - b2) g^2;
    p -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps). Devices, types, bits and saved states are
    as in `ChildAdamW`.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv 1412.6980.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import Adam
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = Adam([weight], lr=0.1)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> weight.data
    tensor([0.9000, 0.9000, 0.9000])
    """

    _rules = ("adam",)
    _family = Family("amsgrad", decoupled=False)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        **options: Unpack[SharedOptions],
    ) -> None:
        own = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        own["amsgrad"] = amsgrad
        super().__init__(params, own, options)

    def _rule(self, group: Mapping[str, Any]) -> str:
        return "adam"
