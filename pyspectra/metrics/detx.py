"""The trace-log (ERG) condition: the tail whose rescaled eigenvalues multiply to one.

With r = lambda n / sum(lambda), walk down from the largest: the tail starts at the first index
where prod_{j >= idx} r_j < 1. Products are taken as sums of logarithms: WeightWatcher's plain
product overflows beyond n of about 4096.
"""

from __future__ import annotations

import numpy as np

from pyspectra.metrics.registry import Spectrum, metric


def detx_index(s: Spectrum) -> tuple[int, int]:
    """(size of the tail, index of its first eigenvalue); (0, 0) where all eigenvalues are equal."""
    x = s.evals
    n = len(x)
    if n < 2 or not x[0] < x[-1]:
        return 0, 0
    with np.errstate(all="ignore"):  # zero eigenvalues: the product is zero from there on
        log_r = np.log(x * (n / s.norm))
    log_product = np.cumsum(log_r[::-1])[::-1]  # [idx]: of all from idx up
    below = np.flatnonzero(log_product[1:] < 0.0)
    if below.size == 0:
        return n, 1  # never below one: WeightWatcher's convention
    idx = int(below[-1]) + 1
    return n - idx, idx


@metric("detX_num", group="detx")
def detx_num(s: Spectrum) -> int:
    """Eigenvalues in the tail."""
    return detx_index(s)[0]


@metric("detX_val", group="detx")
def detx_val(s: Spectrum) -> float:
    """The smallest eigenvalue of the tail."""
    return float(s.evals[detx_index(s)[1]])


@metric("detX_val_unrescaled", group="detx")
def detx_val_unrescaled(s: Spectrum) -> float:
    """The same eigenvalue times n / sum(lambda) (the name is WeightWatcher's)."""
    return float(s.evals[detx_index(s)[1]] * (len(s.evals) / np.float64(s.norm)))


@metric("ERG_gap", group="detx")
def erg_gap(s: Spectrum) -> float:
    """detX_num minus the size of the power-law tail; NaN where the fit failed."""
    if not np.isfinite(s.fit.alpha):
        return float("nan")
    return detx_num(s) - int(np.count_nonzero(s.evals >= s.fit.xmin))
