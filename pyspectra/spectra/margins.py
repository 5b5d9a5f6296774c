"""What the sizes of the entries of a matrix fix of its spectrum, whatever their signs.

If entries are independent and centred, each with a distribution of its own (rows and columns of
different scales, zeros, heavy tails), only chance adds to what these sizes fix: see `sign_test`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from pyspectra import ops
from pyspectra._arrays import HostArray

# The compiled sums of each matrix that are added up over matrices; the diagonals are not.
SUMMED = (
    "zero_rows",
    "zero_cols",
    "total",
    "square",
    "quartic",
    "row_squares",
    "col_squares",
    "cycles",
    "row_totals",
    "col_totals",
)
_summed = attrgetter(*SUMMED)


@dataclass(frozen=True)
class Margins:
    """Sums over the entries of the matrices of a layer, of one shape.

    Attributes
    ----------
    rows, cols, count : int
        Shape of each matrix as stored, and number of matrices.
    zero_rows, zero_cols : int
        Rows and columns of zeros in all matrices together.
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
    parts : tuple
        The compiled sums of each matrix, with those of each of its rows and columns.
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
    parts: tuple[Any, ...] = field(default=(), repr=False, compare=False)

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
    """Return the margins of equally shaped matrices; not finite where an entry is not."""
    return _together(ops.margins(matrices), *matrices[0].shape)


def centred_margins(matrices: Sequence[HostArray], plain: Margins) -> tuple[Margins, float]:
    """Return the margins without the means of rows and columns, and what these add to the spectrum.

    Parameters
    ----------
    matrices : sequence of HostArray
    plain : Margins
        Those of the matrices as they are.

    Returns
    -------
    margins : Margins
    reduction : float
        The sum of the squared eigenvalues less that of the centred matrices, good to rounding of
        the former.
    """
    found = ops.centred_margins(matrices, plain.parts)
    centred = _together([part for part, _ in found], *matrices[0].shape)
    return centred, sum(reduction for _, reduction in found)


def _together(parts: Sequence[Any], rows: int, cols: int) -> Margins:
    """The sums of matrices of one shape, added up."""
    widest = max(parts, key=lambda part: abs(part.diagonal))
    columns = zip(*map(_summed, parts), strict=True)
    summed = dict(zip(SUMMED, map(sum, columns), strict=True))
    return Margins(
        rows,
        cols,
        len(parts),
        int(summed.pop("zero_rows")),
        int(summed.pop("zero_cols")),
        **summed,
        diagonal=widest.diagonal,
        diagonal_square=widest.diagonal_square,
        parts=tuple(parts),
    )
