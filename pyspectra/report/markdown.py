"""A report as Markdown: for an issue, a pull request or a model card."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TypeVar

from pyspectra._support.text import counted, printable
from pyspectra.report.columns import Head, Look
from pyspectra.report.data import ReportData
from pyspectra.report.glyphs import UNICODE
from pyspectra.report.heads import group_heads, layer_heads
from pyspectra.report.shown import Shown, rows_shown

__all__ = ["markdown"]

R = TypeVar("R")

# What Markdown or the HTML in it would obey; names and paths come from strangers.
_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|~!&$@])")


def markdown(report: ReportData, wanted: Shown) -> str:
    """Return a report as Markdown: the verdict, the table, the means.

    Parameters
    ----------
    report : ReportData
    wanted : Shown
        Which rows, and in which order; of a large model those to look at first.
    """
    facts = [report.format, counted(len(report.layers), "layer"), report.coverage.words]
    paragraphs = [
        f"## {_text(report.source)}",
        ", ".join(map(_text, facts)) + ".",
        f"**{_text(report.verdict.label)}**: {_text(report.verdict.text)}",
    ]
    if report.layers and wanted.by is not None:
        paragraphs.append(_table(report.by(wanted.by).rows(), group_heads(wanted.by)))
    elif report.layers:
        rows, words = rows_shown(report, wanted)
        if words:
            paragraphs.append(_text(f"{words}:"))
        paragraphs.append(_table(rows, layer_heads(report)))
    means = [
        f"{name} {value:.4g}"
        for name, value in report.summary().items()
        if not name.startswith("n_") and math.isfinite(value)
    ]
    if means:
        paragraphs.append(f"Means: {', '.join(map(_text, means))}.")
    return "\n\n".join(paragraphs) + "\n"


def _table(rows: Sequence[R], heads: Sequence[Head[R]]) -> str:
    look = Look(UNICODE)
    ordered = sorted(heads, key=lambda head: head.last)
    lines = [
        [_text(head.of(look)) for head in ordered],
        ["--:" if head.right else ":--" for head in ordered],
        *(
            [_name(head.show(row, look)[0]) if head.elastic else _text(head.show(row, look)[0])
             for head in ordered]
            for row in rows
        ),
    ]  # fmt: skip
    return "\n".join(_line(cells) for cells in lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    return _SIGNS.sub(r"\\\1", printable(text))


def _name(text: str) -> str:
    """Return a name in a font of one width, unless it holds what cannot stand in that."""
    return _text(text) if re.search(r"[`|\\]", text) else f"`{text}`"
