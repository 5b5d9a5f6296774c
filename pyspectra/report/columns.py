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
from typing import Any, Generic, TypeVar

import numpy as np

from pyspectra._support.dtypes import find
from pyspectra._support.text import printable
from pyspectra.metrics import METRICS
from pyspectra.report.changes import change_word
from pyspectra.report.glyphs import Glyphs
from pyspectra.report.layer import LayerReport
from pyspectra.report.options import AnalyzeOptions
from pyspectra.report.problems import (
    TYPICAL_STYLE,
    UNJUDGED,
    WITHIN_ERROR,
    certainty,
    is_judged,
    problem_of,
)
from pyspectra.types import Status

R = TypeVar("R")

FAILED_STYLE = "bold red"


@dataclass(frozen=True)
class Group:
    """Columns that are there under one condition on the options of the analysis."""

    words: str
    holds: Callable[[AnalyzeOptions], bool]


ALWAYS = Group("always", lambda options: True)
UNPOOLED = Group("with pool=False", lambda options: not options.pool)
CLIPPED = Group("with fix_fingers", lambda options: options.fix_fingers is not None)
BOOTSTRAP = Group("with bootstrap", lambda options: options.bootstrap > 0)
GOODNESS = Group("unless goodness=False", lambda options: options.tests_goodness)
CHANGE = Group("with base_model", lambda options: options.base_model is not None)
CUT_OFF = Group('with estimator="tpl"', lambda options: options.estimator == "tpl")


def metric_group(name: str) -> Group:
    """Return the group of the metrics of that name: of the option that asks for them."""
    if name == "default":
        return ALWAYS
    return Group(f"with {name}=True", lambda options: name in options.groups)


DETX, MP_FIT, RANDOMIZE, VECTORS = map(metric_group, ("detx", "mp_fit", "randomize", "vectors"))


Cell = tuple[str, str]  # text, style for rich


@dataclass(frozen=True)
class Look:
    """How cells are written: the signs that the terminal has, and whether it is narrow."""

    glyphs: Glyphs
    short: bool = False

    def number(self, value: float | None, digits: int) -> str:
        """Return a number with so many decimals; a dash for none and for what is not finite."""
        if value is None or not math.isfinite(value):
            return self.glyphs.dash
        return f"{value:.{digits}f}"


@dataclass(frozen=True)
class Head(Generic[R]):
    """How the terminal shows a column.

    Attributes
    ----------
    text : str
        The head of the column.
    show : callable
        The cell of a row, as text and style.
    short : str
        The head where the terminal is narrow; `text` by default.
    right : bool
        Whether cells are aligned on the right, as numbers are.
    spare : int
        In which round the column is left out as the terminal narrows, from 1; 0 for never.
    last : bool
        Whether it comes after all others.
    elastic : bool
        Whether its cells are shortened to the width that is left.
    if_any : bool
        Whether the column is left out where all of its cells are empty.
    """

    text: str
    show: Callable[[R, Look], Cell]
    short: str = ""
    right: bool = True
    spare: int = 2
    last: bool = False
    elastic: bool = False
    if_any: bool = False

    def of(self, look: Look) -> str:
        """Return the head as this terminal shows it."""
        return self.short or self.text if look.short else self.text


@dataclass(frozen=True)
class Column(Generic[R]):
    """One column of a table of layers.

    Attributes
    ----------
    name : str
        Its name in CSV, JSON and pandas.
    value : callable
        The value of one row: a number, text, a bool or None.
    help : str
        What it is, in one sentence.
    group : Group
        The condition under which there is such a column.
    head : Head or None
        How the terminal shows it; None if it does not.
    """

    name: str
    value: Callable[[R], Any]
    help: str
    group: Group = ALWAYS
    head: Head[R] | None = None


@dataclass(frozen=True)
class Entry(Generic[R]):
    """One number of a summary; `value` computes it from all rows."""

    name: str
    value: Callable[[Sequence[R]], float]
    help: str
    group: Group = ALWAYS


