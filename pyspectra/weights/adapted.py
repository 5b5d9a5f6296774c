"""Which layer of a model an adapter of LoRA pairs belongs to, and by which factor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pyspectra._arrays import is_torch_module
from pyspectra.errors import ArgumentValueError
from pyspectra.types import FloatArray
from pyspectra.weights.kinds import IN, LINEAR, OUT
from pyspectra.weights.layer import Layer
from pyspectra.weights.lora import LoraProduct, lora_product
from pyspectra.weights.matricize import as_matrix, matrix_shape
from pyspectra.weights.names import unwrapped_name
from pyspectra.weights.source import WeightSource

__all__ = ["Adapted", "adapted_layers"]


@dataclass(frozen=True)
class Adapted:
    """A layer of one matrix and the update ``scale * B @ A`` of it.

    Attributes
    ----------
    layer : Layer
        The layer of the base.
    product : LoraProduct
        The halves of the update.
    scale : float
        The factor on their product.
    """

    layer: Layer
    product: LoraProduct
    scale: float

    def matrices(self) -> tuple[np.ndarray, FloatArray, FloatArray] | None:
        """Read W, B and A, with a row for each of what comes out of the layer; None if B A misfits.

        W is of the stored type, or float64 where that is bfloat16; B and A are float64, without the
        scale.
        """
        stored = self.layer.load()
        values = stored.to_float64() if stored.dtype == "bfloat16" else stored.data
        W = as_matrix(self.layer, values)
        if W.shape != self.product.shape:
            return None
        return W, self.product.b.load().to_float64(), self.product.a.load().to_float64()


def adapted_layers(
    before: WeightSource, after: WeightSource, tuned: Any, *, function: str, argument: str
) -> Iterator[Adapted]:
    """Yield the layers of a base with the LoRA pairs that belong to them.

    Parameters
    ----------
    before, after : WeightSource
        The base and the adapter, which may be one PEFT model.
    tuned : object
        What `after` was opened from: of a PEFT model its layers know the scales.
    function, argument : str
        The public function and its argument `tuned`, for messages.

    Raises
    ------
    ArgumentValueError
        If the adapter belongs to weights that are not those of the base.
    """
    named = {
        unwrapped_name(x.name)[0]: x
        for x in before.layers
        if lora_product(x) is None and x.part_of is None
    }
    found_pairs: list[tuple[Layer, LoraProduct]] = []
    for layer in after.layers:
        product = lora_product(layer)
        if product is None:
            continue
        _check_plain(function, argument, product)
        module = unwrapped_name(layer.name.partition("[")[0])[0]
        found = named.get(module)
        if found is None:  # one of the two is a part of the other's model
            fits = [x for name, x in named.items() if _ends_with(name, module)]
            found = fits[0] if len(fits) == 1 else None
        if found is not None and matrix_shape(found)[2] == 1:
            found_pairs.append((found, product))
    of_module = before.format == "torch_module"  # which knows how its weights are stored
    turned = not of_module and _inputs_come_first(found_pairs)
    for layer, product in found_pairs:
        inputs_first = turned and _plain(layer) and layer.shape == product.shape[::-1]
        as_stored = replace(layer, axes=(IN, OUT)) if inputs_first else layer
        yield Adapted(as_stored, product, _scale(product, tuned))


def _plain(layer: Layer) -> bool:
    return layer.kind == LINEAR.name and not layer.axes


def _inputs_come_first(pairs: Sequence[tuple[Layer, LoraProduct]]) -> bool:
    """Tell whether a file has its linear weights with their inputs first, as those of GPT-2.

    The configuration of the adapter says so, or all shapes that can tell.
    """
    if any(product.config is not None and product.config.inputs_first for _, product in pairs):
        return True
    telling = [
        layer.shape == product.shape[::-1]
        for layer, product in pairs
        if _plain(layer) and product.shape[0] != product.shape[1]
    ]
    return bool(telling) and all(telling)


def _check_plain(function: str, argument: str, product: LoraProduct) -> None:
    """Raise ArgumentValueError if adding the adapter to the base is not what it does."""
    start = "" if product.config is None else product.config.start
    if start:
        requirement = "be an adapter of the base as it is"
        got = f"one that belongs to what init_lora_weights={start!r} has left of it"
        hint = (
            "merge it by peft's merge_and_unload, or let peft make a plain one of it "
            "(save_pretrained with path_initial_model_for_weight_conversion)"
        )
        raise ArgumentValueError(function, argument, requirement, got, hint)
    if product.config is not None and product.config.invoked:
        requirement = "be an adapter that counts for every token"
        got = "an activated LoRA (alora_invocation_tokens), which counts from those tokens on"
        hint = "no weights of the base stand for it: it stays an adapter"
        raise ArgumentValueError(function, argument, requirement, got, hint)


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
