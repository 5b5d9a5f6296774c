"""Whether a loss falls, or stays where it began: what several rules ask before they speak."""

from __future__ import annotations

import numpy as np

from pyspectra.types import FloatArray

LEAST_STEPS = 200
"""Steps before a loss that has not moved is a finding."""


def loss_falls(losses: FloatArray) -> bool | None:
    """Tell whether the newest losses lie below those before, beyond their scatter.

    Returns
    -------
    bool or None
        None before there are enough.
    """
    finite = losses[np.isfinite(losses)]
    if len(finite) < 20:
        return None
    window = min(max(len(finite) // 4, 10), 100)
    old, new = finite[-2 * window : -window], finite[-window:]
    error = np.sqrt(old.var() / window + new.var() / window)
    return bool(old.mean() - new.mean() > 2 * error)


def not_learning(
    losses: FloatArray,
    baseline: float | None,
    least: int = LEAST_STEPS,
    *,
    near: float = 0.02,
    decrease: float = 0.05,
) -> bool | None:
    """Tell whether the loss is still that of a model which knows nothing.

    Parameters
    ----------
    losses : ndarray
        Of the steps.
    baseline : float or None
        Loss of predicting class frequencies, or the mean.
    least : int
        Steps before there is an answer.
    near : float
        Distance to the baseline, as a share of it.
    decrease : float
        Share of the first losses by which a loss that learns has fallen.

    Returns
    -------
    bool or None
        None where there are too few steps, no baseline, or losses that are not finite.
    """
    if len(losses) < least or baseline is None or baseline <= 0 or not np.isfinite(losses).all():
        return None
    window = min(max(len(losses) // 5, 20), 200)
    now = float(losses[-window:].mean())
    first = float(np.median(losses[: max(window // 4, 5)]))
    if loss_falls(losses) and baseline - now > 0.25 * near * baseline:
        return False  # slow, but on its way
    if abs(now - baseline) < near * baseline:
        return True
    return first - now < decrease * first and now > 0.9 * baseline
