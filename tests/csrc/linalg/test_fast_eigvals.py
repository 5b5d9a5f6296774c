"""Eigenvalues by float32 against those of float64: every error is inside its bound."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tolerances as tol
from csrc.linalg.test_linalg_kernels import decoded, host

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra.types import FloatArray, Status

# What float32 may lose beside lambda_max, for orders of a few hundred: the bound is four times the
# norm of an error that looks like noise.
USEFUL_BOUND = 1e-5


def probes(M: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((M, ops.FAST_PROBES))


def solve(W: HostArray, seed: int = 0) -> tuple[FloatArray, float, Status]:
    return ops.fast_eigvals(W, probes(min(W.shape), seed))


def exact(W: HostArray) -> FloatArray:
    values = decoded(W)
    evals = np.linalg.svd(values, compute_uv=False)[::-1] ** 2
    return np.asarray(evals)


def assert_inside(W: HostArray, kind: str = "") -> None:
    want = exact(W)
    evals, bound, status = solve(W)
    assert status is Status.OK, kind
    assert np.max(np.abs(evals - want)) <= bound + tol.eigvals_atol(len(want), want[-1]), kind
    assert 0.0 < bound <= USEFUL_BOUND * want[-1], kind


def heavy(N: int, M: int, seed: int = 3) -> FloatArray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, M)) * np.exp(rng.standard_normal(M))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(320, 288), (97, 205)])
def test_errors_are_inside_the_bound(shape: tuple[int, int], dtype: str, isa: str) -> None:
    assert_inside(host(heavy(*shape), dtype))


def kinds() -> Iterator[tuple[str, FloatArray]]:
    rng = np.random.default_rng(5)
    plain = rng.standard_normal((260, 200))
    yield "an outlier", plain + 50.0 * np.outer(plain[:, 0], plain[0])
    yield "columns of zeros", plain * (np.arange(200) % 3 == 0)
    yield "rank one", np.outer(plain[:, 0], plain[0])
    yield "diagonal", np.diag(np.linspace(1.0, 2.0, 150))
    yield "orthogonal", np.linalg.qr(plain)[0]
    yield "graded columns", plain * np.logspace(0, -12, 200)
    yield "small numbers", plain * 1e-15
    yield "large numbers", plain * 1e15
    yield "two columns", plain[:, :2]


def test_every_kind(isa: str) -> None:
    for kind, W in kinds():
        want = exact(host(W, "float32"))
        evals, bound, status = solve(host(W, "float32"))
        assert status is Status.OK, kind
        slack = tol.eigvals_atol(len(want), want[-1])
        assert np.max(np.abs(evals - want)) <= bound + slack, kind
        assert bound <= USEFUL_BOUND * want[-1], kind


def test_strides_and_orders(isa: str) -> None:
    W = host(heavy(150, 220), "bfloat16")
    want = solve(W)[0]
    base = np.zeros((450, 221), W.data.dtype)
    view = base[::3, 1:]
    view[...] = W.data
    turned = host(heavy(150, 220).T.copy(), "bfloat16")
    for data in (np.asfortranarray(W.data), view, turned.data):
        np.testing.assert_array_equal(solve(HostArray(data, "bfloat16"))[0], want)


def test_the_bits_are_the_same_for_any_number_of_threads(isa: str) -> None:
    W = host(heavy(500, 300), "float16")
    ops.set_num_threads(1)
    want, bound, _ = solve(W)
    for threads in (2, 3):
        ops.set_num_threads(threads)
        evals, again, _ = solve(W)
        np.testing.assert_array_equal(evals, want)
        assert again == bound


def test_other_vectors_give_another_bound_of_the_same_errors() -> None:
    W = host(heavy(300, 200), "bfloat16")
    error = float(np.max(np.abs(solve(W)[0] - exact(W))))
    bounds = [solve(W, seed)[1] for seed in range(20)]
    assert len(set(bounds)) == 20
    assert error <= min(bounds)
    assert max(bounds) <= 2.0 * min(bounds)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, 1e-30])
def test_what_float32_cannot_hold_is_left_to_float64(value: float) -> None:
    """AMX takes products of bfloat16 that are subnormal as zero, and overflows as float32 does."""
    W = np.full((64, 40), value)
    evals, bound, status = solve(host(W, "bfloat16"))
    if status is Status.OK:  # in float64 products have room
        assert (
            np.max(np.abs(evals - exact(host(W, "bfloat16")))) <= 1.01 * bound + 1e-12 * evals[-1]
        )
    else:
        assert status is Status.DEGENERATE
    assert (status is Status.OK) <= bool(np.isfinite(value))
    assert solve(host(np.zeros((9, 9)), "bfloat16"))[2] is Status.DEGENERATE


def test_the_bound_sees_what_the_arithmetic_loses() -> None:
    """Products below float32's range vanish in the tile units; with them the bound grows."""
    rng = np.random.default_rng(0)
    W = rng.standard_normal((300, 100)) * np.where(np.arange(100) < 50, 1e-22, 1e-19)
    values = host(W, "bfloat16")
    evals, bound, status = solve(values)
    want = exact(values)
    assert status is Status.OK
    assert np.max(np.abs(evals - want)) <= bound + tol.eigvals_atol(100, want[-1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("shape", [(130, 70), (33, 32), (1030, 45)])
def test_tile_units_multiply_as_float64_does(shape: tuple[int, int], dtype: str) -> None:
    """Integers below 2^12 have exact sums, so that the reduction sees one and the same matrix."""
    if not ops.amx_available():
        pytest.skip("this machine has no AMX with bfloat16, or its system does not lend it")
    W = np.random.default_rng(1).integers(-60, 60, shape).astype(np.float64)
    by_tiles = solve(host(W, dtype))[0]
    np.testing.assert_array_equal(by_tiles, solve(host(W, "float64"))[0])
