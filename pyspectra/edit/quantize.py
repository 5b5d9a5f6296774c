"""Rounding to integers times a scale: what a model loses that is stored in fewer bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspectra._support.arguments import shown
from pyspectra.edit.apply import apply
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.types import FloatArray
from pyspectra.weights import Layer, open_weights
from pyspectra.weights.integer_grid import check_bits, checked_grid
from pyspectra.weights.kinds import EMBEDDING

__all__ = ["quantize"]


def quantize(
    model: Any,
    bits: int | Mapping[str, int] = 8,
    *,
    granularity: str = "channel",
    block: int | None = None,
    symmetric: bool = True,
    layers: Sequence[int | str] | int | str | None = None,
    inplace: bool = False,
) -> Any:
    """Round weight matrices to what integers of a few bits can hold; their type stays.

    It shows what quantisation costs, in any model and at any number of bits. It saves no memory:
    that takes a library with kernels for integers, such as torchao (``docs/quantisation.md``).

    Parameters
    ----------
    model : nn.Module or mapping
        A model or a state dict (torch or numpy values).
    bits : int or mapping of str to int
        Bits of an integer, from 2 to 8; or those of each layer, by the name of the layer or of its
        parameter: layers that are not named stay.
    granularity : {"tensor", "channel", "block"}
        What shares a scale: the whole tensor, each output channel, or each run of `block` weights
        of an output channel. An expert has channels of its own; of an embedding, each token.
    block : int, optional
        Weights in a block, with ``granularity="block"`` only; 128 by default.
    symmetric : bool
        Integers from ``-(2^(bits-1) - 1)`` to ``2^(bits-1) - 1``; otherwise ``2^bits`` of them
        that reach from the least weight, or zero, to the largest, or zero.
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
    Symmetric: ``s = max |w| / (2^(b-1) - 1)`` and ``w' = s round(w / s)``. Nothing is clipped, and
    the largest weight of each scale stays as it is. Asymmetric:
    ``s = (max(w, 0) - min(w, 0)) / (2^b - 1)``, ``z = round(-min(w, 0) / s)`` and
    ``w' = s (clip(round(w / s) + z, 0, 2^b - 1) - z)``. Halves go to the even integer. Zero stays
    zero in both. These are the formulas of torch's ``fake_quantize_per_channel_affine`` and of
    torchao's ``MappingType.SYMMETRIC`` from ``-(2^(b-1) - 1)`` on and ``ASYMMETRIC``.

    Computed in float64 and rounded to the stored type: points of the grid are no numbers of
    bfloat16, say, so that there they are missed by up to 0.4 %. Biases and vectors stay, and so
    does a layer that is not finite. Tied weights stay tied.

    References
    ----------
    Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-
    only inference", CVPR 2018.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.array([[-0.9, 0.1, 7.0], [0.14, 0.6, -1.4]])
    >>> ps.quantize({"fc.weight": W}, 4)["fc.weight"].round(9)
    array([[-1. ,  0. ,  7. ],
           [ 0.2,  0.6, -1.4]])
    """
    grid = checked_grid("quantize", granularity, block, symmetric)
    wanted = _bits(bits)
    if isinstance(wanted, dict):
        _check_named(model, wanted)

    def edit(layer: Layer, matrices: Sequence[FloatArray]) -> Sequence[FloatArray] | None:
        if isinstance(wanted, dict):
            own = wanted.get(layer.key, wanted.get(layer.name))
        else:
            own = None if layers is None and layer.kind == EMBEDDING.name else wanted
        return None if own is None else grid.rounded(layer, matrices, own)

    return apply("quantize", model, layers, inplace, edit)


def _bits(bits: object) -> int | dict[str, int]:
    if not isinstance(bits, Mapping):
        return check_bits("quantize", "bits", bits)
    found = {}
    for name, number in bits.items():
        if not isinstance(name, str):
            raise ArgumentTypeError("quantize", "bits", "hold numbers by name", shown(name))
        found[name] = check_bits("quantize", "bits", number)
    return found


def _check_named(model: Any, bits: Mapping[str, int]) -> None:
    with called_as("quantize", model_or_path="model"), open_weights(model) as source:
        known = {name for layer in source.layers for name in (layer.key, layer.name)}
    for name in bits:
        if name not in known:
            raise ArgumentValueError("quantize", "bits", "name layers of the model", repr(name))
