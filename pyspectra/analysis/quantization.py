"""How sensitive each layer is to quantisation: its error, its spectrum, the network's output."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from pyspectra._arrays import HostArray
from pyspectra._support.arguments import as_integer, shown
from pyspectra._support.progress import progress_bar
from pyspectra.analysis.bit_choice import LayerSensitivity
from pyspectra.analysis.layer_fits import layer_fits
from pyspectra.analysis.layer_spectra import LOAD_ERRORS
from pyspectra.analysis.output_change import OutputTrial
from pyspectra.analysis.quantization_result import QuantizationSensitivity
from pyspectra.analysis.rows import Spectrum
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.report.options import AnalyzeOptions
from pyspectra.spectra import esd as esd_module
from pyspectra.spectra.powerlaw import RELATIVE_THRESHOLD
from pyspectra.types import ESD, FloatArray, PowerLawFit, Status
from pyspectra.weights import (
    Layer,
    Skip,
    SkippedLayer,
    WeightSource,
    open_weights,
    reasons_for_none,
)
from pyspectra.weights.integer_grid import IntegerGrid, check_bits, checked_grid
from pyspectra.weights.kinds import EMBEDDING, LORA
from pyspectra.weights.matricize import matricize, matrix_shape
from pyspectra.weights.selection import chosen_layers

__all__ = ["quantization_sensitivity"]

FUNCTION = "quantization_sensitivity"
# The top of a spectrum: this share of the eigenvalues, and at least one.
TOP = 0.1

_OPTIONS = AnalyzeOptions(goodness=False)


def quantization_sensitivity(
    model_or_path: Any,
    bits: int | Iterable[int] = (8, 4),
    *,
    granularity: str = "channel",
    block: int | None = None,
    symmetric: bool = True,
    layers: Sequence[int | str] | int | str | None = None,
    data: Iterable[Any] | None = None,
    forward: Callable[[Any, Any], Any] | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    progress: bool | str = "auto",
) -> QuantizationSensitivity:
    """Round each layer alone to a few bits, and measure what that does to it and to the output.

    Parameters
    ----------
    model_or_path : nn.Module, mapping, WeightSource or path
        As for `pyspectra.analyze`; a module where `data` is given. It stays as it is.
    bits : int or sequence of int
        Numbers of bits to try, from 2 to 8.
    granularity : {"tensor", "channel", "block"}
        What shares a scale, as for `pyspectra.quantize`.
    block : int, optional
        Weights in a block, with ``granularity="block"`` only; 128 by default.
    symmetric : bool
        As for `pyspectra.quantize`.
    layers : int, str or sequence of them, optional
        Which layers, as in `pyspectra.analyze`; by default all but embeddings.
    data : iterable, optional
        A few batches. A mapping is given to the model as keywords, of a list or tuple the first
        item, all else as it is. The model runs once, and once for each layer and number of bits.
    forward : callable, optional
        ``forward(model, batch)`` returns the output that counts; by default the model's.
    loss : callable, optional
        ``loss(output, batch)`` returns a number.
    progress : bool or "auto"
        As for `pyspectra.analyze`.

    Returns
    -------
    QuantizationSensitivity
        ``.layers`` has a row for each layer and number of bits, ``.skipped`` what could not be
        measured; ``.keep(...)`` chooses bits for each layer, as `pyspectra.quantize` takes them.

    Raises
    ------
    TypeError, ValueError, FormatError, FileNotFoundError
        If an argument is of the wrong kind or range, the model cannot be opened or has no weight
        matrix to round.

    Notes
    -----
    W is a layer, Q what `pyspectra.quantize` makes of it, E = W - Q; everything is computed in
    float64, with one layer in memory. Several matrices (positions of a convolution, experts) are
    analysed as one spectrum, as in a report. By Weyl's inequality no singular value moves by more
    than ``|E|_2``: those that are smaller may be noise after the rounding.

    Alpha is fitted before and after as `pyspectra.analyze` does, each with its own xmin; a change
    below its uncertainty says nothing. ``docs/quantisation.md`` tells which of these numbers
    foretold what a network loses: measure with `data` where there are any.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> rng = np.random.default_rng(0)
    >>> W = rng.standard_normal((60, 40))
    >>> outlier = W.copy()
    >>> outlier[:, 0] = 10.0  # it stretches the scale of every row
    >>> found = ps.quantization_sensitivity({"a.weight": W, "b.weight": outlier})
    >>> [(row.name, row.bits, round(row.error, 3)) for row in found.layers]
    [('a', 8, 0.005), ('a', 4, 0.099), ('b', 8, 0.012), ('b', 4, 0.218)]
    >>> found.keep(4, limit=0.105)
    {'a.weight': 4, 'b.weight': 8}
    """
    widths = _widths(bits)
    grid = checked_grid(FUNCTION, granularity, block, symmetric)
    trial = None
    if data is not None:
        trial = OutputTrial(FUNCTION, model_or_path, data, forward, loss)
    for name, value in (("forward", forward), ("loss", loss)):
        if trial is None and value is not None:
            raise ArgumentValueError(FUNCTION, name, "be None without 'data'", shown(value))
    with contextlib.ExitStack() as opened:
        with called_as(FUNCTION):
            source = open_weights(model_or_path)
        if source is not model_or_path:
            opened.callback(source.close)
        chosen = _chosen(source, layers)
        advance = opened.enter_context(
            progress_bar(len(chosen), "quantising", progress, function=FUNCTION)
        )
        if trial is not None:
            opened.enter_context(trial.running())
        found: list[LayerSensitivity] = []
        failed: list[SkippedLayer] = []
        for layer in chosen:
            try:
                found += _measured(layer, widths, grid, trial)
            except _NotFiniteError:
                failed.append(layer.skipped(Skip("not_finite")))
            except LOAD_ERRORS as error:
                words = str(error) or type(error).__name__
                failed.append(layer.skipped(Skip("read_failed", {"error": words})))
            advance(layer.name)
        return QuantizationSensitivity(
            tuple(found),
            (*source.skipped, *failed),
            source=source.name,
            grid=str(grid),
            has_output=trial is not None,
            has_loss=loss is not None,
            read=tuple(map(str, source.files)),
        )


class _NotFiniteError(Exception):
    """A layer holds NaN or infinity."""


def _widths(bits: object) -> tuple[int, ...]:
    if as_integer(bits) is not None:
        return (check_bits(FUNCTION, "bits", bits),)
    if isinstance(bits, str | bytes) or not isinstance(bits, Iterable):
        raise ArgumentTypeError(FUNCTION, "bits", "be integers from 2 to 8", shown(bits))
    widths = tuple(dict.fromkeys(check_bits(FUNCTION, "bits", b) for b in bits))
    if not widths:
        raise ArgumentValueError(FUNCTION, "bits", "not be empty", repr(bits))
    return tuple(sorted(widths, reverse=True))


def _chosen(source: WeightSource, layers: Sequence[int | str] | int | str | None) -> list[Layer]:
    """Return the layers that are rounded: whole ones that are stored, not those made of them."""
    found = [
        layer
        for layer in chosen_layers(source.layers, source.skipped, layers, FUNCTION)
        if layer.part_of is None
        and layer.kind != LORA.name
        and (layers is not None or layer.kind != EMBEDDING.name)
    ]
    if not found:
        got = f"{source.name}, {reasons_for_none(source.skipped)}"
        raise ArgumentValueError(FUNCTION, "model_or_path", "hold a weight matrix", got)
    return found


def _measured(
    layer: Layer, widths: Sequence[int], grid: IntegerGrid, trial: OutputTrial | None
) -> list[LayerSensitivity]:
    """Round one layer to each number of bits."""
    values = layer.load().to_float64()
    if not np.isfinite(values).all():
        raise _NotFiniteError
    matrices = _matrices(layer, values)
    before = _spectrum(matrices, layer)
    fit = _fit(layer, before)
    size = _norm(matrices)
    rows = []
    for width in widths:
        rounded = grid.rounded(layer, matrices, width)
        errors = [W - R for W, R in zip(matrices, rounded, strict=True)]
        after = _spectrum(rounded, layer)
        noise = _spectrum(errors, layer)
        output = loss = math.nan
        if trial is not None:
            tensor = np.empty_like(values)
            for view, matrix in zip(_matrices(layer, tensor), rounded, strict=True):
                view[...] = matrix
            output, loss = trial.change(layer.key, tensor)
        rows.append(
            LayerSensitivity(
                name=layer.name,
                key=layer.key,
                kind=layer.kind,
                shape=layer.shape,
                bits=width,
                error=_norm(errors) / size if size > 0.0 else 0.0,
                spectrum_change=_top_change(before, after),
                error_over_edge=_over_edge(noise),
                share_below_error=_share_below(before, noise),
                alpha=fit.alpha,
                alpha_stderr=fit.alpha_stderr,
                alpha_after=_fit(layer, after).alpha,
                output_change=output,
                loss_change=loss,
            )
        )
    return rows


def _matrices(layer: Layer, values: FloatArray) -> list[FloatArray]:
    return [X.data for X in matricize(layer, HostArray(values, "float64")).slices]


def _norm(matrices: Sequence[FloatArray]) -> float:
    """Return the Frobenius norm of several matrices, whatever the size of their entries."""
    largest = max(float(np.abs(W).max()) for W in matrices)
    if largest == 0.0:
        return 0.0
    return largest * math.sqrt(sum(float(np.sum((W / largest) ** 2)) for W in matrices))


def _spectrum(matrices: Sequence[FloatArray], layer: Layer) -> ESD:
    """Return the spectrum of all matrices of a layer, as a report has it."""
    parts = [esd_module.esd(W) for W in matrices]
    N, M, _ = matrix_shape(layer)
    return esd_module.pool(
        [part.evals for part in parts],
        [part.status for part in parts],
        N=N, M=M, method=parts[0].method,
    )  # fmt: skip


def _fit(layer: Layer, esd: ESD) -> PowerLawFit:
    threshold = RELATIVE_THRESHOLD * float(esd.evals[-1])  # NaN where there is no spectrum
    row = Spectrum(layer, None, esd.n_matrices, esd, threshold, {})
    return layer_fits([row], _OPTIONS, lambda _: None)[0].fit


def _top_change(before: ESD, after: ESD) -> float:
    """Return the largest relative change among the largest eigenvalues."""
    top = before.evals[-max(1, math.ceil(TOP * len(before.evals))) :]
    if before.status is not Status.OK or after.status is not Status.OK or not top[0] > 0.0:
        return math.nan
    return float(np.abs(after.evals[-len(top) :] / top - 1.0).max())


def _over_edge(noise: ESD) -> float:
    """Return the largest singular value of an error over that of a random one of its size.

    Of several matrices the one counts that stands out most.
    """
    if noise.status is not Status.OK:
        return math.nan
    edge = (math.sqrt(noise.N) + math.sqrt(noise.M)) / math.sqrt(noise.N * noise.M)
    found = [
        math.sqrt(float(evals[-1]) / float(np.sum(evals))) / edge
        for evals in noise.matrix_evals
        if evals[-1] > 0.0
    ]
    return max(found, default=math.nan)


def _share_below(before: ESD, noise: ESD) -> float:
    """Return the share of the singular values of a layer that the error may drown."""
    if before.status is not Status.OK or noise.status is not Status.OK:
        return math.nan
    pairs = zip(before.matrix_evals, noise.matrix_evals, strict=True)
    below = sum(int(np.count_nonzero(evals < error[-1])) for evals, error in pairs)
    return below / len(before.evals)
