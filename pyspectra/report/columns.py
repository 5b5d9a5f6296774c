"""The columns of a report: one record each, from which CSV, JSON, pandas and the terminal derive.

`COLUMNS` is the one list. A record holds the function that computes the value of a layer and, where
the terminal shows it, the `Head` that prints it. A metric of `pyspectra.metrics` becomes a column
by itself; `METRIC_HEADS` tells which of them the terminal shows. WeightWatcher's list of the same
records is in `pyspectra.report.weightwatcher`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from pyspectra.metrics import METRICS
from pyspectra.types import Status

if TYPE_CHECKING:
    from pyspectra.report.options import AnalyzeOptions
    from pyspectra.report.report import LayerReport

R = TypeVar("R")


@dataclass(frozen=True)
class Group:
    """Columns that are there under one condition on the options of the analysis."""

    words: str
    holds: Callable[[AnalyzeOptions], bool]


ALWAYS = Group("always", lambda options: True)
UNPOOLED = Group("with pool=False", lambda options: not options.pool)
CLIPPED = Group("with fix_fingers", lambda options: options.fix_fingers is not None)
BOOTSTRAP = Group("with bootstrap", lambda options: options.bootstrap > 0)
CUT_OFF = Group('with estimator="tpl"', lambda options: options.estimator == "tpl")


def metric_group(name: str) -> Group:
    """Return the group of the metrics of that name: of the option that asks for them."""
    if name == "default":
        return ALWAYS
    return Group(f"with {name}=True", lambda options: name in options.groups)


DETX, MP_FIT, RANDOMIZE, VECTORS = map(metric_group, ("detx", "mp_fit", "randomize", "vectors"))


@dataclass(frozen=True)
class Column(Generic[R]):
    """One column of a table of layers.

    Attributes
    ----------
    name : str
        In CSV, JSON and pandas.
    value : callable
        The value of one row: a number, text, a bool or None.
    help : str
        What it is, in one sentence.
    group : Group
        When there is such a column.
    """

    name: str
    value: Callable[[R], Any]
    help: str
    group: Group = ALWAYS


@dataclass(frozen=True)
class Entry(Generic[R]):
    """One number of a summary; `value` computes it from all rows."""

    name: str
    value: Callable[[Sequence[R]], float]
    help: str
    group: Group = ALWAYS


def mean(
    columns: Sequence[Column[R]], name: str, keep: Callable[[float], bool] = math.isfinite
) -> Entry[R]:
    """Return the mean of a column over the rows whose value `keep` accepts; NaN if it is none."""
    (column,) = (column for column in columns if column.name == name)

    def value(rows: Sequence[R]) -> float:
        kept = [v for v in map(float, map(column.value, rows)) if keep(v)]
        return sum(kept) / len(kept) if kept else math.nan

    return Entry(name, value, f"Mean over the layers: {column.help}", column.group)


def shown(columns: Sequence[Column[R]], options: AnalyzeOptions) -> list[Column[R]]:
    """Return the columns that a report with these options has."""
    return [column for column in columns if column.group.holds(options)]


def tabulate(
    columns: Sequence[Column[R]], rows: Sequence[R], options: AnalyzeOptions
) -> list[dict[str, Any]]:
    """Return one dict a row, with the columns that `options` ask for."""
    own = shown(columns, options)
    # A zero matrix has log10(0) = -inf and 0/0 = NaN where the formula says so.
    with np.errstate(all="ignore"):
        return [{column.name: column.value(row) for column in own} for row in rows]


def summarize(
    entries: Sequence[Entry[R]], rows: Sequence[R], options: AnalyzeOptions
) -> dict[str, float]:
    """Return the numbers of a summary."""
    with np.errstate(all="ignore"):
        return {e.name: e.value(rows) for e in entries if e.group.holds(options)}


# --- our dialect --------------------------------------------------------------------------------


def _metric(name: str) -> Callable[[LayerReport], Any]:
    return lambda layer: layer.metrics.get(name, math.nan)


def _first_sentence(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]


COLUMNS: tuple[Column[LayerReport], ...] = (
    Column("layer_id", lambda r: r.layer_id, "Number of the layer in the model."),
    Column("slice_id", lambda r: r.slice_id, "Number of the slice of a convolution.", UNPOOLED),
    Column("name", lambda r: r.name, "Name of the layer."),
    Column("part_of", lambda r: r.part_of, "Name of the layer that this is a part of."),
    Column("kind", lambda r: r.kind, "Kind of layer."),
    Column("shape", lambda r: "x".join(map(str, r.shape)), "Shape of the tensor."),
    Column("dtype", lambda r: r.dtype, "Type of the stored weights."),
    Column("N", lambda r: r.esd.N, "Longer side of a matrix."),
    Column("M", lambda r: r.esd.M, "Shorter side of a matrix."),
    Column("Q", lambda r: r.esd.Q, "Aspect ratio N / M."),
    Column("rf", lambda r: r.rf, "Number of matrices of the layer: slices of a convolution."),
    Column("n_evals", lambda r: len(r.esd.evals), "Number of eigenvalues."),
    Column("method", lambda r: r.esd.method, "How the eigenvalues were computed."),
    Column("status", lambda r: str(r.status), "What became of the spectrum and its fit."),
    Column("warning", lambda r: r.warning, "What is wrong with the layer; empty if nothing is."),
    Column("alpha", lambda r: r.fit.alpha, "Exponent of the power-law tail."),
    Column("alpha_stderr", lambda r: r.fit.alpha_stderr, "Standard error of alpha."),
    Column("alpha_corrected", lambda r: r.fit.alpha_corrected,
           "Alpha without the bias of maximum likelihood."),
    Column("Lambda", lambda r: r.fit.Lambda, "Rate of the exponential cut-off.", CUT_OFF),
    Column("raw_alpha", lambda r: r.raw_fit.alpha if r.raw_fit else math.nan,
           "Alpha before fingers were clipped.", CLIPPED),
    Column("n_fingers", lambda r: r.n_fingers, "Number of clipped eigenvalues.", CLIPPED),
    Column("ci_low", lambda r: r.fit.ci[0], "Lower end of the 95 % interval of alpha.", BOOTSTRAP),
    Column("ci_high", lambda r: r.fit.ci[1], "Upper end of it.", BOOTSTRAP),
    Column("p_value", lambda r: r.fit.p_value, "How well a power law fits the tail.", BOOTSTRAP),
    Column("xmin", lambda r: r.fit.xmin, "Eigenvalue from which on the tail starts."),
    Column("xmax", lambda r: r.fit.xmax, "Largest eigenvalue that entered the fit."),
    Column("D", lambda r: r.fit.D, "Kolmogorov-Smirnov distance between tail and fitted law."),
    Column("n_tail", lambda r: r.n_tail, "Number of eigenvalues in the tail."),
    Column("n_fit", lambda r: r.fit.n, "Number of eigenvalues that entered the fit."),
    *(Column(m.name, _metric(m.name), _first_sentence(m.function.__doc__), metric_group(m.group))
      for m in METRICS.values()),
)  # fmt: skip

SUMMARY: tuple[Entry[LayerReport], ...] = (
    *(mean(COLUMNS, name) for name in (
        "log_norm", "alpha", "alpha_weighted", "log_alpha_norm", "log_spectral_norm",
        "stable_rank", "mp_soft_rank",
    )),
    Entry("n_layers", len, "Number of layers."),
    Entry("n_failed", lambda rows: sum(r.status is not Status.OK for r in rows),
          "Number of layers without a fit."),
)  # fmt: skip
