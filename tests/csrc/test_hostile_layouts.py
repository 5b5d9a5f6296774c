"""Kernels on memory that is laid out in any way: same bits as from a plain copy, nothing besides.

Every array ends where its memory ends, so that a sanitizer (`make sanitize`) sees a read or write
of one element too many; and elements begin at odd addresses, lie backwards, apart, on top of each
other, or not at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerances as tol
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import optim as ref_optim

import pyspectra as ps
from pyspectra import Status, ops
from pyspectra._arrays import FLOAT_DTYPES, HostArray
from pyspectra._support.dtypes import BY_NAME

Array = np.ndarray

thorough = settings(deadline=None, max_examples=60, derandomize=True)
sides = st.one_of(st.sampled_from([0, 1, 2, 3]), st.integers(4, 70))
steps = st.sampled_from([-3, -2, -1, 0, 1, 1, 1, 2, 3])  # 0: each element is the same memory


def placed(values: Array, strides: tuple[int, ...], offset: int) -> Array:
    """`values` at these strides (bytes), `offset` bytes into memory that is not a byte too long."""
    reach = [s * (n - 1) for s, n in zip(strides, values.shape, strict=True)]
    low = sum(r for r in reach if r < 0)
    high = sum(r for r in reach if r > 0) + values.itemsize
    size = offset + (high - low if values.size else 0)
    memory = np.full(size, 0x55, np.uint8)
    view: Array = np.ndarray(
        values.shape, values.dtype, memory, offset - low if values.size else offset, strides
    )
    view[...] = values
    return view


@st.composite
def hostile(draw: st.DrawFn, dtype: str, *, square: bool = False) -> HostArray:
    rows = draw(sides)
    cols = rows if square else draw(sides)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.standard_normal((rows, cols))
    x *= 2.0 ** draw(st.sampled_from([0, 0, -40, -1040, 10]))  # subnormal numbers too
    stored = BY_NAME[dtype].numpy
    with np.errstate(over="ignore", under="ignore"):
        values = (
            ref_optim.to_bfloat16(x.astype(np.float32)) if dtype == "bfloat16" else x.astype(stored)
        )
    odd = draw(st.sampled_from([0, 0, 0, 1]))
    inner = draw(steps) * values.itemsize + odd
    outer = draw(steps) * (max(1, min(rows, cols, 7)) * abs(inner) or values.itemsize)
    if draw(st.booleans()):  # nothing overlaps
        inner = inner or values.itemsize
        outer = (-1 if outer < 0 else 1) * max(rows, cols, 1) * abs(inner)
    strides = (outer, inner) if draw(st.booleans()) else (inner, outer)
    view = placed(values, strides, draw(st.sampled_from([0, 0, 1, 2, 4])))
    view.flags.writeable = draw(st.booleans())
    return HostArray(view, dtype)


matrices = st.sampled_from(FLOAT_DTYPES).flatmap(hostile)


def plain(X: HostArray) -> HostArray:
    return HostArray(np.array(X.data, order="C"), X.dtype)


def of_each_isa(function: Any) -> list[Any]:
    found = []
    for isa in ops.available_isas():
        ops.set_isa(isa)
        found.append(function())
    return found


def same(got: Any, want: Any) -> None:
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@thorough
@given(X=matrices, threads=st.sampled_from([1, 3]))
def test_gram(X: HostArray, threads: int) -> None:
    ops.set_num_threads(threads)
    copy = plain(X)

    def lower(x: HostArray) -> Array:
        return np.tril(ops.gram([x])[0])

    same(of_each_isa(lambda: lower(X)), of_each_isa(lambda: lower(copy)))


@thorough
@given(X=matrices)
def test_singular_values(X: HostArray) -> None:
    (got,), status = ops.svdvals([X])
    (want,), _ = ops.svdvals([plain(X)])
    np.testing.assert_array_equal(got, want)
    assert status == [Status.OK if np.isfinite(X.to_float64()).all() else Status.NOT_FINITE]


@thorough
@given(X=matrices, width=st.sampled_from([1, 5, 17]), threads=st.sampled_from([1, 3]))
def test_products(X: HostArray, width: int, threads: int) -> None:
    ops.set_num_threads(threads)
    block = np.ascontiguousarray(np.random.default_rng(0).standard_normal((X.shape[1], width)))

    def products(x: HostArray) -> Array:
        with np.errstate(all="ignore"):
            Y, Z = ops.normal_product(x, block)
        assert Z is not None
        return np.concatenate([Y, Z])

    for got, want in zip(
        of_each_isa(lambda: products(X)), of_each_isa(lambda: products(plain(X))), strict=True
    ):
        np.testing.assert_array_equal(got, want)


@thorough
@given(X=matrices, key=st.integers(0, 2**64 - 1), threads=st.sampled_from([1, 3]))
def test_permutation(X: HostArray, key: int, threads: int) -> None:
    ops.set_num_threads(threads)
    got = ops.permute(X, key).data
    np.testing.assert_array_equal(got, ops.permute(plain(X), key).data)
    np.testing.assert_array_equal(np.sort(got, axis=None), np.sort(X.data, axis=None))


@thorough
@given(X=matrices, threads=st.sampled_from([1, 3]))
def test_margins(X: HostArray, threads: int) -> None:
    """The order of summation follows the layout; terms without a sign forgive that."""
    ops.set_num_threads(threads)
    unsigned = ["square", "quartic", "row_squares", "col_squares", "zero_rows", "zero_cols"]
    (want,) = ops.margins([plain(X)])
    found = of_each_isa(lambda: ops.margins([X])[0])
    for name in (name for name in dir(want) if not name.startswith("_")):
        values = np.array([getattr(sums, name) for sums in found])
        assert values.tobytes() == values[:1].tobytes() * len(values), name
        if name in unsigned:
            # Sums of numbers near the end of the range lose bits of their own.
            np.testing.assert_allclose(values[0], getattr(want, name), tol.SUM_RTOL, 1e-300)


@thorough
@given(X=hostile("float64", square=True), threads=st.sampled_from([1, 3]))
def test_eigenvalues(X: HostArray, threads: int) -> None:
    ops.set_num_threads(threads)
    batch, copies = [X.data] * 5, [np.array(X.data, order="C")] * 5
    for got, want in zip(
        of_each_isa(lambda: ops.eigvals(batch)),
        of_each_isa(lambda: ops.eigvals(copies)),
        strict=True,
    ):
        same(got[0], want[0])
        assert got[1] == want[1] == [Status.OK] * 5


@thorough
@given(X=matrices)
def test_esd(X: HostArray) -> None:
    """The whole way, from what a caller has."""
    if X.dtype == "bfloat16" or 0 in X.shape or not np.isfinite(X.to_float64()).all():
        return
    np.testing.assert_array_equal(ps.esd(X.data).evals, ps.esd(plain(X).data).evals)


@thorough
@given(
    n=st.integers(0, 80), step=st.integers(-3, 3), offset=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1), estimator=st.sampled_from(["ww", "csn", "hill", "fix_finger"]),
)  # fmt: skip
def test_fit(n: int, step: int, offset: int, seed: int, estimator: str) -> None:
    x = np.sort(np.random.default_rng(seed).pareto(1.5, n) + 1.0)[:: -1 if step < 0 else 1]
    view = placed(x, (step * x.itemsize,), offset)
    view.flags.writeable = False
    copy = view.copy()
    for got, want in zip(
        of_each_isa(lambda: ps.fit_powerlaw(view, estimator=estimator, threshold=0.0)),
        of_each_isa(lambda: ps.fit_powerlaw(copy, estimator=estimator, threshold=0.0)),
        strict=True,
    ):
        assert repr(got) == repr(want)


@thorough
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6), data=st.data())
def test_order_statistic(sizes: list[int], data: st.DataObject) -> None:
    numbers = st.floats(width=32, allow_nan=False)
    lists = [data.draw(st.lists(numbers, min_size=n, max_size=n)) for n in sizes]
    arrays = [
        placed(np.array(x, np.float32), (4,), data.draw(st.sampled_from([0, 1, 4]))) for x in lists
    ]
    everything = np.sort(np.concatenate(arrays))
    if everything.size == 0:
        with pytest.raises(ValueError, match="out of range"):
            ops.order_statistic(arrays, 0)
        return
    index = data.draw(st.integers(0, everything.size - 1))
    assert ops.order_statistic(arrays, index) == (everything[index], -1)


ROLES = ("param", "grad", "exp_avg", "exp_avg_sq", "ema", "mask", "master")


@thorough
@given(
    n=st.one_of(st.integers(0, 20), st.integers(100, 300)),
    dtype=st.sampled_from(FLOAT_DTYPES),
    rule=st.sampled_from(sorted(ops.OPTIM_RULES)),
    mask=st.sampled_from([None, "none", "some", "all"]),
    compact=st.booleans(), drawn=st.booleans(), statistics=st.booleans(), master=st.booleans(),
    rounding=st.booleans(), decay_masked=st.booleans(), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_step(
    n: int, dtype: str, rule: str, mask: str | None, compact: bool, drawn: bool, statistics: bool,
    master: bool, rounding: bool, decay_masked: bool, seed: int,
) -> None:  # fmt: skip
    """No bit depends on the instruction set, and no byte beside the arrays is touched."""
    rng = np.random.default_rng(seed)
    narrow = dtype in ("float16", "bfloat16")
    state = np.float64 if dtype == "float64" else np.float32
    bits = rng.random(n) < {None: 1.0, "none": 0.0, "some": 0.3, "all": 1.0}[mask]
    compact = compact and mask is not None and ops.OPTIM_RULES[rule].compact
    children = int(bits.sum()) if compact else -1

    def stored(x: Array) -> Array:
        if dtype == "bfloat16":
            return ref_optim.to_bfloat16(x.astype(np.float32))
        return x.astype(BY_NAME[dtype].numpy)

    moments = children if compact else n
    arrays: dict[str, Array] = {
        "param": stored(rng.standard_normal(n)),
        "grad": stored(rng.standard_normal(n)),
        "exp_avg": rng.standard_normal(moments).astype(state),
        "exp_avg_sq": rng.random(moments).astype(state),
        "ema": rng.standard_normal(n).astype(state),
    }
    if mask is not None:
        arrays["mask"] = np.packbits(bits, bitorder="little")
    if master and narrow:
        arrays["master"] = rng.standard_normal(n).astype(state)
    option = ops.StepOptions(
        rule=ops.OPTIM_RULES[rule].code, lr=0.01, weight_decay=0.1, step=3, momentum=0.9,
        keep=20_000 if drawn and mask is None else 0, decay_masked=decay_masked,
        ema_decay=0.9, stochastic_rounding=rounding, grad_scale=0.5,
    )  # fmt: skip

    def step() -> list[bytes]:
        mine = {role: placed(a, (a.itemsize,), 0) for role, a in arrays.items()}
        address = [mine[r].ctypes.data if r in mine and mine[r].size else 0 for r in ROLES]
        whole = max(n, 1)
        row = [*address, n, children, 0, whole, whole, 77, ops.DTYPE_CODES[dtype], 0]
        sums = ops.optim_step(ops.optim_table([row]), [option], statistics=statistics)
        np.testing.assert_array_equal(mine["grad"], arrays["grad"])
        return [sums.tobytes(), *(mine[r].tobytes() for r in mine)]

    found = of_each_isa(step)
    assert all(f == found[0] for f in found)


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_a_tensor_that_begins_at_an_odd_address(offset: int) -> None:
    """torch makes such tensors of buffers; kernels are given aligned elements."""
    values = np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)
    memory = bytearray(offset) + bytearray(values.tobytes())
    tensor = torch.frombuffer(memory, dtype=torch.float32, offset=offset).reshape(30, 20)
    assert tensor.data_ptr() % 4 != 0
    np.testing.assert_array_equal(ps.esd(tensor).evals, ps.esd(values).evals)
    with pytest.raises(ValueError, match="aligned"):
        ops.core._core.linalg.gram(
            [tensor.numpy()], ops.DTYPE_CODES["float32"], [np.zeros((20, 20))]
        )


def test_one_row_of_a_packed_record() -> None:
    """numpy takes it for contiguous, whatever the stride of its one row."""
    record = np.zeros((1, 5), dtype=[("tag", "u1"), ("x", np.float32)])
    record["x"] = np.arange(5.0)
    transposed = record["x"].T
    (G,) = ops.gram([HostArray(transposed, "float32")])
    np.testing.assert_array_equal(G, [[30.0]])
    view = np.ndarray((1, 5), np.float32, np.arange(5.0, dtype=np.float32), 0, (3, 4))
    np.testing.assert_array_equal(ops.gram([HostArray(view, "float32")])[0], [[30.0]])


def test_singular_values_of_more_rows_than_lapack_counts() -> None:
    X = np.broadcast_to(np.float32(1.0), (2**31, 1))
    with pytest.raises(ValueError, match="2147483647"):
        ops.svdvals([HostArray(X, "float32")])
