"""A report as text for a terminal: the table, the histogram of alpha, what it means."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyspectra._support.text import counted, printable
from pyspectra.report.columns import FAILED_STYLE, Cell, fitted
from pyspectra.report.data import ReportData
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.glyphs import ASCII, UNICODE, Glyphs
from pyspectra.report.heads import group_heads, layer_heads
from pyspectra.report.layer import LayerReport
from pyspectra.report.layout import grid, line, skipped_lines
from pyspectra.report.problems import HEAVY_TAIL, LIGHT_TAIL, TYPICAL_STYLE
from pyspectra.report.shown import Shown, rows_shown
from pyspectra.report.verdicts import style_of
from pyspectra.spectra.powerlaw import RELATIVE_THRESHOLD
from pyspectra.types import Status

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

BIN_WIDTH = 0.5
# What lies above shares one bin: a single alpha of 80 must not make 150 rows.
ALPHA_OVERFLOW = 12.0
LONGEST_BAR = 50
# After so many lines, which push the verdict off the screen, its label comes once more.
LONG = 20
NOTABLE_LOSS = 0.1  # share of a layer's eigenvalues that the fit leaves out


def render(report: ReportData, console: Console, wanted: Shown | None = None) -> None:
    """Print a report to a console: the verdict, rows, a histogram of alpha, skipped tensors.

    Parameters
    ----------
    report : ReportData
        What `pyspectra.analyze` returned.
    console : rich.console.Console
        Where to print. Its width decides how much is abbreviated, its encoding whether bars are
        drawn in ASCII; nothing is wrapped but the sentences above and below the table.
    wanted : Shown
        Which rows, and in which order; of a large model those to look at first.
    """
    wanted = Shown() if wanted is None else wanted
    glyphs = ASCII if console.options.ascii_only else UNICODE
    sections = (
        _title(report, glyphs),
        _verdict(report),
        _table(report, wanted, console.width, glyphs),
        _histogram(report, console.width, glyphs),
        _summary(report, glyphs),
        skipped_lines(report.skipped, console.width, glyphs),
    )
    printed = [list(section) for section in sections]
    if sum(map(len, printed)) > LONG:
        printed.append([_once_more(report, glyphs)])
    for i, lines in enumerate(section for section in printed if section):
        if i:
            console.print()
        for text in lines:
            console.print(text, highlight=False, no_wrap=text.no_wrap, overflow=text.overflow)


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
    yield line((printable(report.source), "bold"), (rest, "dim"), wrap=True)


# --- the table ----------------------------------------------------------------------------------


def _table(report: ReportData, wanted: Shown, width: int, glyphs: Glyphs) -> Iterator[Text]:
    if not report.layers:
        return
    if wanted.by is not None:
        yield from grid(report.by(wanted.by).rows(), group_heads(wanted.by), width, glyphs)
        return
    rows, words = rows_shown(report, wanted)
    yield from grid(rows, layer_heads(report), width, glyphs)
    if words:
        yield line((f"{words} ({wanted.hint})", "dim"), wrap=True)


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

    yield line(("alpha", "bold"), (f"  ({counted(len(alphas), 'fit')}, by {BIN_WIDTH:g})", "dim"))
    for i in range(first, last + 1):
        if i in (over, under):
            mark = THRESHOLDS.alpha_low if i == over else THRESHOLDS.alpha_high
            below, above = f"{HEAVY_TAIL.word} up to here", f"{LIGHT_TAIL.word} from here"
            note = above if i == under else below
            label = f"{mark:g}".rjust(label_width)
            yield line((label, "bold"), (f" {glyphs.rule * 6} {note}", "dim"))
        style = TYPICAL_STYLE
        if not over <= i < under:
            style = HEAVY_TAIL.style if i < over else LIGHT_TAIL.style
        label = _bin_label(i, glyphs).rjust(label_width)
        count = counts[i]
        bar = glyphs.bar(count * per_layer) + " " if count else ""
        number = str(count) if count else ""
        yield line(label, (f" {glyphs.axis}", "dim"), (bar, style), number)


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
        yield line(("means  ", "bold"), glyphs.dot.join(means), wrap=True)
    failed = Counter(layer.status.words for layer in report.wholes if not fitted(layer))
    text = f"{counted(len(report.wholes), 'fit')}, none failed"
    if failed:
        reasons = ", ".join(f"{count} {status}" for status, count in failed.most_common())
        text = f"{sum(failed.values())} of {len(report.wholes)} failed: {reasons}"
        text += "; not in the means" if means else ""
    yield line(("fits   ", "bold"), (text, FAILED_STYLE if failed else ""), wrap=True)
    left_out = [layer for layer in report.wholes if _left_out(layer)]
    if left_out:
        text = (
            f"in {counted(len(left_out), 'layer')} more than a tenth of the eigenvalues lie at or "
            f"below {RELATIVE_THRESHOLD:g} of the largest and are left out of the fit"
        )
        yield line(("note   ", "bold"), (text, LIGHT_TAIL.style), wrap=True)
    for note in report.notes:
        yield line(("note   ", "bold"), printable(note), wrap=True)


def _left_out(layer: LayerReport) -> bool:
    esd = layer.esd
    return esd.status is Status.OK and layer.fit.n < (1 - NOTABLE_LOSS) * len(esd.evals)


def _verdict(report: ReportData) -> Iterator[Text]:
    yield from _label(report)
    yield line(printable(report.verdict.text), wrap=True)


def _label(report: ReportData) -> Iterator[Text]:
    yield line(*_label_parts(report))


def _once_more(report: ReportData, glyphs: Glyphs) -> Text:
    facts = ["", report.coverage.words]
    if math.isfinite(report.verdict.mean_alpha):
        facts.append(f"mean alpha {report.verdict.mean_alpha:.2f}")
    return line(*_label_parts(report), glyphs.dot.join(facts), wrap=True)


def _label_parts(report: ReportData) -> tuple[Cell, Cell]:
    label = report.verdict.label
    return ("verdict  ", "bold"), (label, f"bold {style_of(label)}")
