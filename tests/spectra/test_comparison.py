"""Likelihood-ratio comparisons, against the package powerlaw and against what must hold."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tolerances as tol

import pyspectra as ps
from pyspectra.spectra import alternatives as laws
from pyspectra.spectra.comparison import ALTERNATIVES

PACKAGE = json.loads(
    (Path(__file__).parents[1] / "data" / "powerlaw_package.json").read_text(encoding="utf-8")
)
ALL = tuple(ALTERNATIVES)


@pytest.mark.parametrize("name", PACKAGE)
def test_agrees_with_the_package_powerlaw(name: str) -> None:
    x, xmin = np.array(PACKAGE[name]["x"]), PACKAGE[name]["xmin"]
    fit = ps.fit_powerlaw(x, xmin=xmin)
    for row in ps.compare_distributions(x, fit, alternatives=ALL):
        theirs = PACKAGE[name]["comparisons"][row.alternative]
        # Theirs is a simplex search: ours is the better maximum wherever they differ.
        assert theirs["R"] + 1e-9 >= row.R
        assert pytest.approx(theirs["R"], abs=tol.PACKAGE_RATIO_ATOL) == row.R
        if pytest.approx(theirs["R"], abs=1e-6) == row.R:
            assert row.R_normalized == pytest.approx(theirs["R_normalized"], abs=1e-3)
            assert row.p == pytest.approx(theirs["p"], rel=1e-2)
        assert row.nested == (row.alternative == "tpl")
        assert row.n_tail == np.count_nonzero(x >= xmin)


@pytest.mark.parametrize("alternative", ALL)
@pytest.mark.parametrize("xmin", [0.3, 1.0, 20.0])
def test_densities_integrate_to_one(alternative: str, xmin: float) -> None:
    """Every law is tested at its own parameters, over a fine grid in u."""
    x = np.array(PACKAGE["weibull"]["x"])
    u = np.log(x[30:] / x[30])
    law = ALTERNATIVES[alternative](u, xmin)
    assert law is not None
    grid = np.linspace(0.0, 30.0, 600_001)
    density = np.exp(density_at(alternative, law, grid, xmin))
    assert np.sum(density[1:] + density[:-1]) * (grid[1] / 2.0) == pytest.approx(1.0, abs=1e-7)
    at_points = density_at(alternative, law, u, xmin)
    np.testing.assert_allclose(at_points, law.log_density, rtol=1e-9, atol=1e-9)


def density_at(alternative: str, law: laws.Law, u: np.ndarray, xmin: float) -> np.ndarray:
    """Log density in u by the textbook formula in x."""
    from scipy.special import log_ndtr

    x = xmin * np.exp(u)
    p = law.parameters
    if alternative == "exponential":
        return math.log(p["Lambda"]) - p["Lambda"] * (x - xmin) + np.log(x)
    if alternative == "stretched":
        power = (p["Lambda"] * x) ** p["beta"]
        start = (p["Lambda"] * xmin) ** p["beta"]
        return np.log(p["beta"] * power) - power + start
    if alternative == "lognormal":
        z = (np.log(x) - p["mu"]) / p["sigma"]
        above = log_ndtr((p["mu"] - math.log(xmin)) / p["sigma"])
        return -0.5 * z**2 - 0.5 * math.log(2.0 * math.pi) - math.log(p["sigma"]) - above
    v = np.linspace(0.0, 30.0, 600_001)
    weight = np.exp((1.0 - p["alpha"]) * v - p["Lambda"] * xmin * np.exp(v))
    total = np.sum(weight[1:] + weight[:-1]) * (v[1] / 2.0)
    return (1.0 - p["alpha"]) * u - p["Lambda"] * x - math.log(total)


@pytest.mark.parametrize("alternative", ["lognormal", "stretched", "tpl"])
def test_each_law_is_a_maximum(alternative: str) -> None:
    x = np.array(PACKAGE["weibull"]["x"])
    u = np.log(x[30:] / x[30])
    law = ALTERNATIVES[alternative](u, 1.0)
    assert law is not None
    best = float(np.sum(density_at(alternative, law, u, 1.0)))
    for name in law.parameters:
        for factor in (0.99, 1.01):
            moved = {**law.parameters, name: law.parameters[name] * factor}
            moved_density = density_at(alternative, laws.Law(moved, u), u, 1.0)
            assert float(np.sum(moved_density)) < best


def test_a_heavier_end_than_any_alternative_leaves_the_power_law() -> None:
    x = np.append((1.0 - (np.arange(300) + 0.5) / 300) ** (-1.0 / 3.0), [60.0, 90.0])
    fit = ps.fit_powerlaw(x, xmin=1.0)
    rows = {r.alternative: r for r in ps.compare_distributions(x, fit, alternatives=ALL)}
    for name in ("lognormal", "stretched", "tpl"):
        assert pytest.approx(0.0, abs=1e-9) == rows[name].R
        assert rows[name].p == pytest.approx(1.0)
    assert rows["lognormal"].parameters["sigma"] == math.inf
    assert rows["stretched"].parameters["beta"] == 0.0
    assert rows["tpl"].parameters["Lambda"] == 0.0
    assert rows["exponential"].R > 0.0
    assert rows["exponential"].p < 0.05


def test_scale_does_not_matter() -> None:
    x = np.array(PACKAGE["lognormal"]["x"])
    fit = ps.fit_powerlaw(x, xmin=PACKAGE["lognormal"]["xmin"])
    scaled = ps.fit_powerlaw(64.0 * x, xmin=64.0 * PACKAGE["lognormal"]["xmin"])
    for a, b in zip(
        ps.compare_distributions(x, fit, alternatives=ALL),
        ps.compare_distributions(64.0 * x, scaled, alternatives=ALL),
        strict=True,
    ):
        assert pytest.approx(b.R, rel=1e-8, abs=1e-8) == a.R
        assert a.p == pytest.approx(b.p, rel=1e-6)


def test_the_tail_ends_at_xmax() -> None:
    x = np.array(PACKAGE["lognormal"]["x"])
    fit = ps.fit_powerlaw(x, xmin=2.0, xmax=5.0)
    (row,) = ps.compare_distributions(x, fit, alternatives="exponential")
    assert row.n_tail == np.count_nonzero((x >= 2.0) & (x <= 5.0)) == fit.n_tail


def test_default_alternatives() -> None:
    x = np.array(PACKAGE["lognormal"]["x"])
    rows = ps.compare_distributions(x, ps.fit_powerlaw(x))
    assert [row.alternative for row in rows] == ["lognormal", "exponential", "tpl"]


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("spread", [1e-9, 1e-3, 5.0, 40.0])
def test_few_points_give_numbers_or_nan(n: int, spread: float) -> None:
    x = np.exp(np.linspace(0.0, spread, n))
    fit = ps.fit_powerlaw(x, xmin=1.0)
    if fit.status is ps.Status.OK:
        for row in ps.compare_distributions(x, fit, alternatives=ALL):
            assert math.isnan(row.p) or 0.0 <= row.p <= 1.0


def test_bad_arguments() -> None:
    x = np.array(PACKAGE["lognormal"]["x"])
    fit = ps.fit_powerlaw(x)
    with pytest.raises(ValueError, match=r"'alternatives' must be one of .* got 'gamma'"):
        ps.compare_distributions(x, fit, alternatives=("gamma",))
    failed = ps.fit_powerlaw(np.full(30, 2.0))
    with pytest.raises(ValueError, match="'fit' must have succeeded, got status degenerate"):
        ps.compare_distributions(x, failed)
    with pytest.raises(ValueError, match="'evals' must have two different points from xmin"):
        ps.compare_distributions(x * 1e-9, fit)


def test_wrong_kinds_are_named() -> None:
    x = np.random.default_rng(0).pareto(2.0, 100) + 1.0
    with pytest.raises(TypeError, match=r"'fit' must be a PowerLawFit, got .* NoneType"):
        ps.compare_distributions(x, None)  # type: ignore[arg-type]
    fit = ps.fit_powerlaw(x)
    with pytest.raises(TypeError, match="'alternatives' must be a sequence of names, got 3"):
        ps.compare_distributions(x, fit, alternatives=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'alternatives' must be one of"):
        ps.compare_distributions(x, fit, alternatives=[["tpl"]])  # type: ignore[list-item]