def mean(
    columns: Sequence[Column[R]],
    name: str,
    keep: Callable[[float], bool] = math.isfinite,
    of: Callable[[R], bool] | None = None,
) -> Entry[R]:
    """Return the mean of a column over the rows whose value `keep` accepts; NaN without any.

    With `of`, only rows that it accepts count.
    """
    (column,) = (column for column in columns if column.name == name)

    def value(rows: Sequence[R]) -> float:
        counted = rows if of is None else [row for row in rows if of(row)]
        kept = [v for v in map(float, map(column.value, counted)) if keep(v)]
        return sum(kept) / len(kept) if kept else math.nan

    return Entry(name, value, f"Mean over the layers: {column.help}", column.group)


def shown(columns: Sequence[Column[R]], options: AnalyzeOptions) -> list[Column[R]]:
    """Return the columns that a report with these options has."""
    return [column for column in columns if column.group.holds(options)]


def tabulate(
    columns: Sequence[Column[R]], rows: Sequence[R], options: AnalyzeOptions
) -> list[dict[str, Any]]:
    """Return one dict for each row, with the columns that `options` ask for."""
    own = shown(columns, options)
    # A zero matrix has log10(0) = -inf and 0/0 = NaN where the formula says so.
    with np.errstate(all="ignore"):
        return [{column.name: column.value(row) for column in own} for row in rows]


def as_column(values: list[Any]) -> np.ndarray | list[Any]:
    """Return values as an array where all are numbers, else as they are."""
    numbers = all(isinstance(value, bool | int | float | np.number) for value in values)
    return np.array(values) if numbers and values else values


def summarize(
    entries: Sequence[Entry[R]], rows: Sequence[R], options: AnalyzeOptions
) -> dict[str, float]:
    """Return the numbers of a summary."""
    with np.errstate(all="ignore"):
        return {e.name: e.value(rows) for e in entries if e.group.holds(options)}


# --- our dialect --------------------------------------------------------------------------------


Row = LayerReport


def number(value: Callable[[Row], float | None], digits: int) -> Callable[[Row, Look], Cell]:
    """Return what shows a number with so many decimals."""
    return lambda r, look: (look.number(value(r), digits), "")


def _text(value: Callable[[Row], str]) -> Callable[[Row, Look], Cell]:
    return lambda r, look: (printable(value(r)), "dim")


def _metric(name: str) -> Callable[[Row], Any]:
    return lambda r: r.metrics.get(name, math.nan)


def _metric_head(name: str, text: str, digits: int, short: str = "", spare: int = 0) -> Head[Row]:
    return Head(text, number(_metric(name), digits), short, spare=spare)


def _first_sentence(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]


def fitted(r: Row) -> bool:
    """Tell whether a row has an alpha."""
    return r.status is Status.OK and math.isfinite(r.alpha)


def _raw_alpha(r: Row) -> float:
    return r.raw_fit.alpha if r.raw_fit else math.nan


def _bits(r: Row) -> float:
    if r.stored_as is not None:
        return r.stored_as.bits
    dtype = find(r.dtype)
    return math.nan if dtype is None else dtype.bits


def _show_bits(r: Row, look: Look) -> Cell:
    return (f"{r.stored_as.bits:g}" if r.stored_as else ""), ""


def _show_size(r: Row, look: Look) -> Cell:
    factor = f"{r.rf}x " if r.rf > 1 and r.slice_id is None else ""
    return f"{factor}{r.esd.N}x{r.esd.M}", ""


def _show_alpha(r: Row, look: Look) -> Cell:
    if not fitted(r):
        return look.glyphs.dash, FAILED_STYLE
    problem = problem_of(r)
    sign = look.glyphs.plus_minus if look.short else f" {look.glyphs.plus_minus} "
    error = look.number(r.fit.alpha_stderr, 2)
    return f"{r.alpha:.2f}{sign}{error}", problem.style if problem else TYPICAL_STYLE


def _show_change(r: Row, look: Look) -> Cell:
    return (f"{r.change.relative:.2g}" if r.change else look.glyphs.dash), ""


def _show_interval(r: Row, look: Look) -> Cell:
    low, high = r.fit.ci
    known = math.isfinite(low)
    return (f"{low:.2f}{look.glyphs.to}{high:.2f}" if known else look.glyphs.dash), ""


