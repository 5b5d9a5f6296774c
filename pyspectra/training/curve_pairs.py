"""The curves of a history, training beside validation, at the places where they belong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyspectra._support.arguments import check_choice
from pyspectra._support.text import did_you_mean
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.training.history_tables import BARE
from pyspectra.training.metric_kinds import MetricKind, kind_of, split_and_metric
from pyspectra.training.recorded_run import RecordedRun

__all__ = ["CurvePair", "curve_pairs"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CurvePair:
    """A metric over a run; NaN where it was not logged.

    Attributes
    ----------
    kind : MetricKind
        What is known of the metric, its name included.
    x : ndarray of float64, shape (n,)
        Ends of epochs, or where evaluations were.
    train, val : ndarray of float64, shape (n,)
        The curves.
    val_se : ndarray of float64, shape (n,)
        Standard errors of `val`, where there were several batches.
    train_x : ndarray of float64, shape (n,)
        Where training belongs: in the middle of the epoch if it is a mean over its batches, since
        the model changed meanwhile; at its end if it was evaluated there.
    running : bool
        Whether any of `train` is such a mean.
    x_name : {"epoch", "step"}
        What `x` counts.
    """

    kind: MetricKind
    x: Floats
    train: Floats
    val: Floats
    val_se: Floats
    train_x: Floats
    running: bool
    x_name: str

    @property
    def name(self) -> str:
        """Name of the metric."""
        return self.kind.name


def curve_pairs(
    history: RecordedRun,
    metrics: Sequence[str] | None = None,
    *,
    x: str = "epoch",
    function: str = "curve_pairs",
) -> list[CurvePair]:
    """Return the curves of a history.

    Parameters
    ----------
    history : History
        The run. Where it has more evaluations than epochs, the points are the evaluations.
    metrics : sequence of str, optional
        Names of metrics, with or without their split; all by default.
    x : {"epoch", "step"}
        What the curves are drawn against; steps anyway where no epoch was logged.
    function : str
        The public function that errors speak of.

    Returns
    -------
    list of CurvePair
        The curves, in the order of `metrics`, or of first appearance.

    Raises
    ------
    ValueError
        If there is no such metric, or nothing was logged.
    """
    x = check_choice(function, "x", x, ("epoch", "step"))
    epochs, evaluations = history.epochs, history.evaluations
    rows = evaluations if len(evaluations) > len(epochs) else epochs
    if x == "epoch" and not any("epoch" in row for row in rows):
        x = "step"
    rows = [row for row in rows if x in row]
    names = _names(rows, metrics, function)
    places = np.array([row[x] for row in rows], dtype=np.float64)
    # The first epoch of a run that began in the middle is as long as the others.
    first = places[0] - (1.0 if x == "epoch" and rows is not evaluations else 0.0)
    starts = np.concatenate([[max(0.0, first) if rows is epochs else 0.0], places[:-1]])
    running = np.array([row.get("train_kind") != "post" for row in rows])
    train_x = np.where(running, (starts + places) / 2, places)

    def column(name: str) -> Floats:
        values = [row.get(name) for row in rows]
        return np.array([math.nan if v is None else v for v in values], dtype=np.float64)

    return [
        CurvePair(
            kind=kind_of(name),
            x=places,
            train=column(f"train_{name}"),
            val=column(f"val_{name}"),
            val_se=column(f"val_{name}_se"),
            train_x=train_x,
            running=bool(running.any()),
            x_name=x,
        )
        for name in names
    ]


def _names(
    rows: Sequence[dict[str, object]], metrics: Sequence[str] | None, function: str
) -> list[str]:
    known: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            split, metric = split_and_metric(name)
            plain = not metric.endswith("_se") and metric not in BARE
            if split in ("train", "val") and isinstance(value, float) and plain:
                known[metric] = None
    if not known:
        raise ArgumentValueError(function, "history", "hold metrics of epochs", "none")
    if metrics is None:
        return list(known)
    if isinstance(metrics, str):
        metrics = [metrics]
    names = []
    for metric in metrics:
        if not isinstance(metric, str):
            got = f"an object of type {type(metric).__name__}"
            raise ArgumentTypeError(function, "metrics", "be names of metrics", got)
        name = split_and_metric(metric)[1]
        if name not in known:
            hint = did_you_mean(name, known) or f"there are {', '.join(known)}"
            requirement = "be names of metrics that were logged"
            raise ArgumentValueError(function, "metrics", requirement, repr(metric), hint)
        names.append(name)
    return list(dict.fromkeys(names))
