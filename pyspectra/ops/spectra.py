"""Doors to ``csrc/spectra``: sums over a matrix, the edge that they give, permutations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyspectra import _core
from pyspectra._arrays import HostArray
from pyspectra.ops.core import matrices

__all__ = [
    "centred_margins",
    "entry_sample",
    "margins",
    "permute",
    "profile_edge",
    "rows_are_orthogonal",
]


def margins(X: Sequence[HostArray]) -> list[_core.spectra.Margins]:
    """Sums over the entries, rows and columns of 2-D arrays: ``csrc/spectra/margins.hpp``."""
    data, code = matrices(X)
    return _core.spectra.margins(data, code)


def centred_margins(
    X: Sequence[HostArray], plain: Sequence[_core.spectra.Margins]
) -> list[tuple[_core.spectra.Margins, float]]:
    """The same sums of 2-D arrays without the means of their rows and columns.

    `plain` is what `margins` has found of the arrays as they are. Also returns, for each, what this
    centring takes from the sum of the squared eigenvalues: ``csrc/spectra/margins.hpp``.
    """
    data, code = matrices(X)
    return _core.spectra.centred_margins(data, code, list(plain))


def entry_sample(X: Sequence[HostArray], step: int) -> tuple[float, float]:
    """Excess kurtosis and share of zeros of rows 0, step, 2 step, ... of 2-D arrays together.

    The kurtosis is NaN where they are all equal or not finite: ``csrc/spectra/sample.hpp``.
    """
    data, code = matrices(X)
    return _core.spectra.entry_sample(data, code, step)


def rows_are_orthogonal(X: Sequence[HostArray], probed: int, tolerance: float) -> bool:
    """Tell whether the first rows of 2-D arrays of one shape are orthogonal and of one length.

    `probed` of them, within `tolerance`, products added up over arrays:
    ``csrc/spectra/sample.hpp``.
    """
    data, code = matrices(X)
    return _core.spectra.rows_are_orthogonal(data, code, probed, tolerance)


def profile_edge(m: _core.spectra.Margins) -> tuple[float, float, float]:
    """Edge of the spectrum of independent entries of these margins: edge, scale and response.

    In units in which the variances are ``r_k c_i``, not yet divided by the sum of all squares.
    Formulas: ``csrc/spectra/profile_edge.hpp``.
    """
    return _core.spectra.profile_edge(m)


def permute(X: HostArray, key: int) -> HostArray:
    """Permute the entries of a 2-D array at random: contiguous, same shape and dtype.

    `key`: 64 bits; with the shape they decide the permutation. ``csrc/spectra/permute.hpp``.
    """
    data, code = matrices([X])
    out = np.empty(X.shape, X.data.dtype)
    _core.spectra.permute(data[0], code, key, out)
    return HostArray(out, X.dtype)
