"""Removal of correlation traps: entries so large that they make directions of their own."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyspectra._support.arguments import check_seed
from pyspectra.edit.apply import Destination, apply
from pyspectra.edit.documentation import documented
from pyspectra.edit.matrices import by_matrices, editable
from pyspectra.spectra import randomize
from pyspectra.types import FloatArray
from pyspectra.weights import Layer

# Each round removes part of the entries that make the traps; what is left may be a smaller trap.
MAX_ROUNDS = 20
# Outliers are few: of the entries that are not zero, no larger share than this.
OUTLIERS = 0.05


@documented
def remove_traps(
    model: Any,
    *,
    layers: Sequence[int | str] | int | str | None = None,
    seed: int = 0,
    inplace: bool = False,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool | str = "auto",
) -> Any:
    """Remove correlation traps: take from the entries that carry them what makes the trap.

    Parameters
    ----------
    {model}
    layers : int, str or sequence of them, optional
        Which layers, as in `pyspectra.analyze`; all by default.
    seed : int
        Seed of the random permutations that show the traps, in [0, 2^64).
    {destination}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    A trap is a spike of the spectrum after the entries have been permuted at random
    (`pyspectra.find_traps`). The fewest entries that carry half of it lose ``s u_i v_j``, their
    part of the spike; that is repeated, with a new permutation each time, until no trap is found
    (at most 20 times). All other entries stay as they are, and so does the genuine structure of
    the matrix: in random order it is no spike. The mean of the entries, which is a spike in any
    order, is structure too, carried by all entries alike: it is subtracted before traps are sought.
    A matrix whose traps are more than 5 % of its entries that are not zero (a sparse one, the
    identity) stays as it is: they are the matrix, not outliers of it. Likewise entries that crowd
    in one row or column (an outlier channel), which are a direction of the matrix in its own order,
    and matrices that `pyspectra.find_traps` refuses (not finite, or without squares in float64).

    {notes}

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> W[7, 3] = 80.0
    >>> clean = ps.remove_traps({"fc.weight": W})["fc.weight"]
    >>> bool(abs(clean[7, 3]) < 10), int(np.count_nonzero(clean != W))
    (True, 1)
    """

    def edit(layer: Layer, matrices: Sequence[FloatArray]) -> Sequence[FloatArray] | None:
        edited = [_without_traps(W, layer.name, i, seed) for i, W in enumerate(matrices)]
        if all(new is old for new, old in zip(edited, matrices, strict=True)):
            return None
        return edited

    seed = check_seed("remove_traps", "seed", seed)
    return apply(
        "remove_traps",
        model,
        lambda source, stored: by_matrices(editable("remove_traps", source, stored, layers), edit),
        Destination(inplace, out, overwrite, progress),
    )


def _without_traps(W: FloatArray, name: str, matrix: int, seed: int) -> FloatArray:
    if not randomize.has_squares(W):
        return W
    rows, cols = np.arange(W.shape[0]), np.arange(W.shape[1])
    while len(rows) and len(cols):
        part = W[np.ix_(rows, cols)]
        clean = _cleaned(part, name, matrix, seed)
        changed = clean != part
        crowded = [_crowded(np.sum(changed, axis=axis)) for axis in (1, 0)]
        if any(np.any(c) for c in crowded):
            rows, cols = rows[~crowded[0]], cols[~crowded[1]]
            continue
        if 0 < np.count_nonzero(changed) <= OUTLIERS * np.count_nonzero(part):
            W = W.copy()
            W[np.ix_(rows, cols)] = clean
        break
    return W


def _cleaned(W: FloatArray, name: str, matrix: int, seed: int) -> FloatArray:
    """Return W without what makes its traps, whatever makes them."""
    for round_ in range(MAX_ROUNDS):
        key = randomize.permutation_key(seed, name, matrix, round_)
        centred = W - np.mean(W)
        # A constant matrix leaves the rounding of its mean.
        traps = randomize.locate_traps(centred, key) if np.ptp(W) > 0.0 else ()
        if not traps:
            break
        W = W.copy()
        for trap in traps:
            W[list(trap.rows), list(trap.cols)] -= trap.removable
    return W


def _crowded(count: np.ndarray) -> np.ndarray:
    """Rows (or columns) that hold more of the entries than chance gives."""
    mean = float(np.mean(count))
    # A Poisson variable of mean 1 exceeds this bound with probability 1e-8, one of smaller mean
    # less often.
    return np.asarray(count > mean + 6.0 * math.sqrt(mean) + 3.0)
