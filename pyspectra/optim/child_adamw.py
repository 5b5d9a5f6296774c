"""Child-Tuning AdamW: the step, the gradient mask and the average of the weights in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pyspectra.optim._fused import group as _group
from pyspectra.optim._fused import tensors as _tensors
from pyspectra.optim._fused.base import FusedOptimizer, Params

__all__ = ["ChildAdamW"]


class ChildAdamW(FusedOptimizer):
    """AdamW that updates a child network only, with a fused moving average of the weights.

    Parameters
    ----------
    params : iterable
        Parameters, ``(name, parameter)`` pairs (``model.named_parameters()``) or groups of either.
        With names, random masks belong to the names (those of the plain model: the prefixes of
        ``torch.compile`` and DistributedDataParallel do not count); without, to the positions in
        the groups.
        Every hyper-parameter except `mask`, `max_grad_norm` and `statistics` may differ between
        groups.
    lr, betas, eps, weight_decay
        As in ``torch.optim.AdamW``. The decay is decoupled.
    mode : {None, "F", "D"}
        Which gradients are masked, before both moments. "F": each step each element is kept with
        probability `reserve_p` and divided by it; elements left out still move by their momentum.
        "D": the fixed `mask`, without a scale. None: none.
    reserve_p : float
        In (2^-17, 1]; for "F" rounded to a multiple of 2^-16.
    mask : mapping, optional
        For "D": name or parameter -> boolean array of its shape, True = trainable. Parameters that
        it leaves out train fully. It is saved with the state (packed, one bit an element).
    order : {"torch", "alicemind"}
        See Notes.
    decay_masked : bool
        For "D": does weight decay apply to the weights outside the child network too?
    compact : bool
        For "D": keep moments of the child network only, 8 bytes an element of it and one bit an
        element of the mask, and move less memory. The bits of the step are those of whole moments
        for eps > 0, except that a non-finite gradient outside the child network goes unseen:
        those gradients are not read. Such a state loads into this class, not into torch's.
    ema_decay : float, optional
        Decay of the moving average of the weights; None for no average. It starts from the weights
        before the first step and is kept in float32. A parameter that has no gradient takes no
        step, and neither does its average.
    ema_warmup : {"tf", "power", None}
        At update number n the decay is, for "tf", min(ema_decay, (1 + n) / (10 + n)); for "power",
        min(ema_decay, 1 - (1 + n)^(-2/3)), of `EMA` with its defaults; for None, ema_decay.
    ema_every : int
        Average every so many steps; n counts averages.
    seed : int
        Of the random numbers, in [0, 2^64).
    stochastic_rounding : bool
        Round bfloat16 parameters up or down with the probability of what is cut off.
    master_weights : bool
        Keep a float32 copy (state ``master``) of parameters of 16 bits: the rule moves the copy,
        the parameter is its rounding, the average follows the copy. It is made at the first step:
        load weights before that, or the state with them.
    max_grad_norm : float, optional
        Clip the norm over all gradients, as ``clip_grad_norm_`` but without writing to them. As
        there, a norm that is not finite is not hidden: NaN makes every weight NaN, and Inf those
        whose gradient it is. Under ``torch.amp.GradScaler`` the norm is of unscaled gradients, and
        a step whose gradients are not finite is left out: weights, moments, average, step count
        and so the next random numbers stay as they are.
    statistics : bool
        Take the statistics that `statistics()` returns, from what the step has in cache.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, naming them.

    Notes
    -----
    One step, g the masked gradient, t its number:

    ``order="torch"``: p *= 1 - lr wd; m += (1 - b1)(g - m); v = b2 v + (1 - b2) g^2;
    p -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps). Equals ``torch.optim.AdamW`` for p = 1.

    ``order="alicemind"``: the moments as above;
    p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps); then p -= lr wd p.

    Parameters may be float32, float64, bfloat16 or float16, in host memory or all on one CUDA
    device; there a step waits for nothing, the count of steps is a tensor, `lr` may be one, and a
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
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        mode: str | None = None,
        reserve_p: float = 0.3,
        mask: Mapping[Any, Any] | None = None,
        order: str = "torch",
        decay_masked: bool = True,
        compact: bool = False,
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
            "mode": mode,
            "reserve_p": reserve_p,
            "order": order,
            "decay_masked": decay_masked,
            "compact": compact,
            "ema_decay": ema_decay,
            "ema_warmup": ema_warmup,
            "ema_every": ema_every,
            "seed": seed,
            "stochastic_rounding": stochastic_rounding,
            "master_weights": master_weights,
        }
        super().__init__(params, defaults, max_grad_norm=max_grad_norm, statistics=statistics)
        if mask is not None:
            self._set_mask(mask)

    def _rule(self, group: Mapping[str, Any]) -> str:
        return _group.RULES[group["order"]]

    def _set_mask(self, mask: Mapping[Any, Any]) -> None:
        if not isinstance(mask, Mapping):
            raise TypeError(
                f"{type(self).__name__}: 'mask' must be a mapping of names or parameters to "
                f"boolean arrays, got an object of type {type(mask).__name__}."
            )
        if not mask:
            raise ValueError(
                f"{type(self).__name__}: 'mask' must have at least one entry, got none."
            )
        by_key: dict[Any, tuple[str, Tensor]] = {}
        for given, (name, p, group) in zip(self._given_names(), self._named(), strict=True):
            if group["mode"] == "D":
                by_key[given] = by_key[name] = by_key[p] = (name, p)
        for key, value in mask.items():
            if key not in by_key:
                what = f"parameter of shape {tuple(key.shape)}" if isinstance(key, Tensor) else key
                raise ValueError(
                    f"{type(self).__name__}: 'mask' must name parameters of a group with mode='D', "
                    f"got {what!r}. Hint: pass model.named_parameters() to mask by name."
                )
            name, p = by_key[key]
            self._masks[p] = _tensors.pack_mask(type(self).__name__, value, p, name)
