"""Curves of whole epochs: rise, plateau, swings, stopped too early."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyspectra.report import findings
from pyspectra.report.findings import Finding
from pyspectra.training.curves import finite_points, last_window, plateau, slope
from pyspectra.training.rules.facts import Curves
from pyspectra.training.rules.registry import rule
from pyspectra.types import FloatArray


@dataclass(frozen=True)
class CurveThresholds(findings.Thresholds):
    """Thresholds of the rules of curves.

    Attributes
    ----------
    worsening_window : int
        Epochs over which a metric of training gets worse: all pairs of five must say so for
        Mann and Kendall's test to reach p < 0.05.
    worsening_errors : float
        Standard errors by which it must get worse.
    plateau_band : float
        Relative change an epoch that counts as none. House convention.
    converged_share : float
        A plateau below this share of the baseline is the end of training, above it is a fault.
    annealed : float
        At this share of the largest learning rate curves are expected to be flat.
    falling : float
        Relative fall an epoch of a loss that has not ended. House convention.
    under_trained_layers : float
        Share of the layers above `alpha_high` from which stopping early is a warning and not a
        note. House convention.
    swing : float
        Least swing of an accuracy. AUTOTRAINER's zeta.
    swing_share : float
        Share of the epochs at which it must swing. AUTOTRAINER.
    """

    worsening_window: int = 5
    worsening_errors: float = 3.0
    plateau_band: float = 0.005
    converged_share: float = 0.5
    annealed: float = 0.01
    falling: float = 0.03
    under_trained_layers: float = 0.5
    swing: float = 0.03
    swing_share: float = 0.2


def last_step(facts: Curves) -> int | None:
    """Return the step at the end of the last epoch."""
    return facts.steps[-1] if facts.steps else None


@rule("D33", "train_metric_worsening", needs=Curves, severity="warning",
      explains=("oscillation",))  # fmt: skip
def train_metric_worsening(facts: Curves, thresholds: CurveThresholds) -> Iterator[Finding]:
    """The training loss rises epoch after epoch."""
    k = thresholds.worsening_window
    losses, errors = facts.get("train_loss"), facts.get("train_loss_se")
    if len(losses) < k + 1 or not np.isfinite(losses[-k:]).all():
        return
    last = losses[-k:]
    rises = np.sign(last[None, :] - last[:, None])[np.triu_indices(k, 1)].sum()
    # Among five points, p < 0.05 takes at least nine of the ten pairs.
    if rises < k * (k - 1) / 2 - 2:
        return
    error = float(errors[-1]) if len(errors) and np.isfinite(errors[-1]) else 0.0
    by = float(last[-1] - last[0])
    if by > thresholds.worsening_errors * error * math.sqrt(2) and by > 0.02 * abs(float(last[0])):
        yield Finding(
            code="train_metric_worsening",
            severity="warning" if facts.objective else "info",
            where="train_loss",
            step=last_step(facts),
            value=by,
            threshold=thresholds.worsening_errors * error,
            message=(
                f"The training loss rose from {last[0]:.3g} to {last[-1]:.3g} in the last {k} "
                "epochs."
            ),
            advice=("divide the learning rate by 3", "clip gradients to norm 1"),
        )


def _annealed(facts: Curves, window: int, share: float) -> bool:
    rates = facts.lr
    if rates is None or not np.isfinite(rates[-window:]).any():
        return False
    return bool(np.nanmin(rates[-window:]) < share * np.nanmax(rates))


@rule("D34", "plateau", needs=Curves, severity="warning")
def flat(facts: Curves, thresholds: CurveThresholds) -> Iterator[Finding]:
    """The training loss is flat: at the end of training, or near where it began."""
    losses = facts.get("train_loss")
    window = last_window(len(losses))
    if len(losses) < 5 or _annealed(facts, window, thresholds.annealed):
        return
    found = plateau(facts.epochs, losses, band=thresholds.plateau_band)
    if found is None or facts.baseline is None:
        return
    converged = found.level <= thresholds.converged_share * facts.baseline
    stuck = found.level > 0.9 * facts.baseline
    if not (converged or stuck):
        return  # hard data have a floor of their own
    above = found.level > 1.1 * facts.baseline
    near = "above the baseline" if above else "near the baseline"
    end = near if stuck else "far below the baseline"
    yield Finding(
        code="plateau",
        severity="warning" if stuck else "info",
        where="train_loss",
        step=last_step(facts),
        value=found.level,
        threshold=facts.baseline,
        message=(
            f"The training loss is flat within ±{100 * thresholds.plateau_band:g} % an epoch since "
            f"epoch {found.since:g} at {found.level:.3g}, {end} {facts.baseline:.3g}."
        ),
        advice=("a larger model", "another learning rate", "check the labels")
        if stuck
        else ("stop", "or anneal the learning rate"),
        evidence={"verdict": "stuck" if stuck else "converged"},
    )


@rule("D36", "underfitting", needs=Curves, severity="info")
def underfitting(facts: Curves, thresholds: CurveThresholds) -> Iterator[Finding]:
    """Both curves are flat and close together, and the target is not reached."""
    train, val = facts.get("train_loss"), facts.get("val_loss")
    found = plateau(facts.epochs, train, band=thresholds.plateau_band) if len(train) > 5 else None
    if found is None or len(val) != len(train) or not np.isfinite(val[-1]):
        return
    target = facts.target
    if target is None and facts.baseline is not None:
        target = thresholds.converged_share * facts.baseline
    if target is None or found.level <= target or val[-1] > 1.1 * train[-1]:
        return
    yield Finding(
        code="underfitting",
        severity="info",
        where="train_loss",
        step=last_step(facts),
        value=found.level,
        threshold=target,
        message=f"Both curves are flat at {found.level:.3g}; the target is {target:.3g}.",
        advice=("a larger model", "longer training", "less regularisation"),
    )


@rule("D37", "stopped_early", needs=Curves, severity="warning")
def stopped_early(facts: Curves, thresholds: CurveThresholds) -> Iterator[Finding]:
    """The training loss still falls at the end of the run. A note, unless the spectra agree."""
    train, val = facts.get("train_loss"), facts.get("val_loss")
    _, losses = finite_points(facts.epochs, train) if len(train) else (train, train)
    if not facts.ended or len(losses) < 4:
        return
    fitted = slope(facts.epochs[-3:], train[-3:])
    if fitted is None or fitted.value > -thresholds.falling:
        return
    known = val[np.isfinite(val)]
    if len(known) and known[-1] > known.min() * 1.02:
        return
    share = None
    if facts.alphas is not None:
        share = float(np.mean(facts.alphas > thresholds.alpha_high))
    agrees = share is not None and share >= thresholds.under_trained_layers
    more = ""
    if share is not None:
        more = f"; {100 * share:.0f} % of the layers have alpha > {thresholds.alpha_high:g}"
    yield Finding(
        code="stopped_early",
        severity="warning" if agrees else "info",
        where="train_loss",
        step=last_step(facts),
        value=-fitted.value,
        threshold=thresholds.falling,
        message=(
            f"The training loss still falls by {-100 * fitted.value:.0f} % an epoch at the "
            f"end{more}."
        ),
        advice=("train longer", "a larger learning rate"),
    )


@rule("D38", "oscillation", needs=Curves, severity="warning")
def oscillation(facts: Curves, thresholds: CurveThresholds) -> Iterator[Finding]:
    """A metric of validation swings by more than chance, epoch after epoch."""
    accuracy = facts.get("val_accuracy")
    values = accuracy[np.isfinite(accuracy)]
    if len(values) < 8:
        return
    p = float(np.median(values))
    noise = 3 * math.sqrt(2 * p * (1 - p) / facts.n_val) if facts.n_val else 0.0
    least = max(thresholds.swing, noise)
    count = _swings(values[2:], least)
    if count >= max(thresholds.swing_share * len(values), 3):
        yield Finding(
            code="oscillation",
            severity="warning",
            where="val_accuracy",
            step=last_step(facts),
            value=float(count),
            threshold=thresholds.swing_share * len(values),
            message=(
                f"The validation accuracy swings by {least:.2g} and more (noise {noise:.2g}) in "
                f"{count} of {len(values)} epochs."
            ),
            advice=(
                "divide the learning rate by 3",
                "larger batches",
                "average the weights (EMA)",
            ),
        )


def _swings(values: FloatArray, least: float) -> int:
    """Count falls and rises between neighbouring extremes that exceed `least`."""
    turns = [values[0]] if len(values) else []
    for k in range(1, len(values)):
        last = k == len(values) - 1
        if last or (values[k] - values[k - 1]) * (values[k + 1] - values[k]) < 0:
            turns.append(values[k])
    falls = np.diff(np.asarray(turns))
    return int((np.abs(falls[falls < 0]) > least).sum())
