"""Singular values that a Gram matrix does not resolve, by inverse iteration with its factor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import tolerances as tol
from reference.small_end import inverse_steps

import pyspectra as ps
from pyspectra import ops
from pyspectra._arrays import FLOAT_DTYPES, HostArray
from pyspectra.spectra import small_end
from pyspectra.spectra.small_end import beyond_gram, small_end_anew

Array = npt.NDArray[np.float64]


def with_values(s: Array, rows: int) -> Array:
    rng = np.random.default_rng(len(s))
    U = np.linalg.qr(rng.standard_normal((rows, len(s))))[0]
    V = np.linalg.qr(rng.standard_normal((len(s), len(s))))[0]
    return np.ascontiguousarray((U * s) @ V.T)


def anew(W: Array) -> Array | None:
    X = HostArray(W, "float64")
    G = ops.gram([X])
    (evals,), _ = ops.eigvals(G)
    return small_end_anew(X, G[0], evals)


def duplicates(n: int) -> Array:
    W = np.random.default_rng(1).standard_normal((n, n))
    W[5] = W[9]
    return W


def dead(n: int, axis: int) -> Array:
    W = np.random.default_rng(2).standard_normal((n, n))
    W[:12] = 0.0
    W[60] = W[61] + 1e-7 * W[60]
    return np.ascontiguousarray(W if axis == 0 else W.T)


def kahan(n: int) -> Array:
    c = 0.1
    return np.diag(np.sqrt(1.0 - c * c) ** np.arange(n)) @ (
        np.eye(n) - c * np.triu(np.ones((n, n)), 1)
    )


def spread(n: int) -> Array:
    s = np.linspace(1e-6, 1.0, n)
    s[:4] = 0.0, 1e-12, 1e-9, 2e-5
    return s


def beside_a_cut(n: int) -> Array:
    """Gaps as the cut needs them, and values where a Gram matrix has lost most."""
    s = np.linspace(0.1, 1.0, n)
    s[:16] = np.r_[1e-8, np.repeat([1.9e-3, 1.93e-3, 2.01e-3], 5)]
    return s


CASES = {
    "spread": with_values(spread(200), 200),
    "cluster": with_values(np.r_[np.full(12, 2e-5), np.linspace(0.3, 1.0, 138)], 300),
    "beside a cut": with_values(beside_a_cut(225), 235),
    "wide": with_values(np.r_[1e-8 * np.arange(20), np.linspace(0.3, 1.0, 140)], 400).T,
    "duplicates": duplicates(240),
    "dead rows": dead(200, 0),
    "dead columns": dead(200, 1),
    "kahan": kahan(160),
}


@pytest.mark.parametrize("case", CASES)
def test_all_values_are_those_of_an_svd(case: str, isa: str) -> None:
    W = CASES[case]
    want = np.linalg.svd(W, compute_uv=False)[::-1]
    found = anew(W)
    assert found is not None
    assert np.all(np.diff(found) >= 0.0)
    error = np.abs(np.sqrt(np.maximum(found, 0.0)) - want).max()
    assert error <= tol.small_end_atol(min(W.shape), want[-1])
    esd = ps.esd(W)
    assert esd.method == "svd"
    np.testing.assert_array_equal(esd.evals, np.maximum(found, 0.0))


@pytest.mark.parametrize("scale", [1e-95, 1e-85, 1e-65, 1e-55, 1e55, 1e65, 1e90])
def test_where_squares_of_residuals_leave_the_range_nothing_is_taken_for_proved(
    scale: float,
) -> None:
    n = 300
    s = np.linspace(1.0, 2.0, n)
    s[:60] = np.geomspace(1e-14, 1e-5, 60)
    esd = ps.esd(with_values(s, n + 20) * scale)
    assert esd.method == "svd"
    error = np.abs(np.sqrt(esd.evals) / scale - s).max()
    assert error <= tol.small_end_atol(n, s[-1])


def spied_upon(monkeypatch: pytest.MonkeyPatch, name: str) -> list[object]:
    """List what a function of the module returns from now on."""
    returned: list[object] = []
    function = getattr(small_end, name)

    def spy(*arguments: object) -> object:
        returned.append(function(*arguments))
        return returned[-1]

    monkeypatch.setattr(small_end, name, spy)
    return returned


def test_a_large_matrix_with_all_of_its_weight_in_one_direction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside its largest value hundreds are small, of which few are small for its order."""
    n = 1100
    rng = np.random.default_rng(n)
    W = rng.standard_normal((n, n)) + 1.2 * np.abs(rng.standard_normal((n, 1)))
    W[5] = W[9]
    spaces = spied_upon(monkeypatch, "_inverse_space")
    found = anew(W)
    assert found is not None
    assert len(spaces) == 1  # a block that forgot its steps would need three times as many columns
    want = np.linalg.svd(W, compute_uv=False)[::-1]
    assert np.count_nonzero(want < 2e-3 * want[-1]) > 40
    assert np.abs(np.sqrt(found) - want).max() <= tol.small_end_atol(n, want[-1]) / 10.0


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_every_type_and_layout(dtype: str) -> None:
    rng = np.random.default_rng(3)
    W = rng.standard_normal((2 * 130, 3 * 100)).astype(np.float32)
    W[::2, 9] = W[::2, 12]
    if dtype == "bfloat16":
        torch = pytest.importorskip("torch")
        tensor = torch.from_numpy(W).to(torch.bfloat16)
        stored, values = tensor[::2, ::3].T, tensor[::2, ::3].double().numpy()
    else:
        stored = W.astype(dtype)[::2, ::3].T
        values = stored.T.astype(np.float64)
    want = np.linalg.svd(values, compute_uv=False)[::-1]
    esd = ps.esd(stored)
    assert esd.method == "svd"
    error = np.abs(np.sqrt(esd.evals) - want).max()
    assert error <= tol.small_end_atol(100, want[-1])


