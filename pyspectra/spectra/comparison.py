"""Is it a power law? Likelihood-ratio tests against other laws on the same tail."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyspectra._support.arguments import check_choice, shown
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.spectra import alternatives as laws
from pyspectra.spectra.powerlaw import as_spectrum
from pyspectra.types import FloatArray, PowerLawFit, Status

ALTERNATIVES: dict[str, Callable[[FloatArray, float], laws.Law | None]] = {
    "lognormal": laws.lognormal,
    "exponential": laws.exponential,
    "stretched": laws.stretched,
    "tpl": laws.truncated,
}
NESTED = ("tpl",)


@dataclass(frozen=True)
class DistributionComparison:
    """Power law against one alternative, both fitted to the tail by maximum likelihood.

    Attributes
    ----------
    alternative : str
        ``"lognormal"``, ``"exponential"``, ``"stretched"`` or ``"tpl"``.
    R : float
        Log-likelihood ratio: positive where the power law is likelier, negative where the
        alternative is. NaN, like `p`, if the alternative could not be fitted.
    R_normalized : float
        R over its standard deviation (Vuong's statistic, standard normal if neither is better).
    p : float
        Probability of an R so far from 0 if neither were better: small means that the sign of R is
        to be trusted. For a nested alternative: of so large a gain if the power law were true.
    nested : bool
        The alternative contains the power law (``"tpl"``): R <= 0, and p is that of a chi-squared
        with one degree of freedom; else p is Vuong's.
    parameters : mapping of str to float
        Fitted parameters of the alternative.
    n_tail : int
        Points that were compared.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> x = np.exp(np.random.default_rng(0).exponential(1 / 1.5, 500))
    >>> rows = ps.compare_distributions(x, ps.fit_powerlaw(x))
    >>> [(row.alternative, row.nested) for row in rows]
    [('lognormal', False), ('exponential', False), ('tpl', True)]
    """

    alternative: str
    R: float
    R_normalized: float
    p: float
    nested: bool
    parameters: Mapping[str, float]
    n_tail: int


def compare_distributions(
    evals: Any,
    fit: PowerLawFit,
    *,
    alternatives: Sequence[str] = ("lognormal", "exponential", "tpl"),
) -> tuple[DistributionComparison, ...]:
    """Compare a power law with other laws on the tail of a fit.

    Parameters
    ----------
    evals : array, shape (n,)
        What `fit` was fitted to, in any order.
    fit : PowerLawFit
        Says what the tail is: ``fit.xmin <= evals <= fit.xmax``. The power law that is compared is
        the maximum-likelihood one there, whichever estimator `fit` is from.
    alternatives : sequence of {"lognormal", "exponential", "stretched", "tpl"}
        ``"stretched"`` is the stretched exponential, ``"tpl"`` the power law with exponential
        cut-off.

    Returns
    -------
    tuple of DistributionComparison
        One row for each alternative.

    Raises
    ------
    TypeError
        If `fit` is no PowerLawFit or `alternatives` no sequence.
    ValueError
        If `fit` failed, its tail has no two different points in `evals`, or an alternative is
        unknown.

    Notes
    -----
    ``R = sum(ln p_powerlaw - ln p_alternative)``. Not nested: ``p = erfc(|R| / (sigma sqrt(2 n)))``
    with sigma the standard deviation of the terms. Nested: ``p = P(chi2_1 > 2 |R|)``; the power law
    lies at the edge Lambda = 0, so that this p is up to twice too large. The lognormal and the
    stretched exponential, too, become power laws at an edge, but are treated as not nested, as is
    customary. Eigenvalues of one matrix repel each other instead of being independent, as all of
    these p-values assume: read them as descriptions of how well a law describes the points.

    References
    ----------
    Vuong, "Likelihood ratio tests for model selection and non-nested hypotheses", Econometrica 57
    (1989). Clauset, Shalizi, Newman, SIAM Review 51 (2009), section 5.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> x = np.exp(np.random.default_rng(0).exponential(1 / 1.5, 500))  # a power law
    >>> exponential, = ps.compare_distributions(x, ps.fit_powerlaw(x), alternatives="exponential")
    >>> exponential.R > 0, exponential.p < 0.05
    (True, True)
    """
    name = "compare_distributions"
    if not isinstance(fit, PowerLawFit):
        got = f"an object of type {type(fit).__name__}"
        raise ArgumentTypeError(name, "fit", "be a PowerLawFit", got)
    if isinstance(alternatives, str):
        alternatives = (alternatives,)
    try:
        alternatives = tuple(alternatives)
    except TypeError:
        got = shown(alternatives)
        raise ArgumentTypeError(name, "alternatives", "be a sequence of names", got) from None
    for alternative in alternatives:
        check_choice(name, "alternatives", alternative, tuple(ALTERNATIVES))
    if fit.status is not Status.OK:
        raise ArgumentValueError(name, "fit", "have succeeded", f"status {fit.status}")
    x = as_spectrum(evals, name, "evals")
    tail = x[(x >= fit.xmin) & (x <= fit.xmax)]
    if tail.size < 2 or not tail[-1] > tail[0]:
        requirement = f"have two different points from xmin {fit.xmin:g} to xmax {fit.xmax:g}"
        hint = "give the spectrum that was fitted"
        raise ArgumentValueError(name, "evals", requirement, f"{tail.size} points there", hint)
    u = np.log(tail) - math.log(fit.xmin)
    reference = laws.power_law(u, fit.xmin).log_density
    return tuple(_row(alternative, u, fit.xmin, reference) for alternative in alternatives)


def _row(
    alternative: str, u: FloatArray, xmin: float, reference: FloatArray
) -> DistributionComparison:
    nested = alternative in NESTED
    with np.errstate(all="ignore"):
        law = ALTERNATIVES[alternative](u, xmin)
    if law is None:
        return DistributionComparison(alternative, math.nan, math.nan, math.nan, nested, {}, len(u))
    difference = reference - law.log_density
    R = float(np.sum(difference))
    deviation = float(np.std(difference)) * math.sqrt(len(u))
    normalized = R / deviation if deviation > 0.0 else 0.0
    if nested:
        p = math.erfc(math.sqrt(max(-R, 0.0)))  # P(chi2_1 > 2 |R|) = erfc(sqrt(|R|))
    else:
        p = math.erfc(abs(normalized) / math.sqrt(2.0))
    return DistributionComparison(
        alternative, R, normalized, p, nested, dict(law.parameters), len(u)
    )
