"""Products with blocks of vectors against numpy, of every element type, layout and shape."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances as tol
from reference import linalg as ref

from pyspectra import ops
from pyspectra._arrays import FLOAT_DTYPES, HostArray


def host(values, dtype):
    if dtype == "bfloat16":
        return HostArray(ref.encode_bfloat16(values), dtype)
    return HostArray(values.astype(dtype), dtype)


def layouts(a):
    base = np.full((2 * a.shape[0] + 1, 3 * a.shape[1] + 2), 77, dtype=a.dtype)
    strided = base[1::2, 2::3][: a.shape[0], : a.shape[1]]
    strided[...] = a
    return (
        np.ascontiguousarray(a),
        np.asfortranarray(a),
        np.ascontiguousarray(a[::-1])[::-1],
        strided,
    )


# Sides around the kernel's blocks of 96 rows and 256 columns, blocks of vectors around panels.
SHAPES = [(1, 1, 1), (97, 257, 5), (300, 97, 17), (96, 256, 16), (1, 70, 33), (2000, 3, 2)]


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_the_product(isa, dtype, shape):
    n, m, b = shape
    rng = np.random.default_rng(n)
    W, X, start = (rng.standard_normal(s) for s in ((n, m), (m, b), (n, b)))
    stored = host(W, dtype)
    values = stored.to_float64()
    Y_expected = start + values @ X
    Z_expected = values.T @ Y_expected
    size = np.abs(start) + np.abs(values) @ np.abs(X)
    for data in layouts(stored.data):
        Y, Z = ops.normal_product(HostArray(data, dtype), X, start.copy())
        assert np.all(np.abs(Y - Y_expected) <= tol.gram_bound(m + 1) * size)
        assert np.all(
            np.abs(Z - Z_expected) <= tol.gram_bound(n + m + 1) * (np.abs(values).T @ size)
        )
        alone, nothing = ops.normal_product(HostArray(data, dtype), X, transposed=False)
        assert nothing is None
        back = ops.transposed_product(HostArray(data, dtype), start)
        largest = np.abs(values).T @ np.abs(start)
        assert np.all(np.abs(back - values.T @ start) <= tol.gram_bound(n + 20) * largest)
        assert np.all(np.abs(alone - values @ X) <= tol.gram_bound(m) * size)


def single_bound(terms, pieces):
    """What ``csrc/linalg/normal_product.hpp`` says of sums in single precision."""
    unit = 0.5 * float(np.finfo(np.float32).eps)
    return (min(terms, 512) + pieces + 3) * unit * 1.01


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (90, 1200, 16)], ids=str)
def test_is_the_product_in_single_precision(isa, dtype, shape):
    n, m, b = shape
    rng = np.random.default_rng(n)
    stored = host(rng.standard_normal((n, m)), dtype)
    X, start = (rng.standard_normal(s).astype(np.float32) for s in ((m, b), (n, b)))
    values = stored.to_float64()
    size = np.abs(start) + np.abs(values) @ np.abs(X)
    for data in layouts(stored.data):
        Y, Z = ops.normal_product(HostArray(data, dtype), X, start.copy())
        assert Y.dtype == Z.dtype == np.float32
        assert np.all(np.abs(Y - (start + values @ X)) <= single_bound(m, m // 512 + 1) * size)
        back = np.abs(values).T @ np.abs(Y).astype(np.float64)
        wrong = np.abs(Z - values.T @ Y.astype(np.float64))
        assert np.all(wrong <= single_bound(min(n, 96), n // 1536 + 17) * back)


@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (3, 4, 0)], ids=str)
def test_nothing_to_multiply(shape):
    n, m, b = shape
    W = HostArray(np.ones((n, m)), "float64")
    Y, Z = ops.normal_product(W, np.ones((m, b)))
    assert Y.shape == (n, b)
    assert Z.shape == (m, b)
    assert not Y.any()
    assert not Z.any()


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_the_same_bits_for_any_number_of_threads(isa, real):
    rng = np.random.default_rng(0)
    W = HostArray(rng.standard_normal((1700, 300)).astype(np.float32), "float32")
    X = rng.standard_normal((300, 20)).astype(real)
    found = []
    for threads in (1, 2, 5):
        ops.set_num_threads(threads)
        found.append(b"".join(a.tobytes() for a in ops.normal_product(W, X)))
    assert len(set(found)) == 1


def test_what_is_not_finite_shows():
    W = np.ones((200, 100))
    W[150, 50] = np.nan
    Y, Z = ops.normal_product(HostArray(W, "float64"), np.ones((100, 3)))
    assert np.isnan(Y[150]).all()
    assert np.isfinite(np.delete(Y, 150, axis=0)).all()
    assert np.isnan(Z).all()


def test_shapes_that_disagree_are_refused():
    W = HostArray(np.ones((4, 3)), "float64")
    with pytest.raises(ValueError, match="shapes disagree"):
        ops.normal_product(W, np.ones((4, 2)))
    with pytest.raises(ValueError, match="shapes disagree"):
        ops.transposed_product(W, np.ones((3, 2)))
