"""Laws that hold for every input, on inputs that hypothesis makes up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tolerances as tol
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import powerlaw as ref

import pyspectra as ps
from pyspectra import PowerLawFit, Status

Array = ref.Array

modest = settings(deadline=None, max_examples=60, derandomize=True)

sizes = st.integers(2, 150)
seeds = st.integers(0, 2**32 - 1)
# Neither powers of two nor one: scaling by those moves no rounding.
factors = st.floats(1e-6, 1e6).filter(lambda c: math.frexp(c)[0] not in (0.5, 1.0))


@st.composite
def spectra(draw: st.DrawFn) -> Array:
    rng = np.random.default_rng(draw(seeds))
    n = draw(sizes)
    kind = draw(st.sampled_from(["lognormal", "pareto", "gamma", "rounded"]))
    if kind == "lognormal":
        x = rng.lognormal(0.0, draw(st.floats(0.1, 2.5)), n)
    elif kind == "gamma":
        x = rng.gamma(draw(st.floats(0.3, 4.0)), 2.0, n) + 1e-3
    else:
        x = np.asarray((1.0 - rng.random(n)) ** -draw(st.floats(0.2, 1.5)))
        x = np.round(x, 1) if kind == "rounded" else x
    return np.sort(x)


@st.composite
def matrices(draw: st.DrawFn) -> Array:
    rng = np.random.default_rng(draw(seeds))
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    return rng.standard_normal(shape) * rng.lognormal(0.0, draw(st.floats(0.0, 1.5)), shape)


def same(a: PowerLawFit, b: PowerLawFit, factor: float = 1.0) -> None:
    """`b` is `a` with every point multiplied by `factor`."""
    assert (a.status, a.index, a.n, a.n_tail) == (b.status, b.index, b.n, b.n_tail)
    if a.status is not Status.OK:
        return
    np.testing.assert_allclose(
        [b.alpha - 1.0, b.alpha_stderr, b.xmin, b.xmax],
        [a.alpha - 1.0, a.alpha_stderr, factor * a.xmin, factor * a.xmax],
        rtol=tol.SCALE_RTOL,
    )
    np.testing.assert_allclose(b.D, a.D, rtol=0.0, atol=tol.SCALE_RTOL)


def clear_winner(x: Array) -> bool:
    fit = ref.fit_ww(x, threshold=0.0)
    return fit.status != "ok" or fit.margin > tol.SCALE_RTOL


@modest
@given(x=spectra(), c=factors)
def test_alpha_does_not_depend_on_the_scale(x: Array, c: float) -> None:
    assume(clear_winner(x))
    same(ps.fit_powerlaw(x, threshold=0.0), ps.fit_powerlaw(c * x, threshold=0.0), c)


@modest
@given(x=spectra(), c=factors)
def test_hill_does_not_depend_on_the_scale(x: Array, c: float) -> None:
    options: dict[str, Any] = {"threshold": 0.0, "estimator": "hill"}
    assume(ref.fit_hill(x, threshold=0.0).status == "ok")
    same(ps.fit_powerlaw(x, **options), ps.fit_powerlaw(c * x, **options), c)


@modest
@given(x=spectra())
def test_the_fit_is_that_of_the_exhaustive_scan(x: Array) -> None:
    want = ref.fit_ww(x)
    assume(want.status != "ok" or want.margin > tol.KS_TIE)
    got = ps.fit_powerlaw(x)
    assert str(got.status) == want.status
    assert got.index == want.index
    np.testing.assert_allclose(got.alpha, want.alpha, rtol=tol.ALPHA_RTOL)
    np.testing.assert_allclose(got.D, want.D, rtol=0.0, atol=tol.KS_ATOL)


@modest
@given(x=spectra(), seed=seeds)
def test_the_order_of_points_does_not_matter(x: Array, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(x)
    assert repr(ps.fit_powerlaw(shuffled)) == repr(ps.fit_powerlaw(x))


@modest
@given(x=spectra(), low=st.lists(st.floats(-1e3, 1e-5), max_size=30))
def test_points_up_to_the_threshold_change_nothing(x: Array, low: list[float]) -> None:
    assert repr(ps.fit_powerlaw([*low, *x])) == repr(ps.fit_powerlaw(x))


@modest
@given(xs=st.lists(spectra(), max_size=6))
def test_a_batch_of_fits_is_its_singles(xs: list[Array]) -> None:
    assert repr(ps.fit_powerlaw_batch(xs)) == repr([ps.fit_powerlaw(x) for x in xs])


@modest
@given(x=spectra(), more=st.integers(1, 20), seed=seeds)
def test_points_above_xmax_change_nothing(x: Array, more: int, seed: int) -> None:
    above = x[-1] * (1.5 + np.random.default_rng(seed).random(more))
    cut = float(x[-1])
    together = ps.fit_powerlaw(np.concatenate([x, above]), xmax=cut)
    assert repr(together) == repr(ps.fit_powerlaw(x))


@modest
@given(W=matrices(), c=factors)
def test_eigenvalues_scale_with_the_square(W: Array, c: float) -> None:
    a, b = ps.esd(W).evals, ps.esd(c * W).evals
    np.testing.assert_allclose(b, c**2 * a, rtol=0.0, atol=tol.SCALE_RTOL * c**2 * a[-1])


@modest
@given(W=matrices(), method=st.sampled_from(["auto", "gram", "svd"]))
def test_a_matrix_and_its_transpose_have_one_spectrum(W: Array, method: Any) -> None:
    a, b = ps.esd(W, method=method), ps.esd(W.T, method=method)
    assert (a.N, a.M, a.method) == (b.N, b.M, b.method)
    np.testing.assert_allclose(b.evals, a.evals, rtol=0.0, atol=tol.PERMUTATION_RTOL * a.evals[-1])


@modest
@given(W=matrices(), seed=seeds)
def test_permuting_rows_and_columns_keeps_the_spectrum(W: Array, seed: int) -> None:
    rng = np.random.default_rng(seed)
    P = W[rng.permutation(W.shape[0])][:, rng.permutation(W.shape[1])]
    a, b = ps.esd(W).evals, ps.esd(P).evals
    np.testing.assert_allclose(b, a, rtol=0.0, atol=tol.PERMUTATION_RTOL * a[-1])


@modest
@given(W=matrices())
def test_the_trace_is_the_sum_and_the_spectrum_is_sorted(W: Array) -> None:
    evals = ps.esd(W).evals
    assert len(evals) == min(W.shape)
    assert np.all(evals >= 0.0)
    assert np.all(np.diff(evals) >= 0.0)
    np.testing.assert_allclose(np.sum(evals), np.sum(W * W), rtol=tol.METRIC_RTOL)


@modest
@given(n=st.integers(1, 40), count=st.integers(1, 10), seed=seeds)
def test_a_batch_of_eigenvalues_is_its_singles(n: int, count: int, seed: int) -> None:
    X = np.random.default_rng(seed).standard_normal((count, n, n))
    A = X + np.swapaxes(X, 1, 2)
    norm = float(np.max(np.linalg.norm(A, 2, axis=(1, 2))))
    np.testing.assert_allclose(
        ps.eigvals(A),
        [ps.eigvals(a) for a in A],
        rtol=0.0,
        atol=2.0 * tol.eigvals_atol(n, norm),
    )


@modest
@given(n=st.integers(1, 30), shift=st.floats(-50.0, 50.0), seed=seeds)
def test_a_multiple_of_the_identity_shifts_the_spectrum(n: int, shift: float, seed: int) -> None:
    X = np.random.default_rng(seed).standard_normal((n, n))
    A = X + X.T
    norm = float(np.linalg.norm(A, 2)) + abs(shift)
    np.testing.assert_allclose(
        ps.eigvals(A + shift * np.eye(n)),
        ps.eigvals(A) + shift,
        rtol=0.0,
        atol=2.0 * tol.eigvals_atol(n, norm),
    )
