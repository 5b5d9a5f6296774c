"""Methods of merging: each is a record of what happens to task vectors before they are added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pyspectra.types import FloatArray

__all__ = ["METHODS", "MergeMethod", "combined"]


@dataclass(frozen=True)
class MergeMethod:
    """One method.

    Attributes
    ----------
    name : str
        As mergekit and peft call it.
    keeps : str
        Which numbers of a task vector stay: ``"all"``, the ``"largest"`` by magnitude, or
        ``"random"`` ones, which are divided by the density.
    elects : bool
        Whether only those numbers count whose sign is that of their sum.
    is_mean : bool
        Whether the sum is divided by the weights that went into it, unless the caller says.
    density : float
        Share of numbers that stays, unless the caller says.
    help : str
        What it does, as the end of "NAME: it ...".
    source : str
        Where it was published.
    """

    name: str
    keeps: str
    elects: bool
    is_mean: bool
    density: float
    help: str
    source: str


METHODS: Final = (
    MergeMethod(
        "task_arithmetic", "all", False, False, 1.0,
        "adds the weighted task vectors to the base",
        "Ilharco et al. 2023, arXiv 2212.04089",
    ),
    MergeMethod(
        "magnitude_prune", "largest", False, False, 0.2,
        "adds the largest numbers of each task vector",
        "the first step of TIES alone, as in peft",
    ),
    MergeMethod(
        "ties", "largest", True, True, 0.2,
        "takes the largest numbers of each task vector, elects a sign for each weight, and adds "
        "the mean of those that have it",
        "Yadav et al. 2023, arXiv 2306.01708",
    ),
    MergeMethod(
        "dare_linear", "random", False, False, 0.5,
        "drops numbers of each task vector at random, divides the others by the density, and adds "
        "them",
        "Yu et al. 2024, arXiv 2311.03099",
    ),
    MergeMethod(
        "dare_ties", "random", True, True, 0.5,
        "drops and divides as dare_linear does, then elects signs and takes means as ties does",
        "Yu et al. 2024, arXiv 2311.03099",
    ),
)  # fmt: skip
"""All methods, in the order of the documentation."""


def combined(
    vectors: Sequence[FloatArray], weights: Sequence[float], *, elects: bool, is_mean: bool
) -> FloatArray:
    """Add some numbers of several task vectors.

    Parameters
    ----------
    vectors : sequence of ndarray
        float64, of one shape.
    weights : sequence of float
        One for each; a negative one takes a vector away.
    elects, is_mean : bool
        See `MergeMethod`.

    Returns
    -------
    ndarray
        With x_i the weighted numbers: the sum of all x_i, or of those whose sign is that of this
        sum (a sum of zero counts as positive), and of a mean that sum over that of their |w_i|.
        NaN where one of them is.
    """
    with np.errstate(all="ignore"):  # what is not finite is reported by name
        weighted = [w * x for w, x in zip(weights, vectors, strict=True)]
        total = np.sum(weighted, axis=0)
        if not elects:
            return np.asarray(total / sum(map(abs, weights)) if is_mean else total)
        merged, share = np.zeros_like(total), np.zeros_like(total)
        for w, x in zip(weights, weighted, strict=True):
            agrees = np.where(total >= 0.0, x > 0.0, x < 0.0)
            merged += np.where(agrees, x, 0.0)
            share += abs(w) * agrees
        if is_mean:
            merged /= np.where(share > 0.0, share, 1.0)
        return np.where(np.isnan(total), np.nan, merged)
