"""Histograms of alpha whose bins are the same for every model, so that they can be put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyspectra.report.findings import THRESHOLDS

BIN_WIDTH = 0.5
MOST_BINS = 60


@dataclass(frozen=True)
class AlphaHistogram:
    """How many layers of some models have which alpha.

    Attributes
    ----------
    edges : tuple of float
        Borders of the bins, multiples of their width; one more than there are bins.
    counts : tuple of tuple of int
        For each model, the number of layers in each bin.
    """

    edges: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]


def alpha_histogram(*alphas: Sequence[float]) -> AlphaHistogram:
    """Count alphas in bins that hold them all, and the typical range.

    Parameters
    ----------
    *alphas : sequence of float
        The alphas of one model each; finite.

    Returns
    -------
    AlphaHistogram
        Its bins are half a unit wide, or a multiple of that where this would make more than 60.
    """
    together = [alpha for model in alphas for alpha in model]
    low, high = THRESHOLDS.alpha_low - BIN_WIDTH, THRESHOLDS.alpha_high
    start = math.floor(min([*together, low]) / BIN_WIDTH) * BIN_WIDTH
    end = max([*together, high])
    step = BIN_WIDTH * max(1, math.ceil((end - start) / BIN_WIDTH / MOST_BINS))
    edges = start + step * np.arange(math.floor((end - start) / step) + 2)
    counts = tuple(tuple(np.histogram(model, edges)[0].tolist()) for model in alphas)
    return AlphaHistogram(tuple(edges.tolist()), counts)
