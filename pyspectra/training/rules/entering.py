"""What enters the model and the loss while it trains: ranges, shifts, the order of the classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import (
    ClassOrder,
    FirstInputs,
    InputMoments,
    NormState,
    TargetRange,
)
from pyspectra.training.rules.registry import rule
from pyspectra.training.rules.wiring import NOT_LEARNING


@dataclass(frozen=True)
class EnteringThresholds:
    """Thresholds of the rules of what enters a model while it trains. All are house conventions.

    Attributes
    ----------
    pixel : float
        Pictures without negative values whose largest lies between this and 255 were not scaled.
    feature_ratio, feature_size : float
        Largest over smallest standard deviation of the features, where the largest has at least
        this size: standardised and binary features have not, however rare their values.
    feature_offset, feature_share : float
        Features whose mean is so many standard deviations from 0, and the share of them.
    moved : float
        Standard deviations of training by which the mean of a feature differs in evaluations.
        Augmentation of the training data makes it differ by a fraction of one.
    moved_ratio : float
        Factor between the standard deviations of training and of evaluations.
    moved_share : float
        Share of the features that must say so.
    order_share : float
        Entropy of the classes within a batch over that of all batches: 1 of a shuffled order, up
        to what a small batch can hold, and 0 where each batch has one class.
    order_batches : int
        Batches that must have been seen.
    one_class : int
        Batches of one and the same class that say that there is no other.
    norm_batches, norm_left : int, float
        After so many batches at most this share of running statistics may be their initial values.
    norm_momentum : float
        Above it the running statistics of batch norm are those of the last batch.
    unreachable : float
        Share of the targets that the last operation of a model cannot reach.
    """

    pixel: float = 128.0
    feature_ratio: float = 1e3
    feature_size: float = 10.0
    feature_offset: float = 10.0
    feature_share: float = 0.1
    moved: float = 3.0
    moved_ratio: float = 5.0
    moved_share: float = 0.5
    order_share: float = 0.25
    order_batches: int = 8
    one_class: int = 5
    norm_batches: int = 100
    norm_left: float = 0.9
    norm_momentum: float = 0.9
    unreachable: float = 0.05


@rule("D20", "input_range", needs=FirstInputs, severity="warning",
      explains=("initial_loss", "not_learning", "underfitting", "plateau"))  # fmt: skip
def unscaled_inputs(facts: FirstInputs, thresholds: EnteringThresholds) -> Iterator[Finding]:
    """What enters the first weights are raw pixels, or features of widely different scales."""
    X = facts.X.astype(np.float64)
    if facts.normalized or not np.isfinite(X).all():
        return
    picture = X.ndim == 4 or X.shape[1] >= 64
    if picture and X.min() >= 0 and thresholds.pixel < X.max() <= 255:
        yield _range(
            facts.step, float(X.max()),
            f"The inputs look like raw pixels: they range from {X.min():.3g} to {X.max():.4g}.",
            "divide by 255 and standardise with training statistics",
        )  # fmt: skip
    if X.ndim != 2:
        return
    mean, std = X.mean(0), X.std(0)
    live = std > 1e-6 * (1 + np.abs(mean))
    if live.sum() < 2 or np.sqrt(mean**2 + std**2).max() < thresholds.feature_size:
        return
    ratio = float(std[live].max() / std[live].min())
    far = np.abs(mean[live]) > thresholds.feature_offset * std[live]
    advice = "standardise with the mean and standard deviation of the training data"
    if ratio > thresholds.feature_ratio and std.max() > thresholds.feature_size:
        message = f"The scales of the features that enter the model differ by {ratio:.2g}."
        yield _range(facts.step, ratio, message, advice)
    elif far.mean() > thresholds.feature_share:
        message = (
            f"{int(far.sum())} of {int(live.sum())} features that enter the model lie more than "
            f"{thresholds.feature_offset:g} standard deviations from 0."
        )
        yield _range(facts.step, float(far.mean()), message, advice)


def _range(step: int, value: float, message: str, *advice: str) -> Finding:
    return Finding(
        code="input_range", severity="warning", where="inputs", step=step, value=value,
        message=message, advice=advice,
    )  # fmt: skip


@rule("D27", "input_shift", needs=InputMoments, severity="warning",
      explains=("not_comparable", "overfitting", "labels_carry_no_information",
                "not_learning"))  # fmt: skip
def evaluated_on_other_inputs(
    facts: InputMoments, thresholds: EnteringThresholds
) -> Iterator[Finding]:
    """Evaluations get inputs of another mean, or another scale, than training."""
    scale = float(np.sqrt(np.mean(facts.std**2)))
    val_scale = float(np.sqrt(np.mean(facts.val_std**2)))
    if not (np.isfinite([scale, val_scale]).all() and scale > 0):
        return
    by = np.abs(facts.val_mean - facts.mean)
    moved = (by > thresholds.moved * facts.std) & (by > 0.5 * scale)
    r = thresholds.moved_ratio
    wider = (facts.val_std > r * facts.std) if val_scale > r * scale else facts.std < 0
    narrower = (r * facts.val_std < facts.std) if r * val_scale < scale else facts.std < 0
    least = thresholds.moved_share
    if not (moved.mean() >= least or wider.mean() >= least or narrower.mean() >= least):
        return
    mean, val_mean = float(facts.mean.mean()), float(facts.val_mean.mean())
    yield Finding(
        code="input_shift",
        severity="warning",
        where="validation",
        step=facts.step,
        value=float(by.max() / scale),
        threshold=thresholds.moved,
        message=(
            f"Inputs of evaluations have mean {val_mean:.3g} and standard deviation "
            f"{val_scale:.3g}, those of training {mean:.3g} and {scale:.3g}."
        ),
        advice=(
            "prepare validation as training: the same normalisation, with training statistics",
            "compare one batch of each by eye",
        ),
    )


@rule("D29", "not_shuffled", needs=ClassOrder, severity="warning",
      explains=("oscillation", "not_learning", "plateau", "divergence", "loss_spike",
                "not_comparable", "stopped_early", "accuracy_paradox"))  # fmt: skip
def classes_in_order(facts: ClassOrder, thresholds: EnteringThresholds) -> Iterator[Finding]:
    """Each batch holds one class or few, while all batches together hold many."""
    if len(facts.entropies) < thresholds.order_batches or facts.overall < 0.5:
        return
    share = float(np.median(facts.entropies)) / facts.overall
    if share < thresholds.order_share:
        pure = int((facts.entropies < 1e-9).sum())
        yield Finding(
            code="not_shuffled",
            severity="warning",
            where="targets",
            step=facts.step,
            value=share,
            threshold=thresholds.order_share,
            message=(
                f"Batches hold few classes each: {pure} of {len(facts.entropies)} that were looked "
                f"at have a single one, and all together {np.exp(facts.overall):.2g}. The data "
                "seem to be sorted by class."
            ),
            advice=(
                "shuffle in each epoch: DataLoader(shuffle=True)",
                "where the order has a reason, mix classes within a batch",
            ),
        )


@rule("D23", "constant_targets", needs=ClassOrder, severity="warning",
      explains=("labels_carry_no_information", "not_learning", "stopped_early", "plateau",
                "accuracy_paradox", "initial_loss"))  # fmt: skip
def one_class_only(facts: ClassOrder, thresholds: EnteringThresholds) -> Iterator[Finding]:
    """Every label that was seen is the same."""
    if len(facts.entropies) >= thresholds.one_class and facts.overall == 0:
        yield Finding(
            code="constant_targets",
            severity="warning",
            where="targets",
            step=facts.step,
            value=0.0,
            threshold=0.0,
            message=(
                f"All labels of {len(facts.entropies)} batches are of one class: there is nothing "
                "to tell apart."
            ),
            advice=(
                "look at how labels are made: an index, a comparison or a join that never holds",
                "shuffle, if the data are sorted by class",
                "Watch(ignore={'constant_targets'}) where the first entry is always the right one",
            ),
        )


@rule("D21", "running_statistics", needs=NormState, severity="warning",
      explains=("not_learning", "suspicious_validation", "not_comparable", "overfitting",
                "labels_carry_no_information"))  # fmt: skip
def norms_that_do_not_follow(facts: NormState, thresholds: EnteringThresholds) -> Iterator[Finding]:
    """Batch norm evaluates with statistics that are still the initial ones, or of one batch."""
    for name, momentum, n in facts.rows:
        left = (1.0 - momentum) ** n
        old = n >= thresholds.norm_batches and left > thresholds.norm_left
        if not (old or momentum > thresholds.norm_momentum):
            continue
        how = (
            f"{100 * left:.0f} % of the running statistics are still the initial ones after {n} "
            "batches"
            if old
            else "the running statistics are those of the last batch"
        )
        yield Finding(
            code="running_statistics",
            severity="warning",
            where=name,
            step=facts.step,
            value=momentum,
            threshold=thresholds.norm_momentum,
            message=f"Batch norm {name} has momentum {momentum:g}: {how}.",
            advice=(
                "leave the momentum at 0.1: in PyTorch it is the weight of the new batch, where "
                "other libraries mean that of the old",
                "evaluate later",
            ),
        )
        return


@rule("D05", "output_range", needs=TargetRange, severity="warning",
      explains=(*NOT_LEARNING, "zero_gradient", "dead_units", "saturated_units", "underfitting",
                "not_comparable"))  # fmt: skip
def targets_out_of_reach(facts: TargetRange, thresholds: EnteringThresholds) -> Iterator[Finding]:
    """Targets lie where the last operation of the model cannot reach."""
    if facts.outside > thresholds.unreachable:
        yield Finding(
            code="output_range",
            severity="warning",
            where="outputs",
            step=facts.step,
            value=facts.outside,
            threshold=thresholds.unreachable,
            message=(
                f"The outputs come from {facts.operation}, which gives {facts.low:g} to "
                f"{facts.high:g}, but {100 * facts.outside:.0f} % of the targets lie outside: they "
                f"range from {facts.smallest:.3g} to {facts.largest:.3g}."
            ),
            advice=(
                "leave the activation after the last layer out",
                "or scale the targets into its range",
            ),
        )
