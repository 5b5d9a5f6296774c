"""Pictures of a whole model: how often which alpha occurs, and alpha by depth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from pyspectra._support.text import counted
from pyspectra.report.columns import fitted
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.html.frame import Frame
from pyspectra.report.html.judgement import JUDGEMENTS, Judgement, judgement
from pyspectra.report.html.page import clipped, text
from pyspectra.report.html.signs import key_of, sign
from pyspectra.report.html.ticks import Axis, axis
from pyspectra.report.layer import LayerReport

__all__ = ["BIN", "alpha_band", "bin_of", "depth", "figure", "histogram", "of_alpha", "of_counts"]

WIDTH, HEIGHT = 470, 280
LEFT, RIGHT = 40, 10
BIN = 0.5
# What lies above shares one bin: a single alpha of 80 must not hide the others.
HIGHEST = 12.0
NAME = 60
MOST_ERRORS = 200  # standard errors of more layers are a wall


def histogram(layers: Sequence[LayerReport]) -> str:
    """Return how many layers have which alpha, as a figure; a sentence if none has one."""
    shown = [layer for layer in layers if fitted(layer)]
    if not shown:
        return '<p class="soft">No layer has an alpha to draw.</p>'
    bins: dict[int, Counter[Judgement]] = {}
    for layer in shown:
        bins.setdefault(bin_of(layer.alpha), Counter())[judgement(layer)] += 1
    first = min(round(THRESHOLDS.alpha_low / BIN) - 1, *bins)
    last = max(round(THRESHOLDS.alpha_high / BIN), *bins)
    most = max(sum(bin_.values()) for bin_ in bins.values())
    x = of_alpha(first * BIN, (last + 1) * BIN)
    frame = Frame(x, of_counts(1.06 * most), WIDTH, HEIGHT, LEFT, RIGHT)
    parts = [alpha_band(frame, upright=True), frame.drawn("tail exponent α")]
    for number in sorted(bins):
        below = 0
        for kind in JUDGEMENTS:
            count = bins[number][kind]
            if count:
                parts.append(_bar(frame, number, below, count, kind))
                below += count
    label = f"Histogram of alpha over {counted(len(shown), 'layer')}: {_spread(shown)}"
    return figure("How often which alpha occurs", label, parts, key_of(kinds(shown)))


def of_alpha(low: float, high: float) -> Axis:
    """Return an axis of alpha: even numbers, the bounds of the typical range among them."""
    marks = [mark for mark in range(0, round(HIGHEST) + 1, 2) if low <= mark <= high]
    words = {round(HIGHEST): f"{HIGHEST:g}+"}
    ticks = tuple(((mark - low) / (high - low), words.get(mark, str(mark))) for mark in marks)
    return Axis(low, high, False, ticks)


def of_counts(end: float) -> Axis:
    """Return an axis from 0 on, with ticks at whole numbers."""
    found = axis(0.0, end, padded=False)
    whole = tuple((place, label) for place, label in found.ticks if label.isdecimal())
    return Axis(found.low, found.high, False, whole)


def _spread(layers: Sequence[LayerReport]) -> str:
    counts = Counter(judgement(layer) for layer in layers)
    return ", ".join(f"{counts[kind]} {kind.word}" for kind in JUDGEMENTS if counts[kind])


def bin_of(alpha: float) -> int:
    """Return the number of the bin of a histogram that an alpha falls into."""
    return math.floor(min(alpha, HIGHEST) / BIN) - (alpha == THRESHOLDS.alpha_high)


def _bar(frame: Frame, number: int, below: int, count: int, kind: Judgement) -> str:
    left, right = frame.across(number * BIN), frame.across((number + 1) * BIN)
    top, bottom = frame.down(below + count), frame.down(below)
    many = counted(count, "layer")
    over = f"{HIGHEST:g} and more" if number * BIN >= HIGHEST else (
        f"{number * BIN:g} to {(number + 1) * BIN:g}"
    )  # fmt: skip
    return (
        f'<rect class="k {kind.style}" x="{left + 0.7:.1f}" y="{top:.1f}" '
        f'width="{right - left - 1.4:.1f}" height="{bottom - top:.1f}">'
        f"<title>{text(f'alpha {over}: {many}, {kind.word}')}</title></rect>"
    )


def depth(layers: Sequence[LayerReport], numbers: Sequence[int]) -> str:
    """Return alpha of each layer in the order of the model, as a figure.

    Parameters
    ----------
    layers : sequence of LayerReport
    numbers : sequence of int
        What each is called by the script of the page.
    """
    shown = [layer for layer in layers if fitted(layer)]
    if not shown:
        return ""
    errors = len(layers) <= MOST_ERRORS
    high = max(THRESHOLDS.alpha_high + 0.5, *(min(layer.alpha, HIGHEST) for layer in shown))
    x = of_counts(len(layers) + 1.0)
    frame = Frame(x, of_alpha(0.0, 1.06 * high), WIDTH, HEIGHT, LEFT, RIGHT)
    parts = [alpha_band(frame, upright=False), frame.drawn("layers in the order of the model")]
    size = 3.6 if len(layers) <= 100 else 2.6
    for place, (layer, number) in enumerate(zip(layers, numbers, strict=True), 1):
        across, kind = frame.across(place), judgement(layer)
        alpha = min(layer.alpha, HIGHEST) if fitted(layer) else 0.0
        if fitted(layer) and errors and math.isfinite(layer.fit.alpha_stderr):
            ends = [frame.down(alpha + s * layer.fit.alpha_stderr) for s in (1, -1)]
            parts.append(f'<path class="error-bar {kind.style}" '
                         f'd="M{across:.1f} {ends[0]:.1f}V{ends[1]:.1f}"/>')  # fmt: skip
        said = f"α = {layer.alpha:.2f}" if fitted(layer) else layer.status.words
        name = f"{clipped(layer.label, NAME)}: {said}, {kind.word}"
        parts.append(sign(across, frame.down(alpha), kind, size, name, number))
    label = f"Alpha of {counted(len(layers), 'layer')} by depth: {_spread(layers)}"
    return figure("Alpha against depth", label, parts, key_of(kinds(layers)))


def alpha_band(frame: Frame, *, upright: bool) -> str:
    """Return the range of typical alphas: over all heights, or over all the width."""
    low, high = THRESHOLDS.alpha_low, THRESHOLDS.alpha_high
    if upright:
        left, right = frame.across(low), frame.across(min(high, frame.x.high))
        top, bottom = float(frame.top), float(frame.bottom)
    else:
        left, right = float(frame.left), float(frame.end)
        top, bottom = frame.down(min(high, frame.y.high)), frame.down(low)
    return (
        f'<rect class="typical" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
        f'height="{bottom - top:.1f}"><title>typical: {low:g} to {high:g}</title></rect>'
    )


def kinds(layers: Sequence[LayerReport]) -> list[Judgement]:
    """Return how some of the layers are shown, in the order of legends."""
    found = {judgement(layer) for layer in layers}
    return [kind for kind in JUDGEMENTS if kind in found]


def figure(caption: str, label: str, parts: Sequence[str], key: str) -> str:
    """Return a drawing with its caption, what it says to those who do not see it, and its key."""
    return (
        f"<figure><figcaption>{text(caption)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(label)}">'
        + "".join(parts)
        + f"</svg>{key}</figure>"
    )
