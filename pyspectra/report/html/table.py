"""Tables of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pyspectra.report.html.page import text

__all__ = ["cell", "table"]

DIGITS = 4


def cell(value: Any) -> str:
    """Return a value as a table shows it: four digits of a number, a dash for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return text(f"{value:.{DIGITS}g}")
    return text(value)


def table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str] | None = None,
    caption: str = "",
    label: str = "",
) -> str:
    """Return rows as a table.

    Parameters
    ----------
    rows : sequence of mapping
        What a column does not have in a row is shown as a dash.
    columns : sequence of str, optional
        Names of the columns in their order; by default all, by first appearance.
    caption : str
    label : str
        What it is called where nothing is seen of the page; the caption by default.
    """
    names = list(columns or dict.fromkeys(name for row in rows for name in row))
    left = {n for n in names if any(isinstance(row.get(n), str) for row in rows)}

    def one(tag: str, name: str, content: str) -> str:
        side = ' class="left"' if name in left else ""
        return f"<{tag}{side}>{content}</{tag}>"

    head = "".join(one("th", n, text(n)) for n in names)
    lines = ["".join(one("td", n, cell(row.get(n))) for n in names) for row in rows]
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    called = text(label or caption or "table")
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{called}">'
        f"<table>{title}<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )
