"""The sums over entries, rows and columns against loops, in every element type and layout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tolerances as tol
from csrc.linalg.test_linalg_kernels import LAYOUTS, decoded, host
from reference import margins as ref

from pyspectra import ops
from pyspectra._arrays import FLOAT_DTYPES, HostArray

# Less than a piece of a row, a piece and a bit, several strips; rows and columns alone.
SHAPES = [(1, 1), (1, 9), (9, 1), (7, 5), (64, 8), (65, 17), (3, 700), (700, 3), (300, 520)]


def sums(m: object) -> dict[str, float]:
    return {name: getattr(m, name) for name in dir(m) if not name.startswith("_")}


def entries(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Entries with a mean, scales of rows and columns, a row and a column of zeros."""
    rng = np.random.default_rng([seed, *shape])
    rows, cols = shape
    w = rng.standard_normal(shape) * rng.uniform(0.5, 2.0, (rows, 1)) + 0.2
    w *= rng.uniform(0.5, 2.0, cols)
    if min(shape) > 4:
        w[2], w[:, 3] = 0.0, 0.0
    return w


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_those_of_the_reference(shape: tuple[int, int], dtype: str) -> None:
    X = host(entries(shape), dtype)
    (found,) = ops.margins([X])
    expected = ref.margins(decoded(X))
    assert sums(found).keys() == expected.keys()
    w = np.abs(decoded(X))
    # Sums of signed terms are only as good as the terms are large.
    atol = {
        "total": w.sum(),
        "diagonal": w.sum(),
        "row_totals": (w.sum(1) ** 2).sum(),
        "col_totals": (w.sum(0) ** 2).sum(),
    }
    for name, value in expected.items():
        bound = tol.SUM_RTOL * max(abs(value), atol.get(name, 0.0))
        if name == "cycles":  # a difference of sums of squares and of their own squares
            bound = tol.SUM_RTOL * expected["row_squares"] * expected["col_squares"]
        assert abs(getattr(found, name) - value) <= bound, name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_layouts_do_not_matter(layout: str, dtype: str) -> None:
    X = host(entries((130, 90)), dtype)
    other = HostArray(LAYOUTS[layout](X.data), dtype)
    (plain,), (found,) = ops.margins([X]), ops.margins([other])
    for name, value in sums(plain).items():
        assert getattr(found, name) == pytest.approx(value, rel=tol.SUM_RTOL), name


def test_a_transposed_matrix_has_rows_for_columns() -> None:
    X = host(entries((130, 90)), "float32")
    (a,), (b,) = ops.margins([X]), ops.margins([HostArray(X.data.T, "float32")])
    assert (a.row_squares, a.col_totals, a.diagonal) == (b.col_squares, b.row_totals, b.diagonal)


def on_every_level(of_batch: Callable[[list[HostArray]], list[object]]) -> list[list[object]]:
    """What each instruction set makes of matrices, with one thread and with three."""
    batch = [host(entries(shape, seed), "float32") for seed, shape in enumerate(SHAPES)]
    batch.append(host(entries((5000, 60)), "float32"))  # several strips
    threads, isa = ops.get_num_threads(), ops.get_isa()
    found = []
    try:
        for level in ops.available_isas():
            for n in (1, 3):
                ops.set_isa(level)
                ops.set_num_threads(n)
                found.append(of_batch(batch))
    finally:
        ops.set_isa(isa)
        ops.set_num_threads(threads)
    return found


def test_bits_do_not_depend_on_threads_or_instruction_set() -> None:
    found = on_every_level(lambda batch: [sums(m) for m in ops.margins(batch)])
    assert all(other == found[0] for other in found[1:])


def test_hostile_entries() -> None:
    zero, nan = np.zeros((6, 5)), np.ones((6, 5))
    nan[3, 2] = np.nan
    of_zero, of_nan, of_empty = ops.margins(
        [HostArray(w, "float64") for w in (zero, nan, zero[:0])]
    )
    assert (of_zero.zero_rows, of_zero.zero_cols, of_zero.cycles) == (6.0, 5.0, 0.0)
    assert np.isnan([of_nan.square, of_nan.quartic]).all()
    assert (of_empty.square, of_empty.zero_rows, of_empty.zero_cols) == (0.0, 0.0, 5.0)


def centred(w: np.ndarray) -> np.ndarray:
    return w - w.mean(1, keepdims=True) - w.mean(0) + w.mean()


def square_sum(w: np.ndarray) -> float:
    return float(np.sum((w.T @ w) ** 2))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("shape", [s for s in SHAPES if s != (1, 1)], ids=str)
def test_sums_of_centred_matrices_are_those_of_the_reference(
    shape: tuple[int, int], dtype: str
) -> None:
    for layout, arranged in LAYOUTS.items():
        plain = host(entries(shape), dtype)
        X = HostArray(arranged(plain.data), dtype)
        ((found, reduction),) = ops.centred_margins([X], ops.margins([X]))
        w = decoded(plain)
        expected = ref.margins(centred(w))
        size = np.abs(w).sum()
        for name in ("square", "quartic", "row_squares", "col_squares", "cycles"):
            power = {"square": 2, "quartic": 4}.get(name, 4)
            bound = tol.SUM_RTOL * max(expected[name], np.sqrt(np.mean(w**2)) ** power * w.size)
            if name == "cycles":
                bound = tol.SUM_RTOL * expected["row_squares"] * expected["col_squares"]
            assert abs(getattr(found, name) - expected[name]) <= bound, (layout, name)
        for name in ("total", "diagonal"):
            assert abs(getattr(found, name) - expected[name]) <= tol.SUM_RTOL * size, (layout, name)
        whole = square_sum(w)
        assert abs(whole - reduction - square_sum(centred(w))) <= tol.SUM_RTOL * whole, layout


def test_bits_of_centred_sums_do_not_depend_on_threads_or_instruction_set() -> None:
    def of_batch(batch: list[HostArray]) -> list[object]:
        centred_ones = ops.centred_margins(batch, ops.margins(batch))
        return [(sums(m), reduction) for m, reduction in centred_ones]

    found = on_every_level(of_batch)
    assert all(other == found[0] for other in found[1:])


def test_sums_of_other_matrices_are_refused() -> None:
    X = [host(entries(shape), "float64") for shape in [(7, 5), (5, 7)]]
    with pytest.raises(ValueError, match="other matrices"):
        ops.centred_margins(X[:1], ops.margins(X[1:]))
    with pytest.raises(ValueError, match="other matrices"):
        ops.centred_margins(X[:1], [None])  # type: ignore[list-item]
