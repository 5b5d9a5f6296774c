"""FARMS: windows, their pooled eigenvalues, one fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerances as tol
from reference import farms as ref
from reference import powerlaw as ref_powerlaw

import pyspectra as ps
from pyspectra._arrays import HostArray
from pyspectra.spectra.estimators import parse_estimator
from pyspectra.spectra.farms import window_esd


def weight(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(4, (rows, cols)) / np.sqrt(max(rows, cols))


CASES = [
    ((60, 60), (20, 5, 1.0)),
    ((96, 50), (24, 4, 1.5)),
    ((50, 96), (24, 7, 0.75)),
    ((33, 40), (30, 15, 1.0)),  # fewer starts than ops
    ((30, 64), (64, 3, 1.0)),  # shrinks
    ((40, 40), (40, 5, 1.0)),  # one window
    ((64, 64), (16, 1, 2.0)),
]


@pytest.mark.parametrize(("shape", "arguments"), CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pooled_eigenvalues(
    shape: tuple[int, int], arguments: tuple[int, int, float], dtype: Any
) -> None:
    W = weight(*shape).astype(dtype)
    window, count, Q = arguments
    want = ref.pooled(W.astype(np.float64), window, count, Q)
    estimator = parse_estimator(f"farms({window}, {count}, {Q})", "test")
    esd = window_esd([HostArray(W, np.dtype(dtype).name)], estimator)
    assert len(esd.evals) == len(want)
    np.testing.assert_allclose(esd.evals, want, rtol=0.0, atol=tol.ESD_GRAM_RTOL * want[-1])


@pytest.mark.parametrize(("shape", "arguments"), CASES)
def test_one_fit(shape: tuple[int, int], arguments: tuple[int, int, float]) -> None:
    W = weight(*shape)
    window, count, Q = arguments
    fit = ps.farms(W, window=window, ops=count, Q=Q)
    want = ref_powerlaw.fit_ww(ref.pooled(W, window, count, Q))
    assert fit.n == want.n
    assert fit.alpha == pytest.approx(want.alpha, rel=tol.SCALE_RTOL)
    assert fit.index == want.index
    assert fit.estimator == f"farms({window}, {count}, {Q:g})"
    median = ps.farms(W, window=window, ops=count, Q=Q, estimator="tempbalance_median")
    expected = ref_powerlaw.fit_tempbalance_median(ref.pooled(W, window, count, Q))
    assert median.alpha == pytest.approx(expected.alpha, rel=tol.SCALE_RTOL)


def test_batches_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    W = weight(80, 70)
    whole = ps.farms(W, window=20, ops=6)
    monkeypatch.setattr("pyspectra.spectra.farms.BATCH_BYTES", 5 * 8 * 20 * 20)
    assert repr(ps.farms(W, window=20, ops=6)) == repr(whole)


def test_a_weight_that_is_not_finite_has_a_status() -> None:
    W = weight(40, 40)
    W[3, 3] = np.nan
    assert ps.farms(W, window=20, ops=3).status is ps.Status.NOT_FINITE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, r"'window' must be an integer from 1 to 2\^62, got 0"),
        ({"Q": 0.0}, "'Q' must be positive and finite, got 0.0"),
        ({"Q": float("nan")}, "'Q' must be positive and finite, got nan"),
        ({"estimator": "farms"}, "'estimator' must be another than 'farms'"),
        ({"estimator": "mle"}, "'estimator' must be one of"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^farms: {message}"):
        ps.farms(weight(30, 30), **arguments)


def test_bad_weights() -> None:
    with pytest.raises(TypeError, match=r"^farms: 'ops' must be an integer .*, got 2.0"):
        ps.farms(np.ones((30, 30)), ops=2.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^farms: 'Q' must be positive and finite, got None"):
        ps.farms(np.ones((30, 30)), Q=None)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"^farms: 'W' must be 2-D and not empty, got shape \(3,\)"
    ):
        ps.farms(np.ones(3))
    with pytest.raises(ValueError, match=r"^farms: 'W' must be 2-D and not empty"):
        ps.farms(np.ones((0, 3)))


def test_many_windows_of_a_small_matrix_are_each_start_once() -> None:
    W = np.random.default_rng(0).standard_normal((30, 20))
    assert ps.farms(W, window=20, ops=10**18).n == ps.farms(W, window=20, ops=11).n == 11 * 20


def test_rounding_of_deficient_windows_is_no_tail() -> None:
    W = np.full((20, 10), 65504.0, np.float16)  # rank one: the other eigenvalues are zero
    fit = ps.farms(W, window=10, ops=3)
    assert fit.n == 3  # one a window
    assert fit.status is ps.Status.DEGENERATE
