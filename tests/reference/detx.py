"""The trace-log (ERG) condition.

r = lambda n / sum(lambda). From idx = n - 1 down to 1: stop at the first idx with
prod_{j >= idx} r_j < 1, products as sums of logarithms (WeightWatcher 0.7.7's plain product
overflows).
The tail has n - idx points; where no product falls below 1 it has n, and idx is 1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def detx(lam: Array) -> tuple[int, int]:
    """(tail size, idx) of ascending eigenvalues."""
    n = len(lam)
    total = math.fsum(lam)
    log_product = 0.0
    for idx in range(n - 1, 0, -1):
        r = float(lam[idx]) * n / total
        log_product += math.log(r) if r > 0.0 else -math.inf
        if log_product < 0.0:
            return n - idx, idx
    return n, 1


def detx_by_product(lam: Array) -> tuple[int, int]:
    """The same by the plain product, which overflows to infinity in long spectra."""
    n = len(lam)
    r = lam * (n / math.fsum(lam))
    product = 1.0
    for idx in range(n - 1, 0, -1):
        product *= float(r[idx])
        if product < 1.0:
            return n - idx, idx
    return n, 1
