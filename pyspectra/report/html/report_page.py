"""The page of a report: verdict, overview, layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from pyspectra._support.text import counted
from pyspectra.report.coverage import Coverage
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
from pyspectra.report.html.role_map import role_maps
from pyspectra.report.html.table import table

__all__ = ["report_page"]

NAMES_SHOWN = 40
PERMUTED = "entries permuted"


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
        _coverage(report),
        _summary(report),
        sheet(),
        foot(report.options),
        data_block(report.columns(), layers, ("", PERMUTED)),
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
    rows = counted(len(report.layers), noun)
    return [report.format, rows, report.coverage.words, f"estimator {options.estimator}"]


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
    charts = [histogram(report.wholes), depth(report.wholes, numbers)]
    maps = role_maps(report.wholes, numbers)
    charts += [*maps, *_by_role(report)]
    return section("Overview", f'<div class="pair">{"".join(charts)}</div>')


# What is told of each role, by the columns of `Groups.rows`.
OF_ROLES = {
    "role": "group",
    "layers": "n_layers",
    "judged": "n_judged",
    "mean α": "alpha",
    "least α": "alpha_min",
    "largest α": "alpha_max",
    "stable rank": "stable_rank",
}


def _by_role(report: ReportData) -> list[str]:
    groups = report.by("role")
    if len(groups) < 2:
        return []
    rows = [{name: row[key] for name, key in OF_ROLES.items()} for row in groups.rows()]
    shown = table(rows, label="Means by role")
    return [f"<figure><figcaption>Means by role</figcaption>{shown}</figure>"]


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


def _coverage(report: ReportData) -> str:
    """Return what share of the model was analysed, and what was not, by reason."""
    groups = Counter(item.skip.group for item in report.skipped)
    parts = []
    for group, count in groups.most_common():
        names = [clipped(x.name) for x in report.skipped if x.skip.group == group]
        more = f", and {count - NAMES_SHOWN} more" if count > NAMES_SHOWN else ""
        listed = ", ".join(map(text, names[:NAMES_SHOWN])) + more
        title = f"{count} × {clipped(group, LONGEST_PATH)}"
        parts.append(details(title, f'<p class="names">{listed}</p>'))
    said = "".join(f"<p>{text(sentence)}</p>" for sentence in report.coverage.sentences)
    return section("Coverage", _bar(report.coverage), said, *parts)


def _bar(coverage: Coverage) -> str:
    """Return the share of the parameters in matrices that was analysed, as a bar."""
    if not coverage.total:
        return ""
    parts, left = [], 0.0
    for name, count, style in (
        ("analysed", coverage.analysed, "read"),
        ("left out by the options", coverage.left_out, "chosen"),
        ("could not be analysed", coverage.unread, "unread"),
    ):
        if count:
            width = 1000 * count / coverage.total
            parts.append(
                f'<rect class="{style}" x="{left:.1f}" y="0" width="{max(width, 1.0):.1f}" '
                f'height="10"><title>{name}: {count:,} parameters</title></rect>'
            )
            left += width
    label = text(f"Coverage: {coverage.words}")
    return (
        f'<svg class="bar-of" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )


def _summary(report: ReportData) -> str:
    rows = [
        {"quantity": name.replace("_", " "), "mean": value}
        for name, value in report.summary().items()
        if not name.startswith("n_")
    ]
    notes = "".join(f'<p class="soft">{text(clipped(note, 1000))}</p>' for note in report.notes)
    return section("Means over the layers", table(rows, label="Means over the layers"), notes)
