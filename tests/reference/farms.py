"""FARMS: eigenvalues of sub-matrices on a grid, pooled (Hu et al., ICML 2025)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def starts(side: int, length: int, count: int) -> list[int]:
    """min(i * step, side - length) for i = 0..count-1, each once."""
    room = side - length
    step = max(1, room // (count - 1)) if count > 1 else 1
    return sorted({min(i * step, room) for i in range(count)})


def pooled(W: Array, window: int, count: int, Q: float) -> Array:
    """Ascending squared singular values of all windows of window x int(window Q) entries."""
    rows, cols = W.shape
    height, width = window, int(window * Q)
    shrink = min(1.0, rows / height, cols / width)
    if shrink < 1.0:
        height, width = int(height * shrink), int(width * shrink)
    values = [
        np.linalg.svd(W[r : r + height, c : c + width], compute_uv=False) ** 2
        for r in starts(rows, height, count)
        for c in starts(cols, width, count)
    ]
    return np.sort(np.concatenate(values))
