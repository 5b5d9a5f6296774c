"""The spectrum of a layer as a drawing that needs no script."""

from __future__ import annotations

import numpy as np

from pyspectra.report.html.curves import law, ranks, shown_evals
from pyspectra.report.html.frame import Frame
from pyspectra.report.html.page import clipped, text
from pyspectra.report.html.ticks import Axis, axis
from pyspectra.report.layer import LayerReport
from pyspectra.types import FloatArray

__all__ = ["spectrum_picture"]

WIDTH, HEIGHT = 470, 260


def spectrum_picture(layer: LayerReport) -> str:
    """Return the share of eigenvalues at or above each, with the fitted law; nothing without any.

    Both axes are logarithmic, so that a power law is a straight line.
    """
    evals = shown_evals(layer)
    if not len(evals):
        return ""
    of = ranks(len(evals))
    x, y = evals[len(evals) - of], of / len(layer.esd.evals)
    fitted = law(layer)
    frame = Frame(_across(x, layer, fitted is not None), axis(0.7 * y[0], 1.0, log=True),
                  WIDTH, HEIGHT, left=58)  # fmt: skip
    inside = x >= 10.0**frame.x.low
    parts = [frame.drawn("eigenvalue λ"), _path(frame, x[inside], y[inside], "line s0")]
    if fitted is not None:
        at = frame.across(layer.fit.xmin)
        parts.append(f'<path class="begin" d="M{at:.1f} {frame.top}V{frame.bottom}"/>')
        parts.append(_path(frame, 10.0 ** fitted[0], 10.0 ** fitted[1], "line s3 dashed"))
    label = text(f"Share of the eigenvalues of {clipped(layer.label)} at or above λ")
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )


def _across(x: FloatArray, layer: LayerReport, has_law: bool) -> Axis:
    """Return an axis that leaves out eigenvalues of all but zero, where the tail needs the room."""
    low = max(float(x[-1]), float(x[len(x) // 2]) / 100.0)
    if has_law:
        low = min(low, layer.fit.xmin / 3.0)
    return axis(max(low, float(x[-1])), float(x[0]), log=True)


def _path(frame: Frame, x: FloatArray, y: FloatArray, style: str) -> str:
    points = [(frame.across(float(a)), frame.down(float(b))) for a, b in zip(x, y, strict=True)]
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    return f'<path class="{style}" d="M{path}"/>' if len(np.atleast_1d(x)) else ""
