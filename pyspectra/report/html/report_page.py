"""The page of a report: verdict, overview, layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from pyspectra._support.text import counted
from pyspectra.report.data import ReportData
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.html.layer_table import layer_data, layer_table
from pyspectra.report.html.live_table import data_block
from pyspectra.report.html.overview import depth, histogram
from pyspectra.report.html.page import clipped, details, page, section, text
from pyspectra.report.html.parts import (
    LONGEST_PATH,
    SCRIPTS,
    STYLES,
    figures,
    foot,
    heading,
    sheet,
    short_name,
    verdict_part,
)
from pyspectra.report.html.table import table

__all__ = ["report_page"]

NAMES_SHOWN = 40


def report_page(report: ReportData) -> str:
    """Return the page of a report as HTML."""
    rows = report.rows()
    layers = [layer_data(x, row) for x, row in zip(report.layers, rows, strict=True)]
    numbers = [i for i, layer in enumerate(report.layers) if layer in _Same(report.wholes)]
    body = [
        verdict_part(report.verdict),
        _figures(report),
        _overview(report, numbers),
        _layers(report),
        *_findings(report),
        *_skipped(report),
        _summary(report),
        sheet(),
        foot(report.options),
        data_block(report.columns(), layers),
    ]
    return page(
        f"{short_name(report.source)} – pyspectra",
        body,
        heading=heading("Spectral report", report.source, _facts(report)),
        styles=STYLES,
        scripts=SCRIPTS,
    )


class _Same:
    """Membership by identity: equal layers are not the same layer."""

    def __init__(self, members: Iterable[object]) -> None:
        self._ids = {id(member) for member in members}

    def __contains__(self, other: object) -> bool:
        return id(other) in self._ids


def _facts(report: ReportData) -> list[str]:
    options = report.options
    noun = "layer" if options.pool else "row"
    return [report.format, counted(len(report.layers), noun), f"estimator {options.estimator}"]


def _figures(report: ReportData) -> str:
    verdict = report.verdict
    low, high = THRESHOLDS.alpha_low, THRESHOLDS.alpha_high
    silent = verdict.n_no_structure + verdict.n_too_small + verdict.n_no_power_law
    mean = f"{verdict.mean_alpha:.2f}" if math.isfinite(verdict.mean_alpha) else "–"
    shown = [
        (mean, "mean α", "of the layers whose α is judged"),
        (verdict.n_typical, "typical", f"α from {low:g} to {high:g}"),
        (verdict.n_heavy_tail, "heavy tail", f"α below {low:g}"),
        (verdict.n_light_tail, "light tail", f"α above {high:g}"),
        (silent, "not judged", "no structure, no power law, or too small"),
        (verdict.n_failed, "no fit", "no spectrum or no tail"),
    ]
    return figures(shown)


def _overview(report: ReportData, numbers: list[int]) -> str:
    charts = histogram(report.wholes) + depth(report.wholes, numbers)
    return section("Overview", f'<div class="pair">{charts}</div>')


def _layers(report: ReportData) -> str:
    return section("Layers", layer_table(report.layers, report.options))


def _findings(report: ReportData) -> list[str]:
    errors = [x for x in report.findings if x.severity == "error"]
    if not errors:
        return []
    items = "".join(
        f'<div class="finding error"><p>{text(clipped(x.message, LONGEST_PATH))}</p></div>'
        for x in errors[:NAMES_SHOWN]
    )
    return [section("Errors", items)]


def _skipped(report: ReportData) -> list[str]:
    if not report.skipped:
        return []
    groups = Counter(item.skip.group for item in report.skipped)
    parts = []
    for group, count in groups.most_common():
        names = [clipped(x.name) for x in report.skipped if x.skip.group == group]
        more = f", and {count - NAMES_SHOWN} more" if count > NAMES_SHOWN else ""
        listed = ", ".join(map(text, names[:NAMES_SHOWN])) + more
        title = f"{count} × {clipped(group, LONGEST_PATH)}"
        parts.append(details(title, f'<p class="names">{listed}</p>'))
    n = counted(len(report.skipped), "tensor was", "tensors were")
    return [section("Not analysed", f'<p class="soft">{n} not analysed.</p>', *parts)]


def _summary(report: ReportData) -> str:
    rows = [{"": name.replace("_", " "), "mean": value} for name, value in report.summary().items()
            if not name.startswith("n_")]  # fmt: skip
    notes = "".join(f'<p class="soft">{text(clipped(note, 1000))}</p>' for note in report.notes)
    return section("Means over the layers", table(rows, caption="Means over the layers"), notes)
