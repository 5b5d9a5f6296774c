"""Edits of weights that their spectra suggest: keep the leading directions, or remove traps.

Both return new weights, same names, shapes, dtypes and devices; with ``inplace=True`` they write
into the model that was given.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray, array_info, is_torch_module, is_torch_tensor, require_torch
from pyspectra._support.arguments import as_number, check_seed
from pyspectra.metrics import Spectrum
from pyspectra.metrics.detx import detx_index
from pyspectra.spectra import esd as esd_module
from pyspectra.spectra import marchenko_pastur, powerlaw, randomize
from pyspectra.spectra.distance import of_order_one
from pyspectra.types import FloatArray, Status
from pyspectra.weights import Layer, open_weights, reasons_for_none
from pyspectra.weights.formats import state_dict
from pyspectra.weights.kinds import LORA
from pyspectra.weights.matricize import matricize
from pyspectra.weights.selection import chosen_layers

KEEP = ("detX", "powerlaw", "mp")

# Each round removes part of the entries that make the traps; what is left may be a smaller trap.
MAX_ROUNDS = 20
# Outliers are few: of the entries that are not zero, no larger share than this.
OUTLIERS = 0.05

Edit = Callable[[Layer, Sequence[FloatArray]], Sequence[FloatArray] | None]


def svd_smoothing(
    model: Any,
    keep: str | float = "detX",
    *,
    layers: Sequence[int | str] | int | str | None = None,
    inplace: bool = False,
) -> Any:
    """Keep the leading singular directions of every weight matrix, and drop the others.

    Parameters
    ----------
    model : nn.Module or mapping
        A model or a state dict (torch or numpy values).
    keep : {"detX", "powerlaw", "mp"} or float in (0, 1]
        Which directions: those of the trace-log (ERG) tail; of the power-law tail
        (``lambda >= xmin``); the spikes above the Marchenko-Pastur bulk; or this fraction of each
        matrix's directions, at least one.
    layers : int, str or sequence of them, optional
        Which layers, as in `pyspectra.analyze`; all by default.
    inplace : bool
        Write into `model` instead.

    Returns
    -------
    dict or nn.Module
        A new state dict that shares no memory with `model`; `model` itself with ``inplace=True``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or range, or `model` holds no weight matrix.

    Notes
    -----
    Convolutions are truncated slice by slice, with one threshold for all slices of a layer. A
    layer in which nothing is to be kept (no fit, no spikes) or that is not finite stays as it is,
    as do biases, vectors and LoRA pairs. Computed in float64 and rounded to the stored dtype,
    at most its largest finite number.
    """
    fraction = None
    if not isinstance(keep, str):
        fraction = as_number(keep)
        if fraction is None:
            raise TypeError(
                f"svd_smoothing: 'keep' must be one of {KEEP} or a fraction, got {keep!r}."
            )
        if not 0.0 < fraction <= 1.0:
            raise ValueError(f"svd_smoothing: 'keep' must be in (0, 1], got {keep!r}.")
    elif keep not in KEEP:
        raise ValueError(
            f"svd_smoothing: 'keep' must be one of {KEEP} or a fraction, got {keep!r}."
        )

    def edit(layer: Layer, matrices: Sequence[FloatArray]) -> Sequence[FloatArray] | None:
        # A power of two changes no direction; fits have an absolute threshold.
        spectra = [_eigen(of_order_one(W) if fraction else W) for W in matrices]
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

    return _apply("svd_smoothing", model, layers, inplace, edit)


def remove_traps(
    model: Any,
    *,
    layers: Sequence[int | str] | int | str | None = None,
    seed: int = 0,
    inplace: bool = False,
) -> Any:
    """Remove correlation traps: take from the entries that carry them what makes the trap.

    Parameters
    ----------
    model : nn.Module or mapping
        A model or a state dict (torch or numpy values).
    layers : int, str or sequence of them, optional
        Which layers, as in `pyspectra.analyze`; all by default.
    seed : int
        Of the random permutations that show the traps.
    inplace : bool
        Write into `model` instead.

    Returns
    -------
    dict or nn.Module
        A new state dict that shares no memory with `model`; `model` itself with ``inplace=True``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or range, or `model` holds no weight matrix.

    Notes
    -----
    A trap is a spike of the spectrum after the entries have been permuted at random
    (`pyspectra.find_traps`). The fewest entries that carry half of it lose ``s u_i v_j``, their
    part of the spike; that is repeated, with a new permutation each time, until no trap is found
    (at most 20 times). All other entries stay as they are, and so does the genuine structure of
    the matrix: in random order it is no spike. The mean of the entries, which is a spike in any
    order, is structure too, carried by all entries alike: it is subtracted before traps are sought.
    A matrix whose traps are more than 5 % of its entries that are not zero (a sparse one, the
    identity) stays as it is: they are the matrix, not outliers of it. Likewise entries that crowd
    in one row or column (an outlier channel), which are a direction of the matrix in its own order,
    and matrices that `pyspectra.find_traps` refuses (not finite, or without squares in float64).
    """

    def edit(layer: Layer, matrices: Sequence[FloatArray]) -> Sequence[FloatArray] | None:
        edited = [_without_traps(W, layer.name, i, seed) for i, W in enumerate(matrices)]
        if all(new is old for new, old in zip(edited, matrices, strict=True)):
            return None
        return edited

    seed = check_seed("remove_traps", "seed", seed)
    return _apply("remove_traps", model, layers, inplace, edit)


def _without_traps(W: FloatArray, name: str, matrix: int, seed: int) -> FloatArray:
    if not randomize.has_squares(W):
        return W
    rows, cols = np.arange(W.shape[0]), np.arange(W.shape[1])
    while len(rows) and len(cols):
        part = W[np.ix_(rows, cols)]
        clean = _cleaned(part, name, matrix, seed)
        changed = clean != part
        crowded = [_crowded(np.sum(changed, axis=axis)) for axis in (1, 0)]
        if any(np.any(c) for c in crowded):
            rows, cols = rows[~crowded[0]], cols[~crowded[1]]
            continue
        if 0 < np.count_nonzero(changed) <= OUTLIERS * np.count_nonzero(part):
            W = W.copy()
            W[np.ix_(rows, cols)] = clean
        break
    return W


def _cleaned(W: FloatArray, name: str, matrix: int, seed: int) -> FloatArray:
    """Return W without what makes its traps, whatever makes them."""
    for round_ in range(MAX_ROUNDS):
        key = randomize.permutation_key(seed, name, matrix, round_)
        centred = W - np.mean(W)
        # A constant matrix leaves the rounding of its mean.
        traps = randomize.locate_traps(centred, key) if np.ptp(W) > 0.0 else ()
        if not traps:
            break
        W = W.copy()
        for trap in traps:
            W[list(trap.rows), list(trap.cols)] -= trap.removable
    return W


def _crowded(count: np.ndarray) -> np.ndarray:
    """Rows (or columns) that hold more of the entries than chance gives."""
    mean = float(np.mean(count))
    # Of a Poisson law: a mean of 1 exceeds it with probability 1e-8, a small one with less.
    return np.asarray(count > mean + 6.0 * math.sqrt(mean) + 3.0)


# --- truncation ---------------------------------------------------------------------------------


def _eigen(W: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Ascending eigenvalues and eigenvectors of the Gram matrix of the shorter side."""
    evals, vectors = np.linalg.eigh(ops.gram([HostArray(W, "float64")])[0], UPLO="L")
    return np.maximum(evals, 0.0), vectors


