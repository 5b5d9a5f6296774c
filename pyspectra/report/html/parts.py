"""Parts that pages of reports, comparisons and trajectories share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from pyspectra.report.html.page import asset, clipped, text
from pyspectra.report.options import AnalyzeOptions
from pyspectra.report.verdicts import LIMIT, Verdict

__all__ = [
    "LABEL_STYLES", "LONGEST_PATH", "SCRIPTS", "STYLES", "figures", "foot", "heading", "label_of",
    "sheet", "short_name", "split", "verdict_part", "without_label",
]  # fmt: skip

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
LONGEST_PATH = 300


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


def verdict_part(verdict: Verdict) -> str:
    """Return a verdict: its word, its first sentence large, the others below."""
    sentences = split(verdict.text)
    rest = " ".join(sentence for sentence in sentences[1:] if sentence != LIMIT)
    limit = f'<p class="soft">{text(LIMIT)}</p>' if LIMIT in sentences else ""
    first = without_label(verdict, sentences[0])
    return (
        '<section class="verdict" aria-label="Verdict">'
        f'{label_of(verdict)}<p class="lede">{text(first)}</p>'
        + (f"<p>{text(rest)}</p>" if rest else "")
        + limit
        + "</section>"
    )


def label_of(verdict: Verdict) -> str:
    """Return the word of a verdict, in its colour."""
    style = LABEL_STYLES.get(verdict.label, "plain")
    return f'<p class="label {style}">{text(verdict.label.capitalize())}</p>'


def without_label(verdict: Verdict, sentence: str) -> str:
    """Return a sentence without the word of the verdict, which stands above it."""
    opening = f"{verdict.label}: "
    if not sentence.lower().startswith(opening):
        return sentence
    rest = sentence[len(opening) :]
    return rest[:1].upper() + rest[1:]


def split(words: str) -> list[str]:
    """Split a text where a full stop is followed by a space and a capital or a digit."""
    found, begin = [], 0
    for at in range(len(words) - 2):
        after = words[at + 2]
        if words[at : at + 2] == ". " and (after.isupper() or after.isdigit()):
            found.append(words[begin : at + 1])
            begin = at + 2
    return [*found, words[begin:]]


def figures(shown: Sequence[tuple[object, str, str]]) -> str:
    """Return large figures: value, name, and what it is."""
    cells = "".join(
        f'<div><dd>{text(value)}</dd><dt>{text(name)}<span class="soft">{text(what)}</span></dt>'
        "</div>"
        for value, name, what in shown
    )
    return f'<dl class="figures">{cells}</dl>'


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


def foot(options: AnalyzeOptions) -> str:
    """Return the end of a page: how it was made, and the licence of what draws its curves."""
    return (
        f'<footer class="soft"><p>Made by pyspectra: estimator {text(options.estimator)}, '
        f"eigenvalues by {text(options.method)}. This page is one file and loads nothing.</p>"
        f"</footer>\n<!-- uPlot, which draws the spectra:\n{asset('uPlot.LICENSE')}-->"
    )
