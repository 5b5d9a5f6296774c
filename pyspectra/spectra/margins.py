"""What the sizes of the entries of a matrix fix of its spectrum, whatever their signs.

Of a matrix whose entries are independent and centred, each with a distribution of its own (rows and
columns of different scales, zeros, heavy tails), this is all there is: see `sign_test`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyspectra._arrays import HostArray
from pyspectra.types import FloatArray

# Rows are converted to float64 in blocks of this many entries, which a core's cache holds.
BLOCK = 2**15


@dataclass(frozen=True)
class Margins:
    """Sums over the entries of the matrices of a layer, of one shape.

    Attributes
    ----------
    rows, cols, count : int
        Shape of each matrix as stored, and number of matrices.
    zero_rows, zero_cols : int
        Of all matrices together.
    total, square, quartic : float
        Sums of w, w^2 and w^4.
    row_squares, col_squares : float
        Sums of the squares of ``r_k = sum_i w_ki^2`` and of ``c_i = sum_k w_ki^2``.
    cycles : float
        About ``sum B_ki B_kj B_lj B_li`` over i != j, k != l, for B = w^2: that of the matrix of
        rank one with the same margins.
    row_totals, col_totals : float
        Sums of the squares of the sums of each row and column.
    diagonal, diagonal_square : float
        Sums of w and of w^2 over the main diagonal, of the matrix whose diagonal is largest.
    """

    rows: int
    cols: int
    count: int
    zero_rows: int
    zero_cols: int
    total: float
    square: float
    quartic: float
    row_squares: float
    col_squares: float
    cycles: float
    row_totals: float
    col_totals: float
    diagonal: float
    diagonal_square: float

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.rows * self.cols * self.count

    @property
    def expected(self) -> float:
        """The mean of the sum of squared eigenvalues over all signs of the entries, exact."""
        return self.row_squares + self.col_squares - self.quartic

    @property
    def kurtosis(self) -> float:
        """Excess kurtosis about zero of all entries; NaN for a zero matrix."""
        if not self.square > 0.0:
            return math.nan
        return self.quartic * self.size / self.square**2 - 3.0


def margins(matrices: Sequence[HostArray]) -> Margins:
    """Return the margins of equally shaped matrices; NaN where an entry is not finite."""
    parts = [_of_one(X) for X in matrices]
    rows, cols = matrices[0].shape
    largest = max(parts, key=lambda part: abs(part["diagonal"]))
    summed = {name: sum(part[name] for part in parts) for name in parts[0]}
    summed |= {name: largest[name] for name in ("diagonal", "diagonal_square")}
    zero_rows, zero_cols = int(summed.pop("zero_rows")), int(summed.pop("zero_cols"))
    return Margins(rows, cols, len(matrices), zero_rows, zero_cols, **summed)


def _of_one(X: HostArray) -> dict[str, float]:
    rows, cols = X.shape
    step = max(1, BLOCK // max(1, cols))
    r, row_sums = np.empty(rows), np.empty(rows)
    c, col_sums = np.zeros(cols), np.zeros(cols)
    quartic = 0.0
    with np.errstate(all="ignore"):  # what is not finite is reported as such by the spectrum
        for first in range(0, rows, step):
            part = slice(first, first + step)
            w = np.ascontiguousarray(X.view(part).to_float64())
            row_sums[part] = w.sum(1)
            col_sums += w.sum(0)
            w *= w
            r[part] = w.sum(1)
            c += w.sum(0)
            # Not np.vdot: BLAS wakes its threads for each block, which costs more than the block.
            quartic += float(np.square(w, out=w).sum())
        diagonal = HostArray(np.ascontiguousarray(np.diagonal(X.data)), X.dtype).to_float64()
        return {
            "total": float(row_sums.sum()),
            "square": float(r.sum()),
            "quartic": quartic,
            "row_squares": float(r @ r),
            "col_squares": float(c @ c),
            "cycles": _cycles(r, c),
            "row_totals": float(row_sums @ row_sums),
            "col_totals": float(col_sums @ col_sums),
            "zero_rows": float(np.count_nonzero(r == 0.0)),
            "zero_cols": float(np.count_nonzero(c == 0.0)),
            "diagonal": float(diagonal.sum()),
            "diagonal_square": float(diagonal @ diagonal),
        }


def _cycles(r: FloatArray, c: FloatArray) -> float:
    """The sum over i != j, k != l of (r_k r_l c_i c_j)^2 / total^4."""
    total = float(r.sum())
    if not total > 0.0:
        return 0.0
    p, q = (r / total) ** 2, (c / total) ** 2
    pairs = (float(p.sum()) ** 2 - float(p @ p)) * (float(q.sum()) ** 2 - float(q @ q))
    return max(pairs, 0.0) * total**4
