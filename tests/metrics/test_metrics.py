"""Every metric against its formula, on easy spectra and on those where formulas break down."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tolerances as tol
from reference import detx as ref_detx
from reference import metrics as ref

import pyspectra as ps
from pyspectra import ESD, PowerLawFit, Status
from pyspectra.metrics import METRICS, Spectrum, evaluate, metric
from pyspectra.metrics.tail import log_power_sum

Array = ref.Array
GROUPS = ("default", "detx")


def spectrum(*slices: Array, N: int | None = None) -> Spectrum:
    pooled = np.sort(np.concatenate(slices))
    M = len(slices[0])
    N = 2 * M if N is None else N
    esd = ESD(pooled, N=N, M=M, n_matrices=len(slices), matrix_evals=tuple(slices))
    return Spectrum(esd, ps.fit_powerlaw(pooled), rank_side=N)


def lognormal(n: int, seed: int = 0, sigma: float = 1.0) -> Array:
    return np.sort(np.random.default_rng([n, seed]).lognormal(0.0, sigma, n))


CASES: dict[str, Spectrum] = {
    "lognormal": spectrum(lognormal(60)),
    "heavy tail": spectrum(lognormal(300, sigma=2.5)),
    "flat": spectrum(np.full(12, 4.0)),
    "rank deficient": spectrum(np.concatenate([np.zeros(5), lognormal(20)])),
    "rounding zeros": spectrum(np.concatenate([np.full(5, 1e-32), lognormal(20)])),
    "weak": spectrum(np.sort(np.concatenate([np.full(4, 1e-7), lognormal(20)]))),
    "rank one": spectrum(np.append(np.zeros(15), 7.0)),
    "slices": spectrum(lognormal(16, 1), lognormal(16, 2), np.append(np.zeros(6), lognormal(10))),
    "a zero slice": spectrum(np.zeros(8), lognormal(8)),
    "single": spectrum(np.array([3.0])),
    "two": spectrum(np.array([1.0, 3.0])),
    "tiny": spectrum(lognormal(30) * 1e-280),
    "huge": spectrum(lognormal(30) * 1e280),
    "zero": spectrum(np.zeros(10)),
    "long": spectrum(lognormal(6000, sigma=1.5)),
}


@pytest.mark.parametrize("case", CASES)
def test_metrics_equal_their_formulas(case: str) -> None:
    s = CASES[case]
    lam, slices, N = s.evals, s.esd.matrix_evals, s.rank_side
    got = evaluate(s)
    random = got.pop("random_p_value")  # whose level and power test_marchenko_pastur.py tests
    assert math.isnan(random) or 0.0 <= random <= 1.0
    largest, alpha = float(lam[-1]), s.fit.alpha
    want: dict[str, float] = {
        "norm": ref.norm(lam),
        "log_norm": ref.log10(ref.norm(lam)),
        "lambda_max": largest,
        "spectral_norm": math.sqrt(largest),
        "log_spectral_norm": ref.log10(math.sqrt(largest)),
        "sv_max": math.sqrt(largest),
        "sv_min": ref.sv_min(slices),
        "stable_rank": ref.stable_rank(lam),
        "matrix_rank": ref.matrix_rank(lam, N),
        "rank_loss": ref.rank_loss(slices, N),
        "weak_rank_loss": ref.weak_rank_loss(lam),
        "entropy": ref.entropy(lam, N),
        "alpha_weighted": alpha * ref.log10(largest),
        "log_alpha_norm": ref.log_alpha_norm(lam, alpha),
        "detectable_change": 2.0 / (s.esd.N * s.esd.M * s.esd.n_matrices**2) ** 0.25,
    }
    default = {m.name for m in METRICS.values() if m.group == "default"}
    assert set(got) == default - {"random_p_value"} == set(want)
    for name, value in want.items():
        assert got[name] == pytest.approx(
            value, rel=tol.METRIC_RTOL, abs=tol.METRIC_ATOL, nan_ok=True
        ), name
    for name in ("matrix_rank", "rank_loss", "weak_rank_loss"):
        assert type(got[name]) is int


@pytest.mark.parametrize("case", [c for c in CASES if c not in ("flat", "single", "zero")])
def test_detx_equals_its_definition(case: str) -> None:
    s = CASES[case]
    lam = s.evals
    got = evaluate(s, GROUPS)
    num, idx = ref_detx.detx(lam)
    assert got["detX_num"] == num
    assert got["detX_val"] == lam[idx]
    rescaled = float(lam[idx]) * len(lam) / ref.norm(lam)
    assert got["detX_val_unrescaled"] == pytest.approx(rescaled, rel=tol.METRIC_RTOL)
    if s.fit.status is Status.OK:
        assert got["ERG_gap"] == num - np.count_nonzero(lam >= s.fit.xmin)
    else:
        assert math.isnan(got["ERG_gap"])


@pytest.mark.parametrize("case", ["flat", "single", "zero"])
def test_detx_of_equal_eigenvalues_has_no_tail(case: str) -> None:
    got = evaluate(CASES[case], GROUPS)
    assert got["detX_num"] == 0
    assert got["detX_val"] == CASES[case].evals[0]


def test_detx_where_the_plain_product_overflows() -> None:
    rng = np.random.default_rng(0)
    lam = np.sort(rng.lognormal(0.0, 2.0, 6000))
    with np.errstate(over="ignore"):
        assert ref_detx.detx_by_product(lam) != ref_detx.detx(lam)
    got = evaluate(spectrum(lam), GROUPS)
    assert got["detX_num"] == ref_detx.detx(lam)[0]
    short = lam[::30]
    assert ref_detx.detx_by_product(short) == ref_detx.detx(short)
    assert evaluate(spectrum(short), GROUPS)["detX_num"] == ref_detx.detx(short)[0]


@pytest.mark.parametrize("n", [2, 3, 5, 50, 400])
def test_detx_on_random_spectra(n: int) -> None:
    for seed in range(20):
        lam = lognormal(n, seed, sigma=0.1 + 0.2 * seed)
        assert evaluate(spectrum(lam), GROUPS)["detX_num"] == ref_detx.detx(lam)[0]


def test_a_zero_eigenvalue_to_a_negative_power_is_infinite() -> None:
    # WeightWatcher's value for failed fits, whose alpha is -1
    with np.errstate(divide="ignore"):
        assert log_power_sum(np.array([0.0, 1.0, 2.0]), -1.0) == math.inf
    assert log_power_sum(np.array([1.0, 4.0]), -1.0) == pytest.approx(math.log10(1.25))


def test_log_alpha_norm_does_not_overflow() -> None:
    s = CASES["heavy tail"]
    steep = Spectrum(s.esd, replace(s.fit, alpha=200.0), s.rank_side)
    got = evaluate(steep)["log_alpha_norm"]
    assert math.isfinite(got)
    assert got > 308.3  # the sum itself is no float64
    assert got == pytest.approx(ref.log_alpha_norm(s.evals, 200.0), rel=tol.METRIC_RTOL)
    tiny = evaluate(replace(steep, esd=replace(s.esd, evals=s.evals * 1e-9)))["log_alpha_norm"]
    assert tiny == pytest.approx(ref.log_alpha_norm(s.evals * 1e-9, 200.0), rel=tol.METRIC_RTOL)
    assert tiny < -308.3


def test_a_failed_fit_leaves_only_the_metrics_of_alpha_without_a_number() -> None:
    nan = math.nan
    for status in (Status.DEGENERATE, Status.TOO_FEW_POINTS):
        failed = PowerLawFit(nan, nan, nan, nan, nan, nan, 0, 0, -1, "ww", status)
        good = CASES["lognormal"]
        got = evaluate(Spectrum(good.esd, failed, good.rank_side), GROUPS)
        want = evaluate(good, GROUPS)
        for name, value in got.items():
            if name in ("alpha_weighted", "log_alpha_norm", "ERG_gap"):
                assert math.isnan(value), name
            else:
                assert value == want[name], name


def test_the_zero_matrix_has_infinite_logarithms_and_no_ratios() -> None:
    got = evaluate(CASES["zero"], GROUPS)
    assert got["log_norm"] == got["log_spectral_norm"] == -math.inf
    assert math.isnan(got["stable_rank"])
    assert math.isnan(got["entropy"])
    assert (got["matrix_rank"], got["rank_loss"], got["norm"]) == (0, 10, 0.0)


def test_sums_that_leave_the_range_of_float64_are_infinite_without_a_warning() -> None:
    got = evaluate(spectrum(np.array([1.0, 1.5e308, 1.6e308])), GROUPS)
    assert got["norm"] == got["log_norm"] == math.inf
    assert got["lambda_max"] == 1.6e308


def test_groups_choose_what_is_evaluated() -> None:
    s = CASES["lognormal"]
    assert set(evaluate(s, ())) == set()
    assert set(evaluate(s, ("detx",))) == {
        "detX_num", "detX_val", "detX_val_unrescaled", "ERG_gap"
    }  # fmt: skip
    assert list(evaluate(s, GROUPS)) == [m.name for m in METRICS.values() if m.group in GROUPS]
    assert {m.group for m in METRICS.values()} == {*GROUPS, "mp_fit", "randomize", "vectors"}
    needs = {"mp_fit": "mp", "randomize": "randomized", "vectors": "vectors"}
    for group, measurement in needs.items():
        with pytest.raises(ValueError, match=f"needs the measurement '{measurement}'"):
            evaluate(s, (group,))


def test_the_registry_takes_a_new_metric_and_refuses_a_name_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = dict(METRICS)
    for name in kept:
        with pytest.raises(ValueError, match=f"^metric: there is one called '{name}' already"):
            metric(name)(lambda s: 0.0)
    assert kept == METRICS
    monkeypatch.setitem(METRICS, "placeholder", METRICS["norm"])  # so that it is put back
    del METRICS["placeholder"]

    @metric("placeholder", group="mine")
    def twice_norm(s: Spectrum) -> float:
        """Twice the norm."""
        return 2.0 * s.norm

    s = CASES["two"]
    assert evaluate(s, ("mine",)) == {"placeholder": 8.0}
    assert twice_norm(s) == 8.0
    assert "placeholder" not in evaluate(s)


def test_the_entropy_of_one_direction_is_zero_in_our_dialect_only() -> None:
    W = np.outer(np.arange(1.0, 31.0), np.arange(1.0, 21.0))
    report = ps.analyze({"w.weight": W})
    assert report.rows()[0]["entropy"] == 0.0
    assert report.rows("weightwatcher")[0]["entropy"] > 1.0  # one rounding over another
