"""A report as text for a terminal: the table, the histogram of alpha, what it means."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pyspectra._support.text import counted, printable, shorten
from pyspectra.report.columns import COLUMNS, FAILED_STYLE, Cell, Head, Look, fitted, shown
from pyspectra.report.data import ReportData
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.glyphs import ASCII, UNICODE, Glyphs
from pyspectra.report.layer import LayerReport
from pyspectra.report.problems import HEAVY_TAIL, LIGHT_TAIL, TYPICAL_STYLE
from pyspectra.report.verdicts import style_of
from pyspectra.spectra.powerlaw import RELATIVE_THRESHOLD
from pyspectra.types import Status
from pyspectra.weights import SkippedLayer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

BIN_WIDTH = 0.5
# What lies above shares one bin: a single alpha of 80 must not make 150 rows.
ALPHA_OVERFLOW = 12.0
LONGEST_BAR = 50
NAMES_SHOWN = 3
NOTABLE_LOSS = 0.1  # share of a layer's eigenvalues that the fit leaves out


def render(report: ReportData, console: Console) -> None:
    """Print a report to a console: a row per layer, a histogram of alpha, skipped tensors, verdict.

    Parameters
    ----------
    report : ReportData
        What `pyspectra.analyze` returned.
    console : rich.console.Console
        Where to print. Its width decides how much is abbreviated, its encoding whether bars are
        drawn in ASCII; nothing is wrapped but the sentences below the table.
    """
    glyphs = ASCII if console.options.ascii_only else UNICODE
    sections = (
        _title(report, glyphs),
        _table(report, console.width, glyphs),
        _histogram(report, console.width, glyphs),
        _summary(report, glyphs),
        _skipped(report.skipped, console.width, glyphs),
        _verdict(report),
    )
    for i, lines in enumerate(section for section in map(list, sections) if section):
        if i:
            console.print()
        for line in lines:
            console.print(line, highlight=False, no_wrap=line.no_wrap, overflow=line.overflow)


def _line(*parts: str | tuple[str, str], wrap: bool = False) -> Text:
    from rich.text import Text

    return Text.assemble(*parts, no_wrap=not wrap, overflow="fold" if wrap else "crop")


def _title(report: ReportData, glyphs: Glyphs) -> Iterator[Text]:
    options = report.options
    rows = counted(len(report.layers), "layer" if options.pool else "row")
    facts = [
        report.format,
        rows,
        report.coverage.words,
        f"estimator {options.estimator}",
        f"method {options.method}",
    ]
    if options.fix_fingers:
        facts.append(f"fix_fingers {options.fix_fingers}")
    rest = glyphs.dot.join(["", *facts])
    yield _line((printable(report.source), "bold"), (rest, "dim"), wrap=True)


# --- the table ----------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """How much of a row is shown; tried from the widest to the narrowest."""

    name_at_least: int | None  # None: names in full
    gap: int = 2
    short: bool = False
    leave_out: int = 0  # columns whose `spare` is at most this


_LAYOUTS = (
    _Layout(None),
    _Layout(36),
    _Layout(28, short=True),
    _Layout(20, gap=1, short=True),
    _Layout(20, gap=1, short=True, leave_out=1),
    _Layout(12, gap=1, short=True, leave_out=2),
    _Layout(12, gap=1, short=True, leave_out=3),
    _Layout(8, gap=1, short=True, leave_out=4),
)


def _heads(report: ReportData, leave_out: int) -> list[Head[LayerReport]]:
    found = [c.head for c in shown(COLUMNS, report.options) if c.head is not None]
    look = Look(UNICODE)
    found = [h for h in found if not h.if_any or any(h.show(r, look)[0] for r in report.layers)]
    kept = [head for head in found if not 0 < head.spare <= leave_out]
    return sorted(kept, key=lambda head: head.last)


def _table(report: ReportData, width: int, glyphs: Glyphs) -> Iterator[Text]:
    from rich.cells import cell_len

    if not report.layers:
        return
    for layout in _LAYOUTS:
        look = Look(glyphs, layout.short)
        heads = _heads(report, layout.leave_out)
        texts = [head.of(look) for head in heads]
        cells = [[head.show(layer, look) for head in heads] for layer in report.layers]
        widths = [
            max(cell_len(text) for text in (texts[i], *(row[i][0] for row in cells)))
            for i in range(len(heads))
        ]
        elastic = next(i for i, head in enumerate(heads) if head.elastic)
        longest = widths[elastic]
        room = width - sum(widths) + longest - layout.gap * (len(widths) - 1)
        wanted = longest if layout.name_at_least is None else min(longest, layout.name_at_least)
        if room >= wanted:
            break
    widths[elastic] = max(5, min(longest, room))
    for row in cells:
        text, style = row[elastic]
        row[elastic] = shorten(text, widths[elastic], glyphs.ellipsis), style

    gap = " " * layout.gap
    yield _row([(text, "bold") for text in texts], heads, widths, gap)
    yield _line((glyphs.rule * (sum(widths) + len(gap) * (len(widths) - 1)), "dim"))
    for row in cells:
        yield _row(row, heads, widths, gap)


def _row(
    cells: Sequence[Cell], heads: Sequence[Head[LayerReport]], widths: Sequence[int], gap: str
) -> Text:
    from rich.cells import cell_len

    parts: list[Cell] = []
    for (text, style), head, width in zip(cells, heads, widths, strict=True):
        space = " " * (width - cell_len(text))
        parts += [(space, ""), (text, style)] if head.right else [(text, style), (space, "")]
        parts.append((gap, ""))
    line = _line(*parts)
    line.rstrip()
    return line


# --- the histogram ------------------------------------------------------------------------------


def _histogram(report: ReportData, width: int, glyphs: Glyphs) -> Iterator[Text]:
    alphas = [layer.alpha for layer in report.wholes if fitted(layer)]
    if not alphas:
        return
    counts = Counter(map(_bin, alphas))
    over = round(THRESHOLDS.alpha_low / BIN_WIDTH)
    under = round(THRESHOLDS.alpha_high / BIN_WIDTH)
    first, last = min(over - 1, *counts), max(under, *counts)
    label_width = max(len(_bin_label(i, glyphs)) for i in range(first, last + 1))
    longest = min(LONGEST_BAR, max(8, width - label_width - 24))
    per_layer = min(longest / max(counts.values()), 2.0)

    yield _line(("alpha", "bold"), (f"  ({counted(len(alphas), 'fit')}, by {BIN_WIDTH:g})", "dim"))
    for i in range(first, last + 1):
        if i in (over, under):
            mark = THRESHOLDS.alpha_low if i == over else THRESHOLDS.alpha_high
            below, above = f"{HEAVY_TAIL.word} up to here", f"{LIGHT_TAIL.word} from here"
            note = above if i == under else below
            label = f"{mark:g}".rjust(label_width)
            yield _line((label, "bold"), (f" {glyphs.rule * 6} {note}", "dim"))
        style = TYPICAL_STYLE
        if not over <= i < under:
            style = HEAVY_TAIL.style if i < over else LIGHT_TAIL.style
        label = _bin_label(i, glyphs).rjust(label_width)
        count = counts[i]
        bar = glyphs.bar(count * per_layer) + " " if count else ""
        number = str(count) if count else ""
        yield _line(label, (f" {glyphs.axis}", "dim"), (bar, style), number)


def _bin(alpha: float) -> int:
    on_mark = alpha == THRESHOLDS.alpha_high  # whose tail is not light yet
    return math.floor(min(alpha, ALPHA_OVERFLOW) / BIN_WIDTH) - on_mark


def _bin_label(index: int, glyphs: Glyphs) -> str:
    low = index * BIN_WIDTH
    if low >= ALPHA_OVERFLOW:
        return f"{glyphs.at_least} {ALPHA_OVERFLOW:.1f}"
    return f"{low:.1f}{glyphs.to}{low + BIN_WIDTH:.1f}"


# --- the words ----------------------------------------------------------------------------------


def _summary(report: ReportData, glyphs: Glyphs) -> Iterator[Text]:
    summary = report.summary()
    means = [
        f"{name} {value:.4g}"
        for name, value in summary.items()
        if not name.startswith("n_") and math.isfinite(value)
    ]
    if means:
        yield _line(("means  ", "bold"), glyphs.dot.join(means), wrap=True)
    failed = Counter(layer.status.words for layer in report.wholes if not fitted(layer))
    text = f"{counted(len(report.wholes), 'fit')}, none failed"
    if failed:
        reasons = ", ".join(f"{count} {status}" for status, count in failed.most_common())
        text = f"{sum(failed.values())} of {len(report.wholes)} failed: {reasons}"
        text += "; not in the means" if means else ""
    yield _line(("fits   ", "bold"), (text, FAILED_STYLE if failed else ""), wrap=True)
    left_out = [layer for layer in report.wholes if _left_out(layer)]
    if left_out:
        text = (
            f"in {counted(len(left_out), 'layer')} more than a tenth of the eigenvalues lie at or "
            f"below {RELATIVE_THRESHOLD:g} of the largest and are left out of the fit"
        )
        yield _line(("note   ", "bold"), (text, LIGHT_TAIL.style), wrap=True)
    for note in report.notes:
        yield _line(("note   ", "bold"), printable(note), wrap=True)


def _left_out(layer: LayerReport) -> bool:
    esd = layer.esd
    return esd.status is Status.OK and layer.fit.n < (1 - NOTABLE_LOSS) * len(esd.evals)


def _skipped(skipped: Sequence[SkippedLayer], width: int, glyphs: Glyphs) -> Iterator[Text]:
    if not skipped:
        return
    groups: dict[str, list[SkippedLayer]] = {}
    for item in skipped:
        groups.setdefault(item.skip.group, []).append(item)
    yield _line(("skipped", "bold"), f"  {counted(len(skipped), 'tensor')}", wrap=True)
    digits = max(len(str(len(items))) for items in groups.values())
    longest = max(12, width // 4)
    for reason, items in sorted(groups.items(), key=lambda group: -len(group[1])):
        shown = [printable(item.name) for item in items[:NAMES_SHOWN]]
        names = ", ".join(shorten(name, longest, glyphs.ellipsis) for name in shown)
        names += f", {glyphs.ellipsis}" if len(items) > NAMES_SHOWN else ""
        failed = items[0].failed
        text = printable(items[0].reason if failed else reason)
        reason_cell = (text, FAILED_STYLE if failed else "")
        yield _line(f"  {len(items):>{digits}}  ", reason_cell, (f"  ({names})", "dim"), wrap=True)


def _verdict(report: ReportData) -> Iterator[Text]:
    verdict = report.verdict
    yield _line(("verdict  ", "bold"), (verdict.label, f"bold {style_of(verdict.label)}"))
    yield _line(printable(verdict.text), wrap=True)
