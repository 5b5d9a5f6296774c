"""Reduction of intruder dimensions: their singular values shrink, and with them the forgetting."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from pyspectra._support.arguments import check_count, check_number
from pyspectra.edit.apply import Destination, apply
from pyspectra.edit.documentation import documented
from pyspectra.edit.matrices import Recompute, Shapes, editable
from pyspectra.errors import ArgumentValueError, called_as
from pyspectra.spectra.intruders import EPSILON, TOP_K, intruders
from pyspectra.spectra.topk import svd_topk
from pyspectra.types import FloatArray
from pyspectra.weights import Layer, WeightSource, open_weights
from pyspectra.weights.adapted import Adapted, adapted_layers
from pyspectra.weights.matricize import as_matrix, matrix_shape
from pyspectra.weights.pairing import arrays_to_compare, pair_layers

__all__ = ["reduce_intruders"]

FUNCTION = "reduce_intruders"

# Of singular values; vectors have half of the digits, and a float32 has no more than seven.
TOLERANCE = 1e-11


@documented
def reduce_intruders(
    base: Any,
    tuned: Any,
    *,
    top_k: int = TOP_K,
    epsilon: float = EPSILON,
    factor: float = 0.75,
    inplace: bool = False,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool | str = "auto",
) -> Any:
    """Shrink the intruder dimensions of an adapter, or of a tuned model.

    They are leading directions of the tuned weights that resemble none of the base
    (`intruder_dimensions`), and go with forgetting. Smaller ones make the model forget less, at
    some cost of what it was tuned for.

    Parameters
    ----------
    base : nn.Module, mapping, WeightSource or path
        The model before, as for `intruder_dimensions`.
    tuned : nn.Module, mapping or path
        What was trained, and is to be edited: a model or an adapter of LoRA pairs, in memory, or a
        file or folder. Of a PEFT model, which is its own base, the pairs are edited.
    top_k : int
        How many leading directions of each tuned matrix are looked at.
    epsilon : float
        In (0, 1]: a direction whose ``|cos|`` with every left singular vector of the base is below
        this is an intruder.
    factor : float
        What the singular values of intruders are multiplied by, in [0, 1): 0 takes them away. PEFT
        calls it ``mitigation_lambda``.
    {destination}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    ``W' = W + (factor - 1) sum_i s_i u_i v_i^T`` of the tuned weights W, over the intruders i. Of
    an adapter ``W' - W_base`` is then decomposed anew, and its best approximation of the old rank
    is ``scale B' A'``, each half with the roots of its singular values: what PEFT's
    ``reduce_intruder_dimension`` computes by three whole decompositions of each layer. Here only
    the leading directions are computed, and factors are multiplied instead of matrices. Layers
    without intruders stay as they are, bit by bit, and so do those that `intruder_dimensions`
    leaves out. Where a weight is stored with its inputs first (embeddings, Conv1D of GPT-2), PEFT
    compares what goes in, and may find others.

    {notes}

    References
    ----------
    Shuttleworth, Andreas, Torralba, Sharma, "LoRA vs full fine-tuning: an illusion of equivalence"
    (2024), arXiv 2410.21228.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> rng = np.random.default_rng(0)
    >>> W, B, A = (rng.standard_normal(shape) for shape in ((60, 40), (60, 1), (1, 40)))
    >>> base, tuned = {"fc.weight": W}, {"fc.weight": W + B @ A}
    >>> calm = ps.reduce_intruders(base, tuned, factor=0.5)
    >>> before, after = (np.linalg.norm(x["fc.weight"], 2) for x in (tuned, calm))
    >>> bool(after < 0.6 * before)
    True
    """
    k = check_count(FUNCTION, "top_k", top_k)
    epsilon = check_number(FUNCTION, "epsilon", epsilon, above=0.0, most=1.0)
    factor = check_number(FUNCTION, "factor", factor, least=0.0, below=1.0)
    with called_as(FUNCTION, model_or_path="base"):
        before = open_weights(base)
    with before:

        def changes(source: WeightSource, stored: Shapes) -> Mapping[str, Recompute]:
            adapted = list(
                adapted_layers(before, source, tuned, function=FUNCTION, argument="tuned")
            )
            if adapted:
                return _of_adapter(adapted, stored, reduction)
            return _of_model(before, source, stored, reduction)

        reduction = partial(_reduction, k=k, epsilon=epsilon, factor=factor)
        destination = Destination(inplace, out, overwrite, progress, before.files)
        return apply(FUNCTION, tuned, changes, destination, argument="tuned")


_Factors = tuple[FloatArray, FloatArray]
_Reduction = Callable[[FloatArray, "FloatArray | _Factors"], "_Factors | None"]


def _reduction(
    base: FloatArray, tuned: FloatArray | _Factors, *, k: int, epsilon: float, factor: float
) -> _Factors | None:
    """Return the factors of what is to be added to a tuned matrix; None if it has no intruders.

    The tuned matrix is given whole, or as the factors of what was added to the base.
    """
    with np.errstate(all="ignore"):  # infinities are found where factors are multiplied
        found = intruders(base, tuned, k=k, epsilon=epsilon)
    if found is None or not found.n:
        return None
    indices = list(found.indices)
    whole = (base, *tuned) if isinstance(tuned, tuple) else tuned
    top = svd_topk(whole, indices[-1] + 1, tol=TOLERANCE)
    return top.U[:, indices] * ((factor - 1.0) * top.s[indices]), top.V[:, indices].T


def _of_model(
    before: WeightSource, source: WeightSource, stored: Shapes, reduction: _Reduction
) -> Mapping[str, Recompute]:
    """Return how the weights of a tuned model change."""
    shared = pair_layers(before, source).pairs
    if not shared:
        got = f"{before.name} and {source.name}"
        raise ArgumentValueError(FUNCTION, "tuned", "share a layer with 'base'", got)
    keys = {layer.key for layer in editable(FUNCTION, source, stored, None)}
    changes: dict[str, Recompute] = {}
    for x, y in shared:
        if y.part_of is None and y.key in keys and x.shape == y.shape and matrix_shape(x)[2] == 1:
            # A weight that is tied in one of the two only has several partners: the first counts.
            changes.setdefault(y.key, partial(_reduced, x, y, reduction))
    return changes


def _reduced(x: Layer, y: Layer, reduction: _Reduction) -> FloatArray | None:
    base, tuned = arrays_to_compare(x, y)
    matrix = as_matrix(x, tuned)
    update = reduction(as_matrix(x, base), matrix)
    if update is None:
        return None
    matrix += update[0] @ update[1]
    return tuned


def _of_adapter(
    adapted: list[Adapted], stored: Shapes, reduction: _Reduction
) -> Mapping[str, Recompute]:
    """Return how the halves of LoRA pairs change."""
    changes: dict[str, Recompute] = {}
    for one in adapted:
        halves = _Halves(one, reduction)
        for half, name in ((one.product.a, "A"), (one.product.b, "B")):
            if half.key in changes:
                got = f"{half.key!r}, which belongs to several layers"
                raise ArgumentValueError(FUNCTION, "tuned", "have a pair for each layer", got)
            changes[half.key] = partial(halves.take, name, stored[half.key])
    return changes


@dataclass
class _Halves:
    """The new halves of a LoRA pair, computed for the first that is asked for and kept for both."""

    adapted: Adapted
    reduction: _Reduction
    known: dict[str, FloatArray | None] = field(default_factory=dict)

    def take(self, name: str, shape: tuple[int, ...]) -> FloatArray | None:
        """Return A or B in the shape that is stored; None if it stays."""
        if name not in self.known:
            B, A = _new_pair(self.adapted, self.reduction) or (None, None)
            self.known.update(A=A, B=B)
        half = self.known.pop(name)
        return None if half is None else half.reshape(shape)


def _new_pair(adapted: Adapted, reduction: _Reduction) -> _Factors | None:
    matrices = adapted.matrices()
    if matrices is None:
        return None
    W, B, A = matrices
    with np.errstate(all="ignore"):
        update = reduction(W, (adapted.scale * B, A))
    if update is None:
        return None
    left = np.hstack([B, update[0] / adapted.scale])
    return _best_pair(left, np.vstack([A, update[1]]), rank=len(A))


def _best_pair(B: FloatArray, A: FloatArray, rank: int) -> _Factors:
    """Return the best approximation of a product ``B @ A`` by one of a smaller rank.

    Both factors get the roots of the singular values. The product is not formed: the triangles of
    the factors have its singular values.
    """
    Q_B, R_B = np.linalg.qr(B)
    Q_A, R_A = np.linalg.qr(A.T)
    U, s, Vt = np.linalg.svd(R_B @ R_A.T)
    new_B, new_A = np.zeros((len(B), rank)), np.zeros((rank, A.shape[1]))
    count = min(rank, len(s))
    roots = np.sqrt(s[:count])
    new_B[:, :count] = Q_B @ (U[:, :count] * roots)
    new_A[:count] = (roots[:, None] * Vt[:count]) @ Q_A.T
    return new_B, new_A
