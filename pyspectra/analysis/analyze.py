"""From a model or a file to a Report: load, matricise, spectra, fits, metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyspectra._cuda.devices import resolve_device
from pyspectra._support.progress import work_bar
from pyspectra.analysis.executor import outcomes
from pyspectra.analysis.plan import select_layers
from pyspectra.analysis.porting import refuse_foreign_names
from pyspectra.analysis.work import work_in_words
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.report.layer import LayerReport
from pyspectra.report.options import AnalyzeOptions, takes_options
from pyspectra.report.report import Report
from pyspectra.weights import (
    Layer,
    SkippedLayer,
    WeightSource,
    open_weights,
    reasons_for_none,
)
from pyspectra.weights.deltas import deltas

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import torch
    from typing_extensions import Unpack

    from pyspectra.report._keywords import AnalyzeKeywords


@takes_options
def analyze(
    model_or_path: Any,
    *,
    base_model: Any = None,
    key: str | None = None,
    device: Any = "auto",
    executor: Executor | None = None,
    progress: bool | str = "auto",
    **options: Unpack[AnalyzeKeywords],
) -> Report:
    """Analyse every weight matrix of a model: spectrum, power-law tail, norms, verdict.

    Parameters
    ----------
    model_or_path : nn.Module, mapping, WeightSource or path
        A model, a state dict (torch or numpy values), a ``.safetensors`` file, a Hugging Face
        folder, a torch checkpoint (``.pt``, ``.pth``, ``.bin``; no pickled code is executed),
        an ``.npz`` file, or whatever else `pyspectra.open_weights` reads.
    {options}
    base_model : optional
        Anything that `model_or_path` may be: analyse ``W - W_base`` instead, layers matched by
        name. Eigenvalues below the rounding of the stored weights are left out of the fits; see
        `pyspectra.weights.deltas.deltas`.
    key : str, optional
        Which part of a checkpoint that holds several models, as in `pyspectra.open_weights`:
        ``key="model_ema"``. It is a part of `model_or_path`, not of `base_model`.
    device : {"auto", "cpu", "cuda", "cuda:N"} or torch.device
        Where eigenvalues and singular values are computed: a device changes speed, and numbers
        by rounding. ``"auto"`` is the CPU, as long as no measurement says when a GPU wins: the CUDA
        path has been compiled and emulated, and never run on one. It needs torch with CUDA. Fits
        and all else stay on the CPU.
    executor : concurrent.futures.Executor, optional
        Who works on the layers: a ``ProcessPoolExecutor``, Dask's ``client.get_executor()`` or any
        other. The report is the same to the last bit. Workers read layers of files by themselves;
        weights in memory are sent to them. Each has as many threads as this process
        (`pyspectra.set_num_threads`). Not together with a CUDA `device`.
    progress : bool or "auto"
        Whether to show a progress bar on standard error: bytes, operations, and the time left.
        "auto" shows one if that is a terminal and the work takes over 2 s.

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
    A thread reads files ahead into the system's page cache, of which a large model leaves nothing.
    Peak memory for a safetensors file: one tensor as stored; its Gram matrices and a workspace for
    their eigenvalues up to the same size (half of it where our own reduction serves); at most 64
    MiB of Gram matrices that wait to be solved together; for a matrix that needs an SVD, a float64
    copy and LAPACK's workspace instead. Of layers of up to 4 million entries, with all that, as
    many as there are threads, of 64 million entries at most together. `randomize` adds a permuted
    copy of one matrix and doubles the Gram matrices; `vectors` adds two matrices of the size of a
    Gram matrix. With a CUDA `device` three tensors and pinned copies of them are in host memory at
    a time, and Gram matrices wait on the device until they take an eighth of its free memory.

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
    cuda = resolve_device(device, "analyze")
    _check_executor(executor, cuda)
    with contextlib.ExitStack() as opened:
        with called_as("analyze"):
            source = _open(model_or_path, opened, key)
        checked = replace(checked, key=key)
        layers: Sequence[Layer] = source.layers
        skipped, files = source.skipped, source.files
        notes: tuple[str, ...] = ()
        if base_model is not None:
            with called_as("analyze", model_or_path="base_model"):
                base = _open(base_model, opened)
            checked = replace(checked, base_model=base.name)
            files += base.files
            change = deltas(source, base)
            layers, skipped = change.layers, change.skipped
            notes = tuple(note.words("model_or_path", "base_model") for note in change.notes)
        if not layers:
            raise _nothing_to_analyze(source.name, skipped, base_model is not None)
        chosen, left_out = select_layers(layers, skipped, checked, "analyze")
        with work_bar(work_in_words(chosen, checked), "analysing", progress) as spent:
            found = outcomes(chosen, checked, cuda, executor, spent)
    lost = (x for x in found if isinstance(x, SkippedLayer))
    return Report(
        layers=tuple(x for x in found if isinstance(x, LayerReport)),
        skipped=(*skipped, *left_out, *lost),
        source=source.name,
        format=source.format,
        options=checked,
        notes=notes,
        files=tuple(map(str, files)),
    )


def _open(model: Any, opened: contextlib.ExitStack, key: str | None = None) -> WeightSource:
    source = open_weights(model, key=key)
    if source is not model:
        opened.callback(source.close)
    return source


def _check_executor(executor: Executor | None, cuda: torch.device | None) -> None:
    if executor is None:
        return
    from concurrent.futures import Executor

    if not isinstance(executor, Executor):
        got = f"an object of type {type(executor).__name__}"
        requirement = "be a concurrent.futures.Executor or None"
        raise ArgumentTypeError("analyze", "executor", requirement, got)
    if cuda is not None:
        requirement = "be None with a CUDA device, whose memory processes do not share"
        raise ArgumentValueError("analyze", "executor", requirement, repr(executor))


def _nothing_to_analyze(
    name: str, skipped: Sequence[SkippedLayer], is_change: bool
) -> ArgumentValueError:
    requirement = "hold a weight matrix"
    if is_change:
        requirement += " that 'base_model' has too, by name and shape"
    got = f"{name}, {reasons_for_none(skipped)}"
    return ArgumentValueError("analyze", "model_or_path", requirement, got)
