"""AdamW with the fused step of `ChildAdamW`, without a mask."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import Unpack

from pyspectra.optim._fused.base import Params
from pyspectra.optim._fused.options import SharedOptions
from pyspectra.optim.child_adamw import ChildAdamW

__all__ = ["AdamW"]


class AdamW(ChildAdamW):
    """``torch.optim.AdamW`` in one fused pass, with an optional moving average of the weights.

    `ChildAdamW` without a mask, which has the formulas in its Notes.

    Parameters
    ----------
    params : iterable
        Parameters, ``(name, parameter)`` pairs (``model.named_parameters()``) or groups of either.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range; the message names it.

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv 1711.05101.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import AdamW
    >>> model = torch.nn.Linear(3, 2)
    >>> optimizer = AdamW(model.named_parameters(), lr=1e-3, ema_decay=0.999)
    >>> model(torch.ones(4, 3)).square().sum().backward()
    >>> optimizer.step()
    >>> with optimizer.swap_ema():
    ...     outputs = model(torch.ones(4, 3))
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        order: str = "torch",
        **options: Unpack[SharedOptions],
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, order=order, **options)
