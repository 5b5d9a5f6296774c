"""Does the loss fall at all: a rule, and what other rules ask before they speak."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import Curves, LossCurve
from pyspectra.training.rules.registry import rule
from pyspectra.types import FloatArray


@dataclass(frozen=True)
class LearningThresholds:
    """Thresholds of the rule of learning, and of rules that speak only where nothing is learned.

    Attributes
    ----------
    baseline_share : float
        A loss within this share of that of predicting class frequencies has learned nothing else.
    least_decrease : float
        A loss that fell by less than this share, and is near the baseline, has not moved.
        TheDeepChecker asks 5 % in a period, too.
    baseline_errors : float
        An evaluation counts as chance unless it is more than so many standard errors below the
        baseline.
    baseline_most : float
        A loss of more than so many baselines is measured otherwise.
    baseline_epochs, baseline_steps : int
        Evaluations, and steps, before validation at the baseline is a finding.
    """

    baseline_share: float = 0.02
    least_decrease: float = 0.05
    baseline_errors: float = 3.0
    baseline_most: float = 2.0
    baseline_epochs: int = 3
    baseline_steps: int = 150


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


def has_learned(curve: LossCurve) -> bool:
    """Tell whether the newest losses lie well below the first, and the baseline: by a fifth."""
    finite = curve.losses[np.isfinite(curve.losses)]
    if len(finite) < 20:
        return False
    first = float(np.median(finite[:5]))
    if curve.baseline is not None and curve.baseline > 0:
        first = min(first, curve.baseline)
    return float(finite[-10:].mean()) < 0.8 * first


def is_stuck(curve: LossCurve | None, thresholds: LearningThresholds) -> bool | None:
    """Tell whether the loss is still that of a model which knows nothing.

    Returns
    -------
    bool or None
        None where there are too few steps, no baseline, or losses that are not finite.
    """
    if curve is None or curve.rates_rise or len(curve.losses) < curve.least:
        return None
    losses, baseline = curve.losses, curve.baseline
    if baseline is None or baseline <= 0 or not np.isfinite(losses).all():
        return None
    near = thresholds.baseline_share * baseline
    window = min(max(len(losses) // 5, 20), 200)
    now = float(losses[-window:].mean())
    first = float(np.median(losses[: max(window // 4, 5)]))
    if loss_falls(losses) and baseline - now > 0.25 * near:
        return False  # slow, but on its way
    if abs(now - baseline) < near:
        return True
    return first - now < thresholds.least_decrease * first and now > 0.9 * baseline


ADVICE = (
    "run sanity.check and sanity.overfit_one_batch",
    "check that inputs and labels belong together",
    "look for gradients that are zero",
    "check the learning rate: updates should be about 1e-3 of the weights",
)


@rule("D32", "not_learning", needs=LossCurve, severity="warning", explains=("plateau",))
def not_learning(facts: LossCurve, thresholds: LearningThresholds) -> Iterator[Finding]:
    """The loss is that of a model which knows class frequencies, or the mean, and nothing else."""
    if not is_stuck(facts, thresholds) or facts.baseline is None:
        return
    now = float(facts.losses[-20:].mean())
    yield Finding(
        code="not_learning",
        severity="warning",
        where="loss",
        step=facts.start + len(facts.losses) - 1,
        value=now,
        threshold=facts.baseline,
        message=(
            f"After {len(facts.losses)} steps the loss is {now:.4g}: it has hardly moved, and "
            f"predicting class frequencies, or the mean, gives {facts.baseline:.4g}."
        ),
        advice=ADVICE,
    )


@rule("D32", "not_learning", needs=Curves, severity="warning", explains=("plateau",))
def nothing_carries_over(facts: Curves, thresholds: LearningThresholds) -> Iterator[Finding]:
    """No evaluation was better than predicting class frequencies, or the mean."""
    val, baseline = facts.get("val_loss"), facts.baseline
    known = val[np.isfinite(val)]
    if baseline is None or baseline <= 0 or len(known) < thresholds.baseline_epochs:
        return
    if not facts.steps or facts.steps[-1] < thresholds.baseline_steps:
        return
    errors = facts.get("val_loss_se")
    best = int(np.nanargmin(val))
    error = float(np.nan_to_num(errors[best])) if len(errors) == len(val) else 0.0
    allowed = max(thresholds.baseline_share * baseline, thresholds.baseline_errors * error)
    # What is far above the baseline is a sum, or of another scale, or diverges: no guess.
    if not baseline - allowed <= float(val[best]) <= thresholds.baseline_most * baseline:
        return
    yield Finding(
        code="not_learning",
        severity="warning",
        where="loss",
        step=facts.steps[-1],
        value=float(val[best]),
        threshold=baseline - allowed,
        message=(
            f"In {len(known)} evaluations the loss was {val[best]:.4g} at best, that of the "
            f"baseline {baseline:.4g}, which predicts class frequencies or the mean."
        ),
        advice=ADVICE,
    )
