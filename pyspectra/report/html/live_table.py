"""A table that reads without a script, and that the script of the page sorts, filters and opens."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pyspectra._support.text import printable
from pyspectra.report.html.curves import written_ranks
from pyspectra.report.html.judgement import Judgement
from pyspectra.report.html.page import clipped, text
from pyspectra.report.html.signs import small_sign

__all__ = ["TableHead", "TableRow", "data_block", "live_table", "name_cell", "plain_value", "tools"]

DIGITS = 5


class TableHead(NamedTuple):
    """The head of a column: whose values sort it, what it says, and the classes of its cells."""

    name: str
    text: str
    help: str
    style: str = ""


class TableRow(NamedTuple):
    """A row: what is to be said of it, its name, and its cells as HTML, the name among them."""

    kind: Judgement
    name: str
    cells: Sequence[str]


def live_table(heads: Sequence[TableHead], rows: Sequence[TableRow], caption: str) -> str:
    """Return a table whose rows open; the column of style ``"name"`` holds what opens them."""
    top = "".join(
        f'<th scope="col"{_class(h.style)} data-c="{h.name}" title="{text(h.help)}">'
        f"{text(h.text)}</th>"
        for h in heads
    )
    body = "\n".join(_row(number, heads, row) for number, row in enumerate(rows))
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{text(caption)}">'
        f'<table class="layers" id="layers"><caption class="unseen">{text(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _class(style: str) -> str:
    return f' class="{style}"' if style else ""


def _row(number: int, heads: Sequence[TableHead], row: TableRow) -> str:
    cells = []
    for head, content in zip(heads, row.cells, strict=True):
        if "name" in head.style.split():
            # A link: it opens the layer by mouse and by key.
            link = f'<a href="#L{number}">{content}</a>'
            cells.append(f'<th scope="row"{_class(head.style)}>{link}</th>')
        else:
            cells.append(f"<td{_class(head.style)}>{content}</td>")
    return f'<tr id="L{number}" data-k="{text(row.kind.word)}">{"".join(cells)}</tr>'


def name_cell(name: str) -> str:
    """Return a name that breaks after its dots where it is long."""
    content = text(clipped(name))
    for sign in "._/":
        content = content.replace(sign, f"{sign}<wbr>")
    return content


def tools(rows: Sequence[TableRow], order: Sequence[Judgement]) -> str:
    """Return what searches and filters, hidden until the script brings it to life."""
    counts = Counter(row.kind for row in rows)
    chips = "".join(
        f'<button type="button" class="chip" aria-pressed="false" data-k="{text(kind.word)}">'
        f"{small_sign(kind)}{text(kind.word)} <span>{counts[kind]}</span></button>"
        for kind in order
        if counts[kind]
    )
    return (
        '<div class="tools" id="tools" hidden><label class="search">'
        '<span class="unseen">Search names of layers</span>'
        '<input type="search" id="search" placeholder="Search layers" autocomplete="off" '
        'spellcheck="false"></label><span id="facets"></span>'
        f'<div class="chips" role="group" aria-label="Show only">{chips}</div>'
        '<p class="soft count" id="count" role="status"></p></div>'
        '<p class="soft hint" id="hint" hidden>Open a layer to see its spectrum and what its '
        "numbers mean. Keys: / searches, ← and → go from layer to layer, Esc closes.</p>"
    )


def plain_value(value: Any) -> Any:
    """Return a value as the page carries it: five digits, nothing for what is not finite."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        short = float(f"{value:.{DIGITS}g}")
        return int(short) if short.is_integer() and abs(short) < 1e9 else short
    return clipped(printable(value)) if isinstance(value, str) else value


def data_block(
    columns: Mapping[str, str], layers: Sequence[dict[str, Any]], series: Sequence[str] = ("",)
) -> str:
    """Return what the script of the page reads: JSON in which no text can end the element.

    Parameters
    ----------
    columns : mapping of str to str
        Names of the values of a layer, each with what it is.
    layers : sequence of dict
        What each row opens: ``t``, its title; ``k``, what is to be said of it; ``w``, sentences;
        ``v``, its values; ``s``, its spectra, as `pyspectra.report.html.curves.curve` returns them.
    series : sequence of str
        What the spectra of a layer are called where there are several.
    """
    curves = [made for layer in layers for made in layer["s"]]
    whole = {
        "columns": list(columns.items()),
        "series": [clipped(printable(name)) for name in series],
        "ranks": written_ranks(curves),
        "layers": layers,
    }
    written = json.dumps(whole, separators=(",", ":"), allow_nan=False)
    for sign, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        written = written.replace(sign, code)
    return f'<script type="application/json" id="data">{written}</script>'
