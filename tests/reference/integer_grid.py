"""Rounding to integers times a scale, weight by weight: `pyspectra.weights.integer_grid`.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", CVPR 2018.
"""

from __future__ import annotations

import numpy as np


def rounded(weights: list[float], bits: int, *, symmetric: bool) -> list[float]:
    """Round weights that share one scale."""
    if symmetric:
        most = 2 ** (bits - 1) - 1
        scale = max(abs(w) for w in weights) / most
        if scale == 0.0:
            return [0.0] * len(weights)
        return [scale * min(max(np.rint(w / scale), -most), most) for w in weights]
    low, high = min(*weights, 0.0), max(*weights, 0.0)
    scale = (high - low) / (2**bits - 1)
    if scale == 0.0:
        return [0.0] * len(weights)
    zero = np.rint(-low / scale)
    return [scale * (min(max(np.rint(w / scale) + zero, 0), 2**bits - 1) - zero) for w in weights]


def quantised(
    W: np.ndarray, bits: int, granularity: str, *, block: int = 128, symmetric: bool = True
) -> np.ndarray:
    """Round a tensor (out, in, *kernel); of each output the inputs come first, then positions."""
    out = np.empty(W.shape)
    if granularity == "tensor":
        values = rounded([float(w) for w in W.ravel()], bits, symmetric=symmetric)
        return np.array(values).reshape(W.shape)
    for i, channel in enumerate(W):
        row = [float(w) for w in channel.ravel()]
        size = len(row) if granularity == "channel" else block
        found: list[float] = []
        for begin in range(0, len(row), size):
            found += rounded(row[begin : begin + size], bits, symmetric=symmetric)
        out[i] = np.array(found).reshape(channel.shape)
    return out
