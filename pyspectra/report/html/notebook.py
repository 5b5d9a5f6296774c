"""What a notebook shows of a report, a layer, a comparison: small, still, without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyspectra.report.attention import by_attention
from pyspectra.report.columns import COLUMNS, Look, shown
from pyspectra.report.comparison_data import ComparisonData
from pyspectra.report.data import ReportData
from pyspectra.report.glyphs import UNICODE
from pyspectra.report.html.overview import histogram
from pyspectra.report.html.page import asset, clipped, text
from pyspectra.report.html.parts import short_name
from pyspectra.report.html.spectrum_picture import spectrum_picture
from pyspectra.report.html.table import table
from pyspectra.report.html.words import told
from pyspectra.report.layer import LayerReport
from pyspectra.report.trajectory_data import TrajectoryData

__all__ = ["comparison_note", "layer_note", "report_note", "trajectory_note"]

MOST_ROWS = 20
LONGEST_NAME = 80
LONGEST_TEXT = 3000
# Of the columns of the terminal, those that a notebook shows.
SHOWN = ("id", "slice", "layer", "kind", "N x M", "|dW|/|W|", "change", "alpha", "p",
         "stable rank", "warning")  # fmt: skip


def report_note(report: ReportData) -> str:
    """Return a report: verdict, histogram of alpha, means, and the layers to look at first."""
    verdict = report.verdict
    rows = list(report.layers)
    chosen = rows if len(rows) <= MOST_ROWS else by_attention(report.wholes)[:MOST_ROWS]
    means = " · ".join(
        f"{name} {value:.4g}"
        for name, value in report.summary().items()
        if not name.startswith("n_") and math.isfinite(value)
    )
    parts = [
        _head(short_name(report.source), verdict.label),
        _paragraph(verdict.text),
        histogram(report.wholes),
        f'<p class="of">Means: {text(means)}</p>' if means else "",
        _layers(report, chosen),
        _more(len(rows), len(chosen), "those to look at first", "report.save_html(path)"),
    ]
    return _note(parts)


def _layers(report: ReportData, rows: Sequence[LayerReport]) -> str:
    heads = [c.head for c in shown(COLUMNS, report.options) if c.head is not None]
    heads = sorted((h for h in heads if h.text in SHOWN), key=lambda head: head.last)
    look = Look(UNICODE)
    cells = [
        {head.text: clipped(head.show(row, look)[0], LONGEST_NAME) for head in heads}
        for row in rows
    ]
    return table(cells, [head.text for head in heads]) if rows else ""


def layer_note(layer: LayerReport) -> str:
    """Return a layer: its spectrum with the fitted law, and its numbers in words."""
    parts = [_head(clipped(layer.label, LONGEST_NAME), layer.warning), spectrum_picture(layer)]
    return _note([*parts, *map(_paragraph, told(layer))])


def comparison_note(found: ComparisonData, words: str) -> str:
    """Return a comparison: its sentences, and the layers that differ most for their errors."""
    rows = sorted(found.layers, key=lambda x: _least(x.p_value))[:MOST_ROWS]
    cells = [
        {
            "layer": clipped(x.a.label, LONGEST_NAME),
            "α of A": x.a.alpha,
            "α of B": x.b.alpha,
            "shift": x.alpha_shift,
            "±": x.alpha_shift_stderr,
            "what": x.change,
        }
        for x in rows
    ]
    title = " against ".join(short_name(name) for name in found.names)
    more = _more(len(found.layers), len(rows), "those that differ most for their errors",
                 "comparison.save_html(path)")  # fmt: skip
    return _note([_head(title, ""), _paragraph(words), table(cells) if cells else "", more])


def trajectory_note(found: TrajectoryData, words: str) -> str:
    """Return a trajectory: its sentences, and a row for each checkpoint, the last ones."""
    rows = found.summary()
    shown_rows = [
        {k: clipped(v, LONGEST_NAME) if isinstance(v, str) else v for k, v in row.items()}
        for row in rows[-MOST_ROWS:]
    ]
    title = f"{short_name(found.names[0])} to {short_name(found.names[-1])}"
    more = _more(len(rows), len(shown_rows), "the last", "trajectory.save_html(path)")
    return _note([_head(title, ""), _paragraph(words), table(shown_rows), more])


def _least(p: float) -> float:
    return p if math.isfinite(p) else math.inf


def _head(title: str, label: str) -> str:
    return f"<p><strong>{text(title)}</strong>{f': {text(label)}' if label else ''}</p>"


def _paragraph(words: str) -> str:
    return f"<p>{text(clipped(words, LONGEST_TEXT))}</p>"


def _more(n: int, shown_n: int, which: str, how: str) -> str:
    if n <= shown_n:
        return ""
    return f'<p class="of">{shown_n} of {n} rows, {which}; all are on the page of {how}.</p>'


def _note(parts: Sequence[str]) -> str:
    return f'<div class="pyspectra"><style>{asset("notebook.css")}</style>{"".join(parts)}</div>'
