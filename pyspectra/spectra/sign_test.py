"""Whether entries of a matrix depend on each other, whatever the size of each.

The null: entries are independent and centred, and each may have a distribution of its own. Scales
of rows and columns, rows and columns of zeros, sparse patterns, masks and heavy tails all belong to
it, so that none of them passes for something learned; independent, identically distributed entries
are its simplest case. Under it the signs of the entries are free: given their sizes, all choices
of signs are equally likely (exactly where the distributions are symmetric). Permutations of all
entries, within rows or within columns, keep less of the matrix and reject more.

Two statistics, as in `random_null`:

- the excess of ``sum lambda^2`` over its mean under all signs, which is exact and needs no draw
  (`Margins.expected`): a sum over four-cycles ``w_ki w_kj w_lj w_li`` of uncorrelated terms, so
  that its variance is ``4 sum B_ki B_kj B_lj B_li`` over i != j, k != l with B = w^2. Two-sided:
  rows and columns that training has made orthogonal are structure, too;
- the largest eigenvalue, one-sided.

Where the first is `OVERWHELMING` standard deviations out, there is nothing to draw. Of large
matrices the first is normal, and few draws tell the second well enough to believe in the null.
Elsewhere signs are drawn, until their p-value is known well enough: `draw_tails`, with references.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra.spectra.draw_tails import CLEAR_DRAWS, HITS, SAME, hits, is_far, tail
from pyspectra.spectra.margins import Margins
from pyspectra.spectra.sign_bits import WORD, SignBits
from pyspectra.types import FloatArray

# Standard deviations at which no draw is needed. The variance takes B = w^2 for a matrix of rank
# one; for a mask of b blocks it is low by a factor of b.
OVERWHELMING = 25.0
# Draws after which the test may end, and at most. Larger matrices, whose law is the closer to a
# gamma law, get fewer: so many multiplications are made at most.
BATCH = 50
MOST_DRAWS = 1000
MOST_WORK = 5e9
# Draws after which it may end first: they are enough where the data lie far out.
FEWEST = 16
# A batch has so many entries at most.
MOST_DRAWN = 2**19
# Draws of small matrices that take the time of one.
ABREAST = 8
# Multiplications of one Gram matrix from which on the laws of large matrices serve instead.
LARGE = 1e8
FEW_DRAWS = 12
# Below this p-value draws decide: 99 at most, so that a p-value below 0.01 needs all of them to be
# smaller than the data.
DOUBTED = 0.05
LARGE_STEP = 33
LARGE_DRAWS = 99
TRACY_WIDOM_SKEWNESS = 0.2935
# One random matrix in a hundred has a larger largest eigenvalue: mean and standard deviations of
# that of a gamma law of Tracy-Widom's skewness.
REACH_LEVEL, REACH = 0.01, 2.53
# The normal law's standard deviation, as a part of its mean: half of the digits of its square.
# 2 / (rows + cols) where all entries are alike.
LEAST_SPREAD = 1e-6


def excess(square_sum: float, m: Margins) -> float:
    """Standard deviations of sum lambda^2 above its mean under all signs; 0 without cycles."""
    sd = 2.0 * math.sqrt(m.cycles)
    surplus = square_sum - m.expected
    # Rounding of sums of squares is no structure: a diagonal matrix has no cycles at all.
    if not sd > 1e-9 * m.expected:
        return 0.0
    return surplus / sd


@dataclass(frozen=True)
class SignTest:
    """What random signs told.

    Attributes
    ----------
    p_value : float
        The smaller p-value of both statistics, corrected for having taken the smaller: p (2 - p).
    reach : float
        The eigenvalue that the largest one exceeds by chance in one case of a hundred, as a share
        of the sum of all; the largest one itself, where it is within that.
    """

    p_value: float
    reach: float


Statistic = Callable[[FloatArray], float]


def signs(
    stack: FloatArray, key: int, centred: bool = False, own: FloatArray | None = None
) -> SignTest:
    """Test "independent entries, each with its own scale" from random signs.

    Parameters
    ----------
    stack : ndarray of float64, shape (matrices, rows, cols)
    key : int
        Key of the random generator, 64 bits.
    centred : bool
        The matrices have lost the means of their rows and columns, and every draw loses them, too.
    own : ndarray of float64, shape (2,), optional
        Both statistics of the data (`of_spectrum`), where they are known.

    Returns
    -------
    SignTest
    """
    bits = SignBits(key)
    if stack.size * min(stack.shape[1:]) > LARGE:
        return _of_large(stack, bits, centred)
    stack = np.ascontiguousarray(stack)
    if own is None:
        (own,) = ops.sign_draws(stack, np.zeros(-(-stack.size // 8), np.uint8), 1, centred=False)
    own = _sides(own)
    drawn = _drawn(stack, bits, centred, own)
    above, below, largest = (tail(float(x), d) for x, d in zip(own, drawn, strict=True))
    p = min(1.0, 2.0 * min(above, below), largest)
    return SignTest(p * (2.0 - p), _reach(float(own[2]), largest, drawn[2]))


def of_spectrum(evals: FloatArray) -> FloatArray:
    """Both statistics of a spectrum: sum lambda^2 / (sum lambda)^2 and max lambda / sum lambda."""
    total = float(evals.sum())
    return np.array([float(evals @ evals) / total**2, float(evals.max()) / total])


def _drawn(stack: FloatArray, bits: SignBits, centred: bool, own: FloatArray) -> FloatArray:
    """Draw until it is enough, (3, draws): batches together where the test will hardly end."""
    n, M = stack.size, min(stack.shape[1:])
    most = int(min(MOST_DRAWS, max(BATCH, MOST_WORK / (n * M))))
    batch = max(1, min(BATCH, MOST_DRAWN // n))
    drawn = np.empty((3, 0))
    while drawn.shape[1] < most:
        sizes = _batches(own, drawn, batch, most)
        # Batches begin with a word of bits: where one ends within it, the next is drawn alone.
        if any(size * n % WORD for size in sizes):
            sizes = sizes[:1]
        count, made = sum(sizes), drawn.shape[1]
        # Infinite where a draw failed: that proves nothing, and counts as larger.
        found = ops.sign_draws(stack, bits.take(count * n), count, centred=centred)
        drawn = np.hstack([drawn, _sides(found).T])
        for size in sizes:
            made += size
            if made >= FEWEST and _is_enough(own, drawn[:, :made]):
                return drawn[:, :made]
    return drawn


def _batches(own: FloatArray, drawn: FloatArray, batch: int, most: int) -> list[int]:
    """Sizes of the next batches, each of which begins before the end of the test."""
    made = drawn.shape[1]
    missing = FEWEST - made
    if missing > 0:
        return [min(batch, missing - first) for first in range(0, missing, batch)]
    fewest = int(hits(own[:, None], drawn).min())
    expected = (HITS - fewest) * made // fewest if fewest else CLEAR_DRAWS
    wanted = max(ABREAST, min(expected * 3 // 4, CLEAR_DRAWS))
    count = max(-(-ABREAST // batch), wanted // batch)
    return [batch] * min(count, -(-(most - made) // batch))


def _is_enough(own: FloatArray, drawn: FloatArray) -> bool:
    """Tell whether more draws would only say again what these do."""
    reached = hits(own[:, None], drawn)
    unreached = np.flatnonzero(reached == 0)
    return bool(reached.min() >= HITS) or any(is_far(float(own[k]), drawn[k]) for k in unreached)


def _reach(own: float, p: float, drawn: FloatArray) -> float:
    """What chance makes of the largest eigenvalue, given its p-value and those of draws."""
    if p > REACH_LEVEL:
        return own
    mean, sd = float(drawn.mean()), float(drawn.std(ddof=1))
    return min(own, mean + REACH * sd)


def _of_large(stack: FloatArray, bits: SignBits, centred: bool) -> SignTest:
    """Test where a draw takes long: laws of large matrices first, draws where those doubt.

    The excess is normal with an exact mean and variance, and a few draws tell the largest
    eigenvalue roughly. That is enough to believe in the null. To reject it takes more draws: where
    a few rows are much larger than all others, neither law is that of large matrices.
    """

    def flipped() -> FloatArray:
        return without_means(bits.flip(stack)) if centred else bits.flip(stack)

    def drawn(statistic: Statistic, count: int) -> FloatArray:
        return np.array([statistic(flipped()) for _ in range(count)])

    excess_p = _normal_p_value(stack, centred)
    if excess_p < DOUBTED:
        own = _spread(stack)
        excess_p, _ = _counted(own, lambda n: drawn(_spread, n), two_sided=True)
        excess_p = min(1.0, 2.0 * excess_p)
    own = _relative_largest(stack)
    largest = drawn(_relative_largest, FEW_DRAWS)
    largest_p = _predicted(own, largest)
    if largest_p < DOUBTED:
        largest_p, largest = _counted(own, lambda n: drawn(_relative_largest, n))
    p = min(excess_p, largest_p)
    return SignTest(p * (2.0 - p), _reach(own, largest_p, largest))


def _counted(
    own: float, draw: Callable[[int], FloatArray], two_sided: bool = False
) -> tuple[float, FloatArray]:
    """P-value of a statistic from draws, which stop where it is not small, and these."""
    drawn = np.empty(0)
    while True:
        drawn = np.append(drawn, draw(LARGE_STEP))
        sides = ((own, drawn), (-own, -drawn)) if two_sided else ((own, drawn),)
        p = min(tail(x, d) for x, d in sides)
        if p >= DOUBTED or len(drawn) >= LARGE_DRAWS or any(is_far(x, d) for x, d in sides):
            return p, drawn


def _normal_p_value(stack: FloatArray, centred: bool) -> float:
    """P-value of the excess over its mean under all signs, both exact, by a normal law."""
    surplus = variance = mean = 0.0
    for w in stack:
        squares = w * w
        r, c, fourth = squares.sum(1), squares.sum(0), float(np.vdot(squares, squares))
        if centred:
            expected = expected_of_centred(r, c, fourth)
        else:
            expected = float(r @ r) + float(c @ c) - fourth
        mean += expected
        surplus += square_sum(w) - expected
        squares_again = squares * squares
        rows, cols = squares_again.sum(1), squares_again.sum(0)
        eighth = float(np.vdot(squares_again, squares_again))
        cycles = square_sum(squares) - float(rows @ rows) - float(cols @ cols) + eighth
        variance += 4.0 * cycles
    # Beside a few giants, the variance is what rounding left of the eighth powers of entries.
    if not variance > (LEAST_SPREAD * mean) ** 2:
        return 1.0
    return math.erfc(abs(surplus) / math.sqrt(2.0 * variance))


def expected_of_centred(r: FloatArray, c: FloatArray, fourth: float) -> float:
    """Mean of sum lambda^2 over all signs, where means of rows and columns are taken away again.

    Parameters
    ----------
    r, c : ndarray of float64, shapes (rows,) and (cols,)
        Sums of the squares of each row and column.
    fourth : float
        Sum of the fourth powers of the entries.

    Returns
    -------
    float
        In units in which the sum of the eigenvalues is that of `r`, as without centring.

    Notes
    -----
    For ``P X Q`` with the projections ``P = 1 - 1/N`` and ``Q = 1 - 1/M`` and free signs of X, of
    squares B, the pairs of ``tr (P X Q X^T P X Q X^T)`` that do not vanish give
    ``Q_ii^2 sum P_ab^2 r_a r_b + P_aa^2 sum Q_ij^2 c_i c_j + sum P_ab^2 Q_ij^2 B_ai B_bj -
    2 P_aa^2 Q_ii^2 sum B^2``.
    """
    N, M = len(r), len(c)
    total = float(r.sum())
    p, q = (1.0 - 1.0 / N) ** 2, (1.0 - 1.0 / M) ** 2
    p_off, q_off = 1.0 / N**2, 1.0 / M**2
    rows, cols = float(r @ r), float(c @ c)
    found = q * ((p - p_off) * rows + p_off * total**2)
    found += p * ((q - q_off) * cols + q_off * total**2)
    found += (p - p_off) * (q - q_off) * fourth + (p - p_off) * q_off * rows
    found += p_off * (q - q_off) * cols + p_off * q_off * total**2
    found -= 2.0 * p * q * fourth
    return found / (p * q)


def _spread(stack: FloatArray) -> float:
    """The first statistic: the sum of the squared eigenvalues over that of the eigenvalues."""
    total = sum(float(np.square(w).sum()) for w in stack)
    return sum(square_sum(w) for w in stack) / total**2


def _relative_largest(stack: FloatArray) -> float:
    """The second statistic: the largest eigenvalue over the sum of all."""
    return _largest(stack) / float(np.square(stack).sum())


def square_sum(w: FloatArray) -> float:
    """Return the sum of the squared eigenvalues of ``w.T @ w``: the squared norm of the product."""
    (gram,) = ops.gram([HostArray(w, "float64")])
    # The lower triangle holds it.
    lower = np.tril(gram)
    # Not np.vdot, whose threads would spin on the cores for milliseconds afterwards.
    return 2.0 * float(np.square(lower).sum()) - float(np.square(np.diag(gram)).sum())


def _largest(stack: FloatArray) -> float:
    """The largest squared singular value, by Lanczos."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    found = []
    for w in stack:
        tall = w if w.shape[0] >= w.shape[1] else w.T
        side = tall.shape[1]
        gram = LinearOperator(
            (side, side), matvec=lambda x, W=tall: W.T @ (W @ x), dtype=np.float64
        )
        start = np.full(side, 1.0) + np.arange(side) / side
        found.append(float(eigsh(gram, 1, v0=start, tol=1e-4, return_eigenvectors=False)[0]))
    return max(found)


