"""A trajectory as text for a terminal: a row for each checkpoint, then the sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pyspectra._support.text import printable, shorten
from pyspectra.report.glyphs import ASCII, UNICODE, Glyphs
from pyspectra.report.trajectory_data import TrajectoryData
from pyspectra.report.trajectory_words import paragraphs

if TYPE_CHECKING:
    from rich.console import Console

NAME_AT_LEAST = 16
GAP = "  "
HEADS = ("checkpoint", "layers", "alpha", "above", "below", "lognorm", "srank", "verdict")


def render(found: TrajectoryData, console: Console) -> None:
    """Print a trajectory to a console.

    Parameters
    ----------
    found : TrajectoryData
    console : rich.console.Console
        Where to print; its width decides how much of the names is shown.
    """
    from rich.text import Text

    glyphs = ASCII if console.options.ascii_only else UNICODE
    cells = [HEADS, *(_cells(entry, glyphs) for entry in found.summary())]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADS))]
    room = console.width - sum(widths[1:]) - len(GAP) * (len(widths) - 1)
    widths[0] = min(widths[0], max(NAME_AT_LEAST, room))
    for number, line in enumerate(cells):
        name = shorten(line[0], widths[0], glyphs.ellipsis).ljust(widths[0])
        middle = [cell.rjust(w) for cell, w in zip(line[1:-1], widths[1:-1], strict=True)]
        text = Text(GAP.join([name, *middle, line[-1]]).rstrip(), style="" if number else "bold")
        console.print(text, highlight=False, no_wrap=True, overflow="crop")
    console.print()
    for note in found.notes:
        console.print(Text(f"note: {printable(note)}"), highlight=False)
    for paragraph in paragraphs(found):
        console.print(Text(" ".join(paragraph)), highlight=False)


def _cells(entry: dict[str, Any], glyphs: Glyphs) -> tuple[str, ...]:
    def number(value: float, digits: int) -> str:
        return f"{value:.{digits}f}" if math.isfinite(value) else glyphs.dash

    return (
        printable(entry["checkpoint"]),
        str(entry["n_layers"]),
        number(entry["alpha"], 2),
        str(entry["n_above"]),
        str(entry["n_below"]),
        number(entry["log_norm"], 2),
        number(entry["stable_rank"], 1),
        entry["verdict"],
    )
