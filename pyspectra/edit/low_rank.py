"""A weight as the product of two thin matrices, and the layers for which that saves parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from pyspectra._arrays import as_host, is_torch_module
from pyspectra._support.text import counted
from pyspectra.edit.holders import replaceable
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.spectra.aside import run_aside
from pyspectra.spectra.topk import svd_topk
from pyspectra.types import FloatArray, Status
from pyspectra.weights import Layer, WeightSource
from pyspectra.weights.kinds import CONV1D_GPT2, IN, KINDS, LINEAR, OUT
from pyspectra.weights.selection import Selection, chosen_layers

__all__ = [
    "KIND_NAMES",
    "check_grams",
    "compressible",
    "factors",
    "in_blocks",
    "largest_rank",
    "rows_are_outputs",
]

KIND_NAMES: Final = (LINEAR.name, CONV1D_GPT2.name)
# On the diagonal of the inputs' second moments, as a part of its mean: directions that no sample
# has count a little.
DAMPING: Final = 1e-2
_ASYMMETRY: Final = 1e-3  # of the largest entry: what sums in 16 bits may differ by


def largest_rank(shape: Sequence[int]) -> int:
    """Return the largest rank at which two factors have fewer entries than the matrix."""
    rows, cols = shape
    return (rows * cols - 1) // (rows + cols)


def compressible(function: str, source: WeightSource, model: Any, layers: Selection) -> list[Layer]:
    """Return the linear layers for which two factors can save parameters.

    Parameters
    ----------
    function : str
        The public function, for messages.
    source : WeightSource
        The opened model.
    model : object
        The model: of a torch module only what can be replaced by two linear layers counts.
    layers : int, str, sequence of them or None
        Which; None means those in numbered modules if there are any, else all.

    Returns
    -------
    list of Layer

    Raises
    ------
    ArgumentValueError
        If there is none.
    """
    found = [
        layer
        for layer in chosen_layers(source.layers, source.skipped, layers, function)
        if layer.part_of is None
        and layer.kind in KIND_NAMES
        and len(layer.shape) == 2
        and largest_rank(layer.shape) > 0
    ]
    if is_torch_module(model):
        keys = replaceable(model)
        found = [layer for layer in found if layer.key in keys]
    if layers is None:
        found = [layer for layer in found if in_blocks(layer.key)] or found
    if not found:
        got = f"{source.name}, {counted(len(source.layers), 'layer')} of other kinds"
        needed = "have linear layers that two factors can make smaller"
        raise ArgumentValueError(function, "model", needed, got)
    return found


def in_blocks(key: str) -> bool:
    """Tell whether a module with a number holds the parameter: ``"encoder.layer.3.fc.weight"``."""
    return any(part.isdigit() for part in key.split(".")[:-1])


def rows_are_outputs(layer: Layer) -> bool:
    """Tell whether a row of the stored matrix is what makes one output, as in PyTorch."""
    axes = layer.axes or KINDS[layer.kind].axes
    return axes.index(OUT) < axes.index(IN)


def check_grams(
    function: str, grams: object, layers: Sequence[Layer]
) -> dict[str, FloatArray] | None:
    """Return S of each of these layers by key, the Cholesky factor of its inputs' second moments.

    They are damped before. A layer whose inputs are all zero is left out; None without `grams`.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If they are no mapping to positive semidefinite matrices of numbers, or one is missing.
    """
    if grams is None:
        return None
    if not isinstance(grams, Mapping):
        got = f"an object of type {type(grams).__name__}"
        raise ArgumentTypeError(function, "grams", "be a mapping", got, "input_grams makes it")
    checked = {}
    for layer in layers:
        G = grams.get(layer.key, grams.get(layer.name))
        if G is None:
            hint = "input_grams leaves out what no sample reaches; choose with layers"
            raise ArgumentValueError(
                function, "grams", f"have {layer.key!r}", f"{len(grams)} others", hint
            )
        G = as_host(G, function=function, argument="grams").to_float64()
        n = layer.shape[1 if rows_are_outputs(layer) else 0]
        if G.shape != (n, n) or not np.isfinite(G).all():
            got = f"shape {G.shape}" if G.shape != (n, n) else "NaN or infinity"
            needed = f"be finite and of shape ({n}, {n}) for {layer.key!r}"
            raise ArgumentValueError(function, "grams", needed, got)
        if (
            np.abs(G - G.T).max() > _ASYMMETRY * np.abs(G).max()
        ):  # of which Cholesky would read half
            needed = f"hold symmetric matrices, as for {layer.key!r}"
            raise ArgumentValueError(function, "grams", needed, "one that is not")
        S = _root(function, G)
        if S is not None:
            checked[layer.key] = S
    return checked


def _root(function: str, G: FloatArray) -> FloatArray | None:
    """Return the Cholesky factor of damped second moments; None if they are zero."""
    mean = float(np.trace(G)) / len(G)
    if mean == 0.0:
        return None
    damped = G + DAMPING * mean * np.eye(len(G))
    try:
        S = run_aside(lambda: np.linalg.cholesky(damped), len(G) ** 3 / 3)
    except np.linalg.LinAlgError:
        needed = "hold positive semidefinite matrices"
        raise ArgumentValueError(function, "grams", needed, "another") from None
    return np.asarray(S, dtype=np.float64)


def factors(W: FloatArray, rank: int, S: FloatArray | None) -> tuple[FloatArray, FloatArray] | None:
    """Return B and A of this rank with ``B @ A`` as near to W as can be.

    Parameters
    ----------
    W : ndarray of float64, shape (out, in)
        Weight.
    rank : int
        At most the shorter side.
    S : ndarray of float64, shape (in, in), or None
        Of `check_grams`: near is then what W does to the inputs.

    Returns
    -------
    (ndarray, ndarray) or None
        B (out, rank) and A (rank, in), with ``B.T @ B == A @ A.T`` diagonal: the singular values of
        the product. None if W is not finite.
    """
    top = svd_topk(W if S is None else W @ S, rank)
    if top.status is not Status.OK:
        return None
    if S is None:
        s, U, Vt = top.s, top.U, top.V.T
    else:
        # The best product is U U^T W, with the leading directions U of what comes out.
        inner = top.U.T @ W
        left, s, Vt = run_aside(
            lambda: np.linalg.svd(inner, full_matrices=False), 10.0 * rank * inner.size
        )
        U = top.U @ left
    root = np.sqrt(s)
    return U * root, root[:, None] * Vt
