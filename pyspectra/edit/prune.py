"""Pruning: the smallest weights become exact zeros, as many in each layer as an allocation says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyspectra._support.arguments import as_number, check_choice, check_number, shown
from pyspectra.edit.apply import apply
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.report.data import ReportData
from pyspectra.report.layer import LayerReport
from pyspectra.types import FloatArray
from pyspectra.weights import Layer, open_weights
from pyspectra.weights.kinds import EMBEDDING
from pyspectra.weights.selection import chosen_layers

__all__ = ["allocate_sparsity", "prune"]

# A layer without a single weight passes nothing on.
MOST = 0.998


def prune(
    model: Any,
    sparsity: float | Mapping[str, float],
    *,
    scope: str = "layer",
    layers: Sequence[int | str] | int | str | None = None,
    inplace: bool = False,
) -> Any:
    """Set the smallest weights of weight matrices to zero.

    Parameters
    ----------
    model : nn.Module or mapping
        A model or a state dict (torch or numpy values).
    sparsity : float or mapping of str to float
        Share of the weights that becomes zero, in [0, 1); or a share for each layer, by the name of
        the layer or of its parameter (`allocate_sparsity`): layers that are not named stay.
    scope : {"layer", "global"}
        What the weights compete within, where there is one share: each layer loses it, or all
        layers together.
    layers : int, str or sequence of them, optional
        Which layers, as in `pyspectra.analyze`; by default all but embeddings.
    inplace : bool
        Write into `model` instead.

    Returns
    -------
    dict or nn.Module
        A new state dict that shares no memory with `model`; `model` itself with ``inplace=True``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or range, names no layer, or `model` holds no weight
        matrix or cannot be written to.

    Notes
    -----
    Of n weights the round(s n) smallest by magnitude become zero; of equal ones those that come
    first, and with ``scope="global"`` all. What is zero already counts among them. All others stay
    as they are, bit by bit, whatever their type. Tied weights stay tied. Biases and vectors stay,
    and so does a layer that is not finite.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.arange(1.0, 13.0).reshape(3, 4)
    >>> ps.prune({"fc.weight": W}, 0.5)["fc.weight"]
    array([[ 0.,  0.,  0.,  0.],
           [ 0.,  0.,  7.,  8.],
           [ 9., 10., 11., 12.]])
    """
    scope = check_choice("prune", "scope", scope, ("layer", "global"))
    shares = _shares(sparsity)
    if isinstance(shares, dict):
        _check_named(model, shares)
    if isinstance(shares, float) and scope == "global":
        limit = _limit(model, shares, layers)
    else:
        limit = math.nan

    def edit(layer: Layer, matrices: Sequence[FloatArray]) -> Sequence[FloatArray] | None:
        if layers is None and not isinstance(shares, dict) and layer.kind == EMBEDDING.name:
            return None
        if not math.isnan(limit):
            return [np.where(np.abs(W) <= limit, 0.0, W) for W in matrices]
        share = (
            shares.get(layer.key, shares.get(layer.name)) if isinstance(shares, dict) else shares
        )
        return None if share is None else _without_smallest(matrices, share)

    return apply("prune", model, layers, inplace, edit)


def _shares(sparsity: object) -> float | dict[str, float]:
    if isinstance(sparsity, Mapping):
        shares = {}
        for name, share in sparsity.items():
            if not isinstance(name, str) or as_number(share) is None:
                got = f"{shown(share)} for {shown(name)}"
                raise ArgumentTypeError("prune", "sparsity", "hold shares by name", got)
            shares[name] = check_number("prune", "sparsity", share, least=0.0, most=1.0)
        return shares
    return check_number("prune", "sparsity", sparsity, least=0.0, below=1.0)


def _check_named(model: Any, shares: Mapping[str, float]) -> None:
    with called_as("prune", model_or_path="model"), open_weights(model) as source:
        known = {name for layer in source.layers for name in (layer.key, layer.name)}
    for name in shares:
        if name not in known:
            raise ArgumentValueError("prune", "sparsity", "name layers of the model", repr(name))


def _without_smallest(matrices: Sequence[FloatArray], share: float) -> list[FloatArray]:
    """Return the matrices of a layer without their smallest entries."""
    flat = np.concatenate([np.abs(W).reshape(-1) for W in matrices])
    count = round(share * flat.size)
    out = np.concatenate([W.reshape(-1) for W in matrices])
    out[np.argsort(flat, kind="stable")[:count]] = 0.0
    ends = np.cumsum([W.size for W in matrices])[:-1]
    return [part.reshape(W.shape) for part, W in zip(np.split(out, ends), matrices, strict=True)]


def _limit(model: Any, share: float, layers: Sequence[int | str] | int | str | None) -> float:
    """Return the magnitude up to which weights of all layers together become zero."""
    with called_as("prune", model_or_path="model"), open_weights(model) as source:
        found = [
            layer
            for layer in chosen_layers(source.layers, source.skipped, layers, "prune")
            if layer.part_of is None and (layers is not None or layer.kind != EMBEDDING.name)
        ]
        values = [np.abs(layer.load().to_float64()).reshape(-1) for layer in found]
    values = [v for v in values if np.isfinite(v).all()]
    if not values:
        return -1.0
    flat = np.concatenate(values)
    count = round(share * flat.size)
    return float(np.partition(flat, count - 1)[count - 1]) if count else -1.0


def allocate_sparsity(
    report: ReportData,
    sparsity: float,
    *,
    epsilon: float = 0.3,
    by: str = "block",
) -> dict[str, float]:
    """Spread a sparsity over layers by alpha: those with a lighter tail lose more.

    Parameters
    ----------
    report : Report
        Of the model; its alpha counts. The published one is of estimator ``"fix_finger"``
        (AlphaPruning), or of sub-matrices, ``"farms(2000, 15, 1)"`` (FARMS).
    sparsity : float
        Share of the weights of these layers together that is to become zero, in (0, 1).
    epsilon : float
        Shares are from 1 - epsilon to 1 + epsilon times a common one, in [0, 1).
    by : {"block", "layer"}
        Layers of a numbered block have the mean of its alphas, as published, or each its own.

    Returns
    -------
    dict of str to float
        Name of the parameter -> share, for `prune`: of the layers in numbered modules if there are
        any, else of all; no embeddings.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or range, or the report has no such layer.

    Notes
    -----
    s_l = c (1 - e + 2 e (alpha_l - min) / (max - min)), with c such that the shares of all weights
    together are `sparsity`. A share stops at 0.998, and the others make up for it. A layer without
    an alpha counts as the mean. With equal alphas the shares are equal.

    References
    ----------
    Lu et al., "AlphaPruning: using heavy-tailed self regularization theory for improved layer-wise
    pruning of large language models", NeurIPS 2024, arXiv 2410.10912, and the released code. Hu et
    al., "Eigenspectrum analysis of neural networks without aspect ratio bias", ICML 2025 (FARMS).

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> rng = np.random.default_rng(0)
    >>> light, heavy = rng.standard_normal((60, 60)), rng.standard_t(2, (60, 60))
    >>> report = ps.analyze({"layers.0.weight": light, "layers.1.weight": heavy})
    >>> {key: round(share, 2) for key, share in ps.allocate_sparsity(report, 0.5).items()}
    {'layers.0.weight': 0.65, 'layers.1.weight': 0.35}
    """
    name = "allocate_sparsity"
    if not isinstance(report, ReportData):
        raise ArgumentTypeError(name, "report", "be a report", shown(report))
    sparsity = check_number(name, "sparsity", sparsity, above=0.0, below=1.0)
    epsilon = check_number(name, "epsilon", epsilon, least=0.0, below=1.0)
    by = check_choice(name, "by", by, ("block", "layer"))
    rows = _prunable(report)
    if not rows:
        got = "one without" if report.options.pool else "one with pool=False"
        raise ArgumentValueError(name, "report", "have weight matrices, one row a layer", got)
    alphas = np.array([row.alpha for row in rows])
    if by == "block":
        blocks = [_block(row.key) or row.key for row in rows]
        alphas = np.array([_mean([a for a, b in zip(alphas, blocks, strict=True) if b == block])
                           for block in blocks])  # fmt: skip
    alphas = np.where(np.isfinite(alphas), alphas, _mean(alphas))
    sizes = np.array([math.prod(row.shape) for row in rows], dtype=np.float64)
    shares = spread(alphas, sizes, sparsity, epsilon)
    return {row.key: float(share) for row, share in zip(rows, shares, strict=True)}


def _prunable(report: ReportData) -> list[LayerReport]:
    rows = [
        row
        for row in report.layers
        if row.part_of is None and row.slice_id is None and row.kind != EMBEDDING.name
    ]
    return [row for row in rows if _block(row.key) is not None] or rows


def _block(key: str) -> str | None:
    """Return the name up to its first number: ``"encoder.layer.3"``."""
    parts = key.split(".")[:-1]
    for i, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: i + 1])
    return None


def _mean(values: Any) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def spread(alphas: FloatArray, sizes: FloatArray, target: float, epsilon: float) -> FloatArray:
    """Return shares of layers with these alphas and sizes, `target` of all weights together."""
    low, high = alphas.min(), alphas.max()
    if not low < high:  # NaN is not either
        return np.full(len(alphas), target)
    raw = 1.0 - epsilon + 2.0 * epsilon * (alphas - low) / (high - low)
    shares = raw * (sizes.sum() * target / (sizes * raw).sum())
    full = np.zeros(len(raw), dtype=bool)
    while (shares > MOST).any() and target < MOST:
        full |= shares > MOST
        left = sizes.sum() * target - MOST * sizes[full].sum()
        shares = np.where(full, MOST, raw * left / (sizes * raw)[~full].sum())
    return np.minimum(shares, MOST) if target < MOST else np.full(len(raw), target)
