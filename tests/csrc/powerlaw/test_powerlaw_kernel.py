"""The power-law kernel against the exhaustive scan: same index, same numbers, on every machine."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tolerances as tol
from reference import powerlaw as ref

import pyspectra as ps
from pyspectra import PowerLawFit, Status, ops

Array = ref.Array

SIZES = (*range(2, 65), 100, 384, 1000, 2048, 5000)


# --- spectra ------------------------------------------------------------------------------------


def pareto(n: int, rng: np.random.Generator) -> Array:
    return np.asarray((1.0 - rng.random(n)) ** (-1.0 / rng.uniform(0.8, 4.0)))


def lognormal(n: int, rng: np.random.Generator) -> Array:
    return rng.lognormal(0.0, 1.3, n)


def gamma(n: int, rng: np.random.Generator) -> Array:
    return rng.gamma(0.7, 2.0, n) + 1e-4


def exponential(n: int, rng: np.random.Generator) -> Array:
    return rng.exponential(3.0, n) + 1e-3


def marchenko_pastur(n: int, rng: np.random.Generator) -> Array:
    """Eigenvalues of a random matrix; for large n points of its limiting law (Q = 2)."""
    if n <= 384:
        W = rng.standard_normal((2 * n, n)) / math.sqrt(2 * n)
        return np.linalg.svd(W, compute_uv=False) ** 2
    a, b = (1.0 - 0.5**0.5) ** 2, (1.0 + 0.5**0.5) ** 2
    grid = np.linspace(a, b, 20_001)
    density = np.sqrt(np.maximum((b - grid) * (grid - a), 0.0)) / grid
    cdf = np.cumsum(density)
    return np.interp(np.sort(rng.random(n)), cdf / cdf[-1], grid)


def trained_like(n: int, rng: np.random.Generator) -> Array:
    """A random bulk with a heavy tail of one part in five."""
    bulk = marchenko_pastur(n, rng)[: n - n // 5]
    return np.concatenate([bulk, np.max(bulk) * pareto(n // 5, rng)])


def duplicates(n: int, rng: np.random.Generator) -> Array:
    return np.maximum(np.round(pareto(n, rng), 1), 0.1)


def repeated(n: int, rng: np.random.Generator) -> Array:
    return np.repeat(lognormal(-(-n // 3), rng), 3)[:n]


def lattice(n: int, rng: np.random.Generator) -> Array:
    """A geometric series with noise far below its ratio: D changes little between candidates."""
    return 1.05 ** np.arange(n, dtype=float) ** 0.7 * (1.0 + 1e-6 * rng.random(n))


FAMILIES: dict[str, Callable[[int, np.random.Generator], Array]] = {
    f.__name__: f
    for f in (
        pareto, lognormal, gamma, exponential, marchenko_pastur, trained_like, duplicates, repeated,
        lattice,
    )
}  # fmt: skip


@functools.cache
def spectra(family: str) -> tuple[Array, ...]:
    return tuple(
        np.sort(FAMILIES[family](n, np.random.default_rng([n, len(family)]))) for n in SIZES
    )


@functools.cache
def expected(family: str) -> tuple[ref.RefFit, ...]:
    return tuple(ref.fit_ww(x) for x in spectra(family))


@functools.cache
def near_ties() -> tuple[Array, ...]:
    """Spectra in which two candidates are within 1e-9 to 1e-11 of each other.

    Moving one spectrum into another changes which candidate wins; bisection finds where.
    """
    found: list[Array] = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(20, 300))
        a, b = np.sort(lognormal(n, rng)), np.sort(pareto(n, rng))
        low, high = 0.0, 1.0

        def at(t: float, a: Array = a, b: Array = b) -> Array:
            return (1.0 - t) * a + t * b

        index = ref.fit_ww(at(low)).index
        if ref.fit_ww(at(high)).index == index:
            continue
        for _ in range(60):
            middle = (low + high) / 2.0
            fit = ref.fit_ww(at(middle))
            if 1e-11 < fit.margin < 1e-9:
                found.append(at(middle))
                break
            low, high = (middle, high) if fit.index == index else (low, middle)
    return tuple(found)


# --- comparison ---------------------------------------------------------------------------------


def assert_fit(
    got: PowerLawFit,
    want: ref.RefFit,
    what: object,
    rtol: float = tol.ALPHA_RTOL,
    atol: float = tol.KS_ATOL,
) -> None:
    assert str(got.status) == want.status, what
    assert got.n == want.n, what
    assert got.index == want.index, what
    if want.status != "ok":
        numbers = [got.alpha, got.alpha_stderr, got.alpha_corrected, got.D, got.xmin, got.xmax]
        assert np.all(np.isnan(numbers)), what
        assert got.n_tail == 0, what
        return
    assert got.xmin == want.xmin, what
    assert got.xmax == want.xmax, what
    assert got.n_tail == want.n_tail, what
    assert got.alpha - 1.0 == pytest.approx(want.alpha - 1.0, rel=rtol), what
    assert got.alpha_stderr == pytest.approx(want.alpha_stderr, rel=rtol), what
    corrected = want.alpha_corrected - 1.0
    assert got.alpha_corrected - 1.0 == pytest.approx(corrected, rel=rtol, nan_ok=True), what
    assert abs(want.D - got.D) <= atol, what


NUMBERS = (
    "alpha",
    "xmin",
    "xmax",
    "D",
    "alpha_stderr",
    "alpha_corrected",
    "n_tail",
    "n",
    "index",
    "status",
)


def bits(fits: list[PowerLawFit]) -> bytes:
    """Every number of every fit, so that equality means the same bits (NaN included)."""
    return np.array([[getattr(f, name) for name in NUMBERS] for f in fits]).tobytes()


# --- the scan -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_equals_the_exhaustive_scan(family: str, isa: str) -> None:
    fits = ps.fit_powerlaw_batch(spectra(family))
    assert len(fits) == len(SIZES)
    for n, got, want in zip(SIZES, fits, expected(family), strict=True):
        assert_fit(got, want, (family, n))


@pytest.mark.parametrize("family", FAMILIES)
def test_single_equals_batch(family: str) -> None:
    single = [ps.fit_powerlaw(x) for x in spectra(family)]
    assert bits(single) == bits(ps.fit_powerlaw_batch(spectra(family)))


def test_the_cases_have_a_clear_winner() -> None:
    """Guards the tests above: an index can only be demanded where D tells candidates apart."""
    for family in FAMILIES:
        for n, fit in zip(SIZES, expected(family), strict=True):
            if fit.status == "ok":
                assert fit.margin > tol.KS_TIE, (family, n)


def test_near_ties_go_to_the_better_candidate(isa: str) -> None:
    cases = near_ties()
    assert len(cases) >= 8
    for i, (x, got) in enumerate(zip(cases, ps.fit_powerlaw_batch(cases), strict=True)):
        assert_fit(got, ref.fit_ww(x), i)


@pytest.mark.parametrize("family", FAMILIES)
def test_same_bits_on_every_instruction_set(family: str) -> None:
    found = []
    for name in ops.available_isas():
        ops.set_isa(name)
        assert ops.get_isa() == name
        found.append(bits(ps.fit_powerlaw_batch(spectra(family))))
        found.append(bits(ps.fit_powerlaw_batch(spectra(family), estimator="hill")))
        found.append(bits(ps.fit_powerlaw_batch(spectra(family), xmin=1.0)))
    assert all(found[i] == found[i % 3] for i in range(len(found)))


def test_same_bits_for_any_number_of_threads() -> None:
    everything = [x for family in FAMILIES for x in spectra(family)]
    found = []
    for threads in (1, 2, 3):
        ops.set_num_threads(threads)
        found.append(bits(ps.fit_powerlaw_batch(everything)))
    assert found[0] == found[1] == found[2]


def test_order_of_points_and_of_spectra_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    xs = [lognormal(n, rng) for n in (5, 700, 30)]
    want = ps.fit_powerlaw_batch([np.sort(x) for x in xs])
    assert bits(ps.fit_powerlaw_batch(xs)) == bits(want)
    assert bits(ps.fit_powerlaw_batch(xs[::-1])[::-1]) == bits(want)


def test_450_000_points() -> None:
    x = np.sort(trained_like(450_000, np.random.default_rng(0)))
    fit = ps.fit_powerlaw(x)
    assert fit.status is Status.OK
    n = len(x)
    log_x = np.log(x)
    upward = np.cumsum(log_x[::-1].astype(np.longdouble))[::-1].astype(np.float64)

    def candidate(i: int) -> tuple[float, float]:
        m = n - i
        beta = m / float(upward[i] - m * log_x[i])
        D = 0.0
        for start in range(i, n, 1 << 16):
            stop = min(n, start + (1 << 16))
            model = -np.expm1(-beta * (log_x[start:stop] - log_x[i]))
            D = max(D, float(np.max(np.abs(model - np.arange(start - i, stop - i) / m))))
        return 1.0 + beta, D

    alpha, D = candidate(fit.index)
    assert fit.n == n
    assert fit.xmin == x[fit.index]
    assert fit.n_tail == n - fit.index
    assert fit.alpha - 1.0 == pytest.approx(alpha - 1.0, rel=tol.LARGE_ALPHA_RTOL)
    assert abs(D - fit.D) <= tol.LARGE_KS_ATOL
    grid = np.unique(
        np.concatenate(
            [
                np.linspace(0, n - 2, 150).astype(int),
                np.clip(fit.index + np.arange(-20, 21), 0, n - 2),
                n - np.unique(np.geomspace(2, n, 60).astype(int)),
            ]
        )
    )
    best = min(candidate(int(i))[1] for i in grid)
    assert best >= fit.D - tol.LARGE_KS_ATOL


# --- rules --------------------------------------------------------------------------------------


def test_below_twenty_points_the_tail_keeps_eight_and_alpha_is_corrected() -> None:
    x = np.sort(pareto(19, np.random.default_rng(5)))
    fit = ps.fit_powerlaw(x)
    assert fit.n - fit.index >= 8
    tail = x[fit.index :]
    T = float(np.sum(np.log(tail / tail[0])))
    assert fit.alpha == pytest.approx(1.0 + (len(tail) - 1) / T, rel=tol.ALPHA_RTOL)


def test_below_eight_points_everything_is_the_tail() -> None:
    x = np.array([1.0, 2.0, 4.0])
    fit = ps.fit_powerlaw(x)
    assert (fit.index, fit.n_tail, fit.xmin) == (0, 3, 1.0)
    assert fit.alpha == pytest.approx(1.0 + 2.0 / (3.0 * math.log(2.0)), rel=tol.ALPHA_RTOL)


def test_duplicates_of_xmin_all_count_in_the_tail() -> None:
    x = np.sort(np.concatenate([np.full(6, 2.0), 2.0 * pareto(40, np.random.default_rng(1))]))
    fit = ps.fit_powerlaw(x, xmin=2.0)
    assert fit.n_tail == 46
    for family in ("duplicates", "repeated"):
        for got, y in zip(ps.fit_powerlaw_batch(spectra(family)), spectra(family), strict=True):
            if got.status is Status.OK:
                assert got.n_tail == np.count_nonzero(y >= got.xmin)


@pytest.mark.parametrize("n", [2, 3, 19, 20, 21, 384])
@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.8])
def test_fixed_xmin(n: int, quantile: float, isa: str) -> None:
    x = np.sort(lognormal(n, np.random.default_rng(n)))
    between = float(np.quantile(x, quantile)) * (1.0 - 1e-9)
    for xmin in (float(x[int(quantile * (n - 1))]), between, 0.5 * float(x[0])):
        assert_fit(ps.fit_powerlaw(x, xmin=xmin), ref.fit_fixed(x, xmin), (n, xmin))


def test_xmin_too_high_leaves_too_few_points() -> None:
    fit = ps.fit_powerlaw([1.0, 2.0, 3.0], xmin=2.5)
    assert fit.status is Status.TOO_FEW_POINTS
    assert math.isnan(fit.alpha)
    assert math.isnan(fit.xmax)


@pytest.mark.parametrize("n", [2, 19, 25, 384])
def test_xmax_leaves_out_what_lies_above(n: int, isa: str) -> None:
    x = np.sort(lognormal(n, np.random.default_rng(n)))
    xmax = float(x[(3 * n) // 4])
    fit = ps.fit_powerlaw(x, xmax=xmax)
    assert_fit(fit, ref.fit_ww(x, xmax=xmax), n)
    assert_fit(fit, ref.fit_ww(x[x <= xmax]), n)


def test_threshold_is_absolute_and_strict() -> None:
    x = np.sort(pareto(50, np.random.default_rng(2)))
    low = [1e-5, 5e-6, 0.0, -1.0]
    assert bits([ps.fit_powerlaw(np.concatenate([low, x]))]) == bits([ps.fit_powerlaw(x)])
    assert ps.fit_powerlaw(x * 1e-9).status is Status.TOO_FEW_POINTS
    y = x * 1e-9
    assert_fit(ps.fit_powerlaw(y, threshold=0.0), ref.fit_ww(y, threshold=0.0), "tiny")
    assert ps.fit_powerlaw(x, threshold=float(x[9])).n == 40


@pytest.mark.parametrize("family", FAMILIES)
def test_hill(family: str, isa: str) -> None:
    cases = [(n, x) for n, x in zip(SIZES, spectra(family), strict=True) if n in (2, 3, 20, 384)]
    for n, x in cases:
        assert_fit(ps.fit_powerlaw(x, estimator="hill"), ref.fit_hill(x), (n, None))
        for k in {1, 2, n // 3, n - 1, n} - {0}:
            assert_fit(ps.fit_powerlaw(x, estimator="hill", k=k), ref.fit_hill(x, k), (n, k))


def test_hill_needs_one_point_below_its_tail() -> None:
    x = [1.0, 2.0, 4.0]
    assert ps.fit_powerlaw(x, estimator="hill", k=2).status is Status.OK
    assert ps.fit_powerlaw(x, estimator="hill", k=3).status is Status.TOO_FEW_POINTS
    assert ps.fit_powerlaw(x, estimator="hill", k=10**9).status is Status.TOO_FEW_POINTS


@pytest.mark.parametrize("n", [9, 30, 60])
def test_clipped_fingers_follow_the_reference(n: int) -> None:
    from pyspectra.spectra.powerlaw import clip_fingers

    clipped = 0
    for seed in range(40):
        rng = np.random.default_rng([n, seed])
        x = np.sort(rng.lognormal(0.0, 0.3, n))
        fit, count = clip_fingers(x, ps.fit_powerlaw(x))
        want, want_count = ref.clip_xmax(x)
        assert count == want_count, seed
        assert_fit(fit, want, seed)
        clipped += count > 0
    assert 0 < clipped < 40


# --- failures are data --------------------------------------------------------------------------

FAILURES: dict[str, tuple[list[float], Status]] = {
    "nan": ([1.0, 2.0, math.nan, 4.0], Status.NOT_FINITE),
    "nan first": ([math.nan, 2.0, 3.0], Status.NOT_FINITE),
    "infinity": ([1.0, 2.0, math.inf], Status.NOT_FINITE),
    "minus infinity": ([-math.inf, 1.0, 2.0, 3.0], Status.NOT_FINITE),
    "empty": ([], Status.TOO_FEW_POINTS),
    "one point": ([1.0], Status.TOO_FEW_POINTS),
    "zeros": ([0.0] * 30, Status.TOO_FEW_POINTS),
    "negatives": ([-1.0, -2.0, -3.0], Status.TOO_FEW_POINTS),
    "one positive": ([-1.0, 0.0, 3.0], Status.TOO_FEW_POINTS),
    "below the threshold": ([1e-6, 2e-6, 9e-6], Status.TOO_FEW_POINTS),
    "two equal": ([2.0, 2.0], Status.DEGENERATE),
    "all equal, few": ([2.0] * 12, Status.DEGENERATE),
    "all equal": ([2.0] * 100, Status.DEGENERATE),
}


@pytest.mark.parametrize("case", FAILURES)
@pytest.mark.parametrize("estimator", ["ww", "hill"])
def test_failures_have_a_status_and_no_numbers(case: str, estimator: str, isa: str) -> None:
    x, status = FAILURES[case]
    fit = ps.fit_powerlaw(np.array(x), estimator=estimator)
    assert fit.status is status
    assert fit.estimator == estimator
    assert (fit.index, fit.n_tail) == (-1, 0)
    numbers = (fit.alpha, fit.xmin, fit.xmax, fit.D, fit.alpha_stderr)
    assert all(math.isnan(v) for v in numbers)


def test_a_failure_leaves_the_rest_of_its_batch_alone() -> None:
    good = [np.sort(lognormal(n, np.random.default_rng(n))) for n in (30, 500)]
    bad = [np.array(x) for x, _ in FAILURES.values()]
    fits = ps.fit_powerlaw_batch([good[0], *bad, good[1]])
    assert bits([fits[0], fits[-1]]) == bits(ps.fit_powerlaw_batch(good))
    assert [f.status for f in fits[1:-1]] == [status for _, status in FAILURES.values()]


def test_an_empty_batch_has_no_fits() -> None:
    assert ps.fit_powerlaw_batch([]) == []


def test_extreme_magnitudes(isa: str) -> None:
    x = np.sort(pareto(200, np.random.default_rng(11)))
    x = x / x[-1]
    for scale in (1e-300, 5e-320, 1e300):
        y = x * scale
        assert_fit(ps.fit_powerlaw(y, threshold=0.0), ref.fit_ww(y, threshold=0.0), scale)


# --- arguments ----------------------------------------------------------------------------------

BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"estimator": "mle"}, "'estimator' must be one of .* got 'mle'"),
    (
        {"estimator": "hill", "xmin": 1.0},
        "'xmin' must be None with estimator 'hill', .* Hint: give",
    ),
    ({"k": 3}, "'k' must be None with .* Hint: it goes with estimator 'hill' only"),
    ({"estimator": "hill", "k": 0}, r"'k' must be an integer from 1 to 2\^62, got 0"),
    ({"estimator": "hill", "k": -1}, r"'k' must be an integer from 1 to 2\^62, got -1"),
    ({"estimator": "hill", "k": 2.5}, r"'k' must be an integer from 1 to 2\^62, got 2.5"),
    ({"estimator": "hill", "k": True}, r"'k' must be an integer from 1 to 2\^62, got True"),
    ({"threshold": -1.0}, "'threshold' must be finite and not negative, got -1.0"),
    ({"threshold": math.nan}, "'threshold' must be finite and not negative, got nan"),
    ({"threshold": math.inf}, "'threshold' must be finite and not negative, got inf"),
    ({"xmin": 0.0}, "'xmin' must be positive and finite, got 0.0"),
    ({"xmin": math.nan}, "'xmin' must be positive and finite, got nan"),
    ({"xmax": -1.0}, "'xmax' must be positive and finite, got -1.0"),
    ({"xmax": math.inf}, "'xmax' must be positive and finite, got inf"),
    ({"xmin": 3.0, "xmax": 2.0}, "'xmin' must be below 'xmax' = 2.0, got 3.0"),
]


@pytest.mark.parametrize(("options", "message"), BAD_ARGUMENTS)
def test_bad_options_name_the_argument(options: dict[str, Any], message: str) -> None:
    kind = TypeError if options.get("k") in (2.5, True) else ValueError
    with pytest.raises(kind, match=f"^fit_powerlaw: {message}"):
        ps.fit_powerlaw([1.0, 2.0, 3.0], **options)
    with pytest.raises(kind, match=f"^fit_powerlaw_batch: {message}"):
        ps.fit_powerlaw_batch([[1.0, 2.0, 3.0]], **options)


@pytest.mark.parametrize("name", ["xmin", "xmax", "threshold"])
@pytest.mark.parametrize("value", ["a", True, [1.0]])
def test_options_that_are_no_numbers_are_named(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^fit_powerlaw: '{name}' must be .*finite.*, got "):
        ps.fit_powerlaw([1.0, 2.0, 3.0], **{name: value})


@pytest.mark.parametrize("spectra", [None, 3, "abc", b"abc"])
def test_a_batch_is_a_sequence(spectra: Any) -> None:
    with pytest.raises(TypeError, match=r"^fit_powerlaw_batch: 'list_of_evals' must be a sequence"):
        ps.fit_powerlaw_batch(spectra)


def test_bad_spectra_name_the_argument_and_its_place() -> None:
    with pytest.raises(ValueError, match=r"^fit_powerlaw: 'evals' must be 1-D, got shape \(2, 2\)"):
        ps.fit_powerlaw(np.ones((2, 2)))
    with pytest.raises(TypeError, match=r"^fit_powerlaw: 'evals' must be a floating-point array"):
        ps.fit_powerlaw(np.array([1, 2, 3]))
    with pytest.raises(TypeError, match=r"^fit_powerlaw: 'evals' .* dtype complex128"):
        ps.fit_powerlaw(np.ones(3, complex))
    with pytest.raises(ValueError, match=r"^fit_powerlaw_batch: 'list_of_evals\[1\]' must be 1-D"):
        ps.fit_powerlaw_batch([np.ones(3), np.ones((1, 3))])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_float_and_any_stride_is_read_and_left_alone(dtype: type) -> None:
    base = np.random.default_rng(0).lognormal(0.0, 1.0, 200).astype(dtype)
    view = base[::-2]
    kept = base.copy()
    assert_fit(ps.fit_powerlaw(view), ref.fit_ww(view.astype(np.float64)), dtype)
    np.testing.assert_array_equal(base, kept)


def test_torch_tensors_are_read() -> None:
    torch = pytest.importorskip("torch")
    x = torch.tensor(np.random.default_rng(0).lognormal(0.0, 1.0, 100)).to(torch.bfloat16)
    want = ps.fit_powerlaw(x.to(torch.float64).numpy())
    assert bits([ps.fit_powerlaw(x)]) == bits([want])
