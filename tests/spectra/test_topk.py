"""The k largest singular values: right, within their bounds, and none of them missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import linalg as ref_linalg
from reference import topk as ref

import pyspectra as ps
from pyspectra import ops
from pyspectra.spectra import topk, triplets
from pyspectra.spectra.block_krylov import KrylovSpace
from pyspectra.spectra.single_space import SingleSpace
from pyspectra.spectra.singular_bounds import (
    PROBES,
    LanczosMeasures,
    ProbedNorm,
    is_above_spectrum,
    upper_bounds,
)
from pyspectra.spectra.weight_products import read_factors

EPS = np.finfo(np.float64).eps

modest = settings(deadline=None, max_examples=25, derandomize=True)


def power(count, exponent):
    return np.arange(1, count + 1) ** -exponent


def known(sv, N, seed=0):
    return ref_linalg.with_singular_values(np.asarray(sv), N, np.random.default_rng(seed))


def check(W, top, tol=1e-6):
    """What every result promises, whatever the method."""
    k = len(top.s)
    true = ref.singular_values(W, k)
    size = np.linalg.norm(W)
    rounding = 20.0 * sum(W.shape) * EPS * size
    assert top.status is ps.Status.OK
    assert np.all(np.abs(top.s - true) <= top.bounds + 8.0 * EPS * size)
    assert np.all(top.bounds <= tol * true + rounding)
    assert np.all(np.diff(top.s) <= 0.0)
    for X, n in zip((top.U, top.V), W.shape, strict=True):
        assert X.shape == (n, k)
        assert np.max(np.abs(X.T @ X - np.eye(k))) < 1e-12
    found = ref.residuals(W, top.s, top.U, top.V)
    assert np.allclose(found, top.residuals, rtol=1e-6, atol=rounding)


CASES = {
    "heavy-tailed": lambda: known(power(500, 0.5), 600),
    "steep": lambda: known(power(500, 3.0), 500),
    "random": lambda: np.random.default_rng(0).standard_normal((700, 520)),
    "wide": lambda: known(power(500, 1.0), 900).T,
    "tall": lambda: known(power(300, 1.0), 2000),
    "repeated": lambda: known(np.repeat([5.0, 4.0, 1.0], [3, 20, 477]), 520),
    "one plateau": lambda: np.eye(500, 480),
    "deficient": lambda: known([4.0, 2.0, 1.0] + [0.0] * 497, 600),
    "huge": lambda: 1e200 * known(power(450, 1.0), 500),
    "tiny": lambda: 1e-200 * known(power(450, 1.0), 500),
}


@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("case", CASES)
def test_values_vectors_and_bounds(case, k):
    W = CASES[case]()
    top = ps.svd_topk(W, k)
    scale = 2.0 ** -math.frexp(np.max(np.abs(W)))[1]  # norms of squares leave the range
    scaled = (scale * x for x in (top.s, top.residuals, top.bounds))
    s, residuals, bounds = scaled
    check(W * scale, topk.TopK(s, top.U, top.V, residuals, bounds))


@pytest.mark.parametrize("method", ["krylov", "gram", "svd"])
def test_each_method(method):
    W = known(power(400, 1.0), 450)
    products = read_factors(W, "svd_topk")
    by = {
        "krylov": lambda: topk._by_space(products, 20, 1e-6),
        "gram": lambda: topk._by_gram(products, 20, 1e-6),
        "svd": lambda: topk._whole(products, 20),
    }
    top = by[method]()
    assert top.method == method
    check(W, top)


def single(W, k, tol=1e-6):
    return topk._in_single(read_factors(W, "svd_topk"), k, tol)


@pytest.mark.parametrize(("exponent", "k"), [(0.0, 6), (0.3, 20), (1.0, 30)])
def test_single_precision_only_seeks(monkeypatch, exponent, k):
    """Values are those of float64, from vectors that were found in float32."""
    monkeypatch.setattr(topk, "_by_space", lambda *_: pytest.fail("not needed"))
    rng = np.random.default_rng(3)
    W = rng.standard_normal((500, 400)) * power(400, exponent)
    top = single(W, k)
    assert top.method == "krylov"
    check(W, top)
    assert np.all(np.abs(top.s - ref.singular_values(W, k)) <= 1e-6 * top.s)
    B, A = 0.05 * rng.standard_normal((500, 3)), rng.standard_normal((3, 400))
    check(W + B @ A, single((W, B, A), k))


@pytest.mark.parametrize(
    ("W", "tol"),
    [
        (lambda: known(power(500, 3.0), 500), 1e-6),  # the last of 20 is 1e-4 of the first
        (lambda: known(power(500, 0.5), 500), 1e-12),  # more digits than are in it
        (lambda: known([3.0, 2.0] + [0.0] * 498, 500), 1e-6),  # nothing but rounding from the third
    ],
    ids=["wide", "fine", "deficient"],
)
def test_what_single_precision_cannot_find_is_left_to_double(W, tol):
    W = W()
    assert single(W, 20, tol) is None
    check(W, ps.svd_topk(W, 20, tol=tol), tol)


def test_errors_of_single_precision_count_in_what_probes_show():
    W = known([5.0] * 4 + [1.0] * 396, 450)
    products = read_factors(W, "svd_topk")
    V = np.linalg.svd(W)[2][:4].T
    for error, tau, below in ((1e-6, 1.1, True), (1e-6, 0.9, False), (0.1, 1.1, False)):
        assert triplets._probed(V, tau, products.normal_single, error) is below
    X = np.random.default_rng(0).standard_normal((400, 3))
    wrong = products.normal_single(X) - W.T @ (W @ X)
    bound = products.single_rounding * (2.0 * 5.0 + products.single_rounding)
    assert np.all(np.linalg.norm(wrong, axis=0) <= bound * np.linalg.norm(X, axis=0))


def test_probes_serve_where_the_gram_matrix_is_dear(monkeypatch):
    monkeypatch.setattr(topk.WeightProducts, "gram", lambda self: pytest.fail("not needed"))
    W = known(power(900, 1.0), 900)
    top = ps.svd_topk(W, 3)
    assert top.method == "krylov"
    assert top.failure_probability == 1e-12
    assert 0 < top.n_products < 200
    check(W, top)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 3), (3, 5), (40, 40)], ids=str)
def test_all_of_a_small_matrix(shape):
    W = np.random.default_rng(1).standard_normal(shape)
    check(W, ps.svd_topk(W, min(shape)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_element_types_and_tensors(dtype):
    tensor = torch.from_numpy(known(power(300, 1.0), 320)).to(getattr(torch, dtype))
    W = tensor.double().numpy()
    top = ps.svd_topk(tensor, 5)
    check(W, top)
    if dtype != "bfloat16":
        assert ps.svd_topk(tensor.numpy(), 5) == top
    wide = ps.svd_topk(tensor.T, 5)
    assert np.allclose(wide.s, top.s, rtol=1e-9)


def test_any_strides_give_the_same_bits():
    W = known(power(300, 1.0), 320).astype(np.float32)
    base = np.zeros((640, 900), np.float32)
    base[::2, ::3] = W
    assert ps.svd_topk(base[::2, ::3], 4) == ps.svd_topk(W, 4)


def test_a_low_rank_update_is_never_formed(monkeypatch):
    rng = np.random.default_rng(2)
    W, B, A = known(power(300, 1.0), 500), rng.standard_normal((500, 4)), rng.random((4, 300))
    whole = W + 0.1 * B @ A
    monkeypatch.setattr(topk.WeightProducts, "dense", lambda self: pytest.fail("not needed"))
    factors = (W.astype(np.float32), 0.1 * B, A)
    check(factors[0] + 0.1 * B @ A, ps.svd_topk(factors, 6))
    top = ps.svd_topk((W.T, A.T, 0.1 * B.T), 6)
    check(whole.T, top)


@pytest.mark.parametrize("cols", [200, 1600])
def test_products_with_the_transpose_of_short_and_long_matrices(cols):
    rng = np.random.default_rng(4)
    W = rng.standard_normal((1601, cols)).astype(np.float32)
    B, A, Y = (rng.standard_normal(shape) for shape in ((1601, 2), (2, cols), (1601, 19)))
    found = []
    for threads in (1, 3):
        ops.set_num_threads(threads)
        found.append(read_factors((W, B, A), "svd_topk").backward(Y))
    expected = (W + B @ A).T @ Y
    assert np.max(np.abs(found[0] - expected)) <= 1e-13 * np.linalg.norm(W) * np.linalg.norm(Y)
    assert np.array_equal(found[0], found[1])


def test_an_update_that_cancels_the_matrix():
    rng = np.random.default_rng(2)
    B, A = rng.standard_normal((400, 3)), rng.standard_normal((3, 300))
    top = ps.svd_topk((B @ A, -B, A), 2)
    assert np.all(top.s <= 1e-12)
    assert np.all(top.bounds <= 1e-8)
    assert np.allclose(top.U.T @ top.U, np.eye(2))


def test_zero_and_what_is_not_finite():
    top = ps.svd_topk(np.zeros((30, 20)), 3)
    assert (top.s == 0).all()
    assert (top.bounds == 0).all()
    check(np.zeros((30, 20)), top)
    for bad in (np.nan, np.inf):
        W = np.ones((30, 20))
        W[3, 4] = bad
        top = ps.svd_topk(W, 3)
        assert top.status is ps.Status.NOT_FINITE
        assert np.isnan(top.s).all()
        assert top.U.shape == (30, 3)
        assert top.V.shape == (20, 3)
        update = (np.ones((30, 20)), W[:, :2], np.ones((2, 20)))
        assert ps.svd_topk(update, 1).status is (
            ps.Status.OK if np.isfinite(W[:, :2]).all() else ps.Status.NOT_FINITE
        )
    assert ps.svd_topk((np.ones((3, 2)), np.full((3, 1), np.nan), np.ones((1, 2))), 1).status is (
        ps.Status.NOT_FINITE
    )


def test_the_same_bits_for_any_number_of_threads():
    W = known(power(700, 0.5), 800).astype(np.float32)
    found = []
    for threads in (1, 2, 5):
        ops.set_num_threads(threads)
        found.append(ps.svd_topk(W, 8))
    assert found[0] == found[1] == found[2]
    assert found[0].method == "krylov"


def test_the_largest_entry_of_each_left_vector_is_positive():
    top = ps.svd_topk(-CASES["heavy-tailed"](), 5)
    largest = np.argmax(np.abs(top.U), axis=0)
    assert (top.U[largest, np.arange(5)] > 0).all()


def test_a_smaller_tolerance_makes_better_vectors():
    W = CASES["random"]()
    loose, tight = ps.svd_topk(W, 3, tol=1e-2), ps.svd_topk(W, 3, tol=1e-12)
    check(W, loose, 1e-2)
    check(W, tight, 1e-12)
    assert loose.n_products < tight.n_products or tight.method != "krylov"
    assert tight.residuals.max() < loose.residuals.max()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.ones((3, 2)), 0), ValueError, "'k' must be an integer from 1 to 2, got 0"),
        ((np.ones((3, 2)), 3), ValueError, "'k' must be an integer from 1 to 2, got 3"),
        ((np.ones((3, 2)), 1.0), TypeError, "'k' must be"),
        ((np.ones(3), 1), ValueError, "'W' must be 2-D"),
        ((np.ones((0, 3)), 1), ValueError, "'W' must not be empty"),
        ((np.ones((3, 2), int), 1), TypeError, "'W' must be a floating-point array"),
        (((np.ones((3, 2)),) * 2, 1), TypeError, "a tuple of 2"),
        (((np.ones((3, 2)),) * 3, 1), ValueError, "shapes"),
    ],
)
def test_refused_arguments(arguments, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(")):
        ps.svd_topk(*arguments)


@pytest.mark.parametrize("tol", [0.0, 1.0, math.nan])
def test_refused_tolerances(tol):
    with pytest.raises(ValueError, match="'tol' must be in"):
        ps.svd_topk(np.ones((3, 2)), 1, tol=tol)


@st.composite
def spectra(draw):
    """A matrix whose singular values have gaps, plateaus and zeros, worth a Krylov space."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n = draw(st.integers(130, 260))
    s = rng.lognormal(0.0, draw(st.floats(0.05, 3.0)), n)
    if draw(st.booleans()):
        s = np.round(s, 1)
    s[rng.permutation(n)[: draw(st.sampled_from([0, 0, n // 2, n - 3]))]] = 0.0
    return known(np.sort(s)[::-1], n + draw(st.integers(0, 50)), seed)


@modest
@given(W=spectra(), k=st.sampled_from([1, 2, 7]))
def test_no_bound_is_broken_whatever_the_spectrum(W, k):
    if W.any():
        check(W, ps.svd_topk(W, k))


@pytest.mark.parametrize("exponent", [-1000, -300, -7, 9, 300, 990])
def test_the_unit_of_the_weights_changes_nothing_but_the_scale(exponent):
    W = CASES["heavy-tailed"]()
    one, other = ps.svd_topk(W, 2), ps.svd_topk(np.ldexp(W, exponent), 2)
    assert np.allclose(np.ldexp(one.s, exponent), other.s, rtol=1e-12, atol=0.0)
    assert np.allclose(np.abs(one.U), np.abs(other.U), atol=1e-8)


# --- what the bounds rest on --------------------------------------------------------------------


@modest
@given(seed=st.integers(0, 2**32 - 1), phi=st.sampled_from([1.01, 2.0, 50.0]))
def test_upper_bounds_hold_for_any_subspace(seed, phi):
    """The theorem at the head of the module, with V no singular vectors at all."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((30, 20)) * rng.lognormal(0.0, 1.0, 20)
    V, _ = np.linalg.qr(rng.standard_normal((20, 6)) + 3.0 * np.linalg.svd(W)[2][:6].T)
    U, s, outer = np.linalg.svd(W @ V, full_matrices=False)
    V = V @ outer.T
    F = W.T @ U - V * s
    rest = ref.rest_norm(W, U, V) ** 2 * phi / (phi - 1.0)
    upper = np.maximum(upper_bounds(s, F.T @ F, phi, 6), math.sqrt(rest))
    true = ref.singular_values(W, 6)
    assert np.all(s <= true * (1.0 + 1e-12))
    assert np.all(true <= upper * (1.0 + 1e-12))


def test_cholesky_counts_what_is_above():
    W = known([4.0, 3.0, 2.0, 1.0], 10)
    V = np.linalg.svd(W)[2][:2].T
    for t, above in ((4.0 + 1e-9, True), (4.0 - 1e-9, False), (8.9, True), (0.0, False)):
        assert is_above_spectrum(W.T @ W, V, t, 1e-13) is above
    assert not is_above_spectrum(W.T @ W, V, 4.0 + 1e-9, 1e-6)  # below the error of the matrix


def test_orthonormal_polynomials_are_those_of_the_measure():
    rng = np.random.default_rng(0)
    evals, start = np.sort(rng.random(12)), rng.standard_normal((12, 3))
    measures = LanczosMeasures(lambda X: evals[:, None] * X, start)
    for _ in range(5):
        measures.step()
    weights = (start / np.linalg.norm(start, axis=0)) ** 2
    for t in (-0.3, 0.5, 1.4):
        expected = [ref.christoffel(evals, w, t, 5) for w in weights.T]
        assert np.allclose(measures.kernel(np.full(3, t)), expected, rtol=1e-8)
    # Bessel's inequality: no eigenvector has a larger share in the start vector.
    kernels = np.array([measures.kernel(np.full(3, t)) for t in evals])
    assert np.all(weights * kernels <= 1.0 + 1e-12)


def test_a_recurrence_that_ends():
    evals = np.array([1.0, 1.0, 3.0])
    measures = LanczosMeasures(lambda X: evals[:, None] * X, np.array([[1.0], [0.0], [1.0]]))
    for _ in range(5):
        measures.step()
    assert measures.largest()[0] == pytest.approx(3.0)
    assert measures.kernel(np.array([2.0]))[0] == math.inf


@pytest.mark.parametrize("seed", range(5))
def test_the_probed_norm_is_never_below_the_norm(seed):
    rng = np.random.default_rng(seed)
    evals = np.sort(rng.lognormal(0.0, 1.0, 400))
    probe = ProbedNorm(lambda X: evals[:, None] * X, rng.standard_normal((400, PROBES)))
    bounds = []
    for _ in range(12):
        probe.step()
        bounds.append(probe.bound())
        assert bounds[-1] >= evals[-1]
    assert bounds[-1] <= 1.5 * evals[-1]
    assert bounds[-1] < bounds[0]


def test_one_number_is_told_from_the_probed_norm():
    rng = np.random.default_rng(0)
    evals = np.sort(rng.lognormal(0.0, 1.0, 400))
    probe = ProbedNorm(lambda X: evals[:, None] * X, rng.standard_normal((400, PROBES)))
    for _ in range(8):
        probe.step()
    bound = probe.bound()
    assert probe.is_below(bound * 1.0001)
    assert not probe.is_below(bound * 0.9999)
    assert not probe.is_above(evals[-1])
    assert probe.is_above(0.5 * evals[-1])


def test_a_space_in_single_precision_stays_orthonormal():
    W = known(power(300, 2.0), 320)
    space = SingleSpace(300, read_factors(W, "svd_topk").normal_single)
    for _ in range(5):
        space.grow()
    found = space.ritz(3)
    V = space.vectors(found)
    assert np.allclose(V.T @ V, np.eye(3), atol=1e-5)
    assert np.allclose(found.s, ref.singular_values(W, 3), rtol=1e-5)
    again = SingleSpace(300, read_factors(known([1.0] + [0.0] * 299, 300), "W").normal_single)
    again.grow()
    assert again.worn


def test_a_space_goes_on_where_the_matrix_ends():
    W = known([3.0, 2.0] + [0.0] * 98, 100)
    space = KrylovSpace(100, lambda X: (W @ X, W.T @ (W @ X)))
    for _ in range(5):
        space.grow()
    assert space.size == 80
    assert np.allclose(space.basis.T @ space.basis, np.eye(80), atol=1e-12)
    assert np.allclose(space.ritz(2).s, [3.0, 2.0])
    while not space.exhausted:
        space.grow()
    assert space.size == 100
