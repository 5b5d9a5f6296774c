"""From a model or a file to a Report: load, matricise, spectra, fits, metrics."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pyspectra._cuda.devices import resolve_device
from pyspectra._support.progress import progress_bar
from pyspectra.analysis.layer_fits import LayerFit, layer_fits
from pyspectra.analysis.layer_spectra import LayerSpectrum, layer_spectra
from pyspectra.analysis.porting import refuse_foreign_names
from pyspectra.errors import called_as
from pyspectra.metrics import Spectrum, evaluate
from pyspectra.report.layer import LayerReport, tail_size
from pyspectra.report.options import AnalyzeOptions, takes_options
from pyspectra.report.report import Report
from pyspectra.report.verdicts import layer_warning
from pyspectra.spectra import marchenko_pastur
from pyspectra.spectra.powerlaw import EVALS_THRESHOLD
from pyspectra.spectra.randomize import randomized
from pyspectra.types import Status
from pyspectra.weights import (
    Layer,
    Skip,
    SkippedLayer,
    WeightSource,
    open_weights,
    reasons_for_none,
)
from pyspectra.weights.deltas import deltas
from pyspectra.weights.matricize import matrix_shape
from pyspectra.weights.selection import layer_filter

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from pyspectra.report._keywords import AnalyzeKeywords


@takes_options
def analyze(
    model_or_path: Any,
    *,
    base_model: Any = None,
    device: Any = "auto",
    progress: bool | str = "auto",
    **options: Unpack[AnalyzeKeywords],
) -> Report:
    """Analyse every weight matrix of a model: spectrum, power-law tail, norms, verdict.

    Parameters
    ----------
    model_or_path : nn.Module, mapping, WeightSource or path
        A model, a state dict (torch or numpy values), a ``.safetensors`` file, a Hugging Face
        folder, a torch checkpoint (``.pt``, ``.pth``, ``.bin``; no pickled code is executed) or
        an ``.npz`` file.
    {options}
    base_model : optional
        Anything that `model_or_path` may be: analyse ``W - W_base`` instead, layers matched by
        name. Eigenvalues below the rounding of the stored weights are left out of the fits; see
        `pyspectra.weights.deltas.deltas`.
    device : {"auto", "cpu", "cuda", "cuda:N"} or torch.device
        Where eigenvalues and singular values are computed: a device changes speed, and numbers
        by rounding. ``"auto"`` is the CPU, as long as no measurement says when a GPU wins: the CUDA
        path has been compiled and emulated, and never run on one. It needs torch with CUDA. Fits
        and all else stay on the CPU.
    progress : bool or "auto"
        A progress bar on standard error; "auto" if that is a terminal and it takes over 2 s.

    Returns
    -------
    Report
        ``.layers``, ``.skipped`` (with reasons), ``.summary()``, ``.verdict``. A layer that cannot
        be read or analysed is reported there; the rest goes on.

    Raises
    ------
    ValueError, TypeError
        An argument is of the wrong kind or range, or nothing in the model is a weight matrix.
    FormatError, FileNotFoundError
        The file cannot be used.
    DeviceError
        There is no such device, or this package was built without CUDA.

    Notes
    -----
    Peak memory for a safetensors file: one tensor as stored; its Gram matrices and a workspace for
    their eigenvalues up to the same size (half of it where our own reduction serves); at most 64
    MiB of Gram matrices that wait to be solved together; for a matrix that needs an SVD, a float64
    copy and LAPACK's workspace instead. `randomize` adds a permuted copy of one matrix and doubles
    the Gram matrices; `vectors` adds two matrices of the size of a Gram matrix. With a CUDA
    `device` three tensors and pinned copies of them are in host memory at a time, and Gram matrices
    wait on the device until they take an eighth of its free memory.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> rng = np.random.default_rng(0)
    >>> report = ps.analyze({"fc.weight": rng.standard_normal((64, 48))})
    >>> report.layers[0].name, len(report.layers[0].esd.evals)
    ('fc', 48)
    """
    refuse_foreign_names(options)
    checked = AnalyzeOptions.from_keywords(options)
    if progress not in (True, False, "auto"):
        raise ValueError(f"analyze: 'progress' must be True, False or 'auto', got {progress!r}.")
    where = resolve_device(device, "analyze")
    with contextlib.ExitStack() as opened:
        with called_as("analyze"):
            source = _open(model_or_path, opened)
        if base_model is None:
            given = _Input(source.name, source.format, source.layers, source.skipped, None)
            return _analyze(given, checked, where, progress)
        with called_as("analyze", model_or_path="base_model"):
            base = _open(base_model, opened)
        change = deltas(source, base)
        given = _Input(source.name, source.format, change.layers, change.skipped, change.floors)
        return _analyze(given, replace(checked, base_model=base.name), where, progress)


@dataclass(frozen=True)
class _Input:
    name: str
    format: str
    layers: tuple[Layer, ...]
    skipped: tuple[SkippedLayer, ...]
    floors: dict[str, float] | None  # eigenvalues that are rounding; None: the usual threshold


def _open(model: Any, opened: contextlib.ExitStack) -> WeightSource:
    source = open_weights(model)
    if source is not model:
        opened.callback(source.close)
    return source


def _analyze(
    source: _Input, options: AnalyzeOptions, device: torch.device | None, progress: bool | str
) -> Report:
    if not source.layers:
        raise ValueError(_nothing_to_analyze(source))
    chosen, skipped = _select(source, options)
    rows: list[LayerSpectrum] = []
    with progress_bar(len(chosen), "analysing", progress) as advance:
        for result in layer_spectra(chosen, options, advance, source.floors, device):
            if isinstance(result, SkippedLayer):
                skipped.append(result)
            else:
                rows.append(result)
    rows.sort(key=lambda row: (row.position, row.slice_id or 0))

    thresholds = [_threshold(row, source) for row in rows]
    fits = layer_fits(rows, thresholds, options, progress)
    reports = tuple(_layer_report(row, f, options) for row, f in zip(rows, fits, strict=True))
    return Report(
        layers=reports,
        skipped=(*source.skipped, *skipped),
        source=source.name,
        format=source.format,
        options=options,
    )


def _threshold(row: LayerSpectrum, source: _Input) -> float:
    """Eigenvalues must exceed it to enter the fit."""
    return EVALS_THRESHOLD if source.floors is None else source.floors[row.layer.name]


def _nothing_to_analyze(source: _Input) -> str:
    text = f"analyze: 'model_or_path' ({source.name}) holds no weight matrix"
    if source.floors is not None:
        text += " that 'base_model' has too, by name and shape,"
    return text + reasons_for_none(source.skipped)


# --- which layers -------------------------------------------------------------------------------


def _select(source: _Input, options: AnalyzeOptions) -> tuple[list[Layer], list[SkippedLayer]]:
    wanted = layer_filter(source.layers, options.layers, "analyze")
    chosen, skipped = [], []
    for layer in source.layers:
        skip = _gate(layer, options) if wanted(layer) else Skip("not_selected")
        if skip is None:
            chosen.append(layer)
        else:
            skipped.append(SkippedLayer(layer.name, layer.shape, skip))
    return chosen, skipped


def _gate(layer: Layer, options: AnalyzeOptions) -> Skip | None:
    _, M, rf = matrix_shape(layer)
    count = M * rf if options.pool else M
    if count < options.min_evals:
        return Skip("few_evals", {"count": count, "limit": options.min_evals})
    if options.max_evals is not None and count > options.max_evals:
        return Skip("many_evals", {"count": count, "limit": options.max_evals})
    return None


# --- metrics ------------------------------------------------------------------------------------


def _layer_report(row: LayerSpectrum, found: LayerFit, options: AnalyzeOptions) -> LayerReport:
    esd, layer, fit = row.esd, row.layer, found.fit
    metrics: dict[str, float | int] = {}
    mp, random = None, None
    if esd.status is Status.OK:
        if options.mp_fit:
            kurtosis = row.kurtosis if math.isfinite(row.kurtosis) else 0.0
            mp = marchenko_pastur.fit(esd.evals, esd.N, esd.M, mp="robust", kurtosis=kurtosis)
        if options.randomize:
            random = randomized(row.replicas, esd.N, esd.M)
        spectrum = Spectrum(esd, fit, esd.N, mp, random, row.vectors, row.kurtosis)
        metrics = evaluate(spectrum, options.groups)
    measured = {"mp": mp, "randomized": random, "vectors": row.vectors}
    return LayerReport(
        layer_id=layer.layer_id,
        name=layer.name,
        key=layer.key,
        kind=layer.kind,
        shape=layer.shape,
        dtype=layer.dtype,
        slice_id=row.slice_id,
        rf=row.rf,
        part_of=layer.part_of,
        esd=esd,
        fit=fit,
        n_tail=tail_size(esd.evals, fit, options),
        raw_fit=found.raw_fit,
        n_fingers=found.n_fingers,
        metrics=metrics,
        warning=layer_warning(fit, metrics.get("random_p_value", math.nan)),
        measured={name: value for name, value in measured.items() if value is not None},
    )
