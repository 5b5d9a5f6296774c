"""Rules by layer in numpy, from the papers and what their released code computes.

Sources on GitHub: TempBalance (YefanZhou/TempBalance, tempbalance.py), AlphaDecay
(hed-ucas/AlphaDecay, WeightDecayUnbalance.py), Spectrum (cognitivecomputations/spectrum,
spectrum.py), AlphaPruning (haiquanlu/AlphaPruning, lib/prune.py). Written anew from their
arithmetic; they work in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def eigenvalues(weight: Array) -> Array:
    """Ascending squared singular values; of a convolution those of all its kernel positions."""
    if weight.ndim == 4:
        slices = [
            weight[:, :, i, j] for i in range(weight.shape[2]) for j in range(weight.shape[3])
        ]
        values = [0.5 * np.linalg.svd(s, compute_uv=False) ** 2 for s in slices]
        return np.sort(np.concatenate(values))
    return np.sort(np.linalg.svd(weight, compute_uv=False) ** 2)


def median_alpha(evals: Array) -> float:
    """The Hill estimator above the middle eigenvalue: xmin is number N // 2, counted from 0."""
    i = len(evals) // 2
    n = len(evals) - i
    logs = np.log(evals[i:])
    return float(1.0 + n / (logs.sum() - n * math.log(evals[i])))


def assigned(scores: Sequence[float], how: str, low: float, high: float) -> Array:
    """Multiples of the base value, by the four functions of the released code."""
    x, n = np.asarray(scores, dtype=np.float64), len(scores)
    if how == "linear":
        return np.asarray(low + (x - x.min()) / (x.max() - x.min()) * (high - low))
    if how == "sqrt":
        return np.asarray(np.sqrt(x) / np.sqrt(x).sum() * n)
    if how == "log2":
        return np.asarray(np.log2(x) / np.log2(x).sum() * n)
    values = [low + (high - low) * i / n for i in range(n)]
    out = np.empty(n)
    for place, index in enumerate(np.argsort(x)):
        out[index] = values[place]
    return out


def layer_values(
    evals: Sequence[Array], base: float, how: str, low: float, high: float, least: int
) -> list[float]:
    """Learning rates (or decays) of layers in order: the first, the last and small ones keep it."""
    out = [base] * len(evals)
    middle = [i for i in range(1, len(evals) - 1) if len(evals[i]) >= least]
    alphas = [median_alpha(evals[i]) for i in middle]
    for i, factor in zip(middle, assigned(alphas, how, low, high), strict=True):
        out[i] = base * float(factor)
    return out


def snr(weight: Array) -> float:
    """Spectrum's ratio of a matrix."""
    S = np.linalg.svd(weight, compute_uv=False)
    ordered = np.sort(S)

    def quantile(q: float) -> float:
        place = q * (len(ordered) - 1)
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))

    sigma = (quantile(0.75) - quantile(0.25)) / 1.349
    beta = min(weight.shape) / max(weight.shape)
    threshold = sigma * math.sqrt((1.0 + math.sqrt(beta)) ** 2)
    signal = sum(s for s in S if s > threshold)
    noise = sum(s for s in S if not s > threshold)
    if all(s > threshold for s in S):
        noise = 1.0
    return float(signal / noise / S[0])


def sparsities(
    scores: Sequence[float], sizes: Sequence[int], target: float, epsilon: float
) -> list[float]:
    """AlphaPruning: linear in the score between 1 - e and 1 + e, rescaled to the target."""
    low, high = min(scores), max(scores)
    s1, s2 = 1.0 - epsilon, 1.0 + epsilon
    raw = [(x - low) / (high - low) * (s2 - s1) + s1 for x in scores]
    scale = sum(sizes) * target / sum(n * r for n, r in zip(sizes, raw, strict=True))
    return [r * scale for r in raw]
