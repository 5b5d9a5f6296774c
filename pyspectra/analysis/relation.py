"""How the weights of two models are related, entry by entry: the same model, or another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pyspectra.errors import PyspectraError
from pyspectra.spectra.intruders import EPSILON, TOP_K, Intruders, intruders
from pyspectra.types import FloatArray
from pyspectra.weights import Layer
from pyspectra.weights.matricize import as_matrix, matrix_shape
from pyspectra.weights.pairing import arrays_to_compare, shapes_to_compare

# Entries of a layer that its correlation is taken from: its error is a thousandth then.
ENTRIES = 1 << 20


def correlation(a: Layer, b: Layer) -> float:
    """Return Pearson's correlation of the weights of two layers.

    Parameters
    ----------
    a, b : Layer

    Returns
    -------
    float
        Of rows at even distances where the layer is large. NaN for other shapes, for constant
        weights, and where a layer cannot be read or is not finite.
    """
    shape, other = shapes_to_compare(a, b)
    if shape != other:
        return math.nan
    try:
        x, y = _sample(a), _sample(b)
    except (PyspectraError, OSError, MemoryError):  # the reports say what is wrong with it
        return math.nan
    if x.shape != y.shape:
        return math.nan
    with np.errstate(all="ignore"):
        x, y = x - x.mean(), y - y.mean()
        norms = float(np.linalg.norm(x)) * float(np.linalg.norm(y))
        found = float(np.vdot(x, y)) / norms if norms > 0.0 else math.nan
    return found if math.isfinite(found) else math.nan


def _sample(layer: Layer) -> FloatArray:
    step = max(1, math.prod(layer.shape) // ENTRIES)
    return layer.load().view(slice(None, None, step)).to_float64()


def median_correlation(found: Sequence[float]) -> float:
    """Return the median of the correlations that are known; NaN unless half of them are."""
    known = [x for x in found if math.isfinite(x)]
    return float(np.median(known)) if 0 < len(found) <= 2 * len(known) else math.nan


def intruders_between(
    a: Layer, b: Layer, *, k: int = TOP_K, epsilon: float = EPSILON
) -> Intruders | None:
    """Return the intruder dimensions of a layer of one matrix, `a` being the base.

    Parameters
    ----------
    a, b : Layer
        The layer before and after.
    k, epsilon
        As for `pyspectra.spectra.intruders.intruders`.

    Returns
    -------
    Intruders or None
        None for several matrices, other shapes, and what `pyspectra.spectra.intruders` refuses.
    """
    shape, other = shapes_to_compare(a, b)
    if shape != other or matrix_shape(a)[2] != 1:
        return None
    try:
        base, tuned = arrays_to_compare(a, b)
    except (PyspectraError, OSError, MemoryError):
        return None
    return intruders(as_matrix(a, base), as_matrix(a, tuned), k=k, epsilon=epsilon)
