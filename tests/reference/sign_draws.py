"""Two statistics of the spectrum of matrices whose entries have random signs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def sign_draws(stack: Array, bits: npt.NDArray[np.uint8], draws: int, centred: bool) -> Array:
    """Return what ``csrc/linalg/sign_draws.hpp`` does, (draws, 2), from singular values."""
    taken = np.unpackbits(bits)[: draws * stack.size].reshape(draws, *stack.shape)
    found = []
    for minus in taken:
        flipped = np.where(minus == 1, -stack, stack)
        evals = []
        for W in flipped:
            left = _centring(len(W)) @ W @ _centring(W.shape[1]) if centred else W
            evals.append(np.linalg.svd(left, compute_uv=False) ** 2)
        together = np.concatenate(evals)
        total = together.sum()
        found.append([np.sum(together**2) / total**2, together.max() / total])
    return np.array(found)


def _centring(n: int) -> Array:
    """The projection that takes means away."""
    return np.eye(n) - 1.0 / n
