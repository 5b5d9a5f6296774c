"""Structures that have a name: what makes a matrix unlike a random one without any learning.

`STRUCTURES` lists them. A record recognises its structure from what is known of a layer (`Facts`)
and says so in a sentence. Some of them, once recognised, are all that the layer is: orthogonal,
dirac and sinusoidal initialisations come that way from their makers. To add one, add its record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra._support.cached import cached_property
from pyspectra.spectra.margins import Margins
from pyspectra.types import ESD, FloatArray

SINUSOIDAL, ORTHOGONAL, MASK = "sinusoidal table", "orthogonal", "mask"
PRUNED = "pruned"

# Ratio of variances, between rows (or columns) against within them, of the squares of the entries:
# one where all have the same scale.
NOTABLE_RATIO = 4.0
# Diagonal entries against the root mean square of the others.
NOTABLE_DIAGONAL = 4.0
# Standard deviations by which the eigenvalues of an orthogonal matrix with noise spread less than
# those of a random one.
NEARLY_ORTHOGONAL = -3.0
# A sinusoid as stored differs by rounding, here that of bfloat16, from the formula.
SINUSOID_ERROR = 8e-3
SINUSOID_BASE = 10000.0
# Rows or columns by which an orthogonal matrix is known, and how far their products are from those
# of orthogonal ones after rounding to 16 bits.
PROBED = 12
ORTHOGONAL_ERROR = 4e-3
# A matrix that is zero in so many places is one under a mask; ternary weights of a Gaussian matrix
# are zero in a third.
MASKED = 0.45
# Of a matrix without its smaller entries: so large is the least one, of the median of those that
# are left. Without 60 % of them at most, alpha moves by less than its error (benchmarks/truth.md).
LEAST_KEPT = 0.2
MOST_PRUNED = 0.6
# Entries of the rows of which such things are estimated: a share is good to 0.003, the kurtosis to
# 0.027, a two hundredth of the standard deviation of the spread of a spectrum.
SAMPLE = 2**15
# Eigenvalues below this part of the largest are zero but for rounding.
ZERO = 1e-9
# Rounding to bfloat16 leaves less than this part of the norm; the eigenvalue next to what it leaves
# is larger by this factor, and it is no small part of all: a few are small by chance.
ROUNDED, ROUNDED_GAP, ROUNDED_SHARE = 3e-6, 10.0, 0.25
# A rank is low if more than this part of the eigenvalues is zero, besides those of zero rows.
LOW = 0.05


@dataclass(frozen=True)
class Facts:
    """What the structures are recognised by.

    Attributes
    ----------
    esd : ESD
    margins : Margins
    excess : float
        Standard deviations of `pyspectra.spectra.sign_test.excess`.
    made : str
        The structure that all entries have (`made`), if any.
    zeros : float
        Share of the entries that are zero (`sampled`).
    kept : callable
        ``kept()`` reads the entries once more, and returns the size of the least that is not zero
        over the median of these.
    """

    esd: ESD
    margins: Margins
    excess: float
    made: str
    zeros: float = 0.0
    kept: Callable[[], float] = float

    @cached_property
    def diagonal(self) -> float:
        """Size of the other entries over that of the diagonal's; NaN where that is not constant."""
        m = self.margins
        side = min(m.rows, m.cols)
        rest = (m.square - m.diagonal_square) / max(1, m.size - side)
        mean = abs(m.diagonal) / side
        # The mean of the diagonal stands out both from its own spread and from the other entries.
        spread = max(m.diagonal_square / side - mean**2, 0.0)
        alike = mean > 3.0 * math.sqrt(spread) and side >= 4
        if not alike or not mean > NOTABLE_DIAGONAL * math.sqrt(rest):
            return math.nan
        return math.sqrt(rest) / mean

    @cached_property
    def masked_share(self) -> float:
        """Share of the entries that a mask has taken away; NaN where there is none."""
        m = self.margins
        if math.isfinite(self.diagonal):
            return math.nan  # the zeros beside a diagonal
        # Rows and columns of zeros are a structure of their own.
        lines = m.zero_rows / (m.rows * m.count), m.zero_cols / (m.cols * m.count)
        dense = (1.0 - lines[0]) * (1.0 - lines[1])
        share = (self.zeros - (1.0 - dense)) / dense if dense > 0.0 else math.nan
        return share if share >= MASKED else math.nan


@dataclass(frozen=True)
class Structure:
    """One structure with a name.

    Attributes
    ----------
    name : str
        As in the column ``structure``.
    measure : callable
        ``measure(facts)`` tells how strong it is, a number for the sentence; NaN where it is
        absent.
    sentence : str
        What it means; ``{value}`` is that number.
    whole : bool
        Whether a layer that has it holds nothing else.
    """

    name: str
    measure: Callable[[Facts], float]
    sentence: str
    whole: bool = False