def _show_tail(r: Row, look: Look) -> Cell:
    return f"{r.n_tail if fitted(r) else look.glyphs.dash}/{len(r.esd.evals)}", ""


def _structure(r: Row) -> str:
    return ", ".join(r.structures)


_SHORT_STATUS = {Status.TOO_FEW_POINTS: "too few", Status.NO_CONVERGENCE: "no conv."}


def _show_warning(r: Row, look: Look) -> Cell:
    if not fitted(r):
        full = r.status.words
        return (_SHORT_STATUS.get(r.status, full) if look.short else full), FAILED_STYLE
    problem = problem_of(r)
    if problem is None:
        return "", ""
    text = problem.short if look.short else problem.word
    if problem not in UNJUDGED and certainty(r) == WITHIN_ERROR:
        text += "?" if look.short else f", {WITHIN_ERROR}"
    return text, problem.style


# The metrics that the terminal shows.
METRIC_HEADS = {
    "log_norm": _metric_head("log_norm", "log10 norm", 2, "lognorm", spare=3),
    "stable_rank": _metric_head("stable_rank", "stable rank", 1, "srank", spare=3),
    "n_spikes": _metric_head("n_spikes", "spikes", 0),
    "n_traps": _metric_head("n_traps", "traps", 0),
    "detX_num": _metric_head("detX_num", "detX", 0, spare=2),
}

