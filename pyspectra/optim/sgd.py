"""SGD of torch with the fused step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from pyspectra.optim._fused.base import FusedOptimizer, Params
from pyspectra.optim._fused.options import SharedOptions
from pyspectra.optim._fused.saved_groups import Family

__all__ = ["SGD"]


class SGD(FusedOptimizer):
    """``torch.optim.SGD`` in one fused pass, with an optional moving average of the weights.

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
    One step: g += wd p; m = mu m + (1 - dampening) g, where it begins m = g; p -= lr m, with
    Nesterov p -= lr (g + mu m), without a momentum p -= lr g. Devices, types, bits and saved states
    are as in `ChildAdamW`. torch's states do not count steps: after loading one, the warm-up of the
    average starts anew.

    References
    ----------
    Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML
    2013 (in torch's form of it).

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import SGD
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = SGD([weight], lr=0.1, momentum=0.9)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> weight.data
    tensor([0.9000, 0.9000, 0.9000])
    """

    _rules = ("sgd", "sgd_momentum")
    _family = Family("dampening", decoupled=False)
    _moments_may_begin = True  # where the momentum is switched on
    _uncounted = 1  # what torch has saved has taken one step at least

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        **options: Unpack[SharedOptions],
    ) -> None:
        own = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, own, options)

    def _rule(self, group: Mapping[str, Any]) -> str:
        return "sgd" if group["momentum"] == 0 else "sgd_momentum"
