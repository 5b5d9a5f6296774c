"""Low-rank compression of a model: which layers, to which ranks, and weights of these ranks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspectra._support.arguments import check_count, shown
from pyspectra.edit import low_rank
from pyspectra.edit.apply import Destination, apply
from pyspectra.edit.documentation import documented
from pyspectra.edit.matrices import Recompute, Shapes, by_matrices, editable
from pyspectra.edit.ranks import allocated
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.types import FloatArray
from pyspectra.weights import Layer, WeightSource

__all__ = ["Step", "compress", "planned"]


@documented
def compress(
    model: Any,
    ratio: float | Mapping[str, int],
    *,
    by: str | None = None,
    grams: Mapping[str, Any] | None = None,
    layers: Sequence[int | str] | int | str | None = None,
    inplace: bool = False,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool | str = "auto",
) -> Any:
    """Compress linear layers to a low rank, as many directions of each as `allocate_ranks` says.

    Parameters
    ----------
    {model}
    ratio : float or mapping of str to int
        Part of the parameters of these layers together that may be left, in (0, 1]; or the rank of
        each layer, by the name of the layer or of its parameter: layers that are not named stay.
    by : {"uniform", "spectrum", "loss"}, optional
        How a ratio becomes ranks, as in `allocate_ranks`: by default ``"loss"`` with `grams`, else
        ``"spectrum"``.
    grams : mapping of str to array, optional
        Second moments of the layers' inputs (`input_grams`). The directions that are kept are then
        those that matter most for the layer's outputs, whatever `by` says.
    layers : int, str or sequence of them, optional
        Which layers, as in `allocate_ranks`.
    {destination}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}
        See also `allocate_ranks`.

    Notes
    -----
    Without `grams` a layer becomes ``U_k S_k V_k^T``, the product of rank k next to W. With the
    second moments G of its inputs it becomes ``U_k U_k^T W``, with the leading left singular
    vectors of W S, ``S S^T = G``: the product of rank k with the least mean square of
    ``(W - W_k) x``. Shapes stay: `pyspectra.finetune.factorize` makes weights smaller. What is not
    finite stays as it is.

    {notes}

    References
    ----------
    Wang et al., "SVD-LLM", ICLR 2025, arXiv 2403.07378, where the same product is written with the
    inverse of S.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> small = ps.compress({"fc.weight": W}, 0.5)["fc.weight"]
    >>> small.shape, int(np.linalg.matrix_rank(small))  # 12 * (60 + 40) is half of 60 * 40
    ((60, 40), 12)
    """

    def edit(step: Step, W: FloatArray) -> list[FloatArray] | None:
        pair = step.factors(W)
        return None if pair is None else [step.stored(pair[0] @ pair[1])]

    def changes(source: WeightSource, stored: Shapes) -> Mapping[str, Recompute]:
        plan = planned("compress", source, model, ratio, by, grams, layers)
        if not plan:
            return {}
        chosen = editable("compress", source, stored, [*plan])
        return by_matrices(chosen, lambda layer, matrices: edit(plan[layer.key], matrices[0]))

    return apply("compress", model, changes, Destination(inplace, out, overwrite, progress))


@dataclass(frozen=True)
class Step:
    """What becomes of one layer."""

    layer: Layer
    rank: int
    S: FloatArray | None  # of `low_rank.check_grams`

    def stored(self, W: FloatArray) -> FloatArray:
        """Return a matrix with a row for each output as the layer stores it, or the reverse."""
        return W if low_rank.rows_are_outputs(self.layer) else W.T

    def factors(self, W: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Return B and A for the weight as it is stored; None if that is not finite."""
        return low_rank.factors(self.stored(W), self.rank, self.S)


def planned(
    function: str,
    source: WeightSource,
    model: Any,
    ratio: float | Mapping[str, int],
    by: str | None,
    grams: Mapping[str, Any] | None,
    layers: Sequence[int | str] | int | str | None,
) -> dict[str, Step]:
    """Return what becomes of each layer that does not stay whole, by the key of its weight.

    Parameters
    ----------
    function : str
        The public function, for messages.
    source : WeightSource
        The opened model.
    model, ratio, by, grams, layers
        As of `compress`.

    Returns
    -------
    dict of str to Step

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `compress`.
    """
    if isinstance(ratio, Mapping):
        if by is not None:
            raise ArgumentValueError(function, "by", "be None where ranks are given", shown(by))
        found = low_rank.compressible(function, source, model, "*" if layers is None else layers)
        ranks = _checked(function, ratio)
        known = {name for layer in found for name in (layer.key, layer.name)}
        for name in ranks:
            if name not in known:
                needed = "name linear layers that two factors can make smaller"
                raise ArgumentValueError(function, "ratio", needed, repr(name))
    else:
        found = low_rank.compressible(function, source, model, layers)
        rule = by if by is not None else "spectrum" if grams is None else "loss"
        with called_as(function):
            ranks = allocated(source, model, ratio, rule, grams if rule == "loss" else None, layers)
    return _plan(function, found, ranks, grams)


def _checked(function: str, ranks: Mapping[Any, Any]) -> dict[str, int]:
    for name in ranks:
        if not isinstance(name, str):
            got = f"a name of type {type(name).__name__}"
            raise ArgumentTypeError(function, "ratio", "hold ranks by name", got)
    return {name: check_count(function, "ratio", rank) for name, rank in ranks.items()}


def _plan(
    function: str, found: Sequence[Layer], ranks: Mapping[str, int], grams: object
) -> dict[str, Step]:
    rank_of = {layer.key: ranks.get(layer.key, ranks.get(layer.name)) for layer in found}
    smaller = [
        (layer, rank)
        for layer in found
        if (rank := rank_of[layer.key]) is not None and rank < min(layer.shape)
    ]
    roots = low_rank.check_grams(function, grams, [layer for layer, _ in smaller]) or {}
    return {layer.key: Step(layer, rank, roots.get(layer.key)) for layer, rank in smaller}
