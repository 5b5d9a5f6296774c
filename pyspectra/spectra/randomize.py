"""Randomised spectra: the same entries in random order, and what stands out even then.

References
----------
Martin, Mahoney, "Implicit self-regularization in deep neural networks", JMLR 22 (2021).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray, as_host
from pyspectra._support.arguments import check_seed
from pyspectra._support.random import Purpose, random_key
from pyspectra.errors import ArgumentValueError
from pyspectra.spectra import marchenko_pastur
from pyspectra.spectra.aside import run_aside
from pyspectra.spectra.eigenvectors import eigh
from pyspectra.spectra.outliers import own_tail
from pyspectra.types import FloatArray, MPFit, Status, Value

# WeightWatcher pools this many permutations where one has few eigenvalues.
FEW_EVALS = 100
REPLICAS = 5

# The entries of a trap are the fewest that carry this share of its singular value.
TRAP_SHARE = 0.5

# Between these, eigenvalues (sums of squares, and their sum) are normal numbers.
LEAST_ENTRY, LARGEST_ENTRY = 1e-145, 1e145


@dataclass(frozen=True, eq=False)
class Randomized(Value):
    """Spectra of a layer whose entries were permuted at random within each matrix.

    Attributes
    ----------
    evals : ndarray of float64, shape (n,)
        Ascending eigenvalues of one permutation of every matrix.
    all_evals : ndarray of float64
        Eigenvalues of all permutations together: 5 for layers of fewer than 100, else 1.
    mp : MPFit
        Marchenko-Pastur fit of `evals`. Its spikes are correlation traps: a few entries so large
        that they make a direction of their own wherever they stand, and that the tail of the other
        entries does not explain (`outliers`); besides them the means of matrices.
    n_means : int
        How many of these spikes are the means of matrices, which no order dissolves.
    """

    evals: FloatArray
    all_evals: FloatArray = field(repr=False)
    mp: MPFit
    n_means: int = 0


@dataclass(frozen=True)
class Trap:
    """A direction that random order does not dissolve, and the entries that make it.

    Attributes
    ----------
    eigenvalue : float
        Eigenvalue of the permuted matrix, above `threshold`.
    threshold : float
        What the largest eigenvalue of a random matrix of this bulk exceeds with probability 0.01.
    rows, cols : tuple of int
        Positions in W of the fewest entries that carry half of the singular value, by descending
        share. One entry or a handful for outliers; very many where the entries have a mean.
    values : tuple of float
        The entries there.
    shares : tuple of float
        ``u_i W_ij v_j / s``, of the singular value s and its vectors u and v.
    removable : tuple of float
        ``s u_i v_j``, the part of each entry that the trap accounts for.
    """

    eigenvalue: float
    threshold: float
    rows: tuple[int, ...]
    cols: tuple[int, ...]
    values: tuple[float, ...] = field(repr=False)
    shares: tuple[float, ...] = field(repr=False)
    removable: tuple[float, ...] = field(repr=False)


def permutation_key(seed: int, name: str, matrix: int, replica: int = 0) -> int:
    """64-bit key of a permutation: it depends on nothing but these, no order and no threads."""
    return random_key(Purpose.PERMUTATION, seed, name, matrix, replica)


def n_replicas(n_evals: int) -> int:
    """How many permutations a layer of so many eigenvalues gets."""
    return REPLICAS if n_evals < FEW_EVALS else 1


def randomized(
    replicas: Sequence[FloatArray], N: int, M: int, load: Callable[[], Sequence[HostArray]]
) -> Randomized:
    """Put together the ascending spectra of the permutations of one layer.

    `load` reads its matrices again, where something stands out and the entries must explain it.
    """
    together = replicas[0] if len(replicas) == 1 else np.sort(np.concatenate(replicas))
    fit = marchenko_pastur.fit(replicas[0], N, M, mp="robust", test=False)
    if fit.n_spikes < 1:
        return Randomized(replicas[0], together, fit)
    tail = own_tail(load())
    fit = marchenko_pastur.fit(
        replicas[0], N, M, mp="robust", test=False, kurtosis=tail.kurtosis, reach=tail.reach
    )
    return Randomized(replicas[0], together, fit, min(tail.means, fit.n_spikes))


def find_traps(W: Any, *, seed: int = 0) -> tuple[Trap, ...]:
    """Correlation traps of a matrix, and which of its entries carry them.

    Parameters
    ----------
    W : array or tensor, shape (rows, cols)
        float16, bfloat16, float32 or float64; never written to.
    seed : int
        Seed of the random permutation of its entries.

    Returns
    -------
    tuple of Trap
        The traps by descending eigenvalue; none if the permuted matrix looks random.

    Raises
    ------
    TypeError, ValueError
        If `W` is not a finite real floating-point matrix with entries, the largest of them between
        1e-145 and 1e145 (or 0), or `seed` not an integer in [0, 2^64).

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> ps.find_traps(W)
    ()
    >>> W[7, 3] = 80.0
    >>> (trap,) = ps.find_traps(W)
    >>> trap.rows, trap.cols, trap.values
    ((7,), (3,), (80.0,))
    """
    seed = check_seed("find_traps", "seed", seed)
    host = as_host(W, function="find_traps", argument="W")
    if host.ndim != 2 or min(host.shape) == 0:
        got = f"shape {host.shape}"
        raise ArgumentValueError("find_traps", "W", "be a matrix with entries", got)
    values = host.to_float64()
    if not np.isfinite(values).all():
        raise ArgumentValueError("find_traps", "W", "be finite", "NaN or infinity")
    if not has_squares(values):
        got = f"entries up to {np.max(np.abs(values)):g}"
        raise ArgumentValueError("find_traps", "W", "have squares in float64's range", got)
    return locate_traps(values, permutation_key(seed, "find_traps", 0))


def has_squares(W: FloatArray) -> bool:
    """Tell whether the eigenvalues of a finite matrix are normal numbers, or it is zero."""
    largest = float(np.max(np.abs(W)))
    return LEAST_ENTRY < largest < LARGEST_ENTRY or largest == 0.0


def locate_traps(W: FloatArray, key: int) -> tuple[Trap, ...]:
    """`find_traps` of a finite float64 matrix, for one permutation."""
    X = ops.permute(HostArray(W, "float64"), key)
    evals, status = ops.eigvals(ops.gram([X]))
    if status[0] is not Status.OK:
        return ()
    fit = marchenko_pastur.fit(
        np.maximum(evals[0], 0.0), max(W.shape), min(W.shape), mp="robust", test=False
    )
    if fit.n_spikes < 1:
        return ()
    # The same key moves indices where it moved the entries.
    index = np.arange(W.size, dtype=np.float64).reshape(W.shape)
    origin = ops.permute(HostArray(index, "float64"), key).data.astype(np.int64).ravel()
    traps = []
    for s, u, v in _top(X, fit.n_spikes):
        make = functools.partial(_trap, X.data, origin, W.shape, fit, s, u, v)
        traps.append(run_aside(make, 100.0 * W.size))  # which sorts all entries
    return tuple(traps)


def _top(X: HostArray, k: int) -> list[tuple[float, FloatArray, FloatArray]]:
    """The k largest singular values with their vectors, descending."""
    vectors = eigh(ops.gram([X])[0])[1][:, -k:]
    tall = X.data if X.shape[0] >= X.shape[1] else X.data.T
    out = []
    for short in vectors.T[::-1]:
        long = tall @ short
        s = float(np.linalg.norm(long))
        u, v = (long / s, short) if tall is X.data else (short, long / s)
        out.append((s, u, v))
    return out


def _trap(
    X: FloatArray,
    origin: np.ndarray,
    shape: tuple[int, ...],
    fit: MPFit,
    s: float,
    u: FloatArray,
    v: FloatArray,
) -> Trap:
    model = s * np.outer(u, v)
    shares = ((X * model) / s**2).ravel()
    order = np.argsort(-shares, kind="stable")
    carried = np.cumsum(shares[order])
    carriers = order[: int(np.searchsorted(carried, TRAP_SHARE)) + 1]
    rows, cols = np.unravel_index(origin[carriers], shape)
    return Trap(
        eigenvalue=s**2,
        threshold=fit.spike_threshold,
        rows=tuple(rows.tolist()),
        cols=tuple(cols.tolist()),
        values=tuple(X.ravel()[carriers].tolist()),
        shares=tuple(shares[carriers].tolist()),
        removable=tuple(model.ravel()[carriers].tolist()),
    )
