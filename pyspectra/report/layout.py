"""Rows and columns in the width of a terminal: what is abbreviated, and what is left out first.

A table is tried from its widest form to its narrowest, and the first that fits is taken. Names are
shortened last: what all of them begin with goes first, then their middles, and what tells two of
them apart stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from pyspectra._support.text import counted, printable, shorten
from pyspectra.report.columns import FAILED_STYLE, Cell, Head, Look
from pyspectra.report.glyphs import Glyphs
from pyspectra.weights import SkippedLayer

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["grid", "line", "skipped_lines"]

NAMES_SHOWN = 3

R = TypeVar("R")


def line(*parts: str | tuple[str, str], wrap: bool = False) -> Text:
    """Return one line of a terminal, of texts with or without a style; cropped unless it wraps."""
    from rich.text import Text

    return Text.assemble(*parts, no_wrap=not wrap, overflow="fold" if wrap else "crop")


class _Form(NamedTuple):
    """How much of a row is shown; tried from the widest to the narrowest."""

    name_at_least: int | None  # None: names in full
    gap: int = 2
    short: bool = False
    leave_out: int = 0  # columns whose `spare` is at most this


_FORMS = (
    _Form(None),
    _Form(36),
    _Form(28, short=True),
    _Form(20, gap=1, short=True),
    _Form(20, gap=1, short=True, leave_out=1),
    _Form(12, gap=1, short=True, leave_out=2),
    _Form(12, gap=1, short=True, leave_out=3),
    _Form(8, gap=1, short=True, leave_out=4),
)


def grid(rows: Sequence[R], heads: Sequence[Head[R]], width: int, glyphs: Glyphs) -> Iterator[Text]:
    """Yield the lines of a table: its heads, a rule, a line for each row.

    Parameters
    ----------
    rows : sequence
        What is shown, at least one.
    heads : sequence of Head
        How; one of them is elastic.
    width : int
        Cells of the terminal.
    glyphs : Glyphs
        The signs that it has.

    Yields
    ------
    rich.text.Text
    """
    table = _best(rows, heads, width, glyphs)
    kept, cells, widths = table.heads, table.cells, table.widths
    gap = " " * table.form.gap
    yield _line_of([(text, "bold") for text in table.texts], kept, widths, gap)
    yield line((glyphs.rule * (sum(widths) + len(gap) * (len(widths) - 1)), "dim"))
    for row in cells:
        yield _line_of(row, kept, widths, gap)


class _Table(NamedTuple, Generic[R]):
    """A table in one form: its cells, how wide the columns are, and how well it does."""

    form: _Form
    heads: list[Head[R]]
    texts: list[str]
    cells: list[list[Cell]]
    widths: list[int]
    fits: bool
    tells_apart: bool


def _best(rows: Sequence[R], heads: Sequence[Head[R]], width: int, glyphs: Glyphs) -> _Table[R]:
    """Return the widest form that fits and whose names differ; if none does, the widest that fits.

    What tells rows apart is worth more than a column.
    """
    first = table = None
    for form in _FORMS:
        table = _fitted(form, rows, heads, width, glyphs)
        if table.fits and table.tells_apart:
            return table
        if table.fits and first is None:
            first = table
    assert table is not None
    return first or table


def _fitted(
    form: _Form, rows: Sequence[R], heads: Sequence[Head[R]], width: int, glyphs: Glyphs
) -> _Table[R]:
    from rich.cells import cell_len

    look = Look(glyphs, form.short)
    kept = [head for head in heads if not 0 < head.spare <= form.leave_out]
    kept.sort(key=lambda head: head.last)
    texts = [head.of(look) for head in kept]
    cells = [[head.show(row, look) for head in kept] for row in rows]
    widths = [
        max(cell_len(text) for text in (texts[i], *(row[i][0] for row in cells)))
        for i in range(len(kept))
    ]
    elastic = next(i for i, head in enumerate(kept) if head.elastic)
    longest = widths[elastic]
    room = width - sum(widths) + longest - form.gap * (len(widths) - 1)
    wanted = longest if form.name_at_least is None else min(longest, form.name_at_least)
    widths[elastic] = max(5, min(longest, room))
    names, tells_apart = _shortened([row[elastic][0] for row in cells], widths[elastic], glyphs)
    for row, name in zip(cells, names, strict=True):
        row[elastic] = name, row[elastic][1]
    return _Table(form, kept, texts, cells, widths, room >= wanted, tells_apart)


def _line_of(
    cells: Sequence[Cell], heads: Sequence[Head[R]], widths: Sequence[int], gap: str
) -> Text:
    from rich.cells import cell_len

    parts: list[Cell] = []
    for (text, style), head, width in zip(cells, heads, widths, strict=True):
        space = " " * (width - cell_len(text))
        parts += [(space, ""), (text, style)] if head.right else [(text, style), (space, "")]
        parts.append((gap, ""))
    whole = line(*parts)
    whole.rstrip()
    return whole


# --- names --------------------------------------------------------------------------------------


def _shortened(names: Sequence[str], width: int, glyphs: Glyphs) -> tuple[list[str], bool]:
    """Return names of at most `width` cells, and whether they differ where the names do."""
    from rich.cells import cell_len

    if all(cell_len(name) <= width for name in names):
        return list(names), True
    begun = _beginning(names)
    tails = [glyphs.ellipsis + name[len(begun) :] if begun else name for name in names]
    found = [shorten(name, width, glyphs.ellipsis) for name in tails]
    twice = Counter(found)
    ends = [
        short if twice[short] == 1 else _end_of(name, width, glyphs.ellipsis)
        for short, name in zip(found, tails, strict=True)
    ]
    return ends, len(set(ends)) == len(set(names))


def _beginning(names: Sequence[str]) -> str:
    """Return the words, up to a dot, that all of several names begin with."""
    if len(names) < 2:
        return ""
    first, last = min(names), max(names)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    return first[: first.rfind(".", 0, shared) + 1]


def _end_of(name: str, width: int, ellipsis: str) -> str:
    from rich.cells import cell_len, set_cell_size

    if cell_len(name) <= width:
        return name
    room = max(width - cell_len(ellipsis), 0)
    return (ellipsis + set_cell_size(name[::-1], room)[::-1]).rstrip()


def skipped_lines(skipped: Sequence[SkippedLayer], width: int, glyphs: Glyphs) -> Iterator[Text]:
    """Yield lines that say what was not analysed, by reasons, each with a few names."""
    if not skipped:
        return
    groups: dict[str, list[SkippedLayer]] = {}
    for item in skipped:
        groups.setdefault(item.skip.group, []).append(item)
    yield line(("skipped", "bold"), f"  {counted(len(skipped), 'tensor')}", wrap=True)
    digits = max(len(str(len(items))) for items in groups.values())
    longest = max(12, width // 4)
    for reason, items in sorted(groups.items(), key=lambda group: -len(group[1])):
        names = _names_of([item.name for item in items], NAMES_SHOWN, longest, glyphs.ellipsis)
        failed = items[0].failed
        text = printable(items[0].reason if failed else reason)
        reason_cell = (text, FAILED_STYLE if failed else "")
        yield line(f"  {len(items):>{digits}}  ", reason_cell, (f"  ({names})", "dim"), wrap=True)


def _names_of(names: Sequence[str], shown: int, longest: int, ellipsis: str) -> str:
    """Return a few of several names, shortened, as the end of a sentence."""
    few = ", ".join(shorten(printable(name), longest, ellipsis) for name in names[:shown])
    return f"{few}, {ellipsis}" if len(names) > shown else few
