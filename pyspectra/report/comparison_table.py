"""A comparison as text for a terminal: a row for each layer, then the sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyspectra._support.text import printable, shorten
from pyspectra.report.comparison_data import ComparisonData
from pyspectra.report.comparison_words import paragraphs
from pyspectra.report.glyphs import ASCII, UNICODE, Glyphs

if TYPE_CHECKING:
    from rich.console import Console

NAME_AT_LEAST = 16
GAP = "  "


def render(found: ComparisonData, console: Console) -> None:
    """Print a comparison to a console.

    Parameters
    ----------
    found : Comparison
    console : rich.console.Console
        Where to print; its width decides how much of the names of layers is shown.
    """
    from rich.text import Text

    glyphs = ASCII if console.options.ascii_only else UNICODE
    rows = found.rows()
    if rows:
        heads = ("layer", "alpha A", "alpha B", "B - A", "error", "lognorm", "what")
        cells = [heads, *(_cells(row, glyphs) for row in rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
        room = console.width - sum(widths[1:]) - len(GAP) * (len(widths) - 1)
        widths[0] = min(widths[0], max(NAME_AT_LEAST, room))
        for number, line in enumerate(cells):
            text = Text(_line(line, widths, glyphs), style="" if number else "bold")
            console.print(text, highlight=False, no_wrap=True, overflow="crop")
        console.print()
    for side, name in zip("AB", found.names, strict=True):
        console.print(Text(f"{side}: {printable(name)}", style="dim"), highlight=False)
    for note in found.notes:
        console.print(Text(f"note: {printable(note)}"), highlight=False)
    for paragraph in paragraphs(found):
        console.print(Text(" ".join(paragraph)), highlight=False)


def _cells(row: dict[str, Any], glyphs: Glyphs) -> tuple[str, ...]:
    numbers = [
        (row["alpha_a"], ".2f"), (row["alpha_b"], ".2f"), (row["alpha_shift"], "+.2f"),
        (row["alpha_shift_stderr"], ".2f"), (row["log_spectral_norm_shift"], "+.2f"),
    ]  # fmt: skip
    shown = (format(x, how) if math.isfinite(x) else glyphs.dash for x, how in numbers)
    return (printable(row["name"]), *shown, row["change"])


def _line(cells: Sequence[str], widths: Sequence[int], glyphs: Glyphs) -> str:
    name = shorten(cells[0], widths[0], glyphs.ellipsis)
    numbers = [c.rjust(w) for c, w in zip(cells[1:-1], widths[1:-1], strict=True)]
    return GAP.join([name.ljust(widths[0]), *numbers, cells[-1]]).rstrip()
