"""The tables of a history: rows of epochs, and of evaluations, out of what was logged at steps.

Pure functions of records. A record of a batch says what one batch gave (`n` samples of it); records
of the kinds ``"running"`` and ``"post"`` say what a whole epoch gave, and go before those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyspectra.training.metrics  # noqa: F401  # adds its records of metrics to the list
from pyspectra.training.history_file import FIELDS
from pyspectra.training.metric_kinds import kind_of

__all__ = ["batches_combined", "epoch_of", "epoch_rows", "evaluation_rows", "metric_names"]

Record = Mapping[str, Any]
Row = dict[str, Any]

_NO_METRIC = frozenset((*FIELDS, "t", "segment"))

# These belong to the optimizer, not to a split: their columns stand without ``train_``.
BARE = ("lr", "grad_norm", "update_ratio")


def metric_names(records: Iterable[Record]) -> list[str]:
    """Return the names of the metrics in records, in order of first appearance."""
    names: dict[str, None] = {}
    for record in records:
        names |= dict.fromkeys(name for name in record if name not in _NO_METRIC)
    return list(names)


def epoch_of(record: Record) -> int | None:
    """Return the epoch that a record is part of, counted from 1; None if it says nothing.

    ``epoch`` 2.4 is within the third; 3 is the end of the third; 0 is before the first.
    """
    epoch: float | None = record.get("epoch")
    if epoch is None or not math.isfinite(epoch):
        return None
    return math.ceil(epoch - 1e-9)


def batches_combined(records: Sequence[Record]) -> Row:
    """Return the metrics of several batches as one row: ``<m>``, ``<m>_se``, and ``n``.

    The mean is weighted by `n` (1 where a record has none); the root of a mean of squares, as rmse,
    is the root of the weighted mean of the squares; the greatest error is the greatest. ``rmse`` is
    derived from ``mse`` where it was not logged. A standard error is that of the mean of the
    batches, and stands only where there are two of them or more.
    """
    row: Row = {}
    for name in metric_names(records):
        values = [(r[name], float(r.get("n") or 1)) for r in records if r.get(name) is not None]
        row[name] = _combined([v for v, _ in values], [w for _, w in values], kind_of(name).combine)
        error = _standard_error(values) if kind_of(name).combine in ("mean", "rms") else None
        if error is not None:
            row[f"{name}_se"] = error
    if "rmse" not in row and "mse" in row and row["mse"] >= 0:
        row["rmse"] = math.sqrt(row["mse"])
    counts = [r["n"] for r in records if r.get("n") is not None]
    if counts:
        row["n"] = sum(counts)
    return row


def _combined(values: Sequence[float], weights: Sequence[float], how: str) -> float:
    if how == "last":
        return values[-1]
    if any(not math.isfinite(value) for value in values):
        return math.nan if any(map(math.isnan, values)) else sum(values)
    if how == "max":
        return max(values)
    if len(values) == 1:
        return values[0]
    total = math.fsum(weights)
    if how == "rms":
        mean = math.fsum(w * v * v for v, w in zip(values, weights, strict=True)) / total
        return math.sqrt(mean)
    return math.fsum(w * v for v, w in zip(values, weights, strict=True)) / total


def _standard_error(values: Sequence[tuple[float, float]]) -> float | None:
    if len(values) < 2 or not all(math.isfinite(value) for value, _ in values):
        return None
    total = math.fsum(weight for _, weight in values)
    mean = math.fsum(weight * value for value, weight in values) / total
    # The variance of a weighted mean of independent batches, with the correction for few of them.
    spread = math.fsum((weight / total * (value - mean)) ** 2 for value, weight in values)
    return math.sqrt(spread * len(values) / (len(values) - 1))


# --- epochs -------------------------------------------------------------------------------------


def epoch_rows(records: Sequence[Record]) -> list[Row]:
    """Return a row for each epoch, in order.

    Its fields: ``epoch``, ``step`` (the last), ``n_train``, ``n_val``, ``lr``, ``seconds``,
    ``samples_per_s``, ``train_<m>``, ``val_<m>``, their ``_se``, ``train_kind``, ``grad_norm``,
    ``update_ratio``, ``segment``. What nobody logged in an epoch is absent from its row. Of several
    evaluations within an epoch the last counts.
    """
    groups: dict[int, list[Record]] = {}
    for record in records:
        epoch = epoch_of(record)
        if epoch is not None:
            groups.setdefault(epoch, []).append(record)
    rows = []
    before = 0.0
    for epoch in sorted(groups):
        row = {"epoch": epoch} | _row_of(groups[epoch], before)
        before = max((r["t"] for r in groups[epoch] if r.get("t") is not None), default=before)
        rows.append(row)
    return rows


def _row_of(group: Sequence[Record], before: float) -> Row:
    row: Row = {}
    steps = [r["step"] for r in group if r.get("step") is not None]
    if steps:
        row["step"] = max(steps)
    splits = dict.fromkeys(r.get("split") or "train" for r in group)
    for split in splits:
        own = [r for r in group if (r.get("split") or "train") == split]
        row |= _of_train(own) if split == "train" else _of_evaluation(own, split)
    row |= _speed(group, before)
    segments = [r["segment"] for r in group if r.get("segment") is not None]
    if segments:
        row["segment"] = max(segments)
    return row


def _of_train(own: Sequence[Record]) -> Row:
    batches = [r for r in own if r.get("kind") is None]
    running = [r for r in own if r.get("kind") == "running"]
    post = [r for r in own if r.get("kind") == "post"]
    combined = batches_combined(batches)
    # A record of the whole epoch goes before its batches; the last of several does.
    for whole in (running, post):
        if whole:
            last = max(r.get("step") or 0 for r in whole)
            of_last = [r for r in whole if (r.get("step") or 0) == last]
            replaced = batches_combined(of_last)
            stale = {f"{name}_se" for name in replaced}
            combined = {k: v for k, v in combined.items() if k not in stale} | replaced
    row = {_column(name, "train"): value for name, value in combined.items()}
    if set(combined) - {"n", *BARE}:
        row["train_kind"] = "post" if post else "running"
    return row


def _of_evaluation(own: Sequence[Record], split: str) -> Row:
    last = max(r.get("step") or 0 for r in own)
    combined = batches_combined([r for r in own if (r.get("step") or 0) == last])
    return {_column(name, split): value for name, value in combined.items()}


def _column(name: str, split: str) -> str:
    if name == "n":
        return f"n_{split}"
    if split == "train" and name.removesuffix("_se") in BARE:
        return name
    return f"{split}_{name}"


def _speed(group: Sequence[Record], before: float) -> Row:
    times = [r["t"] for r in group if r.get("t") is not None]
    row: Row = {"seconds": max(times) - before} if times else {}
    trained = [r for r in group if (r.get("split") or "train") == "train" and r.get("kind") is None]
    timed = [r for r in trained if r.get("t") is not None and r.get("n") is not None]
    if timed:
        duration = max(r["t"] for r in timed) - before
        if duration > 0:
            row["samples_per_s"] = sum(r["n"] for r in timed) / duration
    return row


# --- evaluations --------------------------------------------------------------------------------


def evaluation_rows(records: Sequence[Record], split: str = "val") -> list[Row]:
    """Return a row for each evaluation, wherever it was: the curves of runs with few epochs.

    Parameters
    ----------
    records : sequence of dict
        Records, in the order in which they were logged.
    split : str
        The split that was evaluated.

    Returns
    -------
    list of dict
        Columns as of `epoch_rows`, with ``epoch`` as logged (2.4), and as ``train_<m>`` what was
        logged since the evaluation before. Records without a step are not part of it.
    """
    stepped = [r for r in records if r.get("step") is not None]
    ends = sorted({r["step"] for r in stepped if (r.get("split") or "train") == split})
    rows = []
    start = -math.inf
    before = 0.0
    for end in ends:
        group = [r for r in stepped if start < r["step"] <= end]
        row = _row_of(group, before)
        epochs = [r["epoch"] for r in group if r.get("epoch") is not None]
        if epochs:
            row = {"epoch": max(epochs)} | row
        rows.append(row)
        before = max((r["t"] for r in group if r.get("t") is not None), default=before)
        start = end
    return rows
