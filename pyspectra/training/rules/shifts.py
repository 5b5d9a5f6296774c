"""How training and validation data differ: shares of classes, features, their covariance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import linalg, stats

from pyspectra._support.random import Purpose, generator
from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import Array, Split
from pyspectra.training.rules.registry import rule

MOST_COMPARED = 10_000
"""Rows of either side that are compared, at most."""

DIRECTIONS = 20
"""Principal directions in which variances are compared, at most."""


@dataclass(frozen=True)
class ShiftThresholds:
    """Thresholds of the rules of shifts.

    Attributes
    ----------
    level : float
        Level of tests of a shift, over the number of features.
    cramer : float
        Least Cramér's V of a shift of labels. Deepchecks' 0.15.
    shift : float
        Least Kolmogorov-Smirnov distance of a shift of a feature.
    spread : float
        Least ratio of variances in one direction of the features. House convention.
    """

    level: float = 1e-3
    cramer: float = 0.15
    shift: float = 0.1
    spread: float = 2.0


@rule("D26", "label_shift", needs=Split, severity="warning")
def label_shift(facts: Split, thresholds: ShiftThresholds) -> Iterator[Finding]:
    """Classes have other shares in validation than in training."""
    y, other = facts.y, facts.y_val
    if y is None or other is None or y.dtype.kind not in "iu":
        return
    classes = np.unique(np.concatenate([y, other]))
    table = np.array([[(part == c).sum() for c in classes] for part in (y, other)])
    if len(classes) < 2 or len(classes) > 0.2 * len(other):
        return
    chi2, p, _, _ = stats.chi2_contingency(table)
    v = math.sqrt(chi2 / table.sum())
    if p < thresholds.level and v > thresholds.cramer:
        yield Finding(
            code="label_shift",
            severity="warning",
            where="targets",
            value=v,
            threshold=thresholds.cramer,
            message=(
                f"The shares of the classes differ between training and validation (V = {v:.2f})."
            ),
            advice=("split by class (stratified)", "shuffle before splitting"),
        )


@rule("D27", "input_shift", needs=Split, severity="warning")
def input_shift(facts: Split, thresholds: ShiftThresholds) -> Iterator[Finding]:
    """Features are distributed otherwise in validation than in training."""
    X, V = _features(facts.X), _features(facts.X_val)
    if X is None or V is None or min(len(X), len(V)) < 50:
        return
    half = len(X) // 2
    order = generator(Purpose.DATA, 0, "input shift").permutation(len(X))
    shifted = []
    for j in range(X.shape[1]):
        found = stats.ks_2samp(X[:, j], V[:, j], method="asymp")
        own = stats.ks_2samp(X[order[:half], j], X[order[half:], j], method="asymp")
        grave = found.statistic > max(thresholds.shift, 2 * own.statistic)
        if grave and found.pvalue < thresholds.level / X.shape[1]:
            shifted.append((float(found.statistic), j, float(own.statistic)))
    if shifted:
        d, j, own_d = max(shifted)
        yield Finding(
            code="input_shift",
            severity="warning",
            where=f"feature {j}",
            value=d,
            threshold=thresholds.shift,
            message=(
                f"Feature {j} differs between training and validation: KS {d:.2f} (within training "
                f"{own_d:.2f}); {len(shifted)} of {X.shape[1]} features do."
            ),
            advice=("the same preprocessing for both", "shuffle, or split by group"),
            evidence={"features": tuple(k for _, k, _ in shifted)},
        )


@rule("D27", "input_shift", needs=Split, severity="warning")
def covariance_shift(facts: Split, thresholds: ShiftThresholds) -> Iterator[Finding]:
    """Features are correlated otherwise in validation than in training.

    Each feature by itself may be distributed as before: of activations of a model, most shifts are
    of this kind. What two random parts of the training data of the same size differ by, at most, is
    what chance does.
    """
    X, V = _features(facts.X), _features(facts.X_val)
    if X is None or V is None:
        return
    n = min(len(X) // 2, len(V))
    if X.shape[1] < 2 or n < max(50, 5 * min(X.shape[1], DIRECTIONS)):
        return
    if not (np.isfinite(X).all() and np.isfinite(V).all()):
        return
    rng = generator(Purpose.DATA, 0, "covariance shift")
    basis = _directions(X)
    A, B = X @ basis, V @ basis
    chance = [_spread_ratio(*np.split(A[rng.permutation(len(A))[: 2 * n]], 2)) for _ in range(40)]
    found = [
        _spread_ratio(A[rng.permutation(len(A))[:n]], B[rng.permutation(len(B))[:n]])
        for _ in range(5)
    ]
    value, usual = float(np.median(found)), max(chance)
    if value > max(2 * usual, math.log(thresholds.spread)):
        yield Finding(
            code="input_shift",
            severity="warning",
            where="covariance",
            value=math.exp(value),
            threshold=max(math.exp(2 * usual), thresholds.spread),
            message=(
                f"In one direction of the features the variances of training and validation differ "
                f"by a factor of {math.exp(value):.3g}; within training by {math.exp(usual):.3g}."
            ),
            advice=("the same preprocessing for both", "shuffle, or split by group"),
        )


def _directions(X: Array) -> Array:
    """Return what standardised features are projected on: their first principal directions."""
    center, scale = X.mean(0), X.std(0)
    known = scale > 1e-12 * max(float(np.abs(center).max()), 1.0)
    Z = np.where(known, (X - center) / np.where(known, scale, 1.0), 0.0)
    _, variances, vectors = np.linalg.svd(Z, full_matrices=False)
    kept = variances > 1e-6 * max(float(variances[0]), 1e-300)
    directions = vectors[kept][:DIRECTIONS].T
    return directions / np.where(known, scale, np.inf)[:, None]


def _spread_ratio(A: Array, B: Array) -> float:
    """Return the largest |log| of the ratios of variances in any direction of two samples."""
    first, second = np.cov(A, rowvar=False), np.cov(B, rowvar=False)
    try:
        ratios = linalg.eigh(np.atleast_2d(first), np.atleast_2d(second), eigvals_only=True)
    except np.linalg.LinAlgError:  # a direction without variance in one sample: no ratio
        return 0.0
    return float(np.abs(np.log(np.maximum(ratios, 1e-300))).max())


def _features(X: Array) -> Array | None:
    """Return columns to compare: features, or mean and spread of each channel of images."""
    if X.dtype.kind not in "fu" and X.dtype != np.uint8:
        return None
    values = X[:MOST_COMPARED].astype(np.float64)
    if X.ndim == 2:
        return values[:, :200]
    if X.ndim == 4:
        return np.concatenate([values.mean((2, 3)), values.std((2, 3))], 1)
    flat = values.reshape(len(values), -1)
    return np.stack([flat.mean(1), flat.std(1)], 1)