COLUMNS: tuple[Column[Row], ...] = (
    Column("layer_id", lambda r: r.layer_id, "Number of the layer in the model.",
           head=Head("id", lambda r, look: (str(r.layer_id), "dim"), spare=0)),
    Column("slice_id", lambda r: r.slice_id, "Number of the slice of a convolution.", UNPOOLED,
           Head("slice", lambda r, look: ("" if r.slice_id is None else str(r.slice_id), "dim"),
                spare=0)),
    Column("name", lambda r: r.name, "Name of the layer.",
           head=Head("layer", lambda r, look: (printable(r.name), ""), right=False, spare=0,
                     elastic=True)),
    Column("part_of", lambda r: r.part_of, "Name of the layer that this is a part of."),
    Column("kind", lambda r: r.kind, "Kind of layer.",
           head=Head("kind", _text(lambda r: r.kind), right=False, spare=1)),
    Column("stack", lambda r: r.stack, "Beginning of its name, up to the number of its block."),
    Column("block", lambda r: r.block, "Number of its block in the stack, as its name has it."),
    Column("role", lambda r: r.role, "What it does, told from its name: q, up, head."),
    Column("shape", lambda r: "x".join(map(str, r.shape)), "Shape of the tensor."),
    Column("dtype", lambda r: r.dtype, "Type of the stored weights."),
    Column("bits", _bits,
           "Bits of one weight as it is stored, without the scales beside it.",
           head=Head("bits", _show_bits, spare=3, if_any=True)),
    Column("stored_as", lambda r: r.stored_as.words if r.stored_as else "",
           "How the weights were quantised that were dequantised for the analysis; else empty."),
    Column("N", lambda r: r.esd.N, "Longer side of a matrix.",
           head=Head("N x M", _show_size, spare=0)),
    Column("M", lambda r: r.esd.M, "Shorter side of a matrix."),
    Column("Q", lambda r: r.esd.Q, "Aspect ratio N / M."),
    Column("rf", lambda r: r.rf, "Number of matrices of the layer: slices of a convolution."),
    Column("n_evals", lambda r: len(r.esd.evals), "Number of eigenvalues."),
    Column("method", lambda r: r.esd.method, "How the eigenvalues were computed."),
    Column("precision", lambda r: "fast" if r.esd.method == "fast" else "float64",
           "Precision that served: float64, or fast (see evals_bound)."),
    Column("evals_bound", lambda r: r.esd.bound,
           "Bound on the error of each eigenvalue that precision fast made; 0 with float64."),
    Column("status", lambda r: str(r.status), "What became of the spectrum and its fit."),
    Column("warning", lambda r: r.warning, "What is to be said of the layer; may be empty.",
           head=Head("warning", _show_warning, "warn", right=False, spare=0, last=True)),
    Column("certainty", certainty, "Whether alpha lies clearly on its side of 2 and 6."),
    Column("structure", _structure, "Structures with a name that were recognised."),
    Column("change", lambda r: r.change.relative if r.change else math.nan,
           "Norm of the change over that of the base, |dW| / |W|.", CHANGE,
           Head("|dW|/|W|", _show_change, "dW/W", spare=0)),
    Column("change_rounding", lambda r: r.change.rounding if r.change else math.nan,
           "What rounding to the stored type alone makes of it.", CHANGE),
    Column("change_kind", change_word, "What the change is: noise, low rank, full.", CHANGE,
           Head("change", _text(change_word), right=False, spare=0)),
    Column("change_rank", lambda r: r.change_rank, "Its rank if that is low, else 0.", CHANGE),
    Column("alpha", lambda r: r.fit.alpha, "Exponent of the power-law tail.",
           head=Head("alpha", _show_alpha, spare=0)),
    Column("alpha_stderr", lambda r: r.fit.alpha_stderr,
           "Standard error of alpha, as if xmin were known and eigenvalues did not repel."),
    Column("alpha_corrected", lambda r: r.fit.alpha_corrected,
           "Alpha without the bias of maximum likelihood."),
    Column("Lambda", lambda r: r.fit.Lambda, "Rate of the exponential cut-off.", CUT_OFF),
    Column("raw_alpha", _raw_alpha, "Alpha before fingers were clipped.", CLIPPED,
           Head("raw alpha", number(_raw_alpha, 2), "raw", spare=0)),
    Column("n_fingers", lambda r: r.n_fingers, "Number of clipped eigenvalues.", CLIPPED,
           Head("fingers", lambda r, look: (str(r.n_fingers or 0), ""))),
    Column("ci_low", lambda r: r.fit.ci[0],
           "Lower end of the 95 % interval of alpha, as if eigenvalues did not repel.", BOOTSTRAP,
           Head("95 %", _show_interval)),
    Column("ci_high", lambda r: r.fit.ci[1], "Upper end of the same.", BOOTSTRAP),
    Column("p_value", lambda r: r.fit.p_value,
           "How well a power law fits the tail: at most 0.1 rules it out.", GOODNESS,
           Head("p", number(lambda r: r.fit.p_value, 2), spare=0)),
    Column("xmin", lambda r: r.fit.xmin, "Eigenvalue from which on the tail starts."),
    Column("xmax", lambda r: r.fit.xmax, "Largest eigenvalue that entered the fit."),
    Column("D", lambda r: r.fit.D, "Kolmogorov-Smirnov distance between tail and fitted law.",
           head=Head("D", number(lambda r: r.fit.D, 3), spare=4)),
    Column("n_tail", lambda r: r.n_tail, "Number of eigenvalues in the tail.",
           head=Head("tail", _show_tail, spare=4)),
    Column("n_fit", lambda r: r.fit.n, "Number of eigenvalues that entered the fit."),
    *(Column(m.name, _metric(m.name), _first_sentence(m.function.__doc__), metric_group(m.group),
             METRIC_HEADS.get(m.name)) for m in METRICS.values()),
)  # fmt: skip

# The alpha of a layer without structure says nothing; its norms and ranks count.
_OF_ALPHA = ("alpha", "alpha_weighted", "log_alpha_norm")

SUMMARY: tuple[Entry[Row], ...] = (
    *(mean(COLUMNS, name, of=is_judged if name in _OF_ALPHA else None) for name in (
        "log_norm", "alpha", "alpha_weighted", "log_alpha_norm", "log_spectral_norm",
        "stable_rank", "mp_soft_rank",
    )),
    Entry("n_layers", len, "Number of layers."),
    Entry("n_judged", lambda rows: sum(map(is_judged, rows)),
          "Number of layers whose alpha is judged, and enters means of alpha."),
    Entry("n_failed", lambda rows: sum(r.status is not Status.OK for r in rows),
          "Number of layers without a fit."),
)  # fmt: skip
