"""What enters the model: its range, its normalisation, its columns, and the size of batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import Array, BatchSize, EpochBatches, Inputs
from pyspectra.training.rules.registry import rule

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE_MEANS = (123.68, 116.779, 103.939)


@dataclass(frozen=True)
class InputThresholds:
    """Thresholds of the rules of inputs.

    Attributes
    ----------
    scale_ratio : float
        Largest over smallest standard deviation of the features. House convention.
    offset : float, offset_share : float
        Features whose mean is so many standard deviations from 0, and the share of them.
    range_excess, range_share : float
        A value lies outside of what a normalisation can reach by more than the first; the second
        share of them may, since random erasing fills with noise.
    few_values, least_rows : int
        A column with so few values, of so many rows, may be a category.
    least_updates : int
        Steps of an epoch below which the batch is too large for the data.
    planned_updates : int
        Steps of a whole training below which little is learned.
    small_norm_batch : int
        Smallest batch whose statistics batch norm can use.
    repeated_share : float
        Share of the batches of an epoch that were there before. Workers that share a seed make it
        a half and more; no order without replacement repeats a whole batch. House convention.
    repeated_batches : int
        Epochs of fewer batches are not judged.
    """

    scale_ratio: float = 1e3
    offset: float = 10.0
    offset_share: float = 0.1
    range_excess: float = 1e-3
    range_share: float = 1e-3
    few_values: int = 10
    least_rows: int = 100
    least_updates: int = 10
    planned_updates: int = 300
    small_norm_batch: int = 8
    repeated_share: float = 0.1
    repeated_batches: int = 4


@rule("D20", "input_range", needs=Inputs)
def input_range(facts: Inputs, thresholds: InputThresholds) -> Iterator[Finding]:
    """Inputs are not finite, raw pixels, or of features whose scales differ widely."""
    X = facts.X
    if X.dtype.kind in "biuO" and X.dtype != np.uint8:
        return  # token numbers and categories have no scale
    values = X.astype(np.float64)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        yield _range(
            "error", f"{bad} values of the inputs are NaN or infinite.", float(bad),
            "drop or fill them with statistics of the training data",
        )  # fmt: skip
        values = np.where(np.isfinite(values), values, 0.0)
    if values.size and values.min() >= 0 and 2 < values.max() <= 255 and X.ndim >= 3:
        if bool((values == np.round(values)).all()):
            yield _range(
                "warning", "The inputs look like raw pixels from 0 to 255.", float(values.max()),
                "divide by 255 and standardise with training statistics",
            )  # fmt: skip
        return
    if X.ndim == 2:
        yield from _columns(values, thresholds)


def _columns(values: Array, thresholds: InputThresholds) -> Iterator[Finding]:
    mean, std = values.mean(0), values.std(0)
    constant = np.flatnonzero(std <= 1e-12 * (1 + np.abs(mean)))
    if len(constant) and len(values) > 1:
        yield _range(
            "info", f"{len(constant)} features are constant, the first is {constant[0]}.",
            float(len(constant)), "drop them",
        )  # fmt: skip
    live = np.setdiff1d(np.arange(len(std)), constant)
    if len(live) < 2:
        return
    ratio = float(std[live].max() / std[live].min())
    far = np.abs(mean[live]) > thresholds.offset * std[live]
    if ratio > thresholds.scale_ratio:
        yield _range(
            "warning", f"The scales of the features differ by {ratio:.2g}.", ratio,
            "standardise with the mean and standard deviation of the training data",
        )  # fmt: skip
    elif far.mean() > thresholds.offset_share:
        yield _range(
            "warning",
            f"{int(far.sum())} of {len(live)} features lie more than {thresholds.offset:g} "
            "standard deviations from 0.",
            float(far.mean()), "subtract the mean of the training data",
        )  # fmt: skip


def _range(severity: str, message: str, value: float, *advice: str) -> Finding:
    return Finding(
        code="input_range", severity=severity, where="inputs", value=value, message=message,
        advice=advice,
    )  # fmt: skip


@rule("D21", "pretrained_normalisation", needs=Inputs)
def pretrained_normalisation(facts: Inputs, thresholds: InputThresholds) -> Iterator[Finding]:
    """Inputs cannot have come out of the normalisation that the model was trained with."""
    if facts.normalization is None or facts.X.ndim != 4:
        return
    mean, std = (np.asarray(v, dtype=np.float64) for v in facts.normalization)
    X = facts.X.astype(np.float64)
    if X.shape[1] != len(mean):
        return
    right = f"mean {facts.normalization[0]}, std {facts.normalization[1]}"
    low, high = -mean / std, (1 - mean) / std
    outside = (low[:, None, None] - thresholds.range_excess > X) | (
        high[:, None, None] + thresholds.range_excess < X
    )
    share = outside.mean((0, 2, 3))
    cause = _cause(X, facts.normalization)
    if cause is None and share.max() <= thresholds.range_share:
        return
    c = int(np.argmax(share))
    extreme = float(X[:, c].max() if X[:, c].max() > high[c] else X[:, c].min())
    yield Finding(
        code="pretrained_normalisation",
        severity="error",
        where=f"channel {c}",
        value=extreme,
        threshold=float(high[c]),
        message=(
            f"Channel {c} reaches {extreme:.3g}; with mean {mean[c]:g} and std {std[c]:g} the "
            f"possible range is [{low[c]:.3f}, {high[c]:.3f}]" + (f": {cause}." if cause else ".")
        ),
        advice=(f"use the model's own transform: {right}",),
        evidence={"share_outside": tuple(share.tolist()), "cause": cause},
    )


def _cause(X: Array, expected: tuple[tuple[float, ...], ...]) -> str | None:
    low, high = float(X.min()), float(X.max())
    mean, std = (np.asarray(v) for v in expected)
    if low >= 0 and high <= 1:
        return "the values lie in [0, 1], so they were not normalised"
    if low >= 0 and 2 < high <= 255:
        return "the values lie in [0, 255], so they were neither divided by 255 nor normalised"
    if high > 100 and low < 0:
        center = np.asarray(CAFFE_MEANS[: X.shape[1]])
        if X.shape[1] == 3 and (-center.max() - 1 <= X).all() and (256 - center.min() >= X).all():
            return "the means of Caffe, 123.68, 116.779 and 103.939, were subtracted"
        return "the division by 255 is missing"
    swapped_low, swapped_high = -std / mean, (1 - std) / mean
    inside = (swapped_low[:, None, None] - 1e-3 <= X) & (swapped_high[:, None, None] + 1e-3 >= X)
    beyond = (((1 - mean) / std)[:, None, None] + 1e-3 < X) | (
        (-mean / std)[:, None, None] - 1e-3 > X
    )
    tight = X.max() <= swapped_high.max() + 1e-3 and X.max() < 0.8 * float(((1 - mean) / std).max())
    if inside.all() and (beyond.any() or tight) and X.min() > float((-mean / std).max()):
        return "mean and std were probably swapped"
    return None


@rule("D22", "scaled_categorical", needs=Inputs, severity="info")
def scaled_categorical(facts: Inputs, thresholds: InputThresholds) -> Iterator[Finding]:
    """A column of few values looks as if it had been standardised."""
    X = facts.X
    if X.ndim != 2 or X.dtype.kind != "f" or len(X) < thresholds.least_rows:
        return
    for j in range(X.shape[1]):
        column = X[:, j].astype(np.float64)
        values = np.unique(column)
        few = 2 < len(values) <= thresholds.few_values
        standard = abs(column.mean()) < 0.05 and abs(column.std() - 1) < 0.05
        whole = np.array_equal(values, np.round(values))
        if few and standard and not whole:
            yield Finding(
                code="scaled_categorical",
                severity="info",
                where=f"column {j}",
                value=float(len(values)),
                threshold=float(thresholds.few_values),
                message=f"Column {j} has {len(values)} values and looks standardised.",
                advice=("one-hot encode it", "scale numeric columns only"),
            )


@rule("D29", "batch_vs_dataset", needs=BatchSize)
def batch_vs_dataset(facts: BatchSize, thresholds: InputThresholds) -> Iterator[Finding]:
    """The batch is too large for the data, or too small for batch norm."""
    n, b = facts.n, facts.batch
    per_epoch = math.ceil(n / b)
    total = None if facts.epochs is None else per_epoch * facts.epochs
    shown = "" if total is None else f", {total} in all"
    message = f"A batch of {b} from {n} samples makes {per_epoch} updates an epoch{shown}"
    if facts.batch_norm and b < thresholds.small_norm_batch:
        yield _batch("error" if b == 1 else "warning", float(b),
                     f"Batch norm takes its statistics from {b} samples.",
                     "larger batches", "group norm or layer norm")  # fmt: skip
    if per_epoch < thresholds.least_updates:
        suggestion = max(1, 2 ** int(math.log2(max(n / 20, 1))))
        yield _batch("warning", float(per_epoch), f"{message}.",
                     f"a batch of {suggestion}", "more epochs")  # fmt: skip
    elif total is not None and total < thresholds.planned_updates:
        yield _batch("info", float(total), f"{message}.", "more epochs", "smaller batches")
    left = n % b
    if facts.batch_norm and 0 < left < b / 4:
        yield _batch("info", float(left),
                     f"The last batch has {left} samples, which batch norm will use.",
                     "drop_last=True")  # fmt: skip


def _batch(severity: str, value: float, message: str, *advice: str) -> Finding:
    return Finding(
        code="batch_vs_dataset", severity=severity, where="batch", value=value, message=message,
        advice=advice,
    )  # fmt: skip


@rule("D29b", "duplicated_batches", needs=EpochBatches, severity="warning")
def duplicated_batches(facts: EpochBatches, thresholds: InputThresholds) -> Iterator[Finding]:
    """The same batch comes again within an epoch.

    A single batch that is trained on over and over is meant so, and so are several whole passes in
    one order.
    """
    sums = facts.sums[np.isfinite(facts.sums)]
    n, distinct = len(sums), len(np.unique(sums))
    if n < thresholds.repeated_batches or distinct < 2 or _is_passes(sums, distinct):
        return
    share = (n - distinct) / n
    if share > thresholds.repeated_share:
        yield Finding(
            code="duplicated_batches",
            severity="warning",
            where="inputs",
            step=facts.step,
            value=share,
            threshold=thresholds.repeated_share,
            message=f"Of {n} batches of an epoch only {distinct} differ.",
            advice=(
                "give each worker a seed of its own: worker_init_fn, or torch's generator in place "
                "of numpy's",
                "give each process its own part: DistributedSampler",
                "look for a sampler that draws with replacement",
            ),
        )


def _is_passes(sums: Array, period: int) -> bool:
    """Tell whether a sequence repeats itself as a whole."""
    return bool((sums[period:] == sums[:-period]).all())
