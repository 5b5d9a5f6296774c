"""Named estimators over one kernel: csn, tempbalance_median, fix_finger and tpl."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tolerances as tol
from csrc.powerlaw.test_powerlaw_kernel import (
    FAILURES,
    FAMILIES,
    SIZES,
    assert_fit,
    bits,
    lognormal,
    spectra,
)
from reference import powerlaw as ref
from scipy.integrate import quad
from scipy.special import gamma, gammaincc

import pyspectra as ps
from pyspectra import Status, ops
from pyspectra.spectra import alternatives
from pyspectra.spectra.estimators import ESTIMATORS, parse_estimator

PACKAGE = json.loads(
    (Path(__file__).parents[1] / "data" / "powerlaw_package.json").read_text(encoding="utf-8")
)
OVER_EVALS = tuple(e for e in ESTIMATORS if e != "farms")


def some(family: str) -> list[tuple[int, ref.Array]]:
    return [(n, x) for n, x in zip(SIZES, spectra(family), strict=True) if n % 7 == 2 or n > 64]


# --- against the references ---------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("min_tail", [None, 3, 25])
def test_csn(family: str, min_tail: int | None, isa: str) -> None:
    name = "csn" if min_tail is None else f"csn({min_tail})"
    for n, x in some(family):
        if n > 2000:
            continue
        want = ref.fit_csn(x, min_tail or 10)
        if want.distances is not None and want.margin < tol.KS_TIE:
            continue
        assert_fit(ps.fit_powerlaw(x, estimator=name), want, (family, n))


def test_csn_candidates_are_distinct_values() -> None:
    x = np.sort(np.repeat(np.round(lognormal(60, np.random.default_rng(0)), 2), 4))
    fit = ps.fit_powerlaw(x, estimator="csn")
    assert fit.index == 0 or x[fit.index - 1] < x[fit.index]
    assert fit.n_tail == np.count_nonzero(x >= fit.xmin) == len(x) - fit.index
    T = float(np.sum(np.log(x[x >= fit.xmin] / fit.xmin)))
    assert fit.alpha == pytest.approx(1.0 + (fit.n_tail - 1) / T, rel=tol.ALPHA_RTOL)


@pytest.mark.parametrize("n", [3, 12, 384])
def test_csn_at_a_given_xmin(n: int) -> None:
    x = np.sort(lognormal(n, np.random.default_rng(n)))
    for xmin in (0.5 * float(x[0]), float(x[n // 3])):
        got = ps.fit_powerlaw(x, estimator="csn(5)", xmin=xmin)
        assert_fit(got, ref.fit_csn(x, 5, xmin=xmin), (n, xmin))


@pytest.mark.parametrize("family", FAMILIES)
def test_tempbalance_median(family: str, isa: str) -> None:
    for n, x in some(family):
        got = ps.fit_powerlaw(x, estimator="tempbalance_median")
        assert_fit(got, ref.fit_tempbalance_median(x), (family, n))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("xmin_max", [None, 2.5])
def test_fix_finger(family: str, xmin_max: float | None, isa: str) -> None:
    name = "fix_finger" if xmin_max is None else f"fix_finger({xmin_max})"
    for n, x in some(family):
        if n > 2000 or family == "lattice":  # points on the borders of bins
            continue
        want = ref.fit_fix_finger(x, xmin_max)
        if want.distances is not None and want.margin < tol.KS_TIE:
            continue
        assert_fit(ps.fit_powerlaw(x, estimator=name), want, (family, n))


def test_fix_finger_takes_its_lower_bound_in_log_units() -> None:
    """p near 7: xmin is looked for from log10(0.95 p) = 0.8 on, not from 0.95 p = 6.6."""
    x = np.sort(lognormal(400, np.random.default_rng(2)) * 7.0)
    fit = ps.fit_powerlaw(x, estimator="fix_finger")
    counts, edges = np.histogram(np.log10(x), bins=100)
    peak = 10.0 ** edges[np.argmax(counts)]
    assert_fit(fit, ref.fit_fix_finger(x), "shifted")
    low = ref.usable(x)
    inside = low[(low >= math.log10(0.95 * peak)) & (low <= 0.95 * peak)]
    assert len(inside) > 20


def test_same_bits_on_every_instruction_set_and_any_number_of_threads() -> None:
    everything = [x for family in FAMILIES for _, x in some(family)]
    found = []
    for name in ops.available_isas():
        ops.set_isa(name)
        for threads in (1, 3):
            ops.set_num_threads(threads)
            for estimator in ("csn", "tempbalance_median", "fix_finger"):
                found.append(bits(ps.fit_powerlaw_batch(everything, estimator=estimator)))
    assert all(found[i] == found[i % 3] for i in range(len(found)))


# --- the truncated power law --------------------------------------------------------------------


def tpl_log_likelihood(x: ref.Array, xmin: float, alpha: float, rate: float) -> float:
    """Sum of ln p by adaptive quadrature of the normalising integral."""
    scale = math.exp(-rate * xmin)
    integral, _ = quad(
        lambda v: xmin * math.exp((1 - alpha) * v - rate * xmin * math.expm1(v)),
        0.0, 60.0, epsabs=0.0, epsrel=1e-12, limit=400, points=[0.1, 1.0, 5.0],
    )  # fmt: skip
    log_c = -math.log(integral) - math.log(scale) + alpha * math.log(xmin)
    return float(np.sum(log_c - alpha * np.log(x) - rate * x))


@pytest.mark.parametrize("name", PACKAGE)
def test_tpl_agrees_with_the_package_powerlaw(name: str) -> None:
    x, xmin = np.array(PACKAGE[name]["x"]), PACKAGE[name]["xmin"]
    theirs = PACKAGE[name]["comparisons"]["tpl"]
    tail = x[x >= xmin]
    fit = ps.fit_powerlaw(x, estimator="tpl", xmin=xmin)
    assert fit.alpha == pytest.approx(theirs["alpha"], rel=tol.PACKAGE_PARAMETER_RTOL)
    assert fit.Lambda == pytest.approx(theirs["Lambda"], rel=tol.PACKAGE_PARAMETER_RTOL)
    assert pytest.approx(theirs["ks"], abs=tol.PACKAGE_PARAMETER_RTOL) == fit.D
    at_theirs = tpl_log_likelihood(tail, xmin, theirs["alpha"], theirs["Lambda"])
    assert at_theirs == pytest.approx(theirs["loglikelihood"], rel=tol.QUADRATURE_RTOL)
    ours = tpl_log_likelihood(tail, xmin, fit.alpha, fit.Lambda)
    assert ours >= at_theirs - abs(at_theirs) * tol.QUADRATURE_RTOL


@pytest.mark.parametrize("name", PACKAGE)
def test_tpl_is_a_maximum(name: str) -> None:
    x, xmin = np.array(PACKAGE[name]["x"]), PACKAGE[name]["xmin"]
    tail = x[x >= xmin]
    fit = ps.fit_powerlaw(x, estimator="tpl", xmin=xmin)
    best = tpl_log_likelihood(tail, xmin, fit.alpha, fit.Lambda)
    for da, dl in ((1e-3, 0.0), (-1e-3, 0.0), (0.0, 1e-3), (0.0, -1e-3), (1e-3, -1e-3)):
        likelihood = tpl_log_likelihood(tail, xmin, fit.alpha + da, fit.Lambda * (1.0 + dl))
        assert likelihood < best


def test_tpl_of_a_power_law_with_a_heavy_end_is_that_power_law() -> None:
    x = (1.0 - (np.arange(300) + 0.5) / 300) ** (-1.0 / 3.0)
    x = np.append(x, 40.0)  # heavier than the law
    fit = ps.fit_powerlaw(x, estimator="tpl", xmin=1.0)
    law = ps.fit_powerlaw(x, xmin=1.0)
    assert fit.Lambda == 0.0
    assert fit.alpha == pytest.approx(law.alpha, rel=tol.SCALE_RTOL)
    assert fit.alpha_stderr == pytest.approx(law.alpha_stderr, rel=tol.SCALE_RTOL)
    assert pytest.approx(law.D, abs=tol.SCALE_RTOL) == fit.D


@pytest.mark.parametrize("alpha", [1.05, 1.5, 1.9, 2.1, 3.0, 6.0])
@pytest.mark.parametrize("factor", [1e2, 1e4, 1e12, 1e50, 1e150])
def test_tpl_of_a_tail_with_one_far_outlier(alpha: float, factor: float) -> None:
    x = np.random.default_rng(int(100 * alpha)).pareto(alpha - 1.0, 200) + 1.0
    x[np.argmax(x)] *= factor
    fit = ps.fit_powerlaw(x, estimator="tpl", xmin=1.0, threshold=0.0)
    law = ps.fit_powerlaw(x, xmin=1.0, threshold=0.0)
    assert fit.status is ps.Status.OK
    # A cut-off only lowers alpha, and it lies beyond the mean, which the outlier makes.
    assert 0.0 <= fit.Lambda * float(np.mean(x)) < 1.0
    assert law.alpha - 0.1 < fit.alpha <= law.alpha * (1.0 + 1e-9)
    if alpha > 1.5 and factor >= 1e12:
        assert fit.Lambda == 0.0
        assert fit.alpha == pytest.approx(law.alpha, rel=1e-9)


@pytest.mark.parametrize("beta", [0.3, 0.7, 0.97, 1.4])
@pytest.mark.parametrize("rate", [1e-2, 1e-8, 1e-40])
def test_moments_of_a_late_cut_off(beta: float, rate: float) -> None:
    """E[e^u] of e^(-beta u - rate e^u), u >= 0, by the incomplete gamma function."""

    def upper(a: float) -> float:  # Gamma(a, rate), by recurrence where a is negative
        if a > 0.0:
            return float(gammaincc(a, rate) * gamma(a))
        return (upper(a + 1.0) - rate**a * math.exp(-rate)) / a

    want = upper(1.0 - beta) / upper(-beta) / rate
    # s = e^u - 1 - u: the law in u and s has theta = (beta + rate, rate).
    _, (u, s), _ = alternatives._TPL.moments(np.array([beta + rate, rate]))
    assert s + 1.0 + u == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e6])
def test_tpl_scales(scale: float) -> None:
    x = np.array(PACKAGE["weibull"]["x"])
    fit = ps.fit_powerlaw(x, estimator="tpl", threshold=0.0)
    other = ps.fit_powerlaw(scale * x, estimator="tpl", threshold=0.0)
    assert other.alpha == pytest.approx(fit.alpha, rel=1e-6)
    assert other.Lambda == pytest.approx(fit.Lambda / scale, rel=1e-6)
    assert other.index == fit.index


def test_tpl_stderr_is_the_spread_of_estimates() -> None:
    rng = np.random.default_rng(5)
    alphas, stderrs = [], []
    for _ in range(200):
        x = np.exp(rng.exponential(1.0, 4000))
        x = x[rng.random(4000) < np.exp(-0.2 * (x - 1.0))]  # alpha = 2, Lambda = 0.2
        fit = ps.fit_powerlaw(x, estimator="tpl", xmin=1.0)
        alphas.append(fit.alpha)
        stderrs.append(fit.alpha_stderr)
    assert np.mean(alphas) == pytest.approx(2.0, abs=4.0 * np.std(alphas) / math.sqrt(200))
    assert np.mean(stderrs) == pytest.approx(np.std(alphas), rel=0.25)


# --- failures and names -------------------------------------------------------------------------


@pytest.mark.parametrize("case", FAILURES)
@pytest.mark.parametrize("estimator", ["csn", "tempbalance_median", "fix_finger", "tpl"])
def test_failures_have_a_status_and_no_numbers(case: str, estimator: str) -> None:
    x, status = FAILURES[case]
    fit = ps.fit_powerlaw(np.array(x), estimator=estimator, bootstrap=0)
    too_short = estimator == "csn" and 2 <= len(x) < 10
    assert fit.status is (Status.TOO_FEW_POINTS if too_short and fit.n >= 2 else status)
    assert (fit.index, fit.n_tail, fit.estimator) == (-1, 0, estimator)
    numbers = (fit.alpha, fit.xmin, fit.xmax, fit.D, fit.alpha_stderr, fit.p_value, *fit.ci)
    assert all(math.isnan(v) for v in numbers)


@pytest.mark.parametrize(
    ("text", "name", "arguments", "canonical"),
    [
        ("ww", "ww", {}, "ww"),
        ("hill", "hill", {}, "hill"),
        (" hill( 50 ) ", "hill", {"k": 50}, "hill(50)"),
        ("csn()", "csn", {}, "csn"),
        ("fix_finger(0.25)", "fix_finger", {"xmin_max": 0.25}, "fix_finger(0.25)"),
        ("farms(2000,15)", "farms", {"window": 2000, "ops": 15}, "farms(2000, 15)"),
        ("farms(9000000, 15, 1)", "farms", {"window": 9000000, "ops": 15, "Q": 1.0},
         "farms(9000000, 15, 1)"),
    ],
)  # fmt: skip
def test_names_carry_arguments(
    text: str, name: str, arguments: dict[str, float], canonical: str
) -> None:
    estimator = parse_estimator(text, "f")
    assert (estimator.name, dict(estimator.arguments)) == (name, arguments)
    assert str(estimator) == canonical
    assert parse_estimator(canonical, "f") == estimator


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mle", "'estimator' must be one of"),
        ("hill(50", "'estimator' must be one of"),
        (None, "'estimator' must be one of"),
        ("ww(3)", r"'estimator' must be 'ww', without arguments, got 'ww\(3\)'"),
        ("hill(1, 2)", r"'estimator' must be 'hill\(k\)' at most, got 'hill\(1, 2\)'"),
        ("hill(0)", r"'estimator' must have an integer from 1 to 2\^62 for 'k', got 'hill\(0\)'"),
        ("hill(2.5)", "'estimator' must have an integer from 1 .* for 'k', got .*2.5"),
        ("csn(2)", "'estimator' must have an integer from 3 .* for 'min_tail', got 'csn"),
        ("fix_finger(nan)", "'estimator' must have a positive number for 'xmin_max', got .*nan"),
        ("farms(100, 5, 0)", "'estimator' must have a positive number for 'Q', got 'farms"),
        ("farms(100, , 1)", "'estimator' must have an integer from 1 .* for 'ops', got 'farms"),
    ],
)
def test_bad_names_say_what_is_wrong(text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^f: {message}"):
        parse_estimator(text, "f")


def test_hill_takes_k_either_way() -> None:
    x = lognormal(200, np.random.default_rng(0))
    fit = ps.fit_powerlaw(x, estimator="hill(50)")
    assert fit.estimator == "hill(50)"
    assert bits([fit]) == bits([ps.fit_powerlaw(x, estimator="hill", k=50)])
    with pytest.raises(ValueError, match=r"'k' must be None with estimator 'hill\(50\)', got 50"):
        ps.fit_powerlaw(x, estimator="hill(50)", k=50)


@pytest.mark.parametrize("estimator", ["tempbalance_median", "fix_finger"])
def test_xmin_goes_with_a_scan_only(estimator: str) -> None:
    with pytest.raises(ValueError, match=f"'xmin' must be None with estimator '{estimator}'"):
        ps.fit_powerlaw([1.0, 2.0], estimator=estimator, xmin=1.0)


def test_farms_wants_the_matrix() -> None:
    message = r"^fit_powerlaw: 'estimator' must be one that fits .*'farms' needs the weight matrix"
    with pytest.raises(ValueError, match=message):
        ps.fit_powerlaw([1.0, 2.0], estimator="farms")


@pytest.mark.parametrize("estimator", ["tempbalance_median", "hill(20)"])
def test_corrected_alpha_has_no_bias_where_xmin_is_not_chosen_by_the_data(estimator: str) -> None:
    """Over 4000 tails of 20 points, 4 standard errors; alpha itself is 5 and 11 % too large."""
    rng = np.random.default_rng(0)
    data = list(np.exp(rng.exponential(0.5, (4000, 40))))
    fits = ps.fit_powerlaw_batch(data, estimator=estimator, threshold=0.0)
    beta = np.array([fit.alpha_corrected for fit in fits]) - 1.0
    error = 4.0 * float(np.std(beta)) / math.sqrt(len(beta))
    assert abs(float(np.mean(beta)) - 2.0) < error
    assert float(np.mean([fit.alpha for fit in fits])) - 1.0 - 2.0 > error


def test_two_points_leave_nothing_to_correct() -> None:
    fit = ps.fit_powerlaw([1.0, 2.0, 4.0], estimator="tempbalance_median")
    assert fit.n_tail == 2
    assert math.isfinite(fit.alpha)
    assert math.isnan(fit.alpha_corrected)
    fit = ps.fit_powerlaw([1.0, 2.0, 4.0], estimator="hill(2)")
    assert fit.alpha_corrected == pytest.approx(1.0 + 1.0 / (3.0 * math.log(2.0)))


def test_numbers_of_any_library_are_numbers() -> None:
    x = np.random.default_rng(0).pareto(2.0, 200) + 1.0
    plain = ps.fit_powerlaw(x, estimator="hill", k=20, bootstrap=5, seed=3)
    other = ps.fit_powerlaw(
        x, estimator="hill", k=np.int64(20), bootstrap=np.int32(5), seed=np.uint64(3)
    )
    assert other == plain
    assert ps.fit_powerlaw(x, xmin=np.float32(2.0)) == ps.fit_powerlaw(x, xmin=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"xmin": 10**400}, "'xmin' must be positive and finite"),
        ({"xmax": -(10**400)}, "'xmax' must be positive and finite"),
        ({"threshold": 10**400}, "'threshold' must be finite and not negative"),
        ({"xmin": np.ones(2)}, r"'xmin' must be positive and finite, got array"),
        ({"estimator": "hill", "k": 10**30}, r"'k' must be an integer from 1 to 2\^62"),
        ({"estimator": f"hill({10**30})"}, r"must have an integer from . to 2\^62"),
        ({"estimator": f"csn({10**30})"}, r"must have an integer from . to 2\^62"),
    ],
)
def test_huge_numbers_are_refused_by_name(options: dict[str, object], message: str) -> None:
    error = TypeError if "got array" in message else ValueError
    with pytest.raises(error, match=message):
        ps.fit_powerlaw(np.linspace(1.0, 9.0, 50), **options)


def test_a_truncated_law_over_hundreds_of_decades_raises_no_warning() -> None:
    W = np.random.default_rng(0).standard_normal((60, 40)) * np.logspace(-150, 150, 40)
    assert ps.fit_powerlaw(ps.esd(W).evals, estimator="tpl").n > 0
