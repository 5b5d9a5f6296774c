"""What the tables of a report show, on a terminal and in Markdown: of layers, and of groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyspectra._support.text import printable
from pyspectra.report.columns import COLUMNS, FAILED_STYLE, Cell, Head, Look, shown
from pyspectra.report.data import ReportData
from pyspectra.report.glyphs import UNICODE
from pyspectra.report.layer import LayerReport
from pyspectra.report.problems import HEAVY_TAIL, LIGHT_TAIL

__all__ = ["group_heads", "layer_heads"]


def layer_heads(report: ReportData) -> list[Head[LayerReport]]:
    """Return the columns of the table of layers, those left out that are empty."""
    found = [c.head for c in shown(COLUMNS, report.options) if c.head is not None]
    look = Look(UNICODE)
    return [h for h in found if not h.if_any or any(h.show(r, look)[0] for r in report.layers)]


GroupRow = dict[str, Any]


def _count_of(name: str, style: str) -> Callable[[GroupRow, Look], Cell]:
    return lambda r, look: (str(r[name]) if r[name] else look.glyphs.dash, style if r[name] else "")


def _show_range(r: GroupRow, look: Look) -> Cell:
    if not r["n_judged"]:
        return look.glyphs.dash, ""
    return f"{r['alpha_min']:.2f}{look.glyphs.to}{r['alpha_max']:.2f}", ""


def group_heads(by: str) -> list[Head[GroupRow]]:
    """Return the columns of the table of groups (`Groups.rows`)."""
    return [
        Head(by, lambda r, look: (printable(r["group"]), ""), right=False, spare=0, elastic=True),
        Head("layers", lambda r, look: (str(r["n_layers"]), ""), spare=0),
        Head("judged", lambda r, look: (str(r["n_judged"]), ""), spare=0),
        Head("mean alpha", lambda r, look: (look.number(r["alpha"], 2), ""), "alpha", spare=0),
        Head("least to most", _show_range, "range", spare=3),
        Head("heavy", _count_of("n_heavy", HEAVY_TAIL.style), spare=4),
        Head("light", _count_of("n_light", LIGHT_TAIL.style), spare=4),
        Head("not judged", _count_of("n_unjudged", "dim"), "unjudged", spare=2),
        Head("failed", _count_of("n_failed", FAILED_STYLE), spare=2),
        Head("log10 norm", lambda r, look: (look.number(r["log_norm"], 2), ""), "lognorm", spare=1),
        Head("stable rank", lambda r, look: (look.number(r["stable_rank"], 1), ""), "srank",
             spare=1),
    ]  # fmt: skip
