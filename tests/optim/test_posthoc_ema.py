"""Power-function averages and their combinations, against the formulas of the paper."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyspectra.optim import (  # noqa: E402
    PowerFunctionEMA,
    reconstruct_ema,
    reconstruction_error,
)
from pyspectra.optim.posthoc_ema import combination, gamma_of  # noqa: E402


def profile(t: float, gamma: float, tau: Any) -> Any:
    """Weight of the past in a power-function average (arXiv 2312.02696, section 3.1)."""
    return np.where(tau <= t, (gamma + 1) * tau**gamma / t ** (gamma + 1), 0.0)


def test_published_exponents() -> None:
    """arXiv 2312.02696: sigma_rel of 0.05 and 0.10 are gamma = 16.97 and 6.94."""
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005)
    assert gamma_of(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("sigma_rel", [0.03, 0.1, 0.25])
def test_width_of_the_profile(sigma_rel: float) -> None:
    tau = (np.arange(200_000) + 0.5) / 200_000
    p = profile(1.0, gamma_of(sigma_rel), tau) / tau.size
    mean = np.sum(p * tau)
    assert np.sum(p) == pytest.approx(1.0, rel=1e-6)
    assert np.sqrt(np.sum(p * (tau - mean) ** 2)) == pytest.approx(sigma_rel, rel=1e-6)


def test_combination_is_the_least_squares_one() -> None:
    """Against profiles on a grid and numpy's own least squares."""
    t = np.array([2.0, 2.0, 5.0, 5.0, 8.0, 8.0])
    gamma = np.array([gamma_of(s) for s in (0.05, 0.10)] * 3)
    wanted = gamma_of(0.13)
    tau = (np.arange(80_000) + 0.5) / 80_000 * 8
    basis = np.stack([profile(a, g, tau) for a, g in zip(t, gamma, strict=True)], axis=1)
    # The shares sum to one: the last is one minus the others.
    p = profile(8.0, wanted, tau)
    want = np.linalg.lstsq(basis[:, :-1] - basis[:, -1:], p - basis[:, -1], rcond=None)[0]
    want = np.append(want, 1 - want.sum())
    got, error = combination(t, gamma, np.float64(8.0), np.float64(wanted))
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-4)
    assert np.sum(got) == pytest.approx(1.0, rel=1e-12)
    rms = np.sqrt(np.mean((basis @ got - p) ** 2) / np.mean(p**2))
    assert error == pytest.approx(rms, rel=1e-2)


def ones(times: Any, widths: Any = (0.05, 0.10)) -> list[Any]:
    """Snapshots of a model whose weights are always one."""
    shadow = {"w": torch.ones(3)}
    return [{"shadow": shadow, "sigma_rel": s, "updates": t} for t in times for s in widths]


HUNDREDS = range(100, 1001, 100)


@pytest.mark.parametrize("sigma_rel", [0.03, 0.07, 0.15, 0.2, 0.28])
@pytest.mark.parametrize("times", [HUNDREDS, [1000], range(1, 1001)[-60:]])
def test_weights_that_stay_are_their_average(times: Any, sigma_rel: float) -> None:
    """Shares that do not sum to one shrink them: to 0.899, or to 0.25, where the fit is poor."""
    got = reconstruct_ema(ones(times), sigma_rel, tolerance=10.0)["w"]
    assert torch.allclose(got, torch.ones(3), atol=1e-6)


@pytest.mark.parametrize(
    ("times", "sigma_rel", "updates"),
    [(HUNDREDS, 0.07, 950), (HUNDREDS, 0.07, 2000), (HUNDREDS, 0.28, None), ([1000], 0.28, None)],
)
def test_what_cannot_be_represented_is_refused(times: Any, sigma_rel: float, updates: Any) -> None:
    error = reconstruction_error(ones(times), sigma_rel, updates=updates)
    assert error > 0.2
    with pytest.raises(ValueError, match=re.escape(f"got an error of {error:.3g} of the profile")):
        reconstruct_ema(ones(times), sigma_rel, updates=updates)
    reconstruct_ema(ones(times), sigma_rel, updates=updates, tolerance=1.01 * error)


def test_the_error_says_how_well_a_profile_is_represented() -> None:
    snapshots = ones(HUNDREDS)
    assert reconstruction_error(snapshots, 0.05) < 1e-6
    assert reconstruction_error(snapshots, 0.10, updates=500) < 1e-6
    assert 0.005 < reconstruction_error(snapshots, 0.07) < 0.02
    # Later snapshots do not count, so that nothing says what came between 900 and 950.
    assert reconstruction_error(snapshots, 0.07, updates=950) > 0.5
    for bad in (-0.1, float("nan"), "0.1"):
        with pytest.raises((TypeError, ValueError), match="'tolerance'"):
            reconstruct_ema(snapshots, 0.07, tolerance=bad)