def _project(W: FloatArray, V: FloatArray) -> FloatArray:
    """Return W restricted to the span of the columns of V, which live on its shorter side."""
    if W.shape[0] >= W.shape[1]:
        return np.asarray((W @ V) @ V.T)
    return np.asarray(V @ (V.T @ W))


def _threshold(evals: Sequence[FloatArray], shape: tuple[int, ...], keep: str) -> float:
    """Return the eigenvalue from which on they are kept."""
    N, M = max(shape), min(shape)
    esd = esd_module.pool(evals, [Status.OK] * len(evals), N=N, M=M, method="gram")
    if keep == "mp":
        fit = marchenko_pastur.fit(esd.evals, N, M, mp="robust", test=False)
        return fit.spike_threshold if fit.n_spikes > 0 else math.inf
    tail = powerlaw.fit_powerlaw(esd.evals)
    if keep == "powerlaw":
        return tail.xmin if tail.status is Status.OK else math.inf
    count, index = detx_index(Spectrum(esd, tail, N))
    return float(esd.evals[index]) if count else math.inf


# --- models -------------------------------------------------------------------------------------


def _apply(
    function: str,
    model: Any,
    layers: Sequence[int | str] | int | str | None,
    inplace: bool,
    edit: Edit,
) -> Any:
    if not (is_torch_module(model) or isinstance(model, Mapping)):
        raise TypeError(
            f"{function}: 'model' must be a torch module or a state dict, got an object of type "
            f"{type(model).__name__}. Hint: load the file first."
        )
    if inplace and isinstance(model, np.lib.npyio.NpzFile):
        raise TypeError(
            f"{function}: 'model' must be in memory with inplace=True, got an open .npz file."
        )
    if not isinstance(inplace, bool):
        raise TypeError(f"{function}: 'inplace' must be a bool, got {inplace!r}.")
    state: Any = model.state_dict() if is_torch_module(model) else model
    target = state if inplace else _copied(state)
    tensors = state_dict.flat(target)
    with open_weights(model) as source:
        if not source.layers:
            raise ValueError(
                f"{function}: 'model' ({source.name}) holds no weight matrix"
                + reasons_for_none(source.skipped)
            )
        # Parts are edited with their whole; LoRA pairs and recomputed weights are not stored.
        stored = [
            layer
            for layer in chosen_layers(source.layers, layers, function)
            if layer.part_of is None and layer.kind != LORA.name and layer.key in tensors
        ]
        for layer in stored:  # all of them before the first is written to
            _check_writable(function, layer.key, tensors[layer.key])
        for layer in stored:
            values = _edited(layer, edit)
            if values is not None:
                _write(tensors[layer.key], values)
    return model if inplace else target