def _orthogonal(facts: Facts) -> float:
    evals = facts.esd.evals
    if facts.made == ORTHOGONAL or len(evals) < 3 or not facts.excess < NEARLY_ORTHOGONAL:
        return math.nan
    spread = float(np.std(evals) / np.mean(evals))
    # That of a random matrix is sqrt(M / N).
    return spread if spread < 0.5 * math.sqrt(facts.esd.M / facts.esd.N) else math.nan


def _diagonal(facts: Facts) -> float:
    return facts.diagonal


def _sinusoidal(facts: Facts) -> float:
    return 1.0 if facts.made == SINUSOIDAL else math.nan


def _exactly_orthogonal(facts: Facts) -> float:
    return 1.0 if facts.made == ORTHOGONAL else math.nan


def _zeros(facts: Facts) -> float:
    zero = facts.margins.zero_rows + facts.margins.zero_cols
    return float(zero) if zero and facts.margins.square > 0.0 else math.nan


def sample_step(matrices: Sequence[HostArray]) -> int:
    """Rows from one of a sample of equally shaped matrices to the next."""
    rows, cols = matrices[0].shape
    return max(1, len(matrices) * rows * cols // SAMPLE)


def sampled(matrices: Sequence[HostArray]) -> tuple[float, float]:
    """Excess kurtosis and share of zeros of the entries of equally shaped matrices.

    From evenly spaced rows. The kurtosis is NaN where they are all equal or not finite.
    """
    return ops.entry_sample(matrices, sample_step(matrices))


def least_kept(matrices: Sequence[HostArray]) -> float:
    """Size of the least entry that is not zero, over the median of these; from evenly spaced rows.

    Zero where there is none.
    """
    step = sample_step(matrices)
    parts = [X.view(slice(None, None, step)).to_float64().ravel() for X in matrices]
    sizes = np.abs(np.concatenate(parts))
    sizes = sizes[sizes > 0.0]
    return float(sizes.min() / np.median(sizes)) if len(sizes) else 0.0


def _mask(facts: Facts) -> float:
    return math.nan if _is_pruned(facts) else facts.masked_share


def _pruned(facts: Facts) -> float:
    return facts.masked_share if _is_pruned(facts) else math.nan


def _is_pruned(facts: Facts) -> bool:
    return facts.masked_share <= MOST_PRUNED and facts.kept() > LEAST_KEPT


def mean_share(m: Margins) -> float:
    """Share of the norm in the means of rows and columns, if they make a direction; else NaN."""
    if not m.square > 0.0 or m.size < 4:
        return math.nan
    grand = m.total**2 / m.size
    of_rows, of_cols = m.row_totals / m.cols, m.col_totals / m.rows
    variance = max(m.square - grand, 0.0) / m.size
    edge = m.count * variance * (math.sqrt(m.rows) + math.sqrt(m.cols)) ** 2
    largest = max(of_rows, of_cols, grand)
    return largest / m.square if largest > 1.5 * edge else math.nan


def _mean(facts: Facts) -> float:
    # The diagonal of a small matrix has a mean of its own, which is no direction.
    return math.nan if math.isfinite(facts.diagonal) else mean_share(facts.margins)


def _scales(facts: Facts) -> float:
    m = facts.margins
    per_matrix = m.rows * m.cols
    if m.size < 64 or not m.quartic > 0.0:
        return math.nan
    ratios = []
    for sums, lines, length in (
        (m.row_squares, m.rows * m.count, m.cols),
        (m.col_squares, m.cols * m.count, m.rows),
    ):
        if lines < 4 or length < 4:
            continue
        between = (sums / length - m.square**2 / (per_matrix * m.count)) / (lines - 1)
        within = (m.quartic - sums / length) / (m.size - lines)
        ratios.append(between / within if within > 0.0 else math.inf)
    ratio = max(ratios, default=math.nan)
    return ratio if ratio > NOTABLE_RATIO else math.nan


def _low_rank(facts: Facts) -> float:
    evals = facts.esd.evals
    null = int(np.count_nonzero(evals <= ZERO * evals[-1]))
    # A product of thin matrices that was rounded has no eigenvalues of zero.
    sums = np.cumsum(evals)
    rounded = int(np.searchsorted(sums, ROUNDED * sums[-1], side="right"))
    if ROUNDED_SHARE * len(evals) < rounded < len(evals):
        gap = evals[rounded] > ROUNDED_GAP * evals[rounded - 1]
        null = max(null, rounded) if gap else null
    zeros = facts.margins.zero_rows + facts.margins.zero_cols
    low = null > zeros + max(1.0, LOW * len(evals))
    return float(len(evals) - null) if low else math.nan


STRUCTURES = (
    Structure(SINUSOIDAL, _sinusoidal, "it is a table of sinusoids", whole=True),
    Structure(
        ORTHOGONAL, _exactly_orthogonal, "its rows or columns are orthogonal and of one length",
        whole=True,
    ),
    Structure(
        "nearly orthogonal", _orthogonal,
        "its singular values are equal but for {value:.2g} of noise, as in an orthogonal matrix",
    ),
    Structure(
        "identity", _diagonal,
        "its diagonal is constant and the rest is {value:.2g} of it, as in an identity or dirac",
    ),
    Structure(
        "mean direction", _mean,
        "it is not centred: {value:.0%} of its norm are one mean direction",
    ),
    Structure("zero rows or columns", _zeros, "{value:.0f} of its rows and columns are zero"),
    Structure(MASK, _mask, "{value:.0%} of its entries are zero, as under a mask"),
    Structure(PRUNED, _pruned, "the smaller {value:.0%} of its entries are zero"),
    Structure("low rank", _low_rank, "it has rank {value:.0f}"),
    Structure(
        "mixed scales", _scales,
        "its rows or columns have different scales ({value:.3g} times the chance variance)",
    ),
)  # fmt: skip
"""All that are known, in the order in which a layer is said to have them."""

BY_NAME = {structure.name: structure for structure in STRUCTURES}


def recognised(facts: Facts) -> tuple[tuple[str, float], ...]:
    """Return the names of the structures of a layer, each with how strong it is."""
    with np.errstate(all="ignore"):
        found = [(s, s.measure(facts)) for s in STRUCTURES]
    found = [(s, value) for s, value in found if math.isfinite(value)]
    if facts.made == SINUSOIDAL:  # which has a mean, scales and a rank, and nothing is left to say
        found = [(s, value) for s, value in found if s.whole]
    return tuple((s.name, float(value)) for s, value in found)


def sentence(name: str, value: float) -> str:
    """Return what a structure means, for the strength that was measured."""
    return BY_NAME[name].sentence.format(value=value)


def made(matrices: Sequence[HostArray]) -> str:
    """Return the name of the structure that all entries of a layer have, or nothing."""
    with np.errstate(all="ignore"):  # what is not finite is reported as such by the spectrum
        if _is_sinusoidal(matrices):
            return SINUSOIDAL
        return ORTHOGONAL if _is_orthogonal(matrices) else ""


def _is_orthogonal(matrices: Sequence[HostArray]) -> bool:
    """Tell orthogonality by a few rows of all matrices and a few columns of the first."""
    first = matrices[0]
    rows, cols = first.shape
    wide = rows <= cols * len(matrices)
    probed = matrices if wide else [HostArray(first.data.T, first.dtype)]
    return ops.rows_are_orthogonal(probed, PROBED, ORTHOGONAL_ERROR)


def _is_sinusoidal(matrices: Sequence[HostArray]) -> bool:
    """Tell whether the entries are sin and cos of ``position / 10000^(i / s)``, in any layout.

    s is half of the columns (Vaswani et al.), or one less (tensor2tensor, Whisper).
    """
    if len(matrices) != 1:
        return False
    X = matrices[0]
    rows, cols = X.shape
    if cols < 4 or cols % 2 or rows < 4:
        return False
    first = np.abs(X.view(slice(0, 1)).to_float64()[0])
    unit = first.max()
    if not (unit > 0.0 and (first * (unit - first)).max() <= 1e-4 * unit**2):
        return False  # row 0 is sin 0 and cos 0
    half = cols // 2
    for place in (0, 1):  # some tables begin at position 1, or with a row of padding
        own = X.view(slice(place, None)).to_float64() / unit
        for steps in (half, half - 1):  # the slowest is near the base, or the base itself
            table = _sinusoids(rows - place, half, steps)
            for layout in (_interleaved, _halves):
                if np.max(np.abs(layout(table) - own)) < SINUSOID_ERROR:
                    return True
    return False


def _sinusoids(rows: int, half: int, steps: int) -> tuple[FloatArray, FloatArray]:
    rate = SINUSOID_BASE ** (-np.arange(half) / steps)
    angle = np.outer(np.arange(rows), rate)
    return np.sin(angle), np.cos(angle)


def _interleaved(table: tuple[FloatArray, FloatArray]) -> FloatArray:
    out: FloatArray = np.stack(table, -1).reshape(len(table[0]), -1)
    return out


def _halves(table: tuple[FloatArray, FloatArray]) -> FloatArray:
    return np.concatenate(table, 1)
