"""How much of a layer looks random: its Marchenko-Pastur fit, and its spectrum randomised.

Sources: `pyspectra.spectra.marchenko_pastur` and `pyspectra.spectra.randomize`.
"""

from __future__ import annotations

import math

from pyspectra.metrics.registry import Spectrum, metric
from pyspectra.spectra import random_null
from pyspectra.spectra.distance import jensen_shannon
from pyspectra.spectra.randomize import Randomized
from pyspectra.types import MPFit

# In units of the threshold below which no test of eigenvalues can see a direction: at twice that
# nearly all are found (benchmarks/levels.md).
FOUND = 2.0


def _mp(s: Spectrum) -> MPFit:
    fit: MPFit = s.measurement("mp")
    return fit


def _rand(s: Spectrum) -> Randomized:
    spectrum: Randomized = s.measurement("randomized")
    return spectrum


@metric("random_p_value")
def random_p_value(s: Spectrum) -> float:
    """P-value of "independent entries, each of a scale of its own": small means structure."""
    if "null" in s.measured:
        return float(s.measured["null"].p_value)
    kurtosis = s.measured.get("kurtosis", 0.0)  # Gaussian where nobody has measured it
    kurtosis = kurtosis if math.isfinite(kurtosis) else 0.0
    return random_null.p_value(s.evals, s.esd.N, s.esd.M, kurtosis)


@metric("detectable_change")
def detectable_change(s: Spectrum) -> float:
    """Smallest change of rank one, |dW| / |W|, that the test for structure mostly finds."""
    N, M, count = s.esd.N, s.esd.M, s.esd.n_matrices
    if M == 1 and count > 1:  # of a depthwise kernel the matrix (C, kh kw) is tested
        M, count = count, 1
    # A direction below (N M)^(1/4), in units of the entries, is lost in the bulk.
    return FOUND / math.sqrt(count * math.sqrt(N * M))


@metric("mp_distance", group="mp_fit")
def mp_distance(s: Spectrum) -> float:
    """Kolmogorov-Smirnov distance from the law of a random matrix of this shape and norm."""
    return _mp(s).D


@metric("sigma_mp", group="mp_fit")
def sigma_mp(s: Spectrum) -> float:
    """Scale of the bulk: 1 for a random matrix; its square is the bulk's share in the norm."""
    return _mp(s).sigma_mp


@metric("lambda_minus", group="mp_fit")
def lambda_minus(s: Spectrum) -> float:
    """Lower edge of the bulk."""
    return _mp(s).lambda_minus


@metric("lambda_plus", group="mp_fit")
def lambda_plus(s: Spectrum) -> float:
    """Upper edge of the bulk."""
    return _mp(s).lambda_plus


@metric("n_spikes", group="mp_fit")
def n_spikes(s: Spectrum) -> int:
    """Eigenvalues beyond what the largest reaches with these entries and random signs (1 %)."""
    return _mp(s).n_spikes


@metric("mp_soft_rank", group="mp_fit")
def mp_soft_rank(s: Spectrum) -> float:
    """lambda_plus / lambda_max."""
    return _mp(s).mp_soft_rank


@metric("rand_lambda_max", group="randomize")
def rand_lambda_max(s: Spectrum) -> float:
    """Largest eigenvalue after the entries were permuted."""
    return float(_rand(s).evals[-1])


@metric("rand_soft_rank", group="randomize")
def rand_soft_rank(s: Spectrum) -> float:
    """Largest randomised eigenvalue over the largest."""
    return float(_rand(s).evals[-1] / s.lambda_max) if s.lambda_max > 0.0 else float("nan")


@metric("rand_distance", group="randomize")
def rand_distance(s: Spectrum) -> float:
    """Jensen-Shannon distance between the spectrum and the randomised one."""
    return jensen_shannon(s.evals, _rand(s).evals) if s.lambda_max > 0.0 else float("nan")


@metric("n_traps", group="randomize")
def n_traps(s: Spectrum) -> int:
    """Spikes of the randomised spectrum: outlying entries, beyond the tail of the others (1 %)."""
    return _rand(s).mp.n_spikes - _rand(s).n_means
