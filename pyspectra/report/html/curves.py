"""Spectra as pages carry them: few points of the ECDF of a layer, and the law of its tail.

A curve has at most 256 points. They are eigenvalues at given ranks, counted from the largest, and
only these travel: two bytes each, the logarithm between that of the least and of the largest. The
ranks depend on the number of eigenvalues alone, and are written once for each number.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyspectra.report.columns import fitted
from pyspectra.report.layer import LayerReport
from pyspectra.spectra.alternatives import TruncatedPowerLaw
from pyspectra.types import FloatArray, Status

__all__ = ["MOST_POINTS", "curve", "law", "permuted_curve", "ranks", "shown_evals", "written_ranks"]

MOST_POINTS = 256
STEPS = 65535
# Below this share of the largest an eigenvalue is rounding, and would stretch the axis.
FLOOR = 1e-9
LAW_POINTS = 24
# A law ends where it would expect fewer eigenvalues than this above.
LEAST_COUNT = 0.3


def ranks(n: int) -> NDArray[np.int64]:
    """Return the ranks, from 1 for the largest of `n` eigenvalues, that are drawn.

    Half of them lie evenly on a logarithmic axis, where the tail is; half evenly over all, which
    shows the bulk.
    """
    if n <= MOST_POINTS:
        return np.arange(1, n + 1)
    half = MOST_POINTS // 2
    both = np.concatenate([np.geomspace(1, n, half), np.linspace(1, n, half)])
    return np.unique(np.rint(both).astype(np.int64))


def shown_evals(layer: LayerReport) -> FloatArray:
    """Return the eigenvalues of a layer that can be drawn on a logarithmic axis, ascending."""
    evals = layer.esd.evals
    return _positive(evals) if layer.esd.status is Status.OK else np.zeros(0)


def _positive(evals: FloatArray) -> FloatArray:
    """Return the ascending values that are more than rounding."""
    if not len(evals) or not evals[-1] > 0.0:
        return np.zeros(0)
    shown: FloatArray = evals[evals > FLOOR * evals[-1]]
    return shown


def curve(layer: LayerReport) -> dict[str, Any] | None:
    """Return the spectrum of a layer as a page carries it; None if there is nothing to draw.

    Returns
    -------
    dict
        ``n``, the number of all eigenvalues; ``k``, of those that are drawn; ``lo``, ``hi``, the
        logarithms of the least and the largest; ``q``, the points, in base64; ``x``, xmin, and
        ``law``, as `law` returns it, unless no law was fitted to these eigenvalues; ``e``, the
        upper edge of the Marchenko-Pastur law, where that was fitted.
    """
    made = _points(shown_evals(layer), len(layer.esd.evals))
    if made is None:
        return None
    if layer.mp is not None and layer.mp.status is Status.OK:
        made["e"] = _short(layer.mp.lambda_plus)
    points = law(layer)
    if points is not None:
        made["x"] = _short(layer.fit.xmin)
        made["law"] = [[round(float(v), 4) for v in part] for part in points]
    return made


def permuted_curve(layer: LayerReport) -> dict[str, Any] | None:
    """Return the spectrum of the permuted entries, as `curve` does; None if it was not taken."""
    if layer.randomized is None:
        return None
    evals = layer.randomized.evals
    return _points(_positive(evals), len(evals))


def _points(evals: FloatArray, n: int) -> dict[str, Any] | None:
    if not len(evals):
        return None
    logs = np.log10(evals[len(evals) - ranks(len(evals))])
    low, high = float(logs[-1]), float(logs[0])
    steps = np.rint((logs - low) / ((high - low) or 1.0) * STEPS).astype("<u2")
    return {
        "n": n,
        "k": len(evals),
        "lo": round(low, 5),
        "hi": round(high, 5),
        "q": base64.b64encode(steps.tobytes()).decode(),
    }


def law(layer: LayerReport) -> tuple[FloatArray, FloatArray] | None:
    """Return the law of the tail: log10 of eigenvalues, and of the share at or above them.

    None without a fit, or where it is one of other points than the eigenvalues (``"farms"``).
    """
    fit, evals = layer.fit, layer.esd.evals
    if not fitted(layer) or fit.estimator.startswith("farms") or not fit.xmin > 0.0:
        return None
    end = max(fit.xmax, fit.xmin * (1 + 1e-9))
    cut = int(np.count_nonzero(evals > fit.xmax * (1 + 1e-12)))  # `xmax`, clipped fingers
    x = np.geomspace(fit.xmin, end, LAW_POINTS)
    u = np.log(x / fit.xmin)
    if math.isnan(fit.Lambda):
        survives = np.exp((1.0 - fit.alpha) * u)
    else:
        cut_off = fit.Lambda * fit.xmin
        survives = 1.0 - TruncatedPowerLaw(
            np.array([fit.alpha - 1 + cut_off, cut_off]), math.nan
        ).cdf(u)
    tail = fit.n_tail if cut else layer.n_tail
    share = (cut + tail * np.maximum(survives, 1e-12)) / len(evals)
    kept = np.flatnonzero(share * len(evals) > LEAST_COUNT)
    if not cut and math.isnan(fit.Lambda):
        kept = kept[[0, -1]]  # a straight line
    return np.log10(x[kept]), np.log10(share[kept])


def written_ranks(curves: Iterable[dict[str, Any] | None]) -> dict[str, list[int]]:
    """Return the ranks for each number of eigenvalues that some curve has."""
    numbers = sorted({made["k"] for made in curves if made is not None})
    return {str(k): ranks(k).tolist() for k in numbers}


def _short(value: float) -> float:
    return float(f"{value:.6g}")
