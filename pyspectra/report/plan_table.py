"""A description as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspectra._support.text import counted, printable
from pyspectra.report.glyphs import ASCII, UNICODE
from pyspectra.report.layout import grid, line, skipped_lines
from pyspectra.report.plan_data import PLAN_COLUMNS, PlanData
from pyspectra.report.shown import FEW, MANY

if TYPE_CHECKING:
    from rich.console import Console

_POWERS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def render(plan: PlanData, console: Console, everything: bool = False) -> None:
    """Print a description to a console: sums, layers, what is skipped.

    Parameters
    ----------
    plan : PlanData
    console : rich.console.Console
        Where to print; its width decides how much is abbreviated.
    everything : bool
        Every layer, also of a large model.
    """
    glyphs = ASCII if console.options.ascii_only else UNICODE
    summary = plan.summary()
    facts = [
        "",
        plan.format,
        counted(len(plan), "layer"),
        f"{_short(summary['parameters']).rstrip()} parameters",
    ]
    kinds = glyphs.dot.join(f"{count} {kind}" for kind, count in summary["kinds"].items())
    lines = [
        line((printable(plan.source), "bold"), (glyphs.dot.join(facts), "dim"), wrap=True),
        line(("covers    ", "bold"), plan.coverage.words, wrap=True),
    ]
    if kinds:
        lines.append(line(("kinds     ", "bold"), kinds, wrap=True))
    cost = f"{_short(summary['flops'])}flop for the spectra, {_short(summary['memory'])}B of memory"
    lines += [line(("costs     ", "bold"), f"about {cost}", wrap=True), line("")]
    shown = plan.layers if everything or len(plan) <= MANY else plan.layers[:FEW]
    if shown:
        heads = [column.head for column in PLAN_COLUMNS if column.head is not None]
        lines += grid(shown, heads, console.width, glyphs)
    if len(shown) < len(plan):
        words = f"the first {len(shown)} of {len(plan)} layers (--all or everything=True lists all)"
        lines.append(line((words, "dim"), wrap=True))
    told = list(skipped_lines(plan.skipped, console.width, glyphs))
    lines += [line(""), *told] if told else []
    for text in lines:
        console.print(text, highlight=False, no_wrap=text.no_wrap, overflow=text.overflow)


def _short(number: float) -> str:
    """Return a number with a prefix, and a space before the unit that follows."""
    for power, letter in _POWERS:
        if number >= power:
            return f"{number / power:.3g} {letter}"
    return f"{number:.0f} "
