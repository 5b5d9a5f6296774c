"""The compiled bootstrap: its replicates, the interval and the p-value made of them."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import tolerances as tol
from reference import powerlaw as ref
from reference.optim import philox4x32

import pyspectra as ps
from pyspectra import PowerLawFit, Status, ops
from pyspectra._support.random import Purpose, random_key
from pyspectra.spectra import bootstrap

Array = ref.Array
KEY = 0x9E3779B97F4A7C15


def pareto(n: int, alpha: float, rng: np.random.Generator) -> Array:
    return np.exp(rng.exponential(1.0 / (alpha - 1.0), n))


def with_bulk(n: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([pareto(n // 3, 2.5, rng), rng.random(n - n // 3) ** 0.4]))


def words(key: int, replicate: int) -> object:
    def stream(number: int) -> Iterator[int]:
        block = 0
        while True:
            yield from philox4x32((block, 0, replicate, number), (key & 0xFFFFFFFF, key >> 32))
            block += 1

    return stream


def options(estimator: str = "ww", **more: float) -> object:
    return ops.fit_options(
        **{"estimator": estimator, "threshold": 0.0, "xmin": math.nan, "xmax": math.inf, **more}
    )


# --- replicates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [30, 300])
@pytest.mark.parametrize("estimator", ["ww", "csn"])
def test_replicates_are_those_of_the_reference(n: int, estimator: str, isa: str) -> None:
    x = with_bulk(n, n)
    o = options(estimator)
    fit = ops.fit_powerlaw([x], o, estimator=estimator)[0]
    table = ops.bootstrap_powerlaw([x], o, [fit], 20, [KEY])[0]
    assert table.shape == (20, 3)
    refit = {"ww": ref.fit_ww, "csn": ref.fit_csn}[estimator]
    for b, (alpha, D, n_tail) in enumerate(table):
        logs = ref.replicate(x[: fit.index], n, math.log(fit.xmin), fit.alpha - 1.0, words(KEY, b))
        assert np.all(np.diff(logs) >= 0.0)
        want = refit(np.exp(logs), threshold=0.0)
        assert n_tail == n - want.index
        assert alpha - 1.0 == pytest.approx(want.alpha - 1.0, rel=tol.REPLICATE_RTOL)
        assert pytest.approx(want.D, abs=tol.REPLICATE_RTOL) == D


def test_a_given_xmin_stays() -> None:
    x = with_bulk(200, 1)
    o = options(xmin=1.0)
    fit = ops.fit_powerlaw([x], o, estimator="ww")[0]
    table = ops.bootstrap_powerlaw([x], o, [fit], 300, [KEY])[0]
    # The tail is binomial, and alpha spreads as its standard error says.
    share = fit.n_tail / fit.n
    assert np.mean(table[:, 2]) == pytest.approx(fit.n_tail, abs=5.0)
    assert np.var(table[:, 2]) == pytest.approx(fit.n * share * (1.0 - share), rel=0.3)
    assert np.std(table[:, 0]) == pytest.approx(fit.alpha_stderr, rel=0.25)


def test_a_replicate_does_not_depend_on_how_many_there_are() -> None:
    x = with_bulk(100, 2)
    o = options()
    fit = ops.fit_powerlaw([x], o, estimator="ww")[0]
    few = ops.bootstrap_powerlaw([x], o, [fit], 5, [KEY])[0]
    many = ops.bootstrap_powerlaw([x], o, [fit], 40, [KEY])[0]
    assert few.tobytes() == many[:5].tobytes()
    some = ops.bootstrap_powerlaw([x], o, [fit], 7, [KEY], first=33)[0]
    assert some.tobytes() == many[33:].tobytes()
    other = ops.bootstrap_powerlaw([x], o, [fit], 5, [KEY + 1])[0]
    assert not np.any(other == few)


def test_same_bits_on_every_instruction_set_and_any_number_of_threads() -> None:
    xs = [with_bulk(n, n) for n in (20, 64, 384, 1000)]
    found = set()
    for name in ops.available_isas():
        ops.set_isa(name)
        for threads in (1, 2, 3):
            ops.set_num_threads(threads)
            for estimator in ("ww",):
                fits = ps.fit_powerlaw_batch(xs, estimator=estimator, bootstrap=50, seed=3)
                found.add(repr(fits))
    assert len(found) == 1


# --- the public face ----------------------------------------------------------------------------


def test_interval_and_p_value_are_what_the_replicates_say() -> None:
    x = with_bulk(150, 4)
    fit = ps.fit_powerlaw(x, threshold=0.0, bootstrap=200, seed=9)
    plain = ps.fit_powerlaw(x, threshold=0.0)
    assert math.isnan(plain.p_value)
    assert all(math.isnan(v) for v in plain.ci)
    assert (fit.alpha, fit.D, fit.xmin) == (plain.alpha, plain.D, plain.xmin)
    table = ops.bootstrap_powerlaw(
        [x], options(), [plain], 200, [random_key(Purpose.BOOTSTRAP, 9, "0")]
    )[0]
    ratio = (table[:, 0] - 1.0) / (fit.alpha - 1.0)
    low, high = np.quantile(ratio, [0.025, 0.975])
    assert fit.ci == (1.0 + (fit.alpha - 1.0) / high, 1.0 + (fit.alpha - 1.0) / low)
    farther = np.count_nonzero(table[:, 1] * np.sqrt(table[:, 2]) >= fit.D * math.sqrt(fit.n_tail))
    assert fit.p_value == (1 + farther) / 201


def test_seeds() -> None:
    x = with_bulk(100, 5)
    first = ps.fit_powerlaw(x, bootstrap=50, seed=1)
    assert repr(first) == repr(ps.fit_powerlaw(x, bootstrap=50, seed=1))
    assert first.ci != ps.fit_powerlaw(x, bootstrap=50, seed=2).ci
    assert ps.fit_powerlaw(x, bootstrap=50).ci != ps.fit_powerlaw(x, bootstrap=50).ci
    batch = ps.fit_powerlaw_batch([x, x], bootstrap=50, seed=1)
    assert repr(batch[0]) == repr(first)
    assert batch[1].ci != first.ci


@pytest.mark.parametrize("points", [1, 5000, 10**9])
def test_how_many_replicates_a_call_makes_changes_no_bit(
    points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    xs = [with_bulk(100, 5), with_bulk(31, 8)]
    whole = repr(ps.fit_powerlaw_batch(xs, bootstrap=333, seed=1))
    monkeypatch.setattr(bootstrap, "POINTS_A_CALL", points)
    ps.set_num_threads(1)
    made: list[int] = []
    fits = ps.fit_powerlaw_batch(xs)
    refits = bootstrap.on_host(options(threshold=1e-5))
    names = [str(i) for i in range(len(xs))]
    spectra = [np.sort(x) for x in xs]
    sure = bootstrap.with_uncertainty(spectra, fits, refits, 333, 1, names, made.append)
    assert repr(sure) == whole
    assert repr(ps.fit_powerlaw_batch(xs, bootstrap=333, seed=1)) == whole
    assert sum(made) == 333
    assert len(made) == {1: 11, 5000: 9, 10**9: 1}[points]


def test_an_interrupt_stops_the_replicates() -> None:
    """A minute of work is left after a second or two, between two calls of the kernel."""
    code = (
        "import os, signal, threading, time\n"
        "import numpy as np, pyspectra as ps\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "ps.set_num_threads(1)\n"
        "x = np.exp(np.random.default_rng(0).exponential(size=20000))\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "begin = time.monotonic()\n"
        "try:\n"
        "    ps.fit_powerlaw(x, bootstrap=2**24, seed=0)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == "interrupted\n", done.stderr


@pytest.mark.parametrize("estimator", ["ww", "csn(20)", "hill(40)", "tempbalance_median"])
def test_every_estimator_covers_the_truth_about_as_often_as_it_says(estimator: str) -> None:
    """Small counts: 300 data sets put 95 % at 92 to 98 within five standard deviations or so."""
    rng = np.random.default_rng(17)
    alpha = 2.7
    data = [pareto(100, alpha, rng) for _ in range(300)]
    fits = ps.fit_powerlaw_batch(data, estimator=estimator, bootstrap=200, seed=1)
    covered = np.mean([fit.ci[0] <= alpha <= fit.ci[1] for fit in fits])
    assert 0.89 < covered < 0.995
    p = np.array([fit.p_value for fit in fits])
    assert abs(np.mean(p) - 0.5) < 0.08  # 0.29 / sqrt(300) = 0.017 if uniform
    assert 0.01 < np.mean(p <= 0.1) < 0.19


def test_what_is_no_power_law_has_a_small_p_value() -> None:
    rng = np.random.default_rng(0)
    fits = ps.fit_powerlaw_batch(
        [1.0 + rng.exponential(1.0, 2000) for _ in range(5)],
        estimator="tempbalance_median", bootstrap=100, seed=0,
    )  # fmt: skip
    assert all(fit.p_value < 0.02 for fit in fits)


def test_failed_fits_have_no_interval() -> None:
    bad: list[Array] = [np.full(50, 2.0), np.array([1.0, math.nan]), np.array([])]
    good = with_bulk(60, 6)
    fits = ps.fit_powerlaw_batch([*bad, good], bootstrap=20, seed=0)
    assert [f.status for f in fits] == [
        Status.DEGENERATE, Status.NOT_FINITE, Status.TOO_FEW_POINTS, Status.OK,
    ]  # fmt: skip
    assert all(math.isnan(f.p_value) and math.isnan(f.ci[0]) for f in fits[:3])
    assert 0.0 < fits[3].p_value <= 1.0
    assert fits[3].ci[0] < fits[3].alpha < fits[3].ci[1]


def test_two_points_are_no_trouble() -> None:
    fit = ps.fit_powerlaw([1.0, 3.0], bootstrap=50, seed=0)
    assert fit.status is Status.OK
    assert isinstance(fit, PowerLawFit)


@pytest.mark.parametrize("seed", [0.5, True, "1"])
def test_seeds_are_integers(seed: object) -> None:
    with pytest.raises(
        TypeError, match=r"^fit_powerlaw: 'seed' must be an integer in \[0, 2\^64\)"
    ):
        ps.fit_powerlaw([1.0, 2.0, 3.0], seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"bootstrap": -1}, ValueError, "'bootstrap' must be an integer from 0 to 1.*, got -1"),
        ({"bootstrap": 2.0}, TypeError, "'bootstrap' must be an integer from 0 to 1.*, got 2.0"),
        ({"bootstrap": True}, TypeError, "'bootstrap' must be an integer .* got True"),
        ({"seed": -1}, ValueError, r"'seed' must be an integer in \[0, 2\^64\), got -1"),
        ({"seed": 2**64}, ValueError, "'seed' must be an integer"),
        ({"bootstrap": 9, "estimator": "tpl"}, ValueError,
         "'bootstrap' must be 0 with estimator 'tpl', got 9"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^fit_powerlaw: {message}"):
        ps.fit_powerlaw([1.0, 2.0, 3.0], **arguments)  # type: ignore[arg-type]
