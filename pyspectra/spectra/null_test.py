"""The p-value that decides whether a layer holds anything that its making does not explain.

The quick test of `random_null`, for identical distributions, comes first. Where it rejects, the
test of `sign_test` decides, which survives heavy tails, scales of rows and columns, masks and
zeros; where the laws of random signs (`sign_laws`) do not doubt them, none are drawn. What has a
name (`structures`) is taken away before: a mean direction is subtracted, a nearly orthogonal matrix
is compared with an orthogonal one with noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra.spectra import random_null, sign_laws, sign_test
from pyspectra.spectra.draw_tails import tail
from pyspectra.spectra.margins import Margins, centred_margins, margins
from pyspectra.spectra.structures import (
    BY_NAME,
    Facts,
    least_kept,
    mean_share,
    recognised,
)
from pyspectra.types import ESD, FloatArray, Status, Value

# Where the quick test has at least this p-value it is believed.
BELIEVED = 0.1
# The mean of all entries is subtracted if it lies so many standard errors from zero, and accounts
# for at least this part of what the test sees.
SHIFTED = 4.0
SHIFT_COUNTS = 0.2
# Entries beyond two to this power, or below its inverse, are brought to about one first: their
# eighth powers are added up.
MODERATE = 100
# Where centring leaves a smaller part of the sum of squared eigenvalues, that is computed anew.
DIGITS_LEFT = 1e-6
ORTHOGONAL_DRAWS = 100
ORTHOGONAL_WORK = 2e9

Load = Callable[[], Sequence[HostArray]]


@dataclass(frozen=True, eq=False)
class NullTest(Value):
    """What the test for structure found in a layer.

    Attributes
    ----------
    p_value : float
        P-value of "independent entries, each of a scale of its own, and named structures at most".
    quick : float
        P-value of "independent, identically distributed entries"; see `random_null`.
    method : str
        Which test decided: ``"quick"``, ``"excess"`` (four-cycles alone), ``"laws"`` (those of
        random signs; see `sign_laws`), ``"signs"`` (these were drawn), ``"orthogonal"`` or
        ``"named"``.
    structures : tuple of (str, float)
        Names of the structures that were recognised (`structures.STRUCTURES`), each with its
        strength.
    reach : float
        The eigenvalue that the largest one exceeds by chance in one case of a hundred, as a share
        of the sum of all; 1 where nothing speaks against chance, NaN where nothing was drawn to
        tell.
    """

    p_value: float
    quick: float
    method: str
    structures: tuple[tuple[str, float], ...] = ()
    reach: float = math.nan


# What centring may add to the mean of sum lambda^2 under all signs: it takes squares away from the
# entries, but may move some from row to row.
MEANS_MAY_ADD = 1.1


def needs_entries(quick: float, esd: ESD, m: Margins) -> bool:
    """Tell whether the entries are needed again: what is in memory does not decide."""
    if not quick < BELIEVED:
        return False
    far = sign_test.excess(float(esd.evals @ esd.evals), m)
    if not abs(far) > sign_test.OVERWHELMING:
        return True
    return _is_shifted(esd, m) and not _stands_without_means(esd, m)


def _stands_without_means(esd: ESD, m: Margins) -> bool:
    """Tell whether the excess is overwhelming whatever the means of rows and columns add to it.

    Taking them away multiplies a matrix by a projection of corank one on either side, so that its
    singular values interlace: the i-th of what is left is at least the (i + 2)-th of the whole.
    """
    if not esd.matrix_evals:
        return False
    least = sum(float(evals[:-2] @ evals[:-2]) for evals in esd.matrix_evals)
    limit = 2.0 * sign_test.OVERWHELMING * 2.0 * math.sqrt(m.cycles)
    return least - MEANS_MAY_ADD * m.expected > limit


def _is_shifted(esd: ESD, m: Margins) -> bool:
    """Tell whether a mean that is not zero may be what the test sees."""
    if math.isfinite(mean_share(m)):
        return True
    mean_square = m.total**2 / m.size
    if not mean_square * m.size > SHIFTED**2 * m.square:
        return False
    # What the mean adds to sum lambda^2: its own eigenvalue, and its products with the bulk's.
    own = mean_square / m.count
    added = m.count * own**2 + 2.0 * own * m.square * (1.0 / m.rows + 1.0 / m.cols)
    return added > SHIFT_COUNTS * abs(float(esd.evals @ esd.evals) - m.expected)


def tested(matrices: Sequence[HostArray]) -> Sequence[HostArray]:
    """Return the matrices that the test looks at: of a depthwise kernel one, (C, kh kw).

    Its slices are single vectors, in which nothing can depend on anything.
    """
    if min(matrices[0].shape) != 1 or len(matrices) < 2:
        return matrices
    first = matrices[0]
    columns = [X.data if X.shape[1] == 1 else X.data.T for X in matrices]
    whole = np.empty((max(first.shape), len(columns)), first.data.dtype)
    np.concatenate(columns, axis=1, out=whole)
    return [HostArray(whole, first.dtype)]


def decide(
    esd: ESD, m: Margins, made: str, zeros: float, kurtosis: float, load: Load, key: int
) -> NullTest:
    """Test a layer.

    Parameters
    ----------
    esd : ESD
        Its spectrum.
    m : Margins
        Sums over the entries of the matrices that are `tested`.
    made : str
        The structure that all of its entries have, from `structures.made`.
    zeros : float
        Share of its entries that are zero.
    kurtosis : float
        Excess kurtosis of its entries.
    load : callable
        Reads its matrices.
    key : int
        Key of the random draws, 64 bits.
    """
    esd, m, load = _moderate(esd, m, _once(load))
    looked_at = _once(lambda: tested(load()))
    if esd.M == 1 and esd.n_matrices > 1:
        esd = _depthwise(looked_at())
    quick = random_null.p_value(esd.evals, esd.N, esd.M, _finite(kurtosis))
    far = sign_test.excess(float(esd.evals @ esd.evals), m)
    named = recognised(Facts(esd, m, far, made, zeros, lambda: least_kept(load())))
    names = [name for name, _ in named]
    if not quick < BELIEVED:
        return NullTest(quick, quick, "quick", named, 1.0)
    if any(BY_NAME[name].whole for name in names):
        return NullTest(1.0, quick, "named", named)
    if "nearly orthogonal" in names:
        return NullTest(_orthogonal_p_value(esd, key), quick, "orthogonal", named)
    if not needs_entries(quick, esd, m):
        return NullTest(quick, quick, "excess", named)
    is_shifted = "identity" not in names and _is_shifted(esd, m)
    believed = None if is_shifted else sign_laws.believed(esd, m)
    if believed is not None:
        return NullTest(believed.p_value, quick, "laws", named, believed.reach)
    matrices = looked_at()
    if is_shifted:
        m, square_sum = _without_means(matrices, esd, m)
        if not math.sqrt(square_sum) > 1e-9 * esd.evals[-1]:
            return NullTest(1.0, quick, "named", named)
        far = sign_test.excess(square_sum, m)
        if abs(far) > sign_test.OVERWHELMING:
            return NullTest(quick, quick, "excess", named)
    stack = np.stack([X.to_float64() for X in matrices])
    is_known = esd.bound == 0.0 and esd.evals[-1] > 0.0
    own = sign_test.of_spectrum(esd.evals) if is_known else None
    if is_shifted:
        stack, own = sign_test.without_means(stack), None
    found = sign_test.signs(stack, key, is_shifted, own)
    return NullTest(found.p_value, quick, "signs", named, found.reach)


def _once(load: Load) -> Load:
    """Return what reads when it is first asked, and keeps what it has read."""
    kept: list[Sequence[HostArray]] = []

    def read() -> Sequence[HostArray]:
        if not kept:
            kept.append(load())
        return kept[0]

    return read


def _without_means(matrices: Sequence[HostArray], esd: ESD, m: Margins) -> tuple[Margins, float]:
    """Sums of centred matrices, and of their squared eigenvalues."""
    centred, reduction = centred_margins(matrices, m)
    whole = float(esd.evals @ esd.evals)
    left = whole - reduction
    if esd.bound == 0.0 and left > DIGITS_LEFT * whole:
        return centred, left
    # The means are nearly all of it: a difference has no digits left.
    stack = sign_test.without_means(np.stack([X.to_float64() for X in matrices]))
    return centred, sum(map(sign_test.square_sum, stack))


def _moderate(esd: ESD, m: Margins, load: Load) -> tuple[ESD, Margins, Load]:
    """Divide a layer by a power of two, where powers of its entries are beyond float64."""
    largest = float(esd.evals[-1]) if len(esd.evals) else 0.0
    if not 0.0 < largest < math.inf:
        return esd, m, load
    exponent = math.frexp(largest)[1] // 2
    if abs(exponent) <= MODERATE:
        return esd, m, load

    def divided() -> Sequence[HostArray]:
        return [HostArray(np.ldexp(X.to_float64(), -exponent), "float64") for X in load()]

    evals, *parts = (np.ldexp(e, -2 * exponent) for e in (esd.evals, *esd.matrix_evals))
    bound = math.ldexp(esd.bound, -2 * exponent)
    esd = replace(esd, evals=evals, matrix_evals=tuple(parts), bound=bound)
    return esd, margins(tested(divided())), divided


def _depthwise(matrices: Sequence[HostArray]) -> ESD:
    (W,) = (X.to_float64() for X in matrices)
    evals, status = _spectrum([W])
    return ESD(evals, max(W.shape), min(W.shape), status=status)


def _finite(kurtosis: float) -> float:
    return kurtosis if math.isfinite(kurtosis) else 0.0


def _spectrum(matrices: Sequence[FloatArray]) -> tuple[FloatArray, Status]:
    evals, status = ops.eigvals(ops.gram([HostArray(W, "float64") for W in matrices]))
    worst = next((s for s in status if s is not Status.OK), Status.OK)
    return evals[0] if len(evals) == 1 else np.sort(np.concatenate(evals)), worst


def _orthogonal_p_value(esd: ESD, key: int) -> float:
    """P-value of "an orthogonal matrix and independent noise" from the ends of the spectrum.

    The noise is what gives the eigenvalues the spread that they have.
    """
    mean, sd = float(np.mean(esd.evals)), float(np.std(esd.evals))
    if not sd > 1e-5 * mean:
        return 1.0
    own = _ends(esd.evals)
    rng = np.random.Generator(np.random.Philox(key=key))
    N, M = esd.N, esd.M
    count = int(min(ORTHOGONAL_DRAWS, max(20, ORTHOGONAL_WORK / (N * M * M * esd.n_matrices))))
    # The eigenvalues of sym(Q^T E) for noise of variance v / N have the variance 2 M v / N.
    noise = sd / mean / math.sqrt(2.0 * M)
    drawn = []
    for _ in range(count):
        stack = []
        for _ in range(esd.n_matrices):
            q = np.linalg.qr(rng.standard_normal((N, M)))[0]
            stack.append(q + noise * rng.standard_normal((N, M)))
        drawn.append(_ends(_spectrum(stack)[0]))
    table = np.array(drawn)
    p = min(tail(own[i], table[:, i]) for i in range(2))
    return p * (2.0 - p)


def _ends(evals: FloatArray) -> tuple[float, float]:
    """How far the largest and the smallest eigenvalue lie from the mean, in standard deviations."""
    mean, sd = float(np.mean(evals)), float(np.std(evals))
    return float(evals[-1] - mean) / sd, float(mean - evals[0]) / sd
