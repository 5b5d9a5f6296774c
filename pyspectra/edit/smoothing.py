"""Truncation of weight matrices to the directions that matter."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra._support.arguments import as_number, check_probability, shown
from pyspectra._support.text import did_you_mean
from pyspectra.edit.apply import Destination, apply
from pyspectra.edit.documentation import documented
from pyspectra.edit.matrices import by_matrices, editable
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.metrics import Spectrum
from pyspectra.metrics.detx import detx_index
from pyspectra.spectra import esd as esd_module
from pyspectra.spectra import marchenko_pastur, powerlaw
from pyspectra.spectra.aside import run_aside
from pyspectra.spectra.distance import of_order_one
from pyspectra.spectra.eigenvectors import eigh
from pyspectra.types import FloatArray, Status
from pyspectra.weights import Layer

KEEP = ("detX", "powerlaw", "mp")


@documented
def svd_smoothing(
    model: Any,
    keep: str | float = "detX",
    *,
    layers: Sequence[int | str] | int | str | None = None,
    inplace: bool = False,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool | str = "auto",
) -> Any:
    """Keep the leading singular directions of every weight matrix, and drop the others.

    Parameters
    ----------
    {model}
    keep : {"detX", "powerlaw", "mp"} or float in (0, 1]
        Which directions: those of the trace-log (ERG) tail; of the power-law tail
        (``lambda >= xmin``); the spikes above the Marchenko-Pastur bulk; or this fraction of each
        matrix's directions, at least one.
    layers : int, str or sequence of them, optional
        Which layers, as in `pyspectra.analyze`; all by default.
    {destination}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    Convolutions are truncated slice by slice, with one threshold for all slices of a layer. A
    layer in which nothing is to be kept (no fit, no spikes) or that is not finite stays as it is,
    as do biases, vectors and LoRA pairs.

    {notes}

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> smooth = ps.svd_smoothing({"fc.weight": W}, keep=0.25)
    >>> int(np.linalg.matrix_rank(smooth["fc.weight"]))
    10
    """
    fraction = _fraction(keep)

    def edit(layer: Layer, matrices: Sequence[FloatArray]) -> Sequence[FloatArray] | None:
        # A power of two changes no direction; fits have an absolute threshold.
        grams = [ops.gram([_host(of_order_one(W) if fraction else W)])[0] for W in matrices]
        if not all(np.isfinite(gram).all() for gram in grams):
            return None  # squares beyond float64: no rule has a spectrum to go by
        spectra = [_eigen(gram) for gram in grams]
        n_kept = [max(1, math.ceil(fraction * len(e))) if fraction else 0 for e, _ in spectra]
        if fraction is None:
            evals = [e for e, _ in spectra]
            threshold = _threshold(evals, matrices[0].shape, str(keep))
            n_kept = [int(np.count_nonzero(e >= threshold)) for e, _ in spectra]
            if not any(n_kept):
                return None
        return [
            _project(W, vectors[:, len(e) - k :])
            for W, (e, vectors), k in zip(matrices, spectra, n_kept, strict=True)
        ]

    return apply(
        "svd_smoothing",
        model,
        lambda source, stored: by_matrices(editable("svd_smoothing", source, stored, layers), edit),
        Destination(inplace, out, overwrite, progress),
    )


def _fraction(keep: object) -> float | None:
    """Return the share of directions that `keep` asks for, or None where it names a rule."""
    requirement = f"be one of {', '.join(map(repr, KEEP))} or a fraction in (0, 1]"
    if isinstance(keep, str):
        if keep in KEEP:
            return None
        hint = did_you_mean(keep, KEEP)
        raise ArgumentValueError("svd_smoothing", "keep", requirement, repr(keep), hint)
    if as_number(keep) is None:
        raise ArgumentTypeError("svd_smoothing", "keep", requirement, shown(keep))
    return check_probability("svd_smoothing", "keep", keep)


def _host(W: FloatArray) -> HostArray:
    return HostArray(W, "float64")


def _eigen(gram: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Ascending eigenvalues and eigenvectors of the Gram matrix of the shorter side."""
    evals, vectors = eigh(gram)
    return np.maximum(evals, 0.0), vectors


def _project(W: FloatArray, V: FloatArray) -> FloatArray:
    """Return W restricted to the span of the columns of V, which live on its shorter side."""
    product = (lambda: (W @ V) @ V.T) if W.shape[0] >= W.shape[1] else (lambda: V @ (V.T @ W))
    return np.asarray(run_aside(product, 4.0 * W.size * V.shape[1]))


def _threshold(evals: Sequence[FloatArray], shape: tuple[int, ...], keep: str) -> float:
    """Return the eigenvalue from which on they are kept."""
    N, M = max(shape), min(shape)
    esd = esd_module.pool(evals, [Status.OK] * len(evals), N=N, M=M, method="gram")
    if keep == "mp":
        fit = marchenko_pastur.fit(esd.evals, N, M, mp="robust", test=False)
        return fit.spike_threshold if fit.n_spikes > 0 else math.inf
    # The points that a report fits.
    least = powerlaw.RELATIVE_THRESHOLD * float(esd.evals[-1])
    tail = powerlaw.fit_powerlaw(esd.evals, threshold=least if math.isfinite(least) else 0.0)
    if keep == "powerlaw":
        return tail.xmin if tail.status is Status.OK else math.inf
    count, index = detx_index(Spectrum(esd, tail, N))
    return float(esd.evals[index]) if count else math.inf
