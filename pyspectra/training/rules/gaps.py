"""Training beside validation: worse again, better, or not the same thing at all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyspectra.report.findings import Finding
from pyspectra.training.curves import divergence
from pyspectra.training.rules.curves import last_step
from pyspectra.training.rules.facts import Curves
from pyspectra.training.rules.registry import rule


@dataclass(frozen=True)
class GapThresholds:
    """Thresholds of the rules that compare training and validation.

    Attributes
    ----------
    overfit_share, overfit_errors : float
        A validation loss has risen by more than the greater of this share of its best value, and so
        many standard errors of one evaluation, or standard deviations of the curve around the
        valley that fits it. UMLAUT's single epoch flags 47 % of healthy runs.
    overfit_evaluations : int
        Evaluations in a row that must say so.
    better_errors : float
        Standard errors by which validation may be better than training.
    first_epochs : int
        Epochs in which validation may be better: the model grew while training was measured.
    sum_ratio : float
        The ratio of training and validation is that of a sum to a mean within this factor of the
        number of samples. House convention.
    sum_least : float
        Fewer samples than this say nothing by their ratio.
    """

    overfit_share: float = 0.05
    overfit_errors: float = 3.0
    overfit_evaluations: int = 3
    better_errors: float = 3.0
    first_epochs: int = 3
    sum_ratio: float = 1.5
    sum_least: float = 8.0


@rule("D35", "overfitting", needs=Curves, severity="warning")
def overfitting(facts: Curves, thresholds: GapThresholds) -> Iterator[Finding]:
    """Validation is worse than its best, evaluation after evaluation, while training is not.

    A gap between the two alone is never a verdict. Nor is a single lucky evaluation the best: the
    curve is held against the valley that fits it, and its scatter around that is its error.
    """
    val, train = facts.get("val_loss"), facts.get("train_loss")
    k = thresholds.overfit_evaluations
    if len(train) != len(val):
        return
    errors = facts.get("val_loss_se")
    found = divergence(
        facts.epochs,
        train,
        val,
        share=thresholds.overfit_share,
        val_se=errors if len(errors) == len(val) else None,
        n_se=thresholds.overfit_errors,
    )
    if found is None or found.n < k or not found.train_improves:
        return
    percent = 100 * found.worse_by / max(abs(found.best), 1e-12)
    yield Finding(
        code="overfitting",
        severity="warning",
        where="val_loss",
        step=last_step(facts),
        value=found.worse_by,
        threshold=found.limit,
        message=(
            f"Validation is {percent:.0f} % above its best (epoch {found.best_x:g}) for {k} "
            "evaluations while training still falls."
        ),
        advice=(
            f"stop at epoch {found.best_x:g}",
            "dropout, weight decay or augmentation",
            "more data",
        ),
        evidence={"early_stop_epoch": found.best_x, "best": found.best},
    )


@rule("D39", "suspicious_validation", needs=Curves, severity="info")
def suspicious_validation(facts: Curves, thresholds: GapThresholds) -> Iterator[Finding]:
    """Validation is better than training, which was measured after the epoch, too."""
    if not facts.post or len(facts.epochs) <= thresholds.first_epochs:
        return
    train, val = facts.get("train_loss"), facts.get("val_loss")
    errors = facts.get("val_loss_se")
    if not len(train) or not len(val) or not len(errors):
        return
    by, error = float(train[-1] - val[-1]), float(errors[-1])
    if by > thresholds.better_errors * error > 0:
        yield Finding(
            code="suspicious_validation",
            severity="info",
            where="val_loss",
            step=last_step(facts),
            value=by,
            threshold=thresholds.better_errors * error,
            message=f"Validation is better than training by {by:.3g} (standard error {error:.2g}).",
            advice=(
                "look for the same samples in both",
                "was training measured with dropout or augmentation",
            ),
        )


@rule("D40", "not_comparable", needs=Curves, severity="info")
def not_comparable(facts: Curves, thresholds: GapThresholds) -> Iterator[Finding]:
    """Metrics of training and validation are not the same thing."""
    trained = [n.removeprefix("train_") for n in sorted(facts.values) if n.startswith("train_")]
    both = [m for m in trained if not m.endswith("_se") and len(facts.get(f"val_{m}"))]
    told = {m: how for m in both if (how := _how(facts, m, thresholds)) is not None}
    if not told:
        return
    # What holds of one metric mostly holds of all: one note, and that of the loss if it is there.
    metric = "loss" if "loss" in told else next(iter(told))
    yield Finding(
        code="not_comparable",
        severity="info",
        where=metric,
        step=last_step(facts),
        message=f"{metric} of training and validation are not the same thing: {told[metric]}.",
        advice=(
            "use means over whole epochs and the same reduction for both",
            "evaluate the training set after the epoch, too: History.log(kind='post')",
        ),
        evidence={"metrics": tuple(told)},
    )


def _how(facts: Curves, metric: str, thresholds: GapThresholds) -> str | None:
    return (
        _single_batches(facts)
        or _sums(facts, metric, thresholds)
        or _running(facts, metric, thresholds)
    )


def _single_batches(facts: Curves) -> str | None:
    """Tell whether the training value of each epoch is that of one batch, of many that ran."""
    if facts.n_records is None or len(facts.steps) < 2 or not math.isfinite(facts.batch):
        return None
    several = bool((np.diff(np.asarray(facts.steps)) > 1).all())
    if several and bool((facts.n_records == 1).all()) and facts.n_val > 4 * facts.batch:
        return f"training was logged for one batch of {facts.batch:g} in each epoch"
    return None


def _sums(facts: Curves, metric: str, thresholds: GapThresholds) -> str | None:
    """Tell whether one of the two is a sum over samples and the other a mean.

    In the first epoch the two are of one size; a ratio that is just the number of samples in a
    batch, or in the validation set, is no accident.
    """
    train, val = facts.get(f"train_{metric}"), facts.get(f"val_{metric}")
    if not (len(train) and len(val) and train[0] > 0 and val[0] > 0):
        return None
    ratio = float(val[0] / train[0])
    for n, of in ((facts.n_val, "validation set"), (facts.batch, "batch")):
        if not (math.isfinite(n) and n >= thresholds.sum_least):
            continue
        for times, which in ((ratio, "validation"), (1 / ratio, "training")):
            if abs(math.log(times / n)) < math.log(thresholds.sum_ratio):
                return (
                    f"{which} is {times:.3g} times the other, about the {n:g} samples of a {of}, "
                    "as a sum is of a mean"
                )
    return None


def _running(facts: Curves, metric: str, thresholds: GapThresholds) -> str | None:
    """Tell whether validation goes on to look better, beside a mean over a model that learned.

    Every run does so in its first epochs.
    """
    train, val = facts.get(f"train_{metric}"), facts.get(f"val_{metric}")
    k = thresholds.first_epochs
    if facts.post or min(len(train), len(val)) <= k or metric not in facts.higher_is_better:
        return None
    sign = -1.0 if facts.higher_is_better[metric] else 1.0
    errors = [facts.get(f"{split}_{metric}_se") for split in ("train", "val")]
    error = math.hypot(*(float(e[-1]) if len(e) and np.isfinite(e[-1]) else 0.0 for e in errors))
    by = sign * (train[k:] - val[k:])
    least = max(thresholds.better_errors * error, 0.05 * abs(float(val[-1])))
    if not (by > least).all():
        return None
    return (
        f"validation ({val[-1]:.3g}) stays better than training ({train[-1]:.3g}), which is a mean "
        "over batches while the model learned, with dropout and augmentation if there are any"
    )