def test_values_that_are_zero_by_empty_rows_or_columns_are_zero() -> None:
    W = np.random.default_rng(4).standard_normal((150, 140))
    W[:, ::4] = 0.0
    for X in (W, W.T, W * 2.0**300):
        found = anew(np.ascontiguousarray(X))
        assert found is not None
        assert np.count_nonzero(found == 0.0) == 35
    W[20:80] = 0.0  # the rows are fewer than the columns by now
    esd = ps.esd(W)
    want = np.linalg.svd(W, compute_uv=False)[::-1]
    assert np.abs(np.sqrt(esd.evals) - want).max() <= tol.small_end_atol(140, want[-1])


def test_a_spectrum_without_a_cut_is_left_to_a_decomposition() -> None:
    W = with_values(np.logspace(-8, 0, 150), 150)
    assert anew(W) is None
    want = np.linalg.svd(W, compute_uv=False)[::-1]
    np.testing.assert_allclose(
        np.sqrt(ps.esd(W).evals), want, rtol=0, atol=tol.eigvals_atol(150, want[-1])
    )


def test_vectors_that_are_not_those_of_the_small_end_are_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is returned is certain, whatever the iteration does."""
    W = CASES["spread"]
    rng = np.random.default_rng(5)

    def elsewhere(factor: Array, X: Array, steps: int) -> None:
        X[...] = np.linalg.qr(rng.standard_normal(X.shape))[0]

    monkeypatch.setattr(ops, "inverse_steps", elsewhere)
    assert anew(W) is None
    monkeypatch.setattr(ops, "inverse_steps", lambda factor, X, steps: None)  # not orthonormal
    assert anew(W) is None


@pytest.mark.parametrize(("n", "p"), [(1, 1), (31, 5), (64, 32), (65, 33), (150, 70), (257, 40)])
def test_steps_are_those_of_the_reference(n: int, p: int, isa: str) -> None:
    rng = np.random.default_rng(n)
    W = rng.standard_normal((n + 20, n))
    G = np.asfortranarray(W.T @ W)
    shift = 1e-3
    start = rng.standard_normal((n, p))
    G[np.triu_indices(n, 1)] = np.nan  # which is not read
    factor = ops.shifted_factor(G, shift)
    X = start.copy()
    ops.inverse_steps(factor, X, 2)
    want = inverse_steps(np.tril(G), shift, start, 2)
    assert np.abs(X.T @ X - np.eye(p)).max() <= tol.ORTHONORMAL_ATOL
    for k in {1, p // 2 + 1, p}:  # the leading columns span the same
        apart = want[:, :k] - X[:, :k] @ (X[:, :k].T @ want[:, :k])
        assert np.abs(apart).max() <= tol.SUBSPACE_ATOL
    Y = start.copy()
    ops.apply_inverse(factor, Y)
    whole = np.tril(G) + np.tril(G, -1).T + shift * np.eye(n)
    size = np.abs(whole).sum(1).max() * np.abs(Y).max()
    assert np.abs(whole @ Y - start).max() <= tol.eigvals_atol(n, size)


def test_a_singular_matrix_has_a_factor(isa: str) -> None:
    """A pivot that is zero or below becomes the shift."""
    G = np.zeros((40, 40), order="F")
    G[3, 3], G[7, 7] = 2.0, -1.0
    X = np.eye(40)[:, :9].copy()
    ops.apply_inverse(ops.shifted_factor(G, 0.5), X)
    want = np.full(9, 2.0)
    want[3] = 0.4
    np.testing.assert_allclose(np.diagonal(X), want, rtol=1e-14)


def test_columns_that_depend_on_others_are_replaced() -> None:
    G = np.asfortranarray(np.diag(np.arange(1.0, 101.0)))
    X = np.ones((100, 9))
    ops.inverse_steps(ops.shifted_factor(G, 1e-3), X, 0)
    assert np.abs(X.T @ X - np.eye(9)).max() <= tol.ORTHONORMAL_ATOL
    np.testing.assert_allclose(np.abs(X[:, 0]), 0.1, rtol=1e-13)


def test_the_same_bits_for_any_number_of_threads(isa: str) -> None:
    W = CASES["spread"]
    found = []
    for threads in (1, 2, 3):
        ops.set_num_threads(threads)
        out = anew(W)
        assert out is not None
        found.append(out.tobytes())
    assert found[0] == found[1] == found[2]


def test_blocks_of_other_shapes_or_layouts_are_refused() -> None:
    factor = ops.shifted_factor(np.eye(5, order="F"), 1.0)
    for X in (np.ones((40, 2)), np.ones((5, 0)), np.ones(5)):
        with pytest.raises(ValueError, match="shapes disagree"):
            ops.inverse_steps(factor, X, 1)
        with pytest.raises(ValueError, match="shapes disagree"):
            ops.apply_inverse(factor, X)
    with pytest.raises(ValueError, match="more vectors than they have entries"):
        ops.inverse_steps(factor, np.ones((5, 6)), 1)
    with pytest.raises(TypeError):
        ops.inverse_steps(factor, np.ones((2, 5)).T, 1)
    with pytest.raises(ValueError, match="square"):
        ops.shifted_factor(np.ones((2, 3), order="F"), 1.0)
    with pytest.raises(ValueError, match="no shift"):
        ops.shifted_factor(np.eye(3, order="F"), 0.0)


def graded(n: int) -> Array:
    return np.random.default_rng(6).standard_normal((n, n)) * np.geomspace(1.0, 1e-6, n)


def turned(n: int) -> Array:
    """Small columns get a part of the large ones, so that all are above what is resolved."""
    v = np.random.default_rng(10).uniform(0.5, 1.0, n) / np.sqrt(n)
    W = graded(n)
    return W - np.outer(W @ v, v) * (2.0 / (v @ v))


def beside_a_small_column(n: int) -> Array:
    W = turned(n)
    W[:, 5] *= 1e-6
    return W


def of_rank(r: int, rows: int, n: int) -> Array:
    rng = np.random.default_rng(7)
    return rng.standard_normal((rows, r)) @ rng.standard_normal((r, n))


def dead_rows(n: int) -> Array:
    W = np.random.default_rng(8).standard_normal((n, n))
    W[: n // 2] = 0.0
    return W


FORESEEN = {
    "graded columns": graded(384),
    "graded rows": graded(384).T,
    "graded and turned": turned(384),
    "graded and turned, with a small column": beside_a_small_column(384),
    "empty rows first": np.r_[np.zeros((300, 384)), of_rank(192, 384, 384)],
    "graded": with_values(np.geomspace(1e-6, 1.0, 390), 450),
    "rank": of_rank(192, 384, 384),
    "rank one": of_rank(1, 450, 384),
    "equal columns": np.outer(np.arange(1.0, 451.0), np.ones(384)),
    "wide": of_rank(150, 384, 600),
    "rounded": of_rank(192, 400, 384).astype(np.float32).astype(np.float64),
    "small": of_rank(192, 384, 384) * 2.0**-300,
}

NOT_FORESEEN = {
    "resolved": np.random.default_rng(9).standard_normal((384, 384)),
    "one small": duplicates(384),
    "dead rows": dead_rows(384),
    "dead columns": dead_rows(384).T,
    "zeros": np.zeros((384, 384)),
    "rank of a small matrix": of_rank(100, 383, 383),
    "beyond a Gram matrix": of_rank(192, 384, 384) * 1e150,
    "nearly the whole rank": of_rank(375, 384, 384),
}


@pytest.mark.parametrize("case", FORESEEN)
def test_what_a_gram_matrix_leaves_open_is_foreseen(
    case: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No eigenvalues are computed to be thrown away, and the values are those of an SVD."""
    W = FORESEEN[case]
    monkeypatch.setattr(ops, "eigvals", None)
    esd = ps.esd(W)
    assert esd.method == "svd"
    want = np.linalg.svd(W, compute_uv=False)[::-1]
    found = np.sqrt(esd.evals)
    assert np.abs(found - want).max() <= tol.eigvals_atol(max(W.shape), want[-1])
    assert want[0] ** 2 < 1e-9 * want[-1] ** 2


