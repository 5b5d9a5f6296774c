"""Charts of a page: lines over steps or epochs, and matrices of counts, as inline SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyspectra.report.html.frame import Frame
from pyspectra.report.html.page import text
from pyspectra.report.html.ticks import axis

__all__ = ["Line", "Mark", "heat_map", "line_chart"]

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 760, 260
MOST_POINTS = 600
COLOURS = 8


@dataclass(frozen=True, eq=False)
class Line:
    """A curve.

    Attributes
    ----------
    name : str
    x, y : ndarray of float64
        The points; one that is not finite leaves a gap.
    colour : int
        Number of the colour; a page has eight, and the ninth line has the first again.
    dashed, faint : bool
    low, high : ndarray of float64 or None
        A band around it.
    best : int or None
        Index of a point that gets a ring.
    """

    name: str
    x: Floats
    y: Floats
    colour: int = 0
    dashed: bool = False
    faint: bool = False
    low: Floats | None = None
    high: Floats | None = None
    best: int | None = None


@dataclass(frozen=True)
class Mark:
    """A vertical line: where it stands, what it says, and how grave it is."""

    x: float
    name: str
    kind: str = "info"


def line_chart(
    lines: Sequence[Line],
    *,
    x_name: str,
    y_name: str,
    log: bool = False,
    marks: Sequence[Mark] = (),
    typical: tuple[float, float] | None = None,
    height: int = HEIGHT,
    width: int = WIDTH,
    legend: bool = True,
) -> str:
    """Return curves as a figure.

    Parameters
    ----------
    lines : sequence of Line
    x_name, y_name : str
        What the axes are called.
    log : bool
        A logarithmic axis; values that are not positive are gaps.
    marks : sequence of Mark
    typical : (float, float), optional
        A range of values that is usual, as a green band.
    height, width : int
        Of the drawing. It is scaled to the width that the page has for it, its letters too.
    legend : bool

    Returns
    -------
    str
        HTML; without a finite value a sentence that says so.
    """
    drawn = [_visible(line, log) for line in lines]
    xs = np.concatenate([line.x[np.isfinite(line.y)] for line in drawn]) if drawn else np.zeros(0)
    ys = np.concatenate([line.y[np.isfinite(line.y)] for line in drawn]) if drawn else np.zeros(0)
    if not len(xs):
        return f'<p class="soft">{text(y_name)}: there is nothing to draw.</p>'
    bands = [b[np.isfinite(b)] for line in drawn for b in (line.low, line.high) if b is not None]
    ys = np.concatenate([ys, *bands])
    x = axis(float(xs.min()), float(xs.max()), padded=False)
    y = axis(float(ys.min()), float(ys.max()), log=log)
    space = Frame(x, y, width, height)
    parts = [space.drawn(x_name)]
    if typical is not None:
        parts.append(_typical(space, typical))
    parts += [_mark(space, mark) for mark in marks if x.low <= mark.x <= x.high]
    for line in drawn:
        parts.append(_band(space, line))
        parts.append(_curve(space, line))
    names = ", ".join(line.name for line in lines)
    label = text(f"{y_name} over {x_name}: {names}")
    svg = (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )
    key = _legend(drawn) if legend else ""
    return f"<figure><figcaption>{text(y_name)}</figcaption>{svg}{key}</figure>"


def _visible(line: Line, log: bool) -> Line:
    """Return a curve with few enough points, those that cannot be drawn as gaps."""
    y = np.where(np.isfinite(line.y) & (~log | (line.y > 0)), line.y, np.nan)
    if len(y) <= MOST_POINTS:
        return Line(line.name, line.x, y, line.colour, line.dashed, line.faint, line.low,
                    line.high, line.best)  # fmt: skip
    edges = np.linspace(0, len(y), MOST_POINTS + 1).astype(int)
    means = [_mean(y[a:b]) for a, b in itertools.pairwise(edges)]
    places = [float(line.x[a:b].mean()) for a, b in itertools.pairwise(edges)]
    return Line(line.name, np.array(places), np.array(means), line.colour, line.dashed, line.faint)


def _mean(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _typical(space: Frame, bounds: tuple[float, float]) -> str:
    low, high = (max(space.y.low, min(space.y.high, b)) for b in bounds)
    if not high > low:
        return ""
    top, bottom = space.down(high), space.down(low)
    return (
        f'<rect class="typical" x="{space.left}" width="{space.end - space.left}" y="{top:.1f}" '
        f'height="{bottom - top:.1f}"/>'
    )


def _mark(space: Frame, mark: Mark) -> str:
    at = space.across(mark.x)
    return (
        f'<line class="mark {mark.kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{space.top}" '
        f'y2="{space.bottom}"><title>{text(mark.name)}</title></line>'
        f'<text class="tick" x="{at - 3:.1f}" y="{space.top + 4}" text-anchor="end" '
        f'transform="rotate(-90 {at - 3:.1f} {space.top + 4})">{text(mark.name)}</text>'
    )


def _runs(line: Line, *others: Floats) -> list[list[int]]:
    """Return stretches of indices without a gap."""
    finite = np.isfinite(line.y)
    for other in others:
        finite &= np.isfinite(other)
    found: list[list[int]] = []
    for k in np.flatnonzero(finite).tolist():
        if found and found[-1][-1] == k - 1:
            found[-1].append(k)
        else:
            found.append([k])
    return found


def _curve(space: Frame, line: Line) -> str:
    colour = line.colour % COLOURS
    kind = f"line s{colour}" + " dashed" * line.dashed + " faint" * line.faint
    parts = []
    for run in _runs(line):
        points = [(space.across(line.x[k]), space.down(line.y[k])) for k in run]
        if len(points) == 1:
            (x, y), k = points[0], run[0]
            parts.append(_dot(x, y, colour, f"{line.name}: {line.y[k]:.4g}", 2.5))
        else:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            parts.append(f'<path class="{kind}" d="M{path}"/>')
    if len(line.x) <= 60 and not line.faint:
        for k in np.flatnonzero(np.isfinite(line.y)).tolist():
            what = f"{line.name}: {line.y[k]:.4g} at {line.x[k]:g}"
            parts.append(_dot(space.across(line.x[k]), space.down(line.y[k]), colour, what, 2))
    if line.best is not None:
        x, y = space.across(line.x[line.best]), space.down(line.y[line.best])
        parts.append(f'<circle class="ring s{colour}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
    return "".join(parts)


def _dot(x: float, y: float, colour: int, what: str, r: float) -> str:
    return (
        f'<circle class="f{colour}" cx="{x:.1f}" cy="{y:.1f}" r="{r}"><title>{text(what)}</title>'
        "</circle>"
    )


def _band(space: Frame, line: Line) -> str:
    if line.low is None or line.high is None:
        return ""
    parts = []
    for run in _runs(line, line.low, line.high):
        up = [(space.across(line.x[k]), space.down(line.high[k])) for k in run]
        back = [(space.across(line.x[k]), space.down(line.low[k])) for k in reversed(run)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in [*up, *back])
        parts.append(f'<path class="band f{line.colour % COLOURS}" d="M{path}Z"/>')
    return "".join(parts)


def _legend(lines: Sequence[Line]) -> str:
    items = []
    for line in lines:
        if line.faint:
            continue
        kind = f"line s{line.colour % COLOURS}" + " dashed" * line.dashed
        items.append(
            f'<li><svg viewBox="0 0 26 10" aria-hidden="true"><path class="{kind}" d="M0 5L26 5"/>'
            f"</svg> {text(line.name)}</li>"
        )
    return f'<ul class="legend">{"".join(items)}</ul>'


def heat_map(
    counts: Sequence[Sequence[float]], names: Sequence[str], *, row_name: str, column_name: str
) -> str:
    """Return a square matrix of counts: the darker a cell, the larger its share of the row."""
    table = np.asarray(counts, dtype=np.float64)
    n = len(table)
    size = min(46.0, 560.0 / max(n, 1))
    left, top = 110.0, 40.0
    width, height = left + n * size + 10, top + n * size + 10
    totals = np.maximum(table.sum(axis=1, keepdims=True), 1e-300)
    middle = left + n * size / 2
    parts = [
        f'<text x="{middle:.0f}" y="14" text-anchor="middle">{text(column_name)}</text>',
        f'<text x="4" y="14">{text(row_name)}</text>',
    ]
    for i in range(n):
        middle = top + (i + 0.65) * size
        parts.append(f'<text x="{left - 6:.0f}" y="{middle:.1f}" text-anchor="end">'
                     f"{text(names[i])}</text>")  # fmt: skip
        parts.append(f'<text x="{left + (i + 0.5) * size:.1f}" y="{top - 6:.0f}" '
                     f'text-anchor="middle">{text(names[i])}</text>')  # fmt: skip
        for j in range(n):
            share = float(table[i, j] / totals[i, 0])
            x, y = left + j * size, top + i * size
            what = text(f"{names[i]} taken for {names[j]}: {table[i, j]:g}")
            parts.append(
                f'<rect class="cell" x="{x:.1f}" y="{y:.1f}" width="{size - 1:.1f}" '
                f'height="{size - 1:.1f}" fill-opacity="{0.06 + 0.74 * share:.3f}">'
                f"<title>{what}</title></rect>"
            )
            if size >= 26:
                parts.append(
                    f'<text x="{x + size / 2:.1f}" y="{y + 0.62 * size:.1f}" text-anchor="middle">'
                    f"{table[i, j]:g}</text>"
                )
    return (
        f'<figure><svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{text(row_name)} against {text(column_name)}">' + "".join(parts)
        + "</svg></figure>"
    )  # fmt: skip
