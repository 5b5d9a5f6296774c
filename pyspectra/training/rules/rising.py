"""Losses of steps that spike, rise and stay up, or bounce."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import LossCurve
from pyspectra.training.rules.learning import loss_falls
from pyspectra.training.rules.registry import number, rule
from pyspectra.training.series import autocorrelation, detrended
from pyspectra.types import FloatArray

BOUNCES = 100
"""Losses whose neighbours are compared."""

SHORT_EPOCH = 10
"""Batches of an epoch below which their turns may look like bouncing."""


@dataclass(frozen=True)
class RisingThresholds:
    """Thresholds of the rules of losses that rise.

    Attributes
    ----------
    spike : float
        A loss spikes if it is this many times the mean of the last ten, as in Lightning's
        SpikeDetection.
    spike_z : float
        It must also lie that many robust standard deviations above the median of the last hundred.
    divergence : float
        The median of a window is this many times that of the best one, or above the first.
    divergence_windows : int
        Windows in a row that must say so.
    divergence_share : float
        Share of the pairs of a loss of the last windows and one of those around the best, in which
        the last is the greater. Losses of single samples scatter more than they rise.
    bounce : float
        Correlation of neighbouring losses, their trend taken out, below which they bounce: five
        standard errors of that of independent losses.
    """

    spike: float = 2.0
    spike_z: float = 6.0
    divergence: float = 2.0
    divergence_windows: int = 3
    divergence_share: float = 0.9
    bounce: float = -0.5


@rule("D15", "loss_spike", needs=LossCurve, severity="info")
def loss_spike(facts: LossCurve, thresholds: RisingThresholds) -> Iterator[Finding]:
    """One loss stands far above those before it."""
    losses = facts.losses
    if len(losses) < max(facts.warmup, 30) or not np.isfinite(losses[-1]):
        return
    before = losses[:-1][np.isfinite(losses[:-1])]
    if len(before) < 20:
        return
    mean, last = float(before[-10:].mean()), float(losses[-1])
    recent = before[-100:]
    center = float(np.median(recent))
    spread = 1.4826 * float(np.median(np.abs(recent - center)))
    if mean > 0 and last > thresholds.spike * mean and last > center + thresholds.spike_z * spread:
        step = facts.start + len(losses) - 1
        yield Finding(
            code="loss_spike",
            severity="info",
            where="loss",
            step=step,
            value=last / mean,
            threshold=thresholds.spike,
            message=(
                f"The loss {last:.3g} is {last / mean:.2g} times the recent mean at step {step}."
            ),
            advice=("look at the batch of this step", "clip gradients to norm 1"),
        )


@rule("D15", "divergence", needs=LossCurve, severity="warning",
      explains=("loss_spike", "exploding_gradient", "not_learning"))  # fmt: skip
def divergence(facts: LossCurve, thresholds: RisingThresholds) -> Iterator[Finding]:
    """The loss rises and stays up."""
    medians = window_medians(facts.losses[np.isfinite(facts.losses)], facts.window)
    k = thresholds.divergence_windows
    if len(medians) < k + 1 or len(facts.losses) < facts.warmup + k * facts.window:
        return
    best = int(np.argmin(medians))
    low, first = float(medians[best]), float(medians[0])
    last = medians[-k:]
    # Near zero a ratio says nothing: a loss that has become small may double.
    floor = max(low, 0.05 * abs(first), 1e-12)
    doubled = bool((last > thresholds.divergence * floor).all()) and best < len(medians) - k
    above_start = bool((last > 1.25 * first).all()) and first > 0
    finite = facts.losses[np.isfinite(facts.losses)]
    risen = (doubled or above_start) and _exceeds(finite, best, k, facts.window, thresholds)
    thrown = _thrown_up(finite, k * facts.window, thresholds)
    if risen or thrown:
        if thrown and not risen:
            best, floor = 0, float(np.median(finite[:3]))
        step = facts.start + (best + 1) * facts.window - 1
        ratio = float(last[-1]) / floor
        yield Finding(
            code="divergence",
            severity="warning",
            where="loss",
            step=facts.start + len(facts.losses) - 1,
            value=ratio,
            threshold=thresholds.divergence,
            message=f"The loss is {ratio:.2g} times its best of step {step}, and stays there.",
            advice=("divide the learning rate by 3", "add a warm-up", "clip gradients to norm 1"),
            evidence={"best": number(low), "first": number(first), "best_step": step},
        )


@rule("D38", "oscillation", needs=LossCurve, severity="warning",
      explains=("plateau", "not_learning"))  # fmt: skip
def bouncing(facts: LossCurve, thresholds: RisingThresholds) -> Iterator[Finding]:
    """The loss goes up and down from step to step, and does not fall.

    Where an epoch is a few batches, their turns do that too: the length of an epoch must be known.
    """
    n = facts.epoch_steps
    if n is None or 1 < n < SHORT_EPOCH or len(facts.losses) < facts.warmup + BOUNCES:
        return
    last = facts.losses[-BOUNCES:]
    if not np.isfinite(last).all() or loss_falls(facts.losses) is not False:
        return
    rest = detrended(np.arange(BOUNCES), last)
    correlation, swing = autocorrelation(rest), float(rest.std())
    # Rounding bounces, too, around a loss that has come to rest.
    if correlation < thresholds.bounce and swing > 1e-3 * abs(float(last.mean())):
        yield Finding(
            code="oscillation",
            severity="warning",
            where="loss",
            step=facts.start + len(facts.losses) - 1,
            value=correlation,
            threshold=thresholds.bounce,
            message=(
                f"The loss goes up and down from step to step (correlation of neighbours "
                f"{correlation:.2f}) by {swing:.2g} around {last.mean():.3g}, and does not fall."
            ),
            advice=("divide the learning rate by 3", "lower the momentum"),
        )


def _thrown_up(losses: FloatArray, n: int, t: RisingThresholds) -> bool:
    """Tell whether nine in ten of the last losses lie far above those before any training."""
    begin = float(np.median(losses[:3]))
    return begin > 0 and float(np.quantile(losses[-n:], 0.1)) > t.divergence * begin


def _exceeds(losses: FloatArray, best: int, k: int, window: int, t: RisingThresholds) -> bool:
    """Tell whether the last windows lie above those around the best one, loss by loss."""
    n = len(losses) // window * window
    low = max(best - k // 2, 0) * window
    around, last = np.sort(losses[low : low + k * window]), losses[n - k * window : n]
    below = np.searchsorted(around, last, side="left")
    return float(below.mean()) / len(around) > t.divergence_share


def window_medians(values: FloatArray, window: int) -> FloatArray:
    """Return the medians of consecutive windows; an unfinished one at the end is left out."""
    n = len(values) // window
    return np.median(values[: n * window].reshape(n, window), axis=1) if n else np.empty(0)
