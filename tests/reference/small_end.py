"""Inverse iteration with a block of vectors, as the textbook has it.

References
----------
Parlett, "The symmetric eigenvalue problem" (1998), 4.2 and 14.2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def inverse_steps(lower: Array, shift: float, X: Array, steps: int) -> Array:
    """Return orth(X) after so many steps X := orth((G + shift I)^-1 X); G by its lower triangle."""
    G = lower + np.tril(lower, -1).T + shift * np.eye(len(lower))
    X = np.linalg.qr(X)[0]
    for _ in range(steps):
        X = np.linalg.qr(np.linalg.solve(G, X))[0]
    return X
