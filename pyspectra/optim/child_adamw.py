"""Child-Tuning AdamW: the step, the gradient mask and the average of the weights in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.optim._fused.base import FusedOptimizer, Params
from pyspectra.optim._fused.names import plain_names
from pyspectra.optim._fused.options import ORDERS, SharedOptions
from pyspectra.optim._fused.saved_groups import Family
from pyspectra.optim._fused.tensors import pack_mask

__all__ = ["ChildAdamW"]

# The signature holds this very object, so that a caller's own 0.3 can be told from none.
_RESERVE_P = float("0.3")


class ChildAdamW(FusedOptimizer):
    """AdamW that updates a child network only, with a fused moving average of the weights.

    Parameters
    ----------
    params : iterable
        Parameters, ``(name, parameter)`` pairs (``model.named_parameters()``) or groups of either.
        With names, random masks belong to the names (those of the plain model: the prefixes of
        ``torch.compile`` and DistributedDataParallel do not count); without, to the positions in
        the groups.
        Every option except `mask`, `max_grad_norm` and `statistics` may differ between
        groups.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range; the message names it.

    Notes
    -----
    One step, g the masked gradient, t its number:

    ``order="torch"``: p *= 1 - lr wd; m += (1 - b1)(g - m); v = b2 v + (1 - b2) g^2;
    p -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps). Equals ``torch.optim.AdamW`` for p = 1.

    ``order="alicemind"``: the moments as above;
    p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps); then p -= lr wd p.

    Parameters may be float32, float64, bfloat16 or float16, in host memory or all on one CUDA
    device, in any dense memory format (channels_last; there random masks go by the place in
    memory); there a step waits for nothing, the count of steps is a tensor, `lr` may be one, and a
    CUDA graph can be made of a step after the first. With `compact` such a graph is of the masks as
    they were then. Moments and average are
    float32 (float64 for float64). The bits of a result depend on the arguments alone, not on
    threads, instruction set or how often a run was resumed. ``p.grad`` is never written.
    State dicts exchange with ``torch.optim.AdamW`` both ways.

    DTensor parameters (FSDP2, tensor parallelism; sharded along the first axis and one other at
    most, or replicated) step to the bits of whole ones: masks and rounding go by the element's
    index in the whole. Give ``mask`` whole, in each process. Only the clip norm communicates, and
    agrees with that of one process within rounding; statistics are of the part in this process.

    References
    ----------
    Xu et al., "Raise a Child in Large Language Model: Towards Effective and Generalizable
    Fine-tuning", EMNLP 2021, arXiv 2109.05687. Loshchilov and Hutter, "Decoupled Weight Decay
    Regularization", ICLR 2019, arXiv 1711.05101.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import ChildAdamW
    >>> model = torch.nn.Linear(3, 2)
    >>> mask = {"weight": model.weight.detach().abs() > 0.1}
    >>> optimizer = ChildAdamW(model.named_parameters(), mode="D", mask=mask, compact=True)
    >>> model(torch.ones(4, 3)).square().sum().backward()
    >>> optimizer.step()
    """

    _rules = tuple(ORDERS.values())
    _family = Family("amsgrad", decoupled=True)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        mode: str | None = None,
        reserve_p: float = _RESERVE_P,
        mask: Mapping[Any, Any] | None = None,
        order: str = "torch",
        decay_masked: bool = True,
        compact: bool = False,
        **options: Unpack[SharedOptions],
    ) -> None:
        own = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "mode": mode,
            "reserve_p": reserve_p,
            "order": order,
            "decay_masked": decay_masked,
            "compact": compact,
        }
        super().__init__(params, own, options)
        if mask is not None:
            self._set_mask(mask)
        given = reserve_p is not _RESERVE_P
        groups = self.param_groups
        if given or any(group["reserve_p"] != reserve_p for group in groups):
            self._warn_of_no_mask(groups)

    def _warn_of_no_mask(self, groups: list[dict[str, Any]]) -> None:
        if all(group["mode"] is None for group in groups):
            warnings.warn(
                f"{type(self).__name__}: 'reserve_p' does nothing without a mode: every weight is "
                "trained, as by AdamW. Hint: mode='F', or mode='D' with a mask.",
                UserWarning,
                stacklevel=4,
            )

    def _rule(self, group: Mapping[str, Any]) -> str:
        return ORDERS[group["order"]]

    def _set_mask(self, mask: Mapping[Any, Any]) -> None:
        if not isinstance(mask, Mapping):
            raise ArgumentTypeError(
                type(self).__name__,
                "mask",
                "be a mapping of names or parameters to boolean arrays",
                f"an object of type {type(mask).__name__}",
            )
        if not mask:
            raise ArgumentValueError(type(self).__name__, "mask", "have at least one entry", "none")
        by_key: dict[Any, tuple[str, Tensor]] = {}
        for given, (name, p, group) in zip(self._given_names(), self._named(), strict=True):
            if group["mode"] == "D":
                by_key[given] = by_key[name] = by_key[p] = (name, p)
        names = [key for key in mask if isinstance(key, str)]
        plain = dict(zip(names, plain_names(names), strict=True))  # scores of a wrapped model
        for key, value in mask.items():
            found = by_key.get(key) or by_key.get(plain.get(key, key))
            if found is None:
                what = f"parameter of shape {tuple(key.shape)}" if isinstance(key, Tensor) else key
                raise ArgumentValueError(
                    type(self).__name__,
                    "mask",
                    "name parameters of a group with mode='D'",
                    repr(what),
                    "pass model.named_parameters() to mask by name",
                )
            name, p = found
            self._masks[p] = pack_mask(type(self).__name__, value, p, name)
