"""Low-rank starts, truncation and ranks by whole decompositions, inverses and enumeration.

References
----------
Meng et al. (2024), arXiv 2404.02948, equations 2 to 4 (PiSSA). Buyukakyuz (2024), arXiv 2406.01775,
algorithm 1 (OLoRA). Wang et al. (2024), arXiv 2403.07378, section 3.1 (SVD-LLM's whitening).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

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


def truncated(W: Array, rank: int) -> Array:
    """The product of this rank next to W."""
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    return np.asarray((U[:, :rank] * s[:rank]) @ Vt[:rank])


def truncated_for_inputs(W: Array, rank: int, G: Array) -> Array:
    """SVD-LLM: the truncated W S, with S S^T = G taken out again."""
    S = np.linalg.cholesky(G)
    return np.asarray(truncated(W @ S, rank) @ np.linalg.inv(S))


def damped(G: Array, damping: float) -> Array:
    """Second moments with a part of the mean of their diagonal on it."""
    return G + damping * np.mean(np.diag(G)) * np.eye(len(G))


def parameters(shape: tuple[int, int], rank: int) -> int:
    """What a layer takes at a rank: two factors, or the whole at full rank."""
    return shape[0] * shape[1] if rank == min(shape) else rank * (shape[0] + shape[1])


def errors(s: Array) -> Array:
    """Share of the squares of singular values that is lost at ranks 0, 1, ..., n."""
    squares = np.asarray(s) ** 2
    return np.array([squares[k:].sum() / squares.sum() for k in range(len(s) + 1)])


def least_error(
    spectra: Sequence[Array], shapes: Sequence[tuple[int, int]], budget: float
) -> float:
    """The least sum of errors within the budget, over every choice of ranks."""
    best = np.inf
    for ranks in itertools.product(*(range(1, min(shape) + 1) for shape in shapes)):
        if sum(parameters(n, k) for n, k in zip(shapes, ranks, strict=True)) <= budget:
            best = min(best, sum(errors(s)[k] for s, k in zip(spectra, ranks, strict=True)))
    return float(best)
