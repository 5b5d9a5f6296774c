"""Pruning: the smallest weights become exact zeros, as many in each layer as an allocation says."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pyspectra._support.arguments import as_number, check_choice, check_number, shown
from pyspectra.edit.apply import Destination, apply
from pyspectra.edit.documentation import documented
from pyspectra.edit.matrices import (
    Recompute,
    Shapes,
    by_matrices,
    editable,
    finite_values,
    of_named,
)
from pyspectra.edit.trimming import kth_largest
from pyspectra.errors import ArgumentTypeError
from pyspectra.types import FloatArray
from pyspectra.weights import Layer, WeightSource

__all__ = ["prune"]


@documented
def prune(
    model: Any,
    sparsity: float | Mapping[str, float],
    *,
    scope: str = "layer",
    layers: Sequence[int | str] | int | str | None = None,
    inplace: bool = False,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool | str = "auto",
) -> Any:
    """Set the smallest weights of weight matrices to zero.

    Parameters
    ----------
    {model}
    sparsity : float or mapping of str to float
        Share of the weights that becomes zero, in [0, 1); or a share for each layer, by the name of
        the layer or of its parameter (`allocate_sparsity`): layers that are not named stay.
    scope : {"layer", "global"}
        What the weights compete within, where there is one share: each layer loses it, or all
        layers together.
    layers : int, str or sequence of them, optional
        Which layers, as in `pyspectra.analyze`; by default all but embeddings.
    {destination}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    Of n weights the round(s n) smallest by magnitude become zero; of equal ones those that come
    first, and with ``scope="global"`` all. What is zero already counts among them. All others stay
    as they are, bit by bit, whatever their type. Biases and vectors stay, and so does a layer that
    is not finite. With ``scope="global"`` a model is read several times, a layer at a time.

    {notes}

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

    def changes(source: WeightSource, stored: Shapes) -> Mapping[str, Recompute]:
        by_name = isinstance(shares, dict)
        found = editable("prune", source, stored, layers, embeddings=by_name)
        if isinstance(shares, dict):
            own = of_named("prune", "sparsity", source, found, shares)
            named = [layer for layer in found if layer.key in own]
            return by_matrices(named, lambda x, Ws: _without_smallest(Ws, own[x.key]))
        if scope == "global":
            limit = _limit(found, shares)
            return by_matrices(found, lambda _, Ws: _without_up_to(Ws, limit))
        return by_matrices(found, lambda _, Ws: _without_smallest(Ws, shares))

    return apply("prune", model, changes, Destination(inplace, out, overwrite, progress))


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


def _without_smallest(matrices: Sequence[FloatArray], share: float) -> list[FloatArray] | None:
    """Return the matrices of a layer without their smallest entries."""
    out = np.concatenate([W.reshape(-1) for W in matrices])
    size = np.abs(out)
    count = round(share * size.size)
    if count == 0:
        return None
    limit = np.partition(size, count - 1)[count - 1]
    smaller = size < limit
    out[smaller] = 0.0
    # Of equal ones the first become zero, and as many as are missing.
    out[np.flatnonzero(size == limit)[: count - np.count_nonzero(smaller)]] = 0.0
    ends = np.cumsum([W.size for W in matrices])[:-1]
    return [part.reshape(W.shape) for part, W in zip(np.split(out, ends), matrices, strict=True)]


def _without_up_to(matrices: Sequence[FloatArray], limit: float) -> list[FloatArray]:
    return [np.where(np.abs(W) <= limit, 0.0, W) for W in matrices]


def _limit(layers: Sequence[Layer], share: float) -> float:
    """Return the magnitude up to which weights of all layers together become zero."""
    finite = [layer for layer in layers if finite_values(layer) is not None]
    total = sum(math.prod(layer.shape) for layer in finite)
    count = round(share * total)
    if count == 0:
        return -1.0

    def read() -> Iterator[FloatArray]:
        for layer in finite:
            yield layer.load().to_float64()

    return kth_largest(read, total, total - count + 1)[0]
