"""The table of the layers of a report, and what the script needs to open them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspectra._support.text import printable
from pyspectra.report.columns import COLUMNS, Head, Look, shown
from pyspectra.report.glyphs import UNICODE
from pyspectra.report.html.curves import curve, permuted_curve
from pyspectra.report.html.judgement import JUDGEMENTS, judgement
from pyspectra.report.html.live_table import (
    TableHead,
    TableRow,
    live_table,
    name_cell,
    plain_value,
    tools,
)
from pyspectra.report.html.page import clipped, text
from pyspectra.report.html.signs import small_sign
from pyspectra.report.html.words import told
from pyspectra.report.layer import LayerReport
from pyspectra.report.options import AnalyzeOptions

__all__ = ["LONGEST", "layer_data", "layer_table"]

LONGEST = 300  # of a name where a layer is open
_LOOK = Look(UNICODE)


def layer_table(layers: Sequence[LayerReport], options: AnalyzeOptions) -> str:
    """Return a row for each layer, with the columns that the terminal shows."""
    found = [(c, c.head) for c in shown(COLUMNS, options) if c.head is not None]
    found.sort(key=lambda pair: pair[1].last)
    found = [(c, head) for c, head in found if _says_something(head, layers)]
    heads = [TableHead(c.name, head.text, c.help, _style(head)) for c, head in found]
    rows = [TableRow(judgement(x), x.label, [_cell(x, head) for _, head in found]) for x in layers]
    return tools(rows, JUDGEMENTS) + live_table(heads, rows, "Layers")


def _says_something(head: Head[LayerReport], layers: Sequence[LayerReport]) -> bool:
    texts = [head.show(layer, _LOOK)[0] for layer in layers]
    return not texts or any(text_ not in ("", UNICODE.dash) for text_ in texts)


def _style(head: Head[Any]) -> str:
    kept = head.elastic or head.last or head.text == "alpha"
    names = [] if kept else [f"spare{head.spare}"]
    names += [] if head.right else ["left"]
    return " ".join(names + (["name"] if head.elastic else []))


def _cell(layer: LayerReport, head: Head[LayerReport]) -> str:
    content = head.show(layer, _LOOK)[0]
    if head.elastic:
        return name_cell(content)
    before = small_sign(judgement(layer)) if head.text == "alpha" else ""
    return before + text(clipped(content))


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
        "v": [plain_value(value) for value in row.values()],
        "s": [curve(layer), permuted_curve(layer)],
    }
