"""Child-Tuning's preparation in numpy: Fisher scores from gradients, masks from scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def fisher(grads: list[Array], max_grad_norm: float | None) -> Array:
    """Mean over batches of the squared gradient, each clipped to a norm first."""
    total = np.zeros(grads[0].shape)
    for grad in grads:
        g = grad.astype(np.float64)
        norm = math.sqrt((g * g).sum())
        total += (g if max_grad_norm is None else g * min(1.0, max_grad_norm / (norm + 1e-6))) ** 2
    return total / len(grads)


def ascending_index(size: int, p: float) -> int:
    """Position of the threshold: ceil((1 - p)(N - 1)), where 1e-15 N is rounding error."""
    position = (1.0 - p) * (size - 1)
    return max(math.ceil(position - 1e-15 * size), 0)


def top(scores: Array, p: float) -> Array:
    """Every element that reaches the k-th largest, k = N - ceil((1 - p)(N - 1))."""
    k = scores.size - ascending_index(scores.size, p)
    return np.asarray(scores >= np.sort(scores, axis=None)[::-1][k - 1])
