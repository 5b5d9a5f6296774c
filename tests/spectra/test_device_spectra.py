"""Power-law fits and eigenvalues by the CUDA kernels against those of the CPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tolerances import ESD_GRAM_RTOL, eigvals_atol

import pyspectra as ps
from pyspectra import ops
from pyspectra._cuda import eigenvalues
from pyspectra._cuda import fits as device_fits
from pyspectra.types import Status


def fits_there(spectra: list[Any], device: str, **options: Any) -> Any:
    settings = {"threshold": 1e-5, "xmax": math.inf, **options}
    return device_fits.fit_powerlaw([torch.tensor(x, device=device) for x in spectra], **settings)


def fits_here(spectra: list[Any], **options: Any) -> Any:
    settings = {"threshold": 1e-5, "xmax": math.inf, "xmin": math.nan, **options}
    x = [np.sort(s) for s in spectra]
    return ops.fit_powerlaw(x, ops.fit_options(estimator="ww", **settings), estimator="ww")


def assert_same_fits(a: Any, b: Any) -> None:
    # NaN is not equal to itself; repr shows every bit of a float.
    assert [repr(x) for x in a] == [repr(x) for x in b]


@pytest.mark.parametrize("options", [{}, {"threshold": 0.0}, {"xmax": 3.0}], ids=str)
def test_fits_have_the_bits_of_the_cpu(device: str, options: Any) -> None:
    rng = np.random.default_rng(0)
    spectra = [rng.pareto(1.5, n) + 0.5 for n in (2, 5, 7, 8, 19, 20, 21, 33, 257, 300, 1000)]
    spectra.append(np.linalg.eigvalsh(np.cov(rng.standard_normal((120, 300)))))
    spectra.append(np.exp(rng.standard_normal(500)))
    spectra.append(np.repeat(rng.pareto(2.0, 60) + 1.0, 5))  # ties
    assert_same_fits(fits_there(spectra, device, **options), fits_here(spectra, **options))


def test_fits_longer_than_what_is_staged(device: str) -> None:
    rng = np.random.default_rng(1)
    spectra = [rng.pareto(2.5, 2600) + 1.0]
    assert_same_fits(fits_there(spectra, device), fits_here(spectra))


def test_what_has_no_fit(device: str) -> None:
    spectra = [
        np.array([]),
        np.array([1.0]),
        np.full(50, 2.0),
        np.full(5, 2.0),
        np.array([1.0, np.nan, 2.0]),
        np.array([1.0, np.inf, 2.0]),
        np.zeros(30),
        np.array([5e-324, 1e-310, 1.0, 2.0]),
    ]
    assert_same_fits(fits_there(spectra, device, threshold=0.0), fits_here(spectra, threshold=0.0))


def symmetric(n: int, seed: int, scale: float = 1.0) -> Any:
    x = np.random.default_rng(seed).standard_normal((n, n))
    return scale * (x + x.T)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 31, 33, 64, 100])
def test_eigenvalues(device: str, n: int) -> None:
    A = np.stack([symmetric(n, seed, scale) for seed, scale in enumerate((1.0, 1e-200, 1e150))])
    # What is above the diagonal goes unread.
    upper = np.triu(np.full((n, n), np.nan), 1)
    got, status = eigenvalues.eigvals(torch.tensor(A + upper, device=device), method="one_block")
    assert status == [Status.OK] * 3
    for a, x in zip(A, got, strict=True):
        norm = np.abs(np.linalg.eigvalsh(a)).max()
        np.testing.assert_allclose(x, np.linalg.eigvalsh(a), rtol=0, atol=eigvals_atol(n, norm))


@pytest.mark.parametrize(("n", "band"), [(2, 4), (3, 2), (9, 4), (30, 4), (41, 8), (70, 32)])
def test_two_stages(device: str, n: int, band: int) -> None:
    batch = np.stack([symmetric(n, 3), np.diag(np.arange(n, dtype=float)), np.ones((n, n))])
    d, e = eigenvalues._two_stage(torch.tensor(batch, device=device), band)
    for A, values in zip(batch, eigenvalues._bisected(d, e).cpu().numpy(), strict=True):
        want = np.linalg.eigvalsh(A)
        atol = eigvals_atol(n, np.abs(want).max())
        np.testing.assert_allclose(np.sort(values), want, rtol=0, atol=atol)


def test_eigenvalues_of_special_matrices(device: str) -> None:
    n = 40
    rng = np.random.default_rng(0)
    W = rng.standard_normal((n, 7))
    cases = [
        np.zeros((n, n)),
        np.eye(n),
        np.diag(np.logspace(-12, 0, n)),
        W @ W.T,  # 33 eigenvalues that are zero
        np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1),
        symmetric(n, 1),
    ]
    bad = [np.full((n, n), np.nan), np.diag([np.inf] * n)]
    got, status = eigenvalues.eigvals(
        torch.tensor(np.stack(cases + bad), device=device), method="one_block"
    )
    assert status == [Status.OK] * len(cases) + [Status.NOT_FINITE] * len(bad)
    for a, x in zip(cases, got, strict=False):
        want = np.linalg.eigvalsh(a)
        np.testing.assert_allclose(x, want, rtol=0, atol=eigvals_atol(n, np.abs(want).max()))
    assert np.isnan(got[-1]).all()


def test_bisection_over_more_rows_than_are_staged(device: str) -> None:
    n = 1100
    rng = np.random.default_rng(2)
    d, e = torch.tensor(rng.standard_normal((2, 1, n)), device=device)
    evals = eigenvalues._bisected(d, e)
    import scipy.linalg

    want = scipy.linalg.eigvalsh_tridiagonal(d[0].cpu().numpy(), e[0, :-1].cpu().numpy())
    atol = eigvals_atol(n, np.abs(want).max())
    np.testing.assert_allclose(np.sort(evals[0].cpu().numpy()), want, rtol=0, atol=atol)


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (12, 12), (20, 1)])
def test_singular_values(device: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    W = [scale * rng.standard_normal(shape) for scale in (1.0, 1e-200, 1e150)]
    W.append(np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1])))
    W += [np.zeros(shape), np.full(shape, np.nan)]
    got, status = eigenvalues.singular_values([torch.tensor(X, device=device) for X in W])
    assert status == [Status.OK] * 5 + [Status.NOT_FINITE]
    for X, values in zip(W[:5], got, strict=False):
        want = np.linalg.svd(X, compute_uv=False)[::-1]
        atol = eigvals_atol(2 * len(want), want[-1])
        np.testing.assert_allclose(values, want, rtol=0, atol=atol)
        assert values.min() >= 0.0
    assert np.isnan(got[5]).all()


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (33, 33)])
def test_gram_by_blocks_of_rows(monkeypatch: Any, shape: tuple[int, int]) -> None:
    monkeypatch.setattr(eigenvalues, "GRAM_BLOCK", 500)
    W = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    x = W.to(torch.float64)
    want = x.mT @ x if shape[0] >= shape[1] else x @ x.mT
    torch.testing.assert_close(eigenvalues.gram(W), want)


@pytest.mark.gpu
@pytest.mark.parametrize("n", [50, 300])
def test_the_public_functions_on_a_gpu(n: int) -> None:
    W = torch.randn((2 * n, n), generator=torch.Generator().manual_seed(0))
    of_host, of_device = ps.esd(W), ps.esd(W.cuda())
    assert of_device.method == of_host.method
    np.testing.assert_allclose(of_device.evals, of_host.evals, rtol=ESD_GRAM_RTOL)
    assert repr(ps.fit_powerlaw(torch.tensor(of_host.evals).cuda())) == repr(
        ps.fit_powerlaw(of_host.evals)
    )
    svd = ps.esd(W.cuda(), method="svd")
    assert svd.method == "svd"
    np.testing.assert_allclose(svd.evals, of_host.evals, rtol=ESD_GRAM_RTOL)
    evals = torch.tensor(of_host.evals)
    sure = [ps.fit_powerlaw(x, bootstrap=50, seed=3) for x in (evals, evals.cuda())]
    assert repr(sure[0]) == repr(sure[1])
    A = W.double().mT @ W.double()
    norm = float(of_host.evals[-1])
    for batch in (A, torch.stack([A, 2 * A])):
        got = ps.eigvals(batch.cuda())
        np.testing.assert_allclose(
            got, ps.eigvals(batch), rtol=0, atol=2 * eigvals_atol(n, 2 * norm)
        )
    A[0, 0] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        ps.eigvals(A.cuda())


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"threshold": 0.3, "xmax": 8.0}], ids=str)
def test_replicates_have_the_bits_of_the_cpu(
    device: str, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    tails = [rng.pareto(1.5, n) + 1.0 for n in (9, 30, 140)]
    spectra = [*tails, np.concatenate([rng.pareto(2.0, 90) + 1.0, rng.random(600) ** 0.3])]
    spectra.append(rng.pareto(2.5, 2500) + 1.0)  # a tail longer than what is staged
    settings = {"threshold": 1e-5, "xmax": math.inf, **options}
    fits = fits_there(spectra, device, **options)
    assert max(fit.index for fit in fits) > 256  # a body longer than a block
    keys = [2**64 - 1 - 7 * k for k in range(len(spectra))]
    monkeypatch.setattr(device_fits, "BOOTSTRAP_POINTS", 2 * sum(fit.n for fit in fits))
    of_device = [torch.tensor(x, device=device) for x in spectra]
    got = device_fits.bootstrap_powerlaw(of_device, fits, 5, keys, **settings)
    host = ops.fit_options(estimator="ww", xmin=math.nan, **settings)
    want = ops.bootstrap_powerlaw([np.sort(x) for x in spectra], host, fits, 5, keys)
    np.testing.assert_array_equal(got, want)
    assert np.isfinite(got).all()


def test_no_replicates_of_what_has_no_fit() -> None:
    assert device_fits.bootstrap_powerlaw([], [], 5, [], threshold=0.0, xmax=math.inf) == []
