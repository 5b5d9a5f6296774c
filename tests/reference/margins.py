"""Sums over the entries of one matrix, its rows and its columns, with loops and `math.fsum`."""

from __future__ import annotations

import math

import numpy as np


def margins(w: np.ndarray) -> dict[str, float]:
    """Return the sums of ``csrc/spectra/margins.hpp`` of a float64 matrix."""
    rows, cols = w.shape
    r = [math.fsum(x * x for x in row) for row in w]
    c = [math.fsum(x * x for x in column) for column in w.T]
    diagonal = [w[k, k] for k in range(min(rows, cols))]
    square = math.fsum(r)
    pairs_of_rows = math.fsum((a * b) ** 2 for k, a in enumerate(r) for b in r[:k])
    pairs_of_cols = math.fsum((a * b) ** 2 for i, a in enumerate(c) for b in c[:i])
    return {
        "total": math.fsum(w.ravel()),
        "square": square,
        "quartic": math.fsum(x**4 for x in w.ravel()),
        "row_squares": math.fsum(x * x for x in r),
        "col_squares": math.fsum(x * x for x in c),
        # Each pair was counted once, and is meant in either order.
        "cycles": 4.0 * pairs_of_rows * pairs_of_cols / square**4 if square > 0.0 else 0.0,
        "row_totals": math.fsum(math.fsum(row) ** 2 for row in w),
        "col_totals": math.fsum(math.fsum(column) ** 2 for column in w.T),
        "zero_rows": float(sum(x == 0.0 for x in r)),
        "zero_cols": float(sum(x == 0.0 for x in c)),
        "diagonal": math.fsum(diagonal),
        "diagonal_square": math.fsum(x * x for x in diagonal),
    }
