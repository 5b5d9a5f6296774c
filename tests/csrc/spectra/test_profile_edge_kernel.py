"""The edge of the spectrum of independent entries against its reference, and where it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from reference import profile_edge as ref

from pyspectra import ops
from pyspectra._arrays import HostArray


def of(W: np.ndarray) -> tuple[float, float, float]:
    (sums,) = ops.margins([HostArray(W, "float64")])
    return ops.profile_edge(sums)


@pytest.mark.parametrize("rows", [3, 24, 200])
@pytest.mark.parametrize("cols", [3, 70])
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.5])
def test_edge_scale_and_response_are_those_of_the_reference(
    rows: int, cols: int, spread: float
) -> None:
    rng = np.random.default_rng([rows, cols])
    W = rng.standard_normal((rows, cols)) * np.exp(spread * rng.standard_normal((rows, 1)))
    if rows > 3:
        W[1] = 0.0
    squares = W * W
    edge, scale, response = of(W)
    expected = ref.profile_edge(squares.sum(1), squares.sum(0))
    assert edge == pytest.approx(expected[0], rel=1e-9)
    assert scale == pytest.approx(expected[1], rel=1e-4)  # a second difference
    assert response == pytest.approx(expected[2], rel=1e-5)


@pytest.mark.parametrize("shape", [(40, 40), (300, 7), (7, 300)])
def test_equal_variances_have_the_edge_of_marchenko_and_pastur(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    W = rng.choice([-1.0, 1.0], shape)
    N, M = shape
    edge, scale, response = of(W)
    a, b = math.sqrt(N), math.sqrt(M)
    assert edge / W.size == pytest.approx((a + b) ** 2, rel=1e-12)
    assert scale / W.size == pytest.approx((a + b) * (1 / a + 1 / b) ** (1 / 3), rel=1e-8)
    assert response == pytest.approx(1.0 / (a * b), rel=1e-8)


def test_layouts_threads_and_instruction_sets_change_nothing() -> None:
    W = np.random.default_rng(0).standard_t(3, (90, 50))
    threads, isa = ops.get_num_threads(), ops.get_isa()
    found = set()
    try:
        for level in ops.available_isas():
            for n in (1, 3):
                ops.set_isa(level)
                ops.set_num_threads(n)
                found.add(of(W))
    finally:
        ops.set_isa(isa)
        ops.set_num_threads(threads)
    assert len(found) == 1
    assert of(np.asfortranarray(W)) == pytest.approx(found.pop(), rel=1e-9)


def test_what_is_zero_or_not_finite_ends() -> None:
    assert of(np.zeros((4, 3))) == (0.0, 0.0, 0.0)
    assert all(math.isnan(x) for x in of(np.full((4, 3), np.inf)))
    of(np.full((4, 3), np.nan))
    W = np.zeros((4, 3))
    W[2, 1] = 5.0
    edge, _, _ = of(W)
    assert np.isfinite(edge)
