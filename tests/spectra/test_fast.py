"""The bound on alpha of eigenvalues that are known within a bound."""

from __future__ import annotations

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.spectra.fast import alpha_range
from pyspectra.types import FloatArray, PowerLawFit


def fitted(x: FloatArray) -> PowerLawFit:
    return ps.fit_powerlaw(x, threshold=1e-10 * float(x[-1]))


def spectrum(kind: str, n: int) -> FloatArray:
    rng = np.random.default_rng(n)
    if kind == "power law":
        return np.sort(np.exp(rng.exponential(1.0 / 1.7, n)))
    N = n if kind == "square" else 2 * n
    W = rng.standard_normal((N, n)) * np.exp(0.8 * rng.standard_normal(n))
    return np.linalg.svd(W, compute_uv=False)[::-1] ** 2


KINDS = ("power law", "square", "tall")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("relative", [1e-4, 1e-5, 1e-6])
def test_alpha_of_what_may_be_exact_is_in_the_range(kind: str, relative: float) -> None:
    x = spectrum(kind, 300)
    bound = relative * float(x[-1])
    span = alpha_range(x, bound, fitted(x))
    if span is None:
        assert relative > 1e-6
        return
    rng = np.random.default_rng(1)
    for k in range(40):
        moves = rng.uniform(-1.0, 1.0, len(x)) if k % 2 else rng.choice([-1.0, 1.0], len(x))
        if k % 4 == 0:
            moves = np.sign(np.sin(np.arange(len(x)) / (1 + k)))
        y = np.sort(np.maximum(x + bound * moves, 0.0))
        assert span[0] <= fitted(y).alpha <= span[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_range_shrinks_with_the_bound(kind: str) -> None:
    x = spectrum(kind, 400)
    fit = fitted(x)
    widths = []
    for relative in (1e-6, 1e-8, 1e-10):
        span = alpha_range(x, relative * float(x[-1]), fit)
        assert span is not None
        assert span[0] <= fit.alpha <= span[1]
        widths.append(span[1] - span[0])
    assert widths[2] < widths[1] < widths[0] < 0.02
    assert widths[2] < 1e-5


def test_two_tails_that_fit_equally_well_are_both_in_the_range() -> None:
    """The range has the exponents of all candidates that the bound cannot tell from the best."""
    x = spectrum("power law", 500)
    fit = fitted(x)
    span = alpha_range(x, 2e-4 * float(x[0]), fit)
    assert span is not None
    rng = np.random.default_rng(0)
    alphas = {fitted(np.sort(x + 2e-4 * x[0] * rng.uniform(-1, 1, 500))).alpha for _ in range(60)}
    assert span[0] <= min(alphas)
    assert max(alphas) <= span[1]


def test_nothing_is_said_where_the_bound_is_too_wide() -> None:
    x = spectrum("square", 200)
    assert alpha_range(x, float(x[-1]), fitted(x)) is None
    assert alpha_range(x, 0.5 * fitted(x).xmin, fitted(x)) is None
    other = ps.fit_powerlaw(x, estimator="hill(50)")
    assert alpha_range(x, 1e-9 * float(x[-1]), other) is None
    assert alpha_range(x[:5], 1e-12, ps.fit_powerlaw(x[:1])) is None
