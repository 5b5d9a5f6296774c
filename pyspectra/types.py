"""Values that cross module borders: result codes, spectra and fits."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class Status(enum.IntEnum):
    """What became of one item of a batch. The numbers are those of ``csrc/core/types.hpp``.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> status = ps.esd(np.full((3, 2), np.nan)).status
    >>> status is ps.Status.NOT_FINITE, str(status), status.words
    (True, 'not_finite', 'not finite')
    """

    OK = 0
    NOT_FINITE = 1
    TOO_FEW_POINTS = 2
    NO_CONVERGENCE = 3
    DEGENERATE = 4

    def __str__(self) -> str:
        return self.name.lower()

    @property
    def words(self) -> str:
        """The status as part of a sentence."""
        return " ".join(self.name.lower().split("_"))


class Value:
    """Base of frozen dataclasses that are compared by value, arrays and NaN included.

    Two are equal if they are of one class and so are their fields: arrays element by element, and
    NaN equals NaN, since it says the same of both. Declare the dataclass with ``eq=False``.
    """

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        compared = (f.name for f in fields(self) if f.compare)  # type: ignore[arg-type]
        return all(same(getattr(self, name), getattr(other, name)) for name in compared)

    def __hash__(self) -> int:
        compared = (f.name for f in fields(self) if f.compare)  # type: ignore[arg-type]
        return hash((type(self), *(_hashable(getattr(self, name)) for name in compared)))


def same(a: Any, b: Any) -> bool:
    """Tell whether two values are equal, arrays element by element; NaN equals NaN."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b)


def _hashable(value: Any) -> Any:
    """Return something hashable that equal values share."""
    if isinstance(value, np.ndarray):
        return value.shape
    if isinstance(value, Mapping):
        return frozenset(value)
    if isinstance(value, tuple | list):
        return tuple(map(_hashable, value))
    if isinstance(value, float) and math.isnan(value):
        return None  # the hash of a NaN is that of its place in memory
    return value


@dataclass(frozen=True, eq=False)
class ESD(Value):
    """Empirical spectral density: the eigenvalues of ``W.T @ W``, nothing divided out.

    Attributes
    ----------
    evals : ndarray of float64, shape (n,)
        Ascending; squared singular values, of all matrices pooled.
    N, M : int
        Longer and shorter side of one matrix.
    n_matrices : int
        Number of matrices that were pooled (``kh * kw`` slices of a convolution, else 1).
    method : str
        How they were computed: ``"gram"`` (eigenvalues of the Gram matrix), ``"svd"`` or
        ``"fast"`` (by float32, ``analyze(precision="fast")``).
    status : Status
        ``OK``, ``NOT_FINITE``, ``DEGENERATE`` (below float64's range) or ``NO_CONVERGENCE``;
        ``evals`` is NaN unless ``OK``.
    matrix_evals : tuple of ndarray
        The eigenvalues of each matrix, ascending.
    bound : float
        Of method ``"fast"``: every eigenvalue is within it of the exact one. Else 0: what float64
        rounds, about 1e-15 of the largest.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> esd = ps.esd(np.diag([3.0, 2.0, 1.0]))
    >>> esd.evals, esd.status is ps.Status.OK
    (array([1., 4., 9.]), True)
    """

    evals: FloatArray = field(repr=False)
    N: int
    M: int
    n_matrices: int = 1
    method: str = "gram"
    status: Status = Status.OK
    matrix_evals: tuple[FloatArray, ...] = field(default=(), repr=False)
    bound: float = 0.0

    @property
    def Q(self) -> float:
        """Aspect ratio ``N / M`` >= 1; NaN for an empty matrix."""
        return self.N / self.M if self.M else float("nan")