def _predicted(own: float, drawn: FloatArray) -> float:
    """P-value of one more draw of a law of which some were seen, of Tracy-Widom's shape.

    Student's t, after a cube root has made a gamma law of the skewness of Tracy-Widom's normal.
    """
    from scipy.special import stdtr

    n, mean, sd = len(drawn), float(drawn.mean()), float(drawn.std(ddof=1))
    if not sd > SAME * abs(own):
        return 1.0
    shape = 4.0 / TRACY_WIDOM_SKEWNESS**2
    drawn = np.cbrt(shape + math.sqrt(shape) * (drawn - mean) / sd)
    own = float(np.cbrt(shape + math.sqrt(shape) * (own - mean) / sd))
    mean, sd = float(drawn.mean()), float(drawn.std(ddof=1))
    return float(stdtr(n - 1, (mean - own) / (sd * math.sqrt(1.0 + 1.0 / n))))


def _sides(found: FloatArray) -> FloatArray:
    """Turn both statistics into three, each of which speaks against the null where it is large."""
    return found[..., [0, 0, 1]] * (1.0, -1.0, 1.0)


def without_means(stack: FloatArray) -> FloatArray:
    """Take the means of rows and columns from each matrix of a stack."""
    rows, cols = stack.mean(2, keepdims=True), stack.mean(1, keepdims=True)
    left: FloatArray = stack - rows
    left -= cols - cols.mean(2, keepdims=True)
    return left
