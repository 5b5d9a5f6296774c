"""Singular values by our own bidiagonal form: orders and spectra that its three stages see."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import tolerances as tol
from reference.linalg import bidiagonal_values

from pyspectra import Status, ops
from pyspectra._arrays import FLOAT_DTYPES, HostArray

Array = npt.NDArray[np.float64]


def values(X: Array) -> Array:
    (found,), (status,) = ops.svdvals([HostArray(X, "float64")])
    assert status is Status.OK
    assert np.all(np.diff(found) <= 0.0)
    assert found[-1] >= 0.0
    return found


# Around the tiles of 32, the two blocks of a sweep and the start of the kernel.
@pytest.mark.parametrize("n", [95, 96, 97, 127, 128, 129, 160, 191, 225])
def test_every_order(n: int, isa: str) -> None:
    X = np.random.default_rng(n).standard_normal((n, n))
    want = np.linalg.svd(X, compute_uv=False)
    np.testing.assert_allclose(values(X), want, rtol=0, atol=tol.eigvals_atol(n, want[0]))


@pytest.mark.parametrize("shape", [(300, 100), (100, 300), (131, 130), (130, 131), (2000, 97)])
def test_matrices_that_are_not_square(shape: tuple[int, int], isa: str) -> None:
    X = np.random.default_rng(0).standard_normal(shape)
    want = np.linalg.svd(X, compute_uv=False)
    np.testing.assert_allclose(values(X), want, rtol=0, atol=tol.eigvals_atol(max(shape), want[0]))


# Chunks of 512 rows: fewer and more of them than rows of the triangle, and ends of all kinds.
@pytest.mark.parametrize("shape", [(544, 530), (700, 600), (1030, 520), (513, 96), (1600, 129)])
def test_rows_come_in_chunks(shape: tuple[int, int], isa: str) -> None:
    X = np.random.default_rng(3).standard_normal(shape) * np.geomspace(1.0, 1e-3, shape[1])
    want = np.linalg.svd(X, compute_uv=False)
    np.testing.assert_allclose(values(X), want, rtol=0, atol=tol.eigvals_atol(max(shape), want[0]))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_every_type_and_layout(dtype: str, isa: str) -> None:
    W = np.random.default_rng(4).standard_normal((2 * 600, 3 * 130)).astype(np.float32)
    if dtype == "bfloat16":
        torch = pytest.importorskip("torch")
        bits = torch.from_numpy(W).to(torch.bfloat16)
        stored, exact = bits.view(torch.uint16).numpy(), bits.double().numpy()
    else:
        stored = W.astype(dtype)
        exact = stored.astype(np.float64)
    for part in (np.s_[::2, ::3], np.s_[::-2, 1::3], np.s_[:130, :150], np.s_[:150:-1, :97]):
        want = np.linalg.svd(exact[part], compute_uv=False)
        atol = tol.eigvals_atol(max(exact[part].shape), want[0])
        for X in (stored[part], stored[part].T):
            (found,), _ = ops.svdvals([HostArray(X, dtype)])
            np.testing.assert_allclose(found, want, rtol=0, atol=atol)


def test_extreme_matrices_with_more_rows(isa: str) -> None:
    X = np.random.default_rng(5).standard_normal((610, 100))
    plain = values(X)
    for power in (1000, -1000):
        np.testing.assert_array_equal(values(np.ldexp(X, power)), np.ldexp(plain, power))
    tiny = values(np.ldexp(X, -1070))  # subnormal: a few bits an entry
    assert tiny[0] == pytest.approx(plain[0] * 2.0**-1070, rel=1e-2)
    mixed = X * np.geomspace(1e150, 1e-150, 100)
    want = np.linalg.svd(mixed, compute_uv=False)
    np.testing.assert_allclose(
        values(mixed), want, rtol=0, atol=tol.eigvals_atol(610, float(want[0]))
    )
    for flat in (np.zeros((610, 100)), np.ones((610, 100)), np.eye(610, 100)):
        want = np.linalg.svd(flat, compute_uv=False)
        np.testing.assert_allclose(values(flat), want, rtol=0, atol=tol.eigvals_atol(610, 300.0))
    flat = np.zeros((610, 100))
    flat[600, 99] = 3.0
    np.testing.assert_array_equal(values(flat), np.r_[3.0, np.zeros(99)])


def known(s: Array) -> Array:
    rng = np.random.default_rng(len(s))
    U, V = (np.linalg.qr(rng.standard_normal((len(s), len(s))))[0] for _ in range(2))
    return np.ascontiguousarray((U * s) @ V)


SPECTRA = {
    "graded": 2.0 ** -np.arange(140.0),
    "logarithmic": np.logspace(0, -12, 150),
    "zeros": np.r_[np.linspace(1.0, 0.5, 70), np.zeros(60)],
    "cluster": np.r_[np.full(100, 1.0), np.full(50, 1e-5)],
    "one": np.r_[1.0, np.zeros(120)],
}


@pytest.mark.parametrize("name", SPECTRA)
def test_known_spectra(name: str, isa: str) -> None:
    s = SPECTRA[name]
    np.testing.assert_allclose(
        values(known(s)), s, rtol=0, atol=2.0 * tol.eigvals_atol(len(s), s[0])
    )


def test_matrices_that_need_no_reflectors(isa: str) -> None:
    n = 130
    for X in (np.zeros((n, n)), np.eye(n), np.diag(np.arange(float(n))), np.ones((n, n))):
        want = np.linalg.svd(X, compute_uv=False)
        np.testing.assert_allclose(values(X), want, rtol=0, atol=tol.eigvals_atol(n, want[0]))
    d, e = np.linspace(1.0, 2.0, n), np.full(n - 1, 0.7)
    want = bidiagonal_values(d, e)
    found = values(np.diag(d) + np.diag(e, 1))
    np.testing.assert_allclose(found, want, rtol=0, atol=tol.eigvals_atol(n, want[0]))


def test_a_power_of_two_scales_them_exactly(isa: str) -> None:
    X = np.random.default_rng(1).standard_normal((110, 110))
    plain = values(X)
    for power in (1000, 460, -460, -1000):
        np.testing.assert_array_equal(values(np.ldexp(X, power)), np.ldexp(plain, power))


def test_the_same_bits_for_any_number_of_threads(isa: str) -> None:
    for shape in ((230, 230), (700, 230)):
        X = np.random.default_rng(2).standard_normal(shape)
        found = []
        for threads in (1, 2, 5):
            ops.set_num_threads(threads)
            found.append(values(X).tobytes())
        assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_is_not_finite_is_told(dtype: str) -> None:
    for shape in ((120, 120), (610, 120), (120, 610)):
        for bad in (np.nan, np.inf, -np.inf):
            X = np.ones(shape, dtype)
            X[-1, 3] = bad
            (found,), (status,) = ops.svdvals([HostArray(X, dtype)])
            assert status is Status.NOT_FINITE
            assert np.isnan(found).all()
