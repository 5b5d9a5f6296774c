"""What a sample of the entries tells, with `math.fsum`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def entry_sample(matrices: Sequence[np.ndarray], step: int) -> tuple[float, float]:
    """Return excess kurtosis and share of zeros of rows 0, step, 2 step, ... together."""
    w = np.concatenate([W[::step].ravel() for W in matrices])
    mean = math.fsum(w) / len(w)
    deviations = [x - mean for x in w]
    second = math.fsum(d**2 for d in deviations)
    fourth = math.fsum(d**4 for d in deviations)
    kurtosis = fourth * len(w) / second**2 - 3.0 if second > 0.0 else math.nan
    return kurtosis, sum(x == 0.0 for x in w) / len(w)


def distance_from_orthogonal(matrices: Sequence[np.ndarray], probed: int) -> float:
    """How far the products of the first rows are from a multiple of the identity, relative."""
    G = sum(W[:probed] @ W[:probed].T for W in matrices)
    scale = float(np.mean(np.diag(G)))
    return float(np.max(np.abs(G / scale - np.eye(len(G)))))
