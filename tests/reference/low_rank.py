"""Low-rank starts, truncation and ranks by whole decompositions, inverses and enumeration.

References
----------
Meng et al. (2024), arXiv 2404.02948, equations 2 to 4 (PiSSA). Buyukakyuz (2024), arXiv 2406.01775,
algorithm 1 (OLoRA). Wang et al. (2024), arXiv 2403.07378, section 3.1 (SVD-LLM's whitening).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def pissa(W: Array, r: int, scaling: float) -> tuple[Array, Array]:
    """A and B: the r leading triplets, the scaling divided out of their singular values."""
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    root = np.diag(np.sqrt(s[:r] / scaling))
    return root @ Vt[:r], U[:, :r] @ root


def olora(W: Array, r: int) -> tuple[Array, Array]:
    """A and B: the first r rows of R and columns of Q."""
    Q, R = np.linalg.qr(W)
    return R[:r], Q[:, :r]
