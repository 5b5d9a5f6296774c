"""FARMS: spectra of sub-matrices of one shape, so that layers of any shape can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pyspectra import ops as core
from pyspectra._arrays import HostArray, as_host
from pyspectra._support.arguments import check_count, check_number
from pyspectra.errors import ArgumentValueError
from pyspectra.spectra.esd import pool
from pyspectra.spectra.estimators import MAX_COUNT, Estimator, parse_estimator
from pyspectra.spectra.powerlaw import EVALS_THRESHOLD, FitOptions, fit_spectra, no_fit
from pyspectra.types import ESD, FloatArray, PowerLawFit, Status

# The published LLaMA runs.
WINDOW, OPS, ASPECT = 2000, 15, 1.0

# Gram matrices of windows wait for one another until they fill this.
BATCH_BYTES = 64 * 2**20


def farms(
    W: Any,
    *,
    window: int = WINDOW,
    ops: int = OPS,
    Q: float = ASPECT,
    estimator: str = "ww",
) -> PowerLawFit:
    """Fit the pooled spectrum of sub-matrices of a fixed aspect ratio (FARMS).

    Parameters
    ----------
    W : array or tensor, shape (rows, cols)
        float16, bfloat16, float32 or float64, any strides.
    window : int
        Rows of a sub-matrix; it has ``window * Q`` columns (rounded down). Where that is larger
        than `W`, it shrinks to fit, the aspect ratio kept.
    ops : int
        Sub-matrices along each side: they start at ``min(i * step, side - length)`` with ``step =
        max(1, (side - length) // (ops - 1))``, each distinct start once.
    Q : float
        Columns over rows of a sub-matrix.
    estimator : str
        What fits the pooled eigenvalues: any of `pyspectra.fit_powerlaw`.

    Returns
    -------
    PowerLawFit
        Its `n` counts the eigenvalues of all sub-matrices together.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range; the message names it.

    Notes
    -----
    The windows overlap, so that their eigenvalues are far from independent: ``alpha_stderr`` is
    much too small, and there is no bootstrap. Eigenvalues come from float64 Gram matrices, which
    resolve those above 1e-9 of the largest to seven digits; what rounding makes of zeros (up to
    their length times 2^-52 of the largest) is left out.

    References
    ----------
    Hu et al., "Eigenspectrum analysis of neural networks without aspect ratio bias", ICML 2025.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> fit = ps.farms(W, window=20, ops=3)
    >>> fit.n, fit.estimator  # nine windows of 20 x 20
    (180, 'farms(20, 3, 1)')
    """
    name = "farms"
    counts = {
        argument: check_count(name, argument, value, most=MAX_COUNT)
        for argument, value in (("window", window), ("ops", ops))
    }
    aspect = check_number(name, "Q", Q, above=0.0)
    inner = parse_estimator(estimator, name)
    if inner.name == "farms":
        raise ArgumentValueError(name, "estimator", "be another than 'farms'", repr(estimator))
    host = as_host(W, function=name, argument="W")
    if host.ndim != 2 or min(host.shape) == 0:
        raise ArgumentValueError(name, "W", "be 2-D and not empty", f"shape {host.shape}")
    outer = Estimator(name, {**counts, "Q": aspect})
    return fit_windows([host], outer, inner)


def windows(
    shape: Sequence[int], window: int, count: int, Q: float
) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Shape of the sub-matrices of a matrix of this shape, and where they start."""
    rows, cols = shape
    height, width = window, max(1, int(min(window * Q, MAX_COUNT)))
    shrink = min(1.0, rows / height, cols / width)
    if shrink < 1.0:
        height, width = max(1, int(height * shrink)), max(1, int(width * shrink))

    def starts(side: int, length: int) -> list[int]:
        room = side - length
        step = max(1, room // max(1, count - 1))
        # From `room` on all starts are the same.
        return sorted({min(i * step, room) for i in range(min(count, room + 1))})

    return (height, width), [(r, c) for r in starts(rows, height) for c in starts(cols, width)]


def window_esd(matrices: Sequence[HostArray], farms: Estimator) -> ESD:
    """Pooled eigenvalues of the sub-matrices of matrices of one shape.

    `farms` carries the arguments of its name, as far as they were given.
    """
    given = farms.arguments
    (height, width), corners = windows(
        matrices[0].shape,
        int(given.get("window", WINDOW)),
        int(given.get("ops", OPS)),
        given.get("Q", ASPECT),
    )
    pieces = [
        HostArray(matrix.data[r : r + height, c : c + width], matrix.dtype)
        for matrix in matrices
        for r, c in corners
    ]
    M = min(height, width)
    batch = min(len(pieces), max(1, BATCH_BYTES // (8 * M * M)))
    block = np.empty((batch, M, M))
    room = [gram.T for gram in block]  # in Fortran order
    evals: list[FloatArray] = []
    status: list[Status] = []
    for begin in range(0, len(pieces), batch):
        some = pieces[begin : begin + batch]
        found, codes = core.eigvals(core.gram(some, room[: len(some)]))
        evals += found
        status += codes
    return pool(evals, status, N=max(height, width), M=M, method="gram")


def fit_windows(
    matrices: Sequence[HostArray],
    farms: Estimator,
    inner: Estimator,
    *,
    threshold: float = EVALS_THRESHOLD,
) -> PowerLawFit:
    """Fit the sub-matrices of matrices of one shape by `inner`; the fit is named after `farms`."""
    esd = window_esd(matrices, farms)
    if esd.status is not Status.OK:
        return no_fit(esd.status, 0, str(farms))
    # Where the rank is deficient, what rounding makes of zero eigenvalues is no tail.
    rounding = float(esd.evals[-1]) * esd.N * np.finfo(np.float64).eps
    options = FitOptions(inner, threshold=max(threshold, rounding))
    (fit,) = fit_spectra([esd.evals], options)
    return replace(fit, estimator=str(farms))
