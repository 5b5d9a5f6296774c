"""The table of layers: rows that read without a script, and what the script needs to open them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pyspectra._support.text import printable
from pyspectra.report.columns import COLUMNS, Head, Look, shown
from pyspectra.report.glyphs import UNICODE
from pyspectra.report.html.curves import curve, written_ranks
from pyspectra.report.html.judgement import JUDGEMENTS, judgement
from pyspectra.report.html.overview import sign
from pyspectra.report.html.page import clipped, text
from pyspectra.report.html.words import told
from pyspectra.report.layer import LayerReport
from pyspectra.report.options import AnalyzeOptions

__all__ = ["data_block", "layer_data", "layer_table", "tools"]

LONGEST = 1000  # of a name where a layer is open
DIGITS = 5
_LOOK = Look(UNICODE)


def tools(layers: Sequence[LayerReport]) -> str:
    """Return what searches and filters, hidden until the script brings it to life."""
    counts = Counter(judgement(layer) for layer in layers)
    chips = "".join(
        f'<button type="button" class="chip" aria-pressed="false" data-k="{kind.style}">'
        f'<svg class="sign" viewBox="0 0 12 12" aria-hidden="true">{sign(6, 6, kind, 4)}</svg>'
        f"{text(kind.word)} <span>{counts[kind]}</span></button>"
        for kind in JUDGEMENTS
        if counts[kind]
    )
    return (
        '<div class="tools" id="tools" hidden><label class="search">'
        '<span class="unseen">Search names of layers</span>'
        '<input type="search" id="search" placeholder="Search layers" autocomplete="off" '
        'spellcheck="false"></label><span id="facets"></span>'
        f'<div class="chips" role="group" aria-label="Show only">{chips}</div>'
        '<p class="soft count" id="count" role="status"></p></div>'
    )


def layer_table(layers: Sequence[LayerReport], options: AnalyzeOptions) -> str:
    """Return a row for each layer, with the columns that the terminal shows."""
    found = [(c, c.head) for c in shown(COLUMNS, options) if c.head is not None]
    found.sort(key=lambda pair: pair[1].last)
    heads = "".join(
        f'<th scope="col"{_classes(head)} data-c="{c.name}" title="{text(c.help)}">'
        f"{text(head.text)}</th>"
        for c, head in found
    )
    rows = "\n".join(
        f'<tr id="L{number}" data-k="{judgement(layer).style}">'
        + "".join(_cell(layer, number, head) for _, head in found)
        + "</tr>"
        for number, layer in enumerate(layers)
    )
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Layers">'
        '<table class="layers" id="layers"><caption class="unseen">Layers</caption>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _classes(head: Head[Any]) -> str:
    names = [f"spare{head.spare}"] if head.spare else []
    names += [] if head.right else ["left"]
    names += ["name"] if head.elastic else []
    return f' class="{" ".join(names)}"' if names else ""


def _cell(layer: LayerReport, number: int, head: Head[LayerReport]) -> str:
    content = text(clipped(head.show(layer, _LOOK)[0]))
    if head.elastic:
        for sign_ in "._/":  # a long name breaks after these
            content = content.replace(sign_, f"{sign_}<wbr>")
        # A link: it opens the layer by mouse and by key.
        return f'<th scope="row"{_classes(head)}><a href="#L{number}">{content}</a></th>'
    if head.text == "alpha":
        kind = judgement(layer)
        content = (
            f'<svg class="sign" viewBox="0 0 12 12" aria-hidden="true">{sign(6, 6, kind, 4)}</svg>'
            + content
        )
    return f"<td{_classes(head)}>{content}</td>"


def layer_data(layer: LayerReport, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the script shows of a layer when it is open.

    Parameters
    ----------
    layer : LayerReport
    row : mapping of str to value
        Its columns, as `Report.rows` returns them.
    """
    return {
        "t": clipped(printable(layer.label), LONGEST),
        "k": judgement(layer).word,
        "w": [printable(sentence) for sentence in told(layer)],
        "v": [_value(value) for value in row.values()],
        "s": [curve(layer)],
    }


def _value(value: Any) -> Any:
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
        As `layer_data` returns them.
    series : sequence of str
        What the spectra of a layer are called where there are several.
    """
    curves = [made for layer in layers for made in layer["s"]]
    whole = {
        "columns": [[name, help_] for name, help_ in columns.items()],
        "series": [clipped(printable(name)) for name in series],
        "ranks": written_ranks(curves),
        "layers": layers,
    }
    written = json.dumps(whole, separators=(",", ":"), allow_nan=False)
    for sign_, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        written = written.replace(sign_, code)
    return f'<script type="application/json" id="data">{written}</script>'