def _copied(value: Any) -> Any:
    """Copy a state dict; tensors that share memory (tied weights) share that of the copies."""
    return copy.deepcopy(_copyable(value))


def _copyable(value: Any) -> Any:
    """Put what deepcopy refuses into another form: nothing is copied yet."""
    if isinstance(value, dict):
        same = copy.copy(value)  # its class, and what it carries besides (torch's _metadata)
        for key, item in value.items():
            same[key] = _copyable(item)
        return same
    if isinstance(value, Mapping):  # an open .npz, a read-only view
        return {key: _copyable(item) for key, item in value.items()}
    if is_torch_tensor(value):
        if not value.is_leaf:
            value = value.detach()
        info = array_info(value)
        if info is not None and info.identity is not None and _repeats(value.shape, value.stride()):
            return value.contiguous()
    return value


def _repeats(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Tell whether elements (of an expanded tensor, of overlapping windows) share memory.

    No element of an axis may come before the end of what the finer axes span: true of every view
    that slices and transposes make.
    """
    end = 0
    for step, n in sorted((abs(s), n) for n, s in zip(shape, strides, strict=True) if n > 1):
        if step <= end:
            return True
        end += (n - 1) * step
    return False


def _edited(layer: Layer, edit: Edit) -> FloatArray | None:
    """Return the layer's values after `edit`, or None if they stay as they are."""
    values = layer.load().to_float64()
    if values.size == 0 or not np.isfinite(values).all():
        return None
    views = [X.data for X in matricize(layer, HostArray(values, "float64")).slices]
    edited = edit(layer, views)
    if edited is None:
        return None
    for view, matrix in zip(views, edited, strict=True):
        view[...] = matrix
    return values


def _check_writable(function: str, key: str, tensor: Any) -> None:
    strides = tensor.stride() if is_torch_tensor(tensor) else tensor.strides
    if _repeats(tensor.shape, strides):
        raise ValueError(
            f"{function}: 'model' must be writable, elements of {key!r} share memory. "
            "Hint: make it contiguous."
        )
    if not is_torch_tensor(tensor) and not tensor.flags.writeable:
        raise ValueError(f"{function}: 'model' must be writable, {key!r} is not.")


def _write(tensor: Any, values: FloatArray) -> None:
    if is_torch_tensor(tensor):
        torch = require_torch("an edit")
        limit = torch.finfo(tensor.dtype).max
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(np.clip(values, -limit, limit)))
    elif tensor.dtype.kind == "f":
        limit = float(np.finfo(tensor.dtype).max)
        tensor[...] = np.clip(values, -limit, limit)
    else:  # bfloat16, as wide as float32
        tensor[...] = values
