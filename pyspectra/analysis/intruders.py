"""Intruder dimensions of a model: what an adapter or a fine-tuning added, layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyspectra._support.arguments import check_count, check_number
from pyspectra.analysis.relation import intruders_between
from pyspectra.errors import ArgumentValueError, called_as
from pyspectra.spectra.intruders import EPSILON, TOP_K, Intruders, intruders
from pyspectra.weights import open_weights
from pyspectra.weights.adapted import Adapted, adapted_layers
from pyspectra.weights.pairing import pair_layers

__all__ = ["intruder_dimensions"]

FUNCTION = "intruder_dimensions"


def intruder_dimensions(
    base: Any, tuned: Any, *, top_k: int = TOP_K, epsilon: float = EPSILON
) -> dict[str, Intruders]:
    """Find the intruder dimensions of each layer of an adapter, or of a tuned model.

    They are leading singular directions of the tuned weight that resemble no direction of the base:
    low-rank adapters make them and full fine-tuning rarely does; they go with forgetting.

    Parameters
    ----------
    base : nn.Module, mapping, WeightSource or path
        The model before, as for `pyspectra.analyze`. A PEFT model holds it too.
    tuned : nn.Module, mapping, WeightSource or path
        What was trained: a model, or an adapter of LoRA pairs (PEFT's folder, model, file or state
        dict; a folder or a model knows their scale, in a file or state dict it counts as 1).
    top_k : int
        How many leading directions of each tuned matrix are looked at.
    epsilon : float
        In (0, 1]: a direction whose ``|cos|`` with every left singular vector of the base is below
        this is an intruder.

    Returns
    -------
    dict of str to Intruders
        By the name of the base's layer. Left out are layers of several matrices (convolutions,
        experts), with fewer than ``1 / epsilon**2`` rows or columns, that are zero or not finite.

    Raises
    ------
    TypeError, ValueError, FormatError, FileNotFoundError
        If an argument is of the wrong kind or range, a model cannot be opened, or no layer of
        `tuned` belongs to one of `base`.

    Notes
    -----
    Rows are what comes out of a layer, as in the paper: where a weight is stored the other way
    (embeddings, Conv1D of GPT-2), PEFT's ``reduce_intruder_dimension`` compares what goes in.
    ``W + B A`` is not formed, and of large matrices only the leading singular vectors are computed;
    `pyspectra.svd_topk` and ``docs/topk.md`` tell how they decide, and they fall back to all of
    them where they do not.

    References
    ----------
    Shuttleworth, Andreas, Torralba, Sharma, "LoRA vs full fine-tuning: an illusion of equivalence"
    (2024), arXiv 2410.21228.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> rng = np.random.default_rng(0)
    >>> W, B, A = (rng.standard_normal(shape) for shape in ((60, 40), (60, 1), (1, 40)))
    >>> adapter = {"fc.lora_A.weight": A, "fc.lora_B.weight": B}
    >>> found = ps.intruder_dimensions({"fc.weight": W}, adapter)
    >>> found["fc"].indices, found["fc"].n
    ((0,), 1)
    """
    k = check_count(FUNCTION, "top_k", top_k)
    epsilon = check_number(FUNCTION, "epsilon", epsilon, above=0.0, most=1.0)
    with called_as(FUNCTION, model_or_path="base"):
        before = open_weights(base)
    with before, called_as(FUNCTION, model_or_path="tuned"):
        after = open_weights(tuned)
        with after:
            adapted = list(
                adapted_layers(before, after, tuned, function=FUNCTION, argument="tuned")
            )
            if adapted:
                found = [(x.layer.name, _of_adapter(x, k, epsilon)) for x in adapted]
            else:
                shared = pair_layers(before, after).pairs
                if not shared:
                    got = f"{before.name} and {after.name}"
                    raise ArgumentValueError(FUNCTION, "tuned", "share a layer with 'base'", got)
                found = [
                    (x.name, intruders_between(x, y, k=k, epsilon=epsilon))
                    for x, y in shared
                    if x.part_of is None
                ]
    return {name: intruders for name, intruders in found if intruders is not None}


def _of_adapter(adapted: Adapted, k: int, epsilon: float) -> Intruders | None:
    matrices = adapted.matrices()
    if matrices is None:
        return None
    W, B, A = matrices
    with np.errstate(all="ignore"):  # infinities are found where the pair is multiplied
        return intruders(W, (adapted.scale * B, A), k=k, epsilon=epsilon)
