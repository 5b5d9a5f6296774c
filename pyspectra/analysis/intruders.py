"""Intruder dimensions of a model: what an adapter or a fine-tuning added, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pyspectra._arrays import is_torch_module
from pyspectra._support.arguments import check_count, check_number
from pyspectra.analysis.relation import as_matrix, intruders_between
from pyspectra.errors import ArgumentValueError, called_as
from pyspectra.spectra.intruders import EPSILON, TOP_K, Intruders, intruders
from pyspectra.weights import Layer, WeightSource, open_weights
from pyspectra.weights.lora import LoraProduct, lora_product
from pyspectra.weights.matricize import matrix_shape
from pyspectra.weights.names import unwrapped_name
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
            pairs = list(_adapted(before, after))
            if pairs:
                found = [
                    (x.name, _of_adapter(x, pair, _scale(pair, tuned), k, epsilon))
                    for x, pair in pairs
                ]
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


def _adapted(before: WeightSource, after: WeightSource) -> Iterator[tuple[Layer, LoraProduct]]:
    """Yield the layers of the base with the LoRA pairs that belong to them."""
    named = {
        unwrapped_name(x.name)[0]: x
        for x in before.layers
        if lora_product(x) is None and x.part_of is None
    }
    for layer in after.layers:
        product = lora_product(layer)
        if product is None:
            continue
        module = unwrapped_name(layer.name.partition("[")[0])[0]
        found = named.get(module)
        if found is None:  # one of the two is a part of the other's model
            fits = [x for name, x in named.items() if _ends_with(name, module)]
            found = fits[0] if len(fits) == 1 else None
        if found is not None and matrix_shape(found)[2] == 1:
            yield found, product


def _ends_with(one: str, other: str) -> bool:
    return one.endswith(f".{other}") or other.endswith(f".{one}")


def _scale(product: LoraProduct, tuned: Any) -> float:
    """Return the factor on ``B @ A``: of a PEFT model its layer has it, not the configuration."""
    module, mark, rest = product.a.key.partition(".lora_")
    if is_torch_module(tuned) and mark:
        scaling = getattr(tuned.get_submodule(module), "scaling", None)
        adapter = rest.split(".")[1] if "." in rest else ""
        if isinstance(scaling, Mapping) and adapter in scaling:
            return float(scaling[adapter])
    return product.factor()


def _of_adapter(
    layer: Layer, product: LoraProduct, scale: float, k: int, epsilon: float
) -> Intruders | None:
    stored = layer.load()
    values = stored.to_float64() if stored.dtype == "bfloat16" else stored.data
    base = as_matrix(layer, values)
    if base.shape != product.shape:
        return None
    A, B = product.a.load().to_float64(), product.b.load().to_float64()
    with np.errstate(all="ignore"):  # infinities are found where the pair is multiplied
        return intruders(base, (scale * B, A), k=k, epsilon=epsilon)
