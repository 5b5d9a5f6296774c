"""Specification of the distances between matrices and spectra, in plain numpy and loops."""

from __future__ import annotations

import itertools
import math

import numpy as np

Array = np.ndarray


def cka(A: Array, B: Array) -> float:
    """|A^T B|_F / sqrt(|A^T A|_F |B B^T|_F), WeightWatcher 0.7.7's `matrix_distance`."""
    top = np.linalg.norm(A.T @ B)
    return float(top / math.sqrt(np.linalg.norm(A.T @ A) * np.linalg.norm(B @ B.T)))


def ks(x: Array, y: Array) -> float:
    """Largest difference of the empirical distributions, at every point of both."""
    points = np.concatenate([x, y])
    return max(abs(float(np.mean(x <= t)) - float(np.mean(y <= t))) for t in points)


def wasserstein(x: Array, y: Array) -> float:
    """Area between the two distribution functions."""
    points = np.sort(np.concatenate([x, y]))
    total = 0.0
    for left, right in itertools.pairwise(points):
        total += abs(float(np.mean(x <= left)) - float(np.mean(y <= left))) * float(right - left)
    return total


def jensen_shannon(x: Array, y: Array) -> float:
    """sqrt((KL(p|m) + KL(q|m)) / 2), natural logarithm."""
    p, q = x / x.sum(), y / y.sum()
    m = (p + q) / 2
    total = 0.0
    for a, b, c in zip(p, q, m, strict=True):
        total += a * math.log(a / c) if a > 0 else 0.0
        total += b * math.log(b / c) if b > 0 else 0.0
    return math.sqrt(total / 2)
