"""What some entries of a layer tell, in every element type and layout."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances as tol
from csrc.linalg.test_linalg_kernels import LAYOUTS, decoded, host
from reference import sample as ref

from pyspectra import ops
from pyspectra._arrays import FLOAT_DTYPES, HostArray

SHAPES = [(1, 9), (9, 1), (7, 5), (65, 17), (30, 90)]


def layer(shape: tuple[int, int], dtype: str, layout: str = "c_order") -> list[HostArray]:
    """Three matrices with a mean, heavy tails and zeros."""
    rng = np.random.default_rng(shape)
    out = []
    for _ in range(3):
        w = rng.standard_t(5, shape) + 0.3
        w[rng.random(shape) < 0.2] = 0.0
        X = host(w, dtype)
        out.append(HostArray(LAYOUTS[layout](X.data), dtype))
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_a_sample_is_that_of_the_reference(dtype: str, layout: str) -> None:
    for shape in SHAPES:
        X = layer(shape, dtype, layout)
        for step in (1, 7):
            found = ops.entry_sample(X, step)
            expected = ref.entry_sample([decoded(x) for x in X], step)
            assert found == pytest.approx(expected, rel=tol.SUM_RTOL, abs=tol.SUM_RTOL)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -7.7, 1e300, 5e-324])
def test_entries_that_are_all_equal_have_no_kurtosis(value: float) -> None:
    for shape in SHAPES:
        kurtosis, zeros = ops.entry_sample([HostArray(np.full(shape, value), "float64")], 1)
        assert np.isnan(kurtosis)
        assert zeros == (value == 0.0)


@pytest.mark.parametrize("power", [-1000, -300, 300, 900])
def test_the_kurtosis_does_not_depend_on_the_scale(power: int) -> None:
    X = layer((65, 17), "float64")
    scaled = [HostArray(np.ldexp(x.data, power), "float64") for x in X]
    assert ops.entry_sample(scaled, 1) == pytest.approx(ops.entry_sample(X, 1), rel=1e-12)


def test_hostile_entries() -> None:
    equal, nan, inf = np.full((6, 5), 0.5), np.ones((6, 5)), np.ones((6, 5))
    nan[3, 2], inf[1, 1] = np.nan, np.inf
    for w in (equal, nan, inf, np.zeros((6, 5)), np.zeros((0, 5))):
        assert np.isnan(ops.entry_sample([HostArray(w, "float64")], 1)[0])
        assert not ops.rows_are_orthogonal([HostArray(w, "float64")], 12, 4e-3)
    assert ops.entry_sample([HostArray(np.zeros((6, 5)), "float64")], 1)[1] == 1.0
    with pytest.raises(ValueError, match="step"):
        ops.entry_sample([HostArray(equal, "float64")], 0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_orthogonal_rows_are_told_by_their_products(dtype: str, layout: str) -> None:
    rng = np.random.default_rng(7)
    answers = set()
    for noise in (0.0, 1e-4, 1e-2):
        # The rows of three matrices together are orthogonal, those of each alone are not.
        together = np.linalg.qr(rng.standard_normal((120, 20)))[0].T + noise * rng.standard_normal(
            (20, 120)
        )
        X = [
            HostArray(LAYOUTS[layout](x.data), dtype)
            for x in (host(part, dtype) for part in np.split(together, 3, axis=1))
        ]
        for probed in (3, 5, 12):
            far = ref.distance_from_orthogonal([decoded(x) for x in X], probed)
            answer = ops.rows_are_orthogonal(X, probed, 4e-3)
            assert answer == (far < 4e-3 and probed >= 4)
            answers.add(answer)
        assert not ops.rows_are_orthogonal(X[:1], 12, 4e-3)
    assert answers == {False, True}


def test_lengths_alone_are_not_enough() -> None:
    rows = np.random.default_rng(8).standard_normal((8, 30))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert not ops.rows_are_orthogonal([HostArray(rows, "float64")], 8, 4e-3)


def test_matrices_of_other_shapes_are_refused() -> None:
    X = [HostArray(np.ones(shape), "float64") for shape in [(7, 5), (5, 7)]]
    with pytest.raises(ValueError, match="one shape"):
        ops.rows_are_orthogonal(X, 5, 1e-3)
