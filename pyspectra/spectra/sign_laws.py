"""What random signs would tell of a matrix, from laws of large matrices and without any draw.

Two p-values of `pyspectra.spectra.sign_test`, from what is known of a layer anyway: its spectrum,
and sums over its rows, columns and entries. They serve to believe in the null. A layer that they
doubt is tested by draws, so that the level of the test is that of the draws whatever these laws are
worth; where a law is too lenient, what is lost is power.

- The excess of ``sum lambda^2`` is normal, with an exact mean. Its variance, a sum over
  four-cycles, is that of variances ``P = r c^T / T`` for the sums r and c of the squares of rows
  and columns, less what the squares of single entries add to the sums of squares of r and c.
- The largest eigenvalue follows the law of Tracy and Widom about the edge of the spectrum for
  variances P (`ops.profile_edge`). To first order signs move the edge by the part
  ``-(1 + sum w^4 / sum P^2) response``. Where that exceeds `MOST_MOVED` scales, a few entries
  outweigh the others, the first order is too much, and the edge is moved by so much only.
"""

from __future__ import annotations

import math

from pyspectra import ops
from pyspectra.spectra import tracy_widom
from pyspectra.spectra.margins import Margins
from pyspectra.spectra.sign_test import LARGE, SignTest
from pyspectra.types import ESD

# Smaller p-values of these laws are left to draws; all are well above 0.01, at which layers are
# judged. Of heavy tails the largest eigenvalue of a small matrix has a p-value that is several
# times too large. Where a matrix is large, draws take long, and what a direction must exceed then
# is hardly more than by draws.
DOUBTED_EXCESS, DOUBTED_LARGEST = 0.1, 0.2
DOUBTED_OF_LARGE = 0.02
# Scales of the largest eigenvalue's law by which signs move the edge at most.
MOST_MOVED = 1.3
# Less of the cycles of P than this part is no estimate of their sum.
LEAST_CYCLES = 0.05


def believed(esd: ESD, m: Margins) -> SignTest | None:
    """Return what draws would tell, where neither law doubts that the signs are random.

    Parameters
    ----------
    esd : ESD
        The spectrum of a layer.
    m : Margins
        Its sums.

    Returns
    -------
    SignTest or None
        None where the signs have to be drawn.
    """
    is_large = m.size * min(m.rows, m.cols) > LARGE
    p = excess_p_value(float(esd.evals @ esd.evals) - m.expected, m)
    if not p > (DOUBTED_OF_LARGE if is_large else DOUBTED_EXCESS):
        return None
    largest = largest_p_value(esd, m)
    if not largest > (DOUBTED_OF_LARGE if is_large else DOUBTED_LARGEST):
        return None
    p = min(p, largest)
    return SignTest(p * (2.0 - p), float(esd.evals[-1]) / float(esd.evals.sum()))


def excess_p_value(surplus: float, m: Margins) -> float:
    """P-value of the excess of sum lambda^2 over its mean under all signs, two-sided.

    Parameters
    ----------
    surplus : float
        ``sum lambda^2`` less its mean over all signs.
    m : Margins

    Returns
    -------
    float
        NaN where the law says nothing.
    """
    if not m.row_squares > 0.0 or not m.col_squares > 0.0 or not m.cycles > 0.0:
        return math.nan
    own = (1.0 - m.quartic / m.row_squares) * (1.0 - m.quartic / m.col_squares)
    part = (own / ((1.0 - 1.0 / m.rows) * (1.0 - 1.0 / m.cols))) ** 2
    if not own > 0.0 or not part > LEAST_CYCLES:
        return math.nan
    return math.erfc(abs(surplus) / math.sqrt(8.0 * part * m.cycles))


def largest_p_value(esd: ESD, m: Margins) -> float:
    """P-value of the largest eigenvalue of several matrices, each of margins of its own.

    Parameters
    ----------
    esd : ESD
    m : Margins
        With the `parts` of which it is the sum.

    Returns
    -------
    float
        NaN where the law says nothing.
    """
    if not m.parts:
        return math.nan
    own = float(esd.evals[-1])
    log_below = 0.0
    for part in m.parts:
        if not part.square > 0.0:
            continue
        edge, scale, response = ops.profile_edge(part)
        edge, scale = edge / part.square, scale / part.square
        products = part.row_squares * part.col_squares / part.square**2
        moved = (1.0 + part.quartic / products) * response * edge
        x = (own - edge + min(moved, MOST_MOVED * scale)) / scale
        above = tracy_widom.survival(x)
        log_below += math.log1p(-above) if above < 1.0 else -math.inf
    return -math.expm1(log_below)