@dataclass(frozen=True, eq=False)
class PowerLawFit(Value):
    """A power-law tail ``p(x) ~ x**-alpha`` for ``x >= xmin``.

    Attributes
    ----------
    alpha : float
        Tail exponent. NaN, like every other number here, unless ``status`` is ``OK``.
    xmin, xmax : float
        Start of the tail; largest point that entered the fit.
    D : float
        Kolmogorov-Smirnov distance between the tail and the fitted law.
    alpha_stderr : float
        Asymptotic standard error ``(alpha - 1) / sqrt(n_tail)`` (``"tpl"``: from the information
        matrix). It takes xmin as known; `ci` does not.
    alpha_corrected : float
        Alpha less the bias of maximum likelihood: ``1 + (m - 2) / sum(ln(x / xmin))`` over the m
        points of the tail, of which xmin is one (m - 1 where it is not: ``"hill"``, a given xmin).
        The formula is derived in ``csrc/powerlaw/fit.hpp``; the choice of xmin adds a bias of its
        own. NaN for ``"tpl"`` and where nothing is left of m.
    n_tail, n : int
        Number of points in the tail, and of points that entered the fit.
    index : int
        Index of the tail's first point among the ascending points that entered the fit; -1 for
        none.
    estimator : str
        Name of the estimator, with its arguments if any: ``"ww"``, ``"hill(50)"``.
    status : Status
        ``OK``, ``NOT_FINITE``, ``TOO_FEW_POINTS`` or ``DEGENERATE`` (no tail with unequal points),
        ``NO_CONVERGENCE`` (``"tpl"`` only).
    ci : tuple of two floats
        95 % bootstrap confidence interval of alpha, of independent points: it does not know that
        eigenvalues repel each other (`docs/estimators.md`). NaN unless asked for.
    p_value : float
        Bootstrap goodness of fit: small where the tail is unlike a power law; NaN unless asked for.
    Lambda : float
        Exponential rate of the cut-off (``"tpl"``); NaN for a pure power law.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> fit = ps.fit_powerlaw(np.geomspace(1.0, 100.0, 50))
    >>> fit.status is ps.Status.OK, fit.n, fit.n_tail <= fit.n
    (True, 50, True)
    >>> ps.fit_powerlaw([1.0]).status is ps.Status.TOO_FEW_POINTS
    True
    """

    alpha: float
    xmin: float
    xmax: float
    D: float
    alpha_stderr: float
    alpha_corrected: float
    n_tail: int
    n: int
    index: int
    estimator: str
    status: Status
    ci: tuple[float, float] = (math.nan, math.nan)
    p_value: float = math.nan
    Lambda: float = math.nan


@dataclass(frozen=True)
class StepStatistics:
    """What one optimizer step did to one parameter.

    The gradient g is the one given, divided by the loss scale, before clipping and masks: what a
    monitor of the training needs. w is the parameter as stored (its float32 master where it has
    one) before the step and dw its change, rounding included. A non-finite gradient makes the
    sums that it enters non-finite.

    Attributes
    ----------
    n : int
        Elements.
    grad_norm, param_norm, update_norm : float
        2-norms of g, w and dw.
    grad_max : float
        Largest magnitude of g, NaN left out.
    grad_dot_update : float
        Sum of g dw: the change of the loss to first order.
    n_non_finite, n_zero : int
        How many elements of g are Inf or NaN, and how many are 0.
    n_rounded_away : int
        How many elements stayed as they were although the learning rate is not 0 and their first
        moment is not (or weight decay applies to them): the update was lost to rounding.
    """

    n: int
    grad_norm: float
    grad_max: float
    param_norm: float
    update_norm: float
    grad_dot_update: float
    n_non_finite: int
    n_zero: int
    n_rounded_away: int


@dataclass(frozen=True, eq=False)
class MPFit(Value):
    """A Marchenko-Pastur law fitted to the bulk of a spectrum, and how random the whole looks.

    Attributes
    ----------
    mp : str
        ``"robust"`` or ``"ww"``: how it was fitted.
    N, M, n : int
        Sides of each matrix; number of eigenvalues.
    sigma_mp : float
        Scale of the law of the eigenvalues divided by their mean: 1 for a random matrix. NaN, like
        every other number here, unless ``status`` is ``OK``.
    W_scale : float
        ``sqrt(n / sum(lambda))``: times W, the eigenvalues have mean one.
    lambda_minus, lambda_plus : float
        Edges of the law, in units of the eigenvalues.
    n_spikes : int
        Number of eigenvalues above ``spike_threshold``; -1 unless ``status`` is ``OK``.
    spike_threshold : float
        ``lambda_plus`` and what the largest eigenvalue of a random matrix may exceed it by.
    mp_soft_rank : float
        ``lambda_plus / lambda_max``.
    D : float
        Kolmogorov-Smirnov distance between the spectrum and the law of a random matrix of the
        same shape and norm.
    p_value : float
        P-value of "a random matrix with independent, identically distributed entries": a small one
        means that the layer is not random. NaN for ``mp="ww"``, which has no test.
    status : Status
        ``OK``, ``NOT_FINITE``, ``TOO_FEW_POINTS`` or ``DEGENERATE`` (a zero
        matrix, or eigenvalues below float64's range).

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> fit = ps.marchenko_pastur(ps.esd(W).evals, 60, 40)
    >>> fit.lambda_minus < fit.lambda_plus < fit.spike_threshold
    True
    """

    mp: str
    N: int
    M: int
    n: int
    sigma_mp: float
    W_scale: float
    lambda_minus: float
    lambda_plus: float
    n_spikes: int
    spike_threshold: float
    mp_soft_rank: float
    D: float
    p_value: float
    status: Status
