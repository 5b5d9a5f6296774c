"""A report as text for a terminal: the table, the histogram of alpha, what it means."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pyspectra._support.text import printable, shorten
from pyspectra.report.verdicts import (
    ALPHA_OVER_TRAINED,
    ALPHA_UNDER_TRAINED,
    NO_POWER_LAW,
    OVER_TRAINED,
    RANDOM,
    UNDER_TRAINED,
    UNTRAINED,
    WELL_TRAINED,
)
from pyspectra.spectra.powerlaw import EVALS_THRESHOLD
from pyspectra.types import Status

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from pyspectra.report.report import LayerReport, Report
    from pyspectra.weights import SkippedLayer

BIN_WIDTH = 0.5
# What lies above shares one bin: a single alpha of 80 must not make 150 rows.
ALPHA_OVERFLOW = 12.0
LONGEST_BAR = 50
NAMES_SHOWN = 3
NOTABLE_LOSS = 0.1  # share of a layer's eigenvalues that the fit leaves out

STYLES = {
    OVER_TRAINED: "magenta",
    UNDER_TRAINED: "yellow",
    RANDOM: "cyan",
    NO_POWER_LAW: "blue",
    UNTRAINED: "cyan",
    WELL_TRAINED: "green",
}
FAILED_STYLE = "bold red"

_SHORT_WARNING = {OVER_TRAINED: "over", UNDER_TRAINED: "under", NO_POWER_LAW: "no law"}
_SHORT_STATUS = {Status.TOO_FEW_POINTS: "too few", Status.NO_CONVERGENCE: "no conv."}


def render(report: Report, console: Console) -> None:
    """Print a report to a console: one row a layer, a histogram of alpha, skipped tensors, verdict.

    Parameters
    ----------
    report : Report
        What `pyspectra.analyze` returned.
    console : rich.console.Console
        Where to. Its width decides how much is abbreviated, its encoding whether bars are drawn in
        ASCII; nothing is wrapped but the sentences below the table.
    """
    glyphs = _ASCII if console.options.ascii_only else _UNICODE
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


class _Glyphs(NamedTuple):
    dash: str
    plus_minus: str
    dot: str
    rule: str
    axis: str
    ellipsis: str
    to: str
    at_least: str
    bar: Callable[[float], str]


def _block_bar(length: float) -> str:
    eighths = max(1, round(length * 8))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


_UNICODE = _Glyphs("–", "±", " · ", "─", "│", "…", "–", "≥", _block_bar)
_ASCII = _Glyphs("-", "+-", "; ", "-", "|", "..", "-", ">=", lambda n: "#" * max(1, round(n)))


def _line(*parts: str | tuple[str, str], wrap: bool = False) -> Text:
    from rich.text import Text

    return Text.assemble(*parts, no_wrap=not wrap, overflow="fold" if wrap else "crop")


def _title(report: Report, glyphs: _Glyphs) -> Iterator[Text]:
    options = report.options
    rows = _count(len(report.layers), "layer" if options.pool else "row")
    facts = [report.format, rows, f"estimator {options.estimator}", f"method {options.method}"]
    if options.fix_fingers:
        facts.append(f"fix_fingers {options.fix_fingers}")
    rest = glyphs.dot.join(["", *facts])
    yield _line((printable(report.source), "bold"), (rest, "dim"), wrap=True)


# --- the table ----------------------------------------------------------------------------------

Cell = tuple[str, str]  # text, style


class _Column(NamedTuple):
    head: str
    cell: Callable[[LayerReport], Cell]
    right: bool = True


class _Layout(NamedTuple):
    """How much of a row is shown; tried from the widest to the narrowest."""

    name_at_least: int | None  # None: names in full
    gap: int = 2
    short: bool = False
    leave_out: frozenset[str] = frozenset()


_SPARE = frozenset({"kind", "fingers", "detX", "95 %"})
_LAYOUTS = (
    _Layout(None),
    _Layout(36),
    _Layout(28, short=True),
    _Layout(20, gap=1, short=True),
    _Layout(20, gap=1, short=True, leave_out=frozenset({"kind"})),
    _Layout(12, gap=1, short=True, leave_out=_SPARE),
    _Layout(12, gap=1, short=True, leave_out=_SPARE | {"lognorm", "srank"}),
    _Layout(8, gap=1, short=True, leave_out=_SPARE | {"lognorm", "srank", "D", "tail"}),
)


def _table(report: Report, width: int, glyphs: _Glyphs) -> Iterator[Text]:
    from rich.cells import cell_len

    if not report.layers:
        return
    names = [printable(layer.name) for layer in report.layers]
    longest = max(cell_len(name) for name in ("layer", *names))
    for layout in _LAYOUTS:
        columns = [
            c for c in _columns(report, layout.short, glyphs) if c.head not in layout.leave_out
        ]
        cells = [[column.cell(layer) for column in columns] for layer in report.layers]
        widths = [
            max(cell_len(text) for text in (column.head, *(row[i][0] for row in cells)))
            for i, column in enumerate(columns)
        ]
        room = width - sum(widths) - layout.gap * len(widths)
        wanted = longest if layout.name_at_least is None else min(longest, layout.name_at_least)
        if room >= wanted:
            break
    name_width = max(5, min(longest, room))
    columns.insert(1, _Column("layer", lambda layer: ("", ""), right=False))
    widths.insert(1, name_width)
    for name, row in zip(names, cells, strict=True):
        row.insert(1, (shorten(name, name_width, glyphs.ellipsis), ""))

    gap = " " * layout.gap
    yield _row([(column.head, "bold") for column in columns], columns, widths, gap)
    yield _line((glyphs.rule * (sum(widths) + len(gap) * (len(widths) - 1)), "dim"))
    for row in cells:
        yield _row(row, columns, widths, gap)


def _row(
    cells: Sequence[Cell], columns: Sequence[_Column], widths: Sequence[int], gap: str
) -> Text:
    from rich.cells import cell_len

    parts: list[Cell] = []
    for (text, style), column, width in zip(cells, columns, widths, strict=True):
        space = " " * (width - cell_len(text))
        parts += [(space, ""), (text, style)] if column.right else [(text, style), (space, "")]
        parts.append((gap, ""))
    line = _line(*parts)
    line.rstrip()
    return line


def _columns(report: Report, short: bool, glyphs: _Glyphs) -> list[_Column]:
    def number(value: float | None, digits: int) -> str:
        return glyphs.dash if value is None or not math.isfinite(value) else f"{value:.{digits}f}"

    def metric(name: str, digits: int) -> Callable[[LayerReport], Cell]:
        return lambda layer: (number(layer.metrics.get(name), digits), "")

    def alpha(layer: LayerReport) -> Cell:
        if not _fitted(layer):
            return glyphs.dash, FAILED_STYLE
        space = "" if short else " "
        error = number(layer.fit.alpha_stderr, 2)
        text = f"{layer.alpha:.2f}{space}{glyphs.plus_minus}{space}{error}"
        return text, STYLES.get(layer.warning, STYLES[WELL_TRAINED])

    def size(layer: LayerReport) -> Cell:
        factor = f"{layer.rf}x " if layer.rf > 1 and layer.slice_id is None else ""
        return f"{factor}{layer.esd.N}x{layer.esd.M}", ""

    def tail(layer: LayerReport) -> Cell:
        count = str(layer.n_tail) if _fitted(layer) else glyphs.dash
        return f"{count}/{len(layer.esd.evals)}", ""

    def warning(layer: LayerReport) -> Cell:
        if not _fitted(layer):
            words = str(layer.status).replace("_", " ")
            return (_SHORT_STATUS.get(layer.status, words) if short else words), FAILED_STYLE
        word = _SHORT_WARNING.get(layer.warning, layer.warning) if short else layer.warning
        return word, STYLES.get(layer.warning, "")

    def raw(layer: LayerReport) -> Cell:
        return number(layer.raw_fit.alpha if layer.raw_fit else None, 2), ""

    def interval(layer: LayerReport) -> Cell:
        low, high = layer.fit.ci
        return (f"{low:.2f}{glyphs.to}{high:.2f}" if math.isfinite(low) else glyphs.dash), ""

    options = report.options
    columns = [_Column("id", lambda layer: (str(layer.layer_id), "dim"))]
    if not options.pool:
        columns.append(
            _Column("slice", lambda r: ("" if r.slice_id is None else str(r.slice_id), "dim"))
        )
    columns += [
        _Column("kind", lambda layer: (printable(layer.kind), "dim"), right=False),
        _Column("N x M", size),
        _Column("alpha", alpha),
    ]
    if options.fix_fingers:
        columns += [
            _Column("raw alpha" if not short else "raw", raw),
            _Column("fingers", lambda layer: (str(layer.n_fingers or 0), "")),
        ]
    if options.bootstrap:
        columns += [
            _Column("95 %", interval),
            _Column("p", lambda layer: (number(layer.fit.p_value, 2), "")),
        ]
    columns += [
        _Column("D", lambda layer: (number(layer.fit.D, 3), "")),
        _Column("tail", tail),
        _Column("lognorm" if short else "log10 norm", metric("log_norm", 2)),
        _Column("srank" if short else "stable rank", metric("stable_rank", 1)),
    ]
    if options.mp_fit:
        columns.append(_Column("spikes", metric("n_spikes", 0)))
    if options.randomize:
        columns.append(_Column("traps", metric("n_traps", 0)))
    if options.detx:
        columns.append(_Column("detX", lambda r: (str(r.metrics.get("detX_num", glyphs.dash)), "")))
    columns.append(_Column("warn" if short else "warning", warning, right=False))
    return columns


def _fitted(layer: LayerReport) -> bool:
    return layer.status is Status.OK and math.isfinite(layer.alpha)


# --- the histogram ------------------------------------------------------------------------------


def _histogram(report: Report, width: int, glyphs: _Glyphs) -> Iterator[Text]:
    alphas = [layer.alpha for layer in report.wholes if _fitted(layer)]
    if not alphas:
        return
    counts = Counter(map(_bin, alphas))
    over, under = round(ALPHA_OVER_TRAINED / BIN_WIDTH), round(ALPHA_UNDER_TRAINED / BIN_WIDTH)
    first, last = min(over - 1, *counts), max(under, *counts)
    label_width = max(len(_bin_label(i, glyphs)) for i in range(first, last + 1))
    longest = min(LONGEST_BAR, max(8, width - label_width - 24))
    per_layer = min(longest / max(counts.values()), 2.0)

    yield _line(("alpha", "bold"), (f"  ({_count(len(alphas), 'fit')}, by {BIN_WIDTH:g})", "dim"))
    for i in range(first, last + 1):
        if i in (over, under):
            mark = ALPHA_OVER_TRAINED if i == over else ALPHA_UNDER_TRAINED
            note = f"{UNDER_TRAINED} from here" if i == under else f"{OVER_TRAINED} up to here"
            label = f"{mark:g}".rjust(label_width)
            yield _line((label, "bold"), (f" {glyphs.rule * 6} {note}", "dim"))
        zone = OVER_TRAINED if i < over else UNDER_TRAINED if i >= under else WELL_TRAINED
        label = _bin_label(i, glyphs).rjust(label_width)
        count = counts[i]
        bar = glyphs.bar(count * per_layer) + " " if count else ""
        number = str(count) if count else ""
        yield _line(label, (f" {glyphs.axis}", "dim"), (bar, STYLES[zone]), number)


def _bin(alpha: float) -> int:
    on_mark = alpha == ALPHA_UNDER_TRAINED  # which is not under-trained yet
    return math.floor(min(alpha, ALPHA_OVERFLOW) / BIN_WIDTH) - on_mark


def _bin_label(index: int, glyphs: _Glyphs) -> str:
    low = index * BIN_WIDTH
    if low >= ALPHA_OVERFLOW:
        return f"{glyphs.at_least} {ALPHA_OVERFLOW:.1f}"
    return f"{low:.1f}{glyphs.to}{low + BIN_WIDTH:.1f}"


# --- the words ----------------------------------------------------------------------------------


def _summary(report: Report, glyphs: _Glyphs) -> Iterator[Text]:
    summary = report.summary()
    means = [
        f"{name} {value:.4g}"
        for name, value in summary.items()
        if not name.startswith("n_") and math.isfinite(value)
    ]
    if means:
        yield _line(("means  ", "bold"), glyphs.dot.join(means), wrap=True)
    failed = Counter(
        str(layer.status).replace("_", " ") for layer in report.wholes if not _fitted(layer)
    )
    text = f"{_count(len(report.wholes), 'fit')}, none failed"
    if failed:
        reasons = ", ".join(f"{count} {status}" for status, count in failed.most_common())
        text = f"{sum(failed.values())} of {len(report.wholes)} failed: {reasons}"
        text += "; not in the means" if means else ""
    yield _line(("fits   ", "bold"), (text, FAILED_STYLE if failed else ""), wrap=True)
    left_out = [layer for layer in report.wholes if _left_out(layer)]
    if left_out:
        text = (
            f"in {_count(len(left_out), 'layer')} more than a tenth of the eigenvalues lie at or "
            f"below {EVALS_THRESHOLD:g} and are left out of the fit, as WeightWatcher does"
        )
        yield _line(("note   ", "bold"), (text, STYLES[UNDER_TRAINED]), wrap=True)


def _left_out(layer: LayerReport) -> bool:
    esd = layer.esd
    return esd.status is Status.OK and layer.fit.n < (1 - NOTABLE_LOSS) * len(esd.evals)


def _skipped(skipped: Sequence[SkippedLayer], width: int, glyphs: _Glyphs) -> Iterator[Text]:
    if not skipped:
        return
    groups: dict[str, list[SkippedLayer]] = {}
    for item in skipped:
        groups.setdefault(item.skip.group, []).append(item)
    yield _line(("skipped", "bold"), f"  {_count(len(skipped), 'tensor')}", wrap=True)
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


def _verdict(report: Report) -> Iterator[Text]:
    verdict = report.verdict
    style = STYLES.get(verdict.label, FAILED_STYLE)
    yield _line(("verdict  ", "bold"), (verdict.label, f"bold {style}"))
    yield _line(printable(verdict.text), wrap=True)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
