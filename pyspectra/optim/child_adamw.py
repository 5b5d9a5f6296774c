"""Child-Tuning AdamW: the step, the gradient mask and the average of the weights in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from pyspectra._support.arguments import check_flag
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.optim._fused import state as states
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

    def set_mask(self, mask: Mapping[Any, Any], *, keep_moments: bool = False) -> None:
        """Put other masks in the place of those that parameters have, between two steps.

        Parameters
        ----------
        mask : mapping
            As the constructor takes it. Parameters that it leaves out keep theirs.
        keep_moments : bool
            Weights that leave the child network keep their moments, and go on moving by their
            momentum until it has died away. By default they lose them and stand still from now on;
            when they come back, their moments begin at zero. Those that stay always keep them.
            Compact moments have no room for the others.

        Raises
        ------
        ValueError, TypeError
            If a mask does not fit its parameter, or a parameter is in no group with ``mode="D"``,
            or `keep_moments` meets compact moments. Nothing has changed then.
        RuntimeError
            While the averaged weights are in place.

        Examples
        --------
        >>> import torch
        >>> from pyspectra.optim import ChildAdamW
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> mask = {"w": torch.tensor([True, False])}
        >>> optimizer = ChildAdamW([("w", w)], lr=0.1, weight_decay=0.0, mode="D", mask=mask)
        >>> w.sum().backward()
        >>> optimizer.step()
        >>> optimizer.set_mask({"w": ~mask["w"]})
        >>> optimizer.step()
        >>> [round(x, 4) for x in w.tolist()]  # each of them has moved once
        [0.9, 0.9256]
        """
        self._refuse_while_swapped("set_mask")
        keep_moments = check_flag(type(self).__name__, "keep_moments", keep_moments)
        found = self._packed_masks(mask)
        groups = {p: group for _, p, group in self._named()}
        for p in found:
            if keep_moments and groups[p]["compact"]:
                raise ArgumentValueError(
                    type(self).__name__, "keep_moments", "be False with compact moments", "True"
                )
        self._taken, self._plan = self._steps_taken(), None
        for p, packed in found.items():
            self._masks[p] = packed
            state = self.state.get(p)
            if state and "mask" in state:
                compact = bool(groups[p]["compact"])
                states.exchange_mask(
                    state, p, packed, self._moments, compact=compact, keep=keep_moments
                )

    def _set_mask(self, mask: Mapping[Any, Any]) -> None:
        self._masks.update(self._packed_masks(mask))

    def _packed_masks(self, mask: Mapping[Any, Any]) -> dict[Tensor, Tensor]:
        if not isinstance(mask, Mapping):
            raise ArgumentTypeError(
                type(self).__name__,
                "mask",
                "be a mapping of names or parameters to boolean arrays",
                f"an object of type {type(mask).__name__}",
            )
        if not mask:
            raise ArgumentValueError(type(self).__name__, "mask", "have at least one entry", "none")
        packed: dict[Tensor, Tensor] = {}
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
            packed[p] = pack_mask(type(self).__name__, value, p, name)
        return packed