@pytest.fixture(scope="module")
def run(tmp_path_factory: Any) -> tuple[list[Any], dict[float, Any]]:
    """Snapshots of two widths every 50 steps of 800, and averages of others, tracked directly."""
    folder: Path = tmp_path_factory.mktemp("snapshots")
    p = torch.nn.Parameter(torch.zeros(20, dtype=torch.float64))
    opt = torch.optim.SGD([p], lr=0.05)
    kept = [PowerFunctionEMA([("w", p)], s).attach(opt) for s in (0.05, 0.10)]
    direct = {s: PowerFunctionEMA([("w", p)], s).attach(opt) for s in (0.07, 0.15, 0.2)}
    generator = torch.Generator().manual_seed(0)
    files = []
    for step in range(1, 801):
        p.grad = 0.1 * torch.randn(20, generator=generator, dtype=torch.float64) - 0.01
        opt.step()
        if step % 50 == 0:
            for k, ema in enumerate(kept):
                files.append(folder / f"{step}.{k}.pt")
                torch.save(ema.state_dict(), files[-1])
    return files, {s: ema.state_dict()["shadow"]["w"] for s, ema in direct.items()}


@pytest.mark.parametrize("sigma_rel", [0.07, 0.15, 0.2])
def test_any_width_is_reconstructed(run: Any, sigma_rel: float) -> None:
    files, direct = run
    got = reconstruct_ema(files, sigma_rel)["w"]
    others = [x for s, x in direct.items() if s != sigma_rel]
    error = (got - direct[sigma_rel]).norm()
    assert error < 0.02 * min((direct[sigma_rel] - x).norm() for x in others)


def test_stored_averages_come_back(run: Any) -> None:
    files, _ = run
    for file in (files[4], files[-1]):
        state = torch.load(file, weights_only=True)
        got = reconstruct_ema(files, state["sigma_rel"], updates=state["updates"])["w"]
        torch.testing.assert_close(got, state["shadow"]["w"], rtol=1e-7, atol=1e-10)


def test_average_follows_the_profile() -> None:
    """The recursion against the sum that it stands for, and no trace of the start."""
    sigma_rel, steps = 0.2, 60
    p = torch.nn.Parameter(torch.full((1,), 1e6, dtype=torch.float64))
    ema = PowerFunctionEMA([p], sigma_rel)
    values = np.random.default_rng(0).standard_normal(steps)
    for value in values:
        with torch.no_grad():
            p.fill_(float(value))
        ema.update()
    g = gamma_of(sigma_rel)
    edges = (np.arange(steps + 1) / steps) ** (g + 1)  # the profile's integral
    want = np.sum(np.diff(edges) * values)
    assert ema.state_dict()["shadow"]["0"].item() == pytest.approx(want, rel=1e-10)


def test_resuming_keeps_width_and_count() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    ema = PowerFunctionEMA([p], 0.1, every=2)
    for k in range(5):
        with torch.no_grad():
            p.fill_(k)
        ema.update()
    state = ema.state_dict()
    assert (state["steps"], state["updates"], state["sigma_rel"]) == (5, 2, 0.1)
    again = PowerFunctionEMA([p], 0.1, every=2)
    again.load_state_dict(state)
    ema.update()
    again.update()
    assert torch.equal(ema.state_dict()["shadow"]["0"], again.state_dict()["shadow"]["0"])
    with pytest.raises(ValueError, match=re.escape("must have sigma_rel = 0.05, got 0.1")):
        PowerFunctionEMA([p], 0.05).load_state_dict(state)


def test_bad_arguments_are_named(run: Any) -> None:
    files, _ = run
    p = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="'sigma_rel' must be below"):
        PowerFunctionEMA([p], 0.3)
    with pytest.raises(ValueError, match="PowerFunctionEMA: 'sigma_rel' must be positive"):
        PowerFunctionEMA([p], 0.0)
    with pytest.raises(ValueError, match="reconstruct_ema: 'sigma_rel' must be positive"):
        reconstruct_ema(files, float("nan"))
    for bad in ([], [files[0], files[0]], [PowerFunctionEMA([p]).state_dict()]):
        with pytest.raises(ValueError, match="at least one state after an update, no two"):
            reconstruct_ema(bad, 0.1)
    with pytest.raises(ValueError, match="must be states of a PowerFunctionEMA"):
        reconstruct_ema([{"shadow": {}}], 0.1)
    other = PowerFunctionEMA([p])
    other.update()
    with pytest.raises(ValueError, match="of the same parameters"):
        reconstruct_ema([files[0], other.state_dict()], 0.1)


def test_a_state_of_another_rhythm_is_refused() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    ema = PowerFunctionEMA([p], every=2)
    for _ in range(8):
        ema.update()
    state = ema.state_dict()
    with pytest.raises(ValueError, match="must be of every = 1, got 4 updates in 8 steps"):
        PowerFunctionEMA([p]).load_state_dict(state)
    again = PowerFunctionEMA([p], every=2)
    again.load_state_dict(state)
    assert again.state_dict()["updates"] == 4
