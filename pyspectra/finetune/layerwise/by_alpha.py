"""Rules that multiply: which layers learn faster or decay more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pyspectra._support.arguments import check_choice, check_count, check_flag, check_number
from pyspectra.errors import ArgumentValueError
from pyspectra.finetune.layerwise.rule import Decision, LayerRule
from pyspectra.finetune.layerwise.scores import LayerScore, takes_part
from pyspectra.finetune.layerwise.units import Unit
from pyspectra.types import FloatArray

__all__ = ["AlphaDecay", "TempBalance"]


# --- from scores to factors -----------------------------------------------------------------------


def _linear(scores: FloatArray, low: float, high: float) -> FloatArray:
    return np.interp(scores, (scores.min(), scores.max()), (low, high))


def _sqrt(scores: FloatArray, _low: float, _high: float) -> FloatArray:
    roots = np.sqrt(scores)
    return np.asarray(roots / roots.sum() * len(scores))


def _log2(scores: FloatArray, _low: float, _high: float) -> FloatArray:
    logs = np.log2(scores)
    return np.asarray(logs / logs.sum() * len(scores))


def _step(scores: FloatArray, low: float, high: float) -> FloatArray:
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return np.asarray(low + (high - low) * ranks / len(scores))


_ASSIGN: dict[str, Callable[[FloatArray, float, float], FloatArray]] = {
    "linear": _linear,
    "sqrt": _sqrt,
    "log2": _log2,
    "step": _step,
}


@dataclass(frozen=True, kw_only=True)
class _ByAlpha(LayerRule):
    """Multiplies one option of the optimizer by a number that grows with the score."""

    score: str | None = "tempbalance_median"
    low: float = 0.5
    high: float = 1.5
    assign: str = "linear"
    min_evals: int = 50
    skip_first: bool = True
    skip_last: bool = True
    norms: bool = True

    @property
    def follows_norms(self) -> bool:
        return self.norms

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if self.score is None:
            raise ArgumentValueError(name, "score", "name a score", "None")
        low = check_number(name, "low", self.low, least=0.0)
        for field, value in (
            ("low", low),
            ("high", check_number(name, "high", self.high, least=low)),
            ("assign", check_choice(name, "assign", self.assign, tuple(_ASSIGN))),
            ("min_evals", check_count(name, "min_evals", self.min_evals, least=0)),
            ("skip_first", check_flag(name, "skip_first", self.skip_first)),
            ("skip_last", check_flag(name, "skip_last", self.skip_last)),
            ("norms", check_flag(name, "norms", self.norms)),
        ):
            object.__setattr__(self, field, value)

    def decide(
        self, found: Sequence[Unit], scores: Mapping[str, LayerScore], turn: int
    ) -> Decision:
        """Return the factor of each layer that takes part."""
        keys = [unit.key for unit in found if takes_part(scores.get(unit.key))]
        keys = keys[int(self.skip_first) : len(keys) - int(self.skip_last)]
        keys = [
            key
            for key in keys
            if scores[key].n_evals >= self.min_evals and math.isfinite(scores[key].value)
        ]
        values = np.array([scores[key].value for key in keys])
        if len(values) == 0 or values.min() == values.max():
            return Decision()  # nothing tells the layers apart
        factors = _ASSIGN[self.assign](values, self.low, self.high)
        (option,) = self.options
        return Decision({k: {option: float(f)} for k, f in zip(keys, factors, strict=True)})


@dataclass(frozen=True, kw_only=True)
class TempBalance(_ByAlpha):
    """Learning rates by layer: the higher its alpha, the faster it learns.

    Parameters
    ----------
    score : str
        What alpha is; the published one begins the tail at the middle eigenvalue.
    every : int or None
        Calls of ``step()`` between two measurements. Published: once an epoch.
    low, high : float
        Factors of the layers with the lowest and the highest alpha.
    assign : {"linear", "sqrt", "log2", "step"}
        How alpha becomes a factor: linear between `low` and `high`; its root or logarithm over the
        mean of those; or by rank, from `low` in steps of (high - low) / n.
    min_evals : int
        Layers with fewer eigenvalues keep the learning rate (the released code has no such bound).
    skip_first, skip_last : bool
        The first and the last layer keep it too.
    norms : bool
        Batch norms have the learning rate of the layer of their name or right before them, as the
        bias of a layer has that of its weight. All other parameters keep the learning rate.

    Notes
    -----
    lr_l = lr * interp(alpha_l; [min alpha, max alpha] -> [low, high]). Embeddings do not take part,
    nor does a layer without an alpha. With less than two different alphas all factors are one.

    References
    ----------
    Zhou, Pang, Liu, Martin, Mahoney, Yang, "Temperature balancing, layer-wise weight analysis, and
    neural network training", NeurIPS 2023, arXiv 2312.00359, and the code of it (tempbalance.py).

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import TempBalance, param_groups
    >>> model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(5)])
    >>> alphas = {f"{i}.weight": alpha for i, alpha in enumerate([9.0, 2.0, 3.0, 4.0, 1.0])}
    >>> groups = param_groups(model, alphas, TempBalance(min_evals=0), lr=0.1)
    >>> [(group["lr"], len(group["params"])) for group in groups]
    [(0.1, 6), (0.05, 2), (0.15000000000000002, 2)]
    """

    every: int | None = 1

    options: ClassVar[tuple[str, ...]] = ("lr",)


@dataclass(frozen=True, kw_only=True)
class AlphaDecay(_ByAlpha):
    """Weight decay by layer: the higher its alpha, the more it decays.

    Parameters
    ----------
    score : str
        What alpha is, as in `TempBalance`.
    every : int or None
        Calls of ``step()`` between two measurements. Published: 500 steps of the optimizer.
    low, high : float
        Factors of the layers with the lowest and the highest alpha. Published: 2/3 and 3 with Adam,
        2/3 and 5 with AdamW.
    assign, min_evals, skip_first, skip_last, norms
        As in `TempBalance`; the released code has the same bound of 50 eigenvalues.

    Notes
    -----
    wd_l = wd * interp(alpha_l; [min alpha, max alpha] -> [low, high]); a group without decay, such
    as one of biases, stays without.

    References
    ----------
    He et al., "AlphaDecay: module-wise weight decay for heavy-tailed balancing in LLMs", 2025,
    arXiv 2506.14562, and the released code (WeightDecayUnbalance.py).

    Examples
    --------
    >>> from pyspectra.finetune import AlphaDecay
    >>> AlphaDecay(high=5.0).every
    500
    """

    every: int | None = 500
    low: float = 2.0 / 3.0
    high: float = 3.0

    options: ClassVar[tuple[str, ...]] = ("weight_decay",)