@pytest.mark.parametrize("case", NOT_FORESEEN)
def test_what_eigenvalues_are_good_for_is_left_to_them(case: str, isa: str) -> None:
    W = NOT_FORESEEN[case]
    X = HostArray(W, "float64")
    assert not beyond_gram(X, ops.gram([X])[0])


def test_matrices_that_are_not_finite_are_not_foreseen() -> None:
    W = of_rank(192, 384, 384)
    for bad in (np.nan, np.inf):
        W[3, 300] = bad
        X = HostArray(W, "float64")
        assert not beyond_gram(X, ops.gram([X])[0])
        assert ps.esd(W).status is ps.Status.NOT_FINITE


@pytest.mark.parametrize(("n", "order"), [(1, 1), (40, 33), (100, 100), (130, 64)])
def test_pivots_are_those_of_cholesky(n: int, order: int, isa: str) -> None:
    W = np.random.default_rng(n).standard_normal((n + 5, n))
    G = np.asfortranarray(W.T @ W)
    want = np.diagonal(np.linalg.cholesky(G + 0.5 * np.eye(n))) ** 2
    G[np.triu_indices(n, 1)] = np.nan  # which is not read
    found = ops.leading_pivots(G, order, 0.5)
    np.testing.assert_allclose(found, want[:order], rtol=tol.PIVOT_RTOL)
    least = np.linalg.eigvalsh(np.tril(G))[0] + 0.5
    assert least <= found.min() * (1.0 + tol.PIVOT_RTOL)


def test_pivots_of_more_rows_than_there_are_are_refused() -> None:
    for order in (0, 6):
        with pytest.raises(ValueError, match="so many rows"):
            ops.leading_pivots(np.eye(5, order="F"), order, 1.0)
