"""Rounding to integers times a scale: what a model loses that is stored in fewer bits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pyspectra._support.arguments import shown
from pyspectra.edit.apply import Destination, apply
from pyspectra.edit.documentation import documented
from pyspectra.edit.matrices import Recompute, Shapes, by_matrices, editable, of_named
from pyspectra.errors import ArgumentTypeError
from pyspectra.weights import WeightSource
from pyspectra.weights.integer_grid import check_bits, checked_grid

__all__ = ["quantize"]


@documented
def quantize(
    model: Any,
    bits: int | Mapping[str, int] = 8,
    *,
    granularity: str = "channel",
    block: int | None = None,
    symmetric: bool = True,
    layers: Sequence[int | str] | int | str | None = None,
    inplace: bool = False,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool | str = "auto",
) -> Any:
    """Round weight matrices to what integers of a few bits can hold; their type stays.

    It shows what quantisation costs, in any model and at any number of bits. It saves no memory:
    that takes a library with kernels for integers, such as torchao (``docs/quantisation.md``).

    Parameters
    ----------
    {model}
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
    {destination}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    Symmetric: ``s = max |w| / (2^(b-1) - 1)`` and ``w' = s round(w / s)``. Nothing is clipped, and
    the largest weight of each scale stays as it is. Asymmetric:
    ``s = (max(w, 0) - min(w, 0)) / (2^b - 1)``, ``z = round(-min(w, 0) / s)`` and
    ``w' = s (clip(round(w / s) + z, 0, 2^b - 1) - z)``. Halves go to the even integer. Zero stays
    zero in both. These are the formulas of torch's ``fake_quantize_per_channel_affine`` and of
    torchao's ``MappingType.SYMMETRIC`` from ``-(2^(b-1) - 1)`` on and ``ASYMMETRIC``.

    Points of the grid are no numbers of bfloat16, say, so that there they are missed by up to
    0.4 %. Biases and vectors stay, and so does a layer that is not finite.

    {notes}

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

    def changes(source: WeightSource, stored: Shapes) -> Mapping[str, Recompute]:
        by_name = isinstance(wanted, dict)
        found = editable("quantize", source, stored, layers, embeddings=by_name)
        if not isinstance(wanted, dict):
            return by_matrices(found, lambda x, Ws: grid.rounded(x, Ws, wanted))
        own = of_named("quantize", "bits", source, found, wanted)
        named = [layer for layer in found if layer.key in own]
        return by_matrices(named, lambda x, Ws: grid.rounded(x, Ws, own[x.key]))

    return apply("quantize", model, changes, Destination(inplace, out, overwrite, progress))


def _bits(bits: object) -> int | dict[str, int]:
    if not isinstance(bits, Mapping):
        return check_bits("quantize", "bits", bits)
    found = {}
    for name, number in bits.items():
        if not isinstance(name, str):
            raise ArgumentTypeError("quantize", "bits", "hold numbers by name", shown(name))
        found[name] = check_bits("quantize", "bits", number)
    return found
