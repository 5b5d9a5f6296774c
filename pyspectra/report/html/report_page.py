"""The page of a report: verdict, overview, layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath

from pyspectra._support.text import counted
from pyspectra.report.data import ReportData
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.html.layer_table import data_block, layer_data, layer_table, tools
from pyspectra.report.html.overview import depth, histogram
from pyspectra.report.html.page import asset, clipped, details, page, section, text
from pyspectra.report.html.table import table
from pyspectra.report.verdicts import LIMIT, Verdict

__all__ = ["SCRIPTS", "STYLES", "heading", "report_page", "sheet", "short_name", "verdict_part"]

STYLES = ("report.css", "uPlot.min.css")
SCRIPTS = ("uPlot.iife.min.js", "spectrum.js", "layers.js")
# Colours of labels, by the word; any other word is said in the colour of text.
LABEL_STYLES = {
    "typical": "typical",
    "heavy-tailed": "heavy",
    "light-tailed": "light",
    "no structure": "quiet",
    "cannot be judged": "failed",
}
# File names that tell no model from another.
COMMON_NAMES = {
    "model",
    "models",
    "pytorch_model",
    "weights",
    "checkpoint",
    "consolidated",
    "final",
}
NAMES_SHOWN = 40
LONGEST_PATH = 300


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
        _foot(report),
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


def short_name(source: str) -> str:
    """Return what a model is called in a title: the last part of its path that says something."""
    parts = PurePath(source).parts
    if len(parts) < 2:
        return clipped(source)
    several = parts[-1].partition(".")[0].lower() in COMMON_NAMES
    return clipped("/".join(part for part in parts[-2:] if part != "/") if several else parts[-1])


def heading(kind: str, source: str, facts: Iterable[str]) -> str:
    """Return the top of a page: what it is, of what model, and its facts."""
    name = short_name(source)
    path = [clipped(source, LONGEST_PATH)] if name != source else []
    line = " · ".join(map(text, [*path, *facts]))
    return (
        f'<header><p class="eyebrow">{text(kind)}</p><h1>{text(name)}</h1>'
        f'<p class="soft path">{line}</p></header>'
    )


def _facts(report: ReportData) -> list[str]:
    options = report.options
    noun = "layer" if options.pool else "row"
    return [report.format, counted(len(report.layers), noun), f"estimator {options.estimator}"]


def verdict_part(verdict: Verdict) -> str:
    """Return a verdict: its word, its first sentence large, the others below."""
    sentences = _sentences(verdict.text)
    style = LABEL_STYLES.get(verdict.label, "plain")
    rest = " ".join(sentence for sentence in sentences[1:] if sentence != LIMIT)
    limit = f'<p class="soft">{text(LIMIT)}</p>' if LIMIT in sentences else ""
    first = sentences[0] if sentences else ""
    # The first sentence begins with the word that stands above it.
    opening = f"{verdict.label}: "
    if first.lower().startswith(opening):
        first = first[len(opening) :]
        first = first[:1].upper() + first[1:]
    return (
        '<section class="verdict" aria-label="Verdict">'
        f'<p class="label {style}">{text(verdict.label.capitalize())}</p>'
        f'<p class="lede">{text(first)}</p>'
        + (f"<p>{text(rest)}</p>" if rest else "")
        + limit
        + "</section>"
    )


def _sentences(words: str) -> list[str]:
    """Split a text where a full stop is followed by a space and a capital or a digit."""
    found, begin = [], 0
    for at in range(len(words) - 2):
        after = words[at + 2]
        if words[at : at + 2] == ". " and (after.isupper() or after.isdigit()):
            found.append(words[begin : at + 1])
            begin = at + 2
    return [*found, words[begin:]]


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
    cells = "".join(
        f'<div><dd>{text(value)}</dd><dt>{text(name)}<span class="soft">{text(what)}</span></dt>'
        "</div>"
        for value, name, what in shown
    )
    return f'<dl class="figures">{cells}</dl>'


def _overview(report: ReportData, numbers: list[int]) -> str:
    charts = histogram(report.wholes) + depth(report.wholes, numbers)
    return section("Overview", f'<div class="pair">{charts}</div>')


def _layers(report: ReportData) -> str:
    hint = (
        '<p class="soft hint" id="hint" hidden>Open a layer to see its spectrum and what its '
        "numbers mean. Keys: / searches, ← and → go from layer to layer, Esc closes.</p>"
    )
    return section("Layers", hint, tools(report.layers), layer_table(report.layers, report.options))


def sheet() -> str:
    """Return the sheet on which the script opens a layer."""
    return (
        '<dialog id="sheet" aria-labelledby="sheet-title"><div class="bar">'
        '<button type="button" id="before" aria-label="Layer before">←</button>'
        '<button type="button" id="after" aria-label="Next layer">→</button>'
        '<span class="soft" id="place"></span>'
        '<button type="button" id="close" aria-label="Close">✕</button></div>'
        '<h2 id="sheet-title" tabindex="-1"></h2><p id="sheet-kind"></p>'
        '<div class="views" role="group" aria-label="Picture">'
        '<button type="button" class="chip" data-view="tail" aria-pressed="true">Tail</button>'
        '<button type="button" class="chip" data-view="density" aria-pressed="false">Density'
        '</button></div><div id="chart"></div><p class="soft" id="readout" aria-hidden="true"></p>'
        '<ul class="legend" id="chart-key"></ul><div id="sheet-words"></div>'
        '<details><summary>All numbers</summary><table class="numbers"><tbody id="sheet-numbers">'
        "</tbody></table></details></dialog>"
    )


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


def _foot(report: ReportData) -> str:
    options = report.options
    return (
        f'<footer class="soft"><p>Made by pyspectra: estimator {text(options.estimator)}, '
        f"eigenvalues by {text(options.method)}. This page is one file and loads nothing.</p>"
        f"</footer>\n<!-- uPlot, which draws the spectra:\n{asset('uPlot.LICENSE')}-->"
    )
