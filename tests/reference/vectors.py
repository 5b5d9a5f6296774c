"""Localisation of one vector, as WeightWatcher 0.7.7 and the JMLR paper define it."""

from __future__ import annotations

import math

import numpy as np


def loc_ratio(v: np.ndarray) -> float:
    """|v|_1 / |v|_inf."""
    return sum(abs(x) for x in v) / max(abs(x) for x in v)


def part_ratio(v: np.ndarray) -> float:
    """|v|_2 / |v|_4."""
    return math.sqrt(math.fsum(x * x for x in v)) / math.fsum(x**4 for x in v) ** 0.25


def vec_entropy(v: np.ndarray) -> float:
    """-sum p ln p, p from the 100-bin density histogram of |v| - mean|v|, plus 1e-10."""
    size = np.abs(v) - np.mean(np.abs(v))
    low, high = size.min(), size.max()
    counts = [0] * 100
    for x in size:
        counts[min(int((x - low) / (high - low) * 100), 99)] += 1
    width = (high - low) / 100
    p = [(c / (len(v) * width) + 1e-10) / math.sqrt(2 * math.pi) for c in counts]
    total = math.fsum(p)
    return -math.fsum(x / total * math.log(x / total) for x in p)
