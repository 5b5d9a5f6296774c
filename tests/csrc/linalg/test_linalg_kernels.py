"""Gram matrices, symmetric eigenvalues and singular values against numpy and known spectra."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tolerances as tol
from reference import linalg as ref

import pyspectra as ps
from pyspectra import ConvergenceError, Status, ops
from pyspectra._arrays import FLOAT_DTYPES, HostArray

Array = ref.Array
THREADS = (1, 2, 3)


def host(values: npt.ArrayLike, dtype: str) -> HostArray:
    """float64 values in an element type, bfloat16 rounded towards zero."""
    values = np.asarray(values, dtype=np.float64)
    if dtype == "bfloat16":
        return HostArray(ref.encode_bfloat16(values), dtype)
    return HostArray(values.astype(dtype), dtype)


def decoded(x: HostArray) -> Array:
    """Elements as float64, 16-bit ones by the reference's decoder, pattern by pattern."""
    if x.dtype in ("float32", "float64"):
        return x.data.astype(np.float64)
    decode = ref.decode_bfloat16 if x.dtype == "bfloat16" else ref.decode_half
    bits = np.ascontiguousarray(x.data).view(np.uint16)
    patterns, inverse = np.unique(bits, return_inverse=True)
    return np.array([decode(int(p)) for p in patterns])[inverse].reshape(bits.shape)


def lower(G: Array) -> Array:
    """The triangle that `ops.gram` promises."""
    return np.asarray(np.tril(G))


# --- layouts ------------------------------------------------------------------------------------


def c_order(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a)


def f_order(a: np.ndarray) -> np.ndarray:
    return np.asfortranarray(a)


def strided(a: np.ndarray) -> np.ndarray:
    base = np.full((2 * a.shape[0] + 1, 3 * a.shape[1] + 2), 77, dtype=a.dtype)
    view = base[1::2, 2::3][: a.shape[0], : a.shape[1]]
    view[...] = a
    return view


def negative(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1]


def read_only(a: np.ndarray) -> np.ndarray:
    copy = a.copy()
    copy.flags.writeable = False
    return copy


def transposed(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a.T).T


def slice_of_conv(a: np.ndarray) -> np.ndarray:
    base = np.full((*a.shape, 3, 3), 77, dtype=a.dtype)
    base[:, :, 1, 2] = a
    return base[:, :, 1, 2]


def broadcast_free_field(a: np.ndarray) -> np.ndarray:
    """A field of a packed record: strides that are no multiple of the item size."""
    record = np.zeros(a.shape, dtype=[("tag", "u1"), ("x", a.dtype)])
    record["x"] = a
    return record["x"]


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    f.__name__: f
    for f in (c_order, f_order, strided, negative, read_only, transposed, slice_of_conv)
}


# --- gram ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gram_of_integers_is_exact(dtype: str, layout: str, isa: str) -> None:
    """Small integers leave no room for rounding: all types, layouts and shapes must agree."""
    rng = np.random.default_rng(1)
    for shape in ((1, 1), (5, 3), (3, 5), (33, 33), (300, 50), (50, 300), (97, 96), (1, 40)):
        x = host(rng.integers(-8, 9, shape), dtype)
        data = LAYOUTS[layout](x.data)
        kept = data.copy()
        (G,) = ops.gram([HostArray(data, dtype)])
        assert G.shape == (min(shape), min(shape))
        assert G.dtype == np.float64
        np.testing.assert_array_equal(lower(G), lower(ref.gram(decoded(x))), err_msg=str(shape))
        np.testing.assert_array_equal(data, kept)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("shape", ["tall", "wide", "square"])
def test_gram_within_the_rounding_bound(dtype: str, shape: str, isa: str) -> None:
    """Sizes on both sides of every panel width."""
    for M in (*range(1, 51), 95, 96, 97, 384):
        rng = np.random.default_rng(M)
        N = M if shape == "square" else M + 1 + M // 3
        x = host(rng.standard_normal((M, N) if shape == "wide" else (N, M)), dtype)
        (G,) = ops.gram([x])
        X = decoded(x)
        error = np.abs(lower(G - ref.gram(X)))
        assert np.all(error <= tol.gram_bound(N) * ref.gram_magnitude(X)), M


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_gram_of_many_slabs(dtype: str, isa: str) -> None:
    """Long sides beyond one slab of packed rows, and short ones beyond a slab's least height."""
    rng = np.random.default_rng(9)
    for shape in ((20_011, 7), (7, 20_011), (1500, 600)):
        x = host(rng.standard_normal(shape), dtype)
        (G,) = ops.gram([x])
        X = decoded(x)
        error = np.abs(lower(G - ref.gram(X)))
        assert np.all(error <= tol.gram_bound(max(shape)) * ref.gram_magnitude(X)), shape


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_gram_has_the_same_bits_for_any_number_of_threads(dtype: str, isa: str) -> None:
    rng = np.random.default_rng(2)
    shapes = ((200, 131), (97, 300), (384, 384), (5, 2), (2000, 48))
    xs = [host(rng.standard_normal(s), dtype) for s in shapes]
    found = []
    for threads in THREADS:
        ops.set_num_threads(threads)
        together = ops.gram(xs)
        single = [ops.gram([x])[0] for x in xs]
        found.append(b"".join(lower(G).tobytes() for G in together))
        found.append(b"".join(lower(G).tobytes() for G in single))
    assert all(f == found[0] for f in found)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gram_has_the_same_bits_for_any_layout(layout: str, isa: str) -> None:
    for shape in ((130, 61), (61, 130)):
        data = np.random.default_rng(3).standard_normal(shape)
        (want,) = ops.gram([HostArray(data, "float64")])
        (got,) = ops.gram([HostArray(LAYOUTS[layout](data), "float64")])
        np.testing.assert_array_equal(lower(got), lower(want))


def test_gram_takes_strides_that_are_no_multiple_of_the_item_size() -> None:
    data = np.random.default_rng(3).integers(-9, 9, (12, 5)).astype(np.float32)
    field = broadcast_free_field(data)
    assert field.strides[1] % field.itemsize != 0
    (G,) = ops.gram([HostArray(field, "float32")])
    np.testing.assert_array_equal(lower(G), lower(ref.gram(data.astype(np.float64))))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (64, 4), (1025, 9), (2050, 65), (3, 2), (0, 3)])
def test_interleaved_slices_are_dealt_out(shape: tuple[int, int], dtype: type) -> None:
    X = np.arange(shape[0] * shape[1]).reshape(shape).astype(dtype)
    np.testing.assert_array_equal(ops.deal_out(X), X.T)


def test_gram_writes_where_it_is_told() -> None:
    xs = [host(np.arange(6.0).reshape(3, 2), "float64"), host(np.eye(4), "float64")]
    out = [np.full((2, 2), 5.0, order="F"), np.full((4, 4), 5.0, order="F")]
    got = ops.gram(xs, out)
    assert all(a is b for a, b in zip(got, out, strict=True))
    np.testing.assert_array_equal(lower(out[0]), [[20.0, 0.0], [26.0, 35.0]])
    np.testing.assert_array_equal(lower(out[1]), np.eye(4))


def test_gram_refuses_a_wrong_output() -> None:
    x = host(np.ones((3, 2)), "float64")
    for out in (np.empty((3, 3), order="F"), np.empty((2, 2), order="C"), np.empty(4)):
        with pytest.raises((ValueError, TypeError), match="gram: outputs must be"):
            ops.gram([x], [out])


def test_gram_of_mixed_types_is_refused() -> None:
    with pytest.raises(TypeError, match="must share a dtype"):
        ops.gram([host(np.ones((2, 2)), "float32"), host(np.ones((2, 2)), "float64")])


def test_gram_of_nothing() -> None:
    assert ops.gram([]) == []
    (G,) = ops.gram([host(np.ones((0, 5)), "float64")])
    assert G.shape == (0, 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_finite_half_is_decoded_exactly(dtype: str, isa: str) -> None:
    """All 65536 patterns, subnormals included: beside an identity the Gram matrix returns them."""
    bits = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decode = ref.decode_bfloat16 if dtype == "bfloat16" else ref.decode_half
    value = np.array([decode(int(b)) for b in bits.ravel()]).reshape(256, 256)
    finite = np.isfinite(value)
    one = np.uint16(0x3F80 if dtype == "bfloat16" else 0x3C00)
    X = np.zeros((512, 512), dtype=np.uint16)
    X[:256, :256] = np.where(finite, bits, 0)
    X[:256, 256:] = np.eye(256, dtype=np.uint16) * one
    (G,) = ops.gram([HostArray(X if dtype == "bfloat16" else X.view(np.float16), dtype)])
    np.testing.assert_array_equal(G[256:, :256], np.where(finite, value, 0.0))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_infinity_and_nan_survive(dtype: str, isa: str) -> None:
    exponent = 0x7F80 if dtype == "bfloat16" else 0x7C00
    for bits, want in (
        (exponent, np.inf),
        (exponent | 0x8000, np.inf),
        (exponent | 1, np.nan),
        (exponent | 0x8001, np.nan),
        (exponent | 0x40, np.nan),
    ):
        X = np.zeros((40, 1), dtype=np.uint16)
        X[7] = bits
        (G,) = ops.gram([HostArray(X if dtype == "bfloat16" else X.view(np.float16), dtype)])
        np.testing.assert_array_equal(G, [[want]])


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_gram_does_not_lose_what_is_not_finite(dtype: str, poison: float, isa: str) -> None:
    for at in ((0, 0), (40, 30), (49, 36)):
        values = np.ones((50, 37))
        values[at] = poison
        x = host(values, dtype)
        if np.isnan(poison) and dtype == "bfloat16":
            x.data[at] = 0x7FC0
        (G,) = ops.gram([x])
        j = at[1]
        assert not np.any(np.isfinite(G[j:, j]))
        assert not np.any(np.isfinite(G[j, : j + 1]))
        untouched = np.delete(np.delete(G, j, 0), j, 1)
        np.testing.assert_array_equal(lower(untouched), lower(np.full((36, 36), 50.0)))


# --- eigvals ------------------------------------------------------------------------------------


def assert_evals(got: Array, want: Array, what: object = "") -> None:
    n = len(want)
    assert got.shape == (n,), what
    assert np.all(np.diff(got) >= 0.0), what
    norm = float(np.max(np.abs(want), initial=0.0))
    np.testing.assert_allclose(
        got, np.sort(want), rtol=0.0, atol=tol.eigvals_atol(n, norm), err_msg=str(what)
    )


def solve(matrices: Sequence[Array]) -> list[Array]:
    evals, status = ops.eigvals(list(matrices))
    assert status == [Status.OK] * len(matrices)
    return evals


def random_symmetric(n: int, seed: int = 0) -> Array:
    A = np.random.default_rng([n, seed]).standard_normal((n, n))
    return np.asarray((A + A.T) / 2.0)


def gram_matrix(n: int, seed: int = 0) -> Array:
    X = np.random.default_rng([n, seed]).standard_normal((2 * n, n))
    return np.asarray(X.T @ X)


@functools.cache
def kinds_of(n: int) -> dict[str, tuple[Array, Array]]:
    """Matrices of order n with their eigenvalues, known exactly or from numpy."""
    rng = np.random.default_rng(n)
    out: dict[str, tuple[Array, Array]] = {}
    u = rng.standard_normal(n)
    out["rank one"] = (np.outer(u, u), np.append(np.zeros(n - 1), u @ u))
    out["zero"] = (np.zeros((n, n)), np.zeros(n))
    out["identity"] = (np.eye(n), np.ones(n))
    out["all equal"] = (np.full((n, n), 3.0), np.append(np.zeros(n - 1), 3.0 * n))
    diagonal = rng.standard_normal(n)
    out["diagonal"] = (np.diag(diagonal), diagonal)
    graded = np.logspace(0, -15, n)
    out["graded diagonal"] = (np.diag(graded), graded)
    out["graded"] = (ref.with_spectrum(graded, rng), graded)
    out["graded upwards"] = (np.diag(graded[::-1]), graded)
    clusters = np.repeat([1.0, 2.0, 5.0], n)[::3][:n]
    out["clusters"] = (ref.with_spectrum(clusters, rng), clusters)
    out["second difference"] = ref.second_difference(n)
    sizes = [n // 2, n - n // 2]
    blocks = np.zeros((n, n))
    blocks[: sizes[0], : sizes[0]] = random_symmetric(sizes[0], 1)
    blocks[sizes[0] :, sizes[0] :] = gram_matrix(sizes[1], 2)
    out["block diagonal"] = (blocks, np.linalg.eigvalsh(blocks))
    out["random"] = (A := random_symmetric(n), np.linalg.eigvalsh(A))
    out["negative"] = (-gram_matrix(n), -np.linalg.eigvalsh(gram_matrix(n))[::-1])
    out["gram"] = (G := gram_matrix(n), np.linalg.eigvalsh(G))
    for scale in (1e-200, 1e200, 1e-300, 1e290):
        out[f"random times {scale:g}"] = (A * scale, np.linalg.eigvalsh(A) * scale)
    wilkinson = np.diag(np.abs(np.arange(n) - (n - 1) / 2.0)) + np.eye(n, k=1) + np.eye(n, k=-1)
    out["Wilkinson"] = (wilkinson, np.linalg.eigvalsh(wilkinson))
    # Whole eigenvalues, of which bisection meets those in the middle as points of its grid.
    between = np.sqrt(np.arange(1.0, n) * np.arange(n - 1.0, 0.0, -1.0))
    clement = np.diag(between, 1) + np.diag(between, -1)
    out["Clement"] = (clement, np.arange(1.0 - n, n, 2.0))
    out["Clement, shifted"] = (clement + 3.0 * np.eye(n), np.arange(4.0 - n, n + 3.0, 2.0))
    return out


@pytest.mark.parametrize("n", [*range(1, 10), 15, 16, 17, 31, 32, 33, 63, 64, 65, 130, 257])
def test_eigvals_of_every_kind(n: int, isa: str) -> None:
    kinds = kinds_of(n)
    evals = solve([A for A, _ in kinds.values()])
    for (kind, (_, want)), got in zip(kinds.items(), evals, strict=True):
        assert_evals(got, want, (kind, n))


@pytest.mark.parametrize("n", [0, 1, 7, 40])
def test_a_stack_has_the_eigenvalues_of_its_matrices(n: int, isa: str) -> None:
    """Of any strides, to the last bit, whatever else it holds."""
    stack = np.array([gram_matrix(n, seed) for seed in range(5)])
    want = [ops.eigvals([A])[0][0] for A in stack]
    wide = np.full((5, 2 * n, 3 * n), np.nan)[:, ::2, ::3]
    wide[:] = stack
    for A in (stack, stack.transpose(0, 2, 1), wide, stack[::-1][::-1]):
        evals, codes = ops.eigvals_stack(A)
        np.testing.assert_array_equal(evals, np.array(want).reshape(5, n))
        assert codes == [0] * 5
    if n:
        stack[3, -1, 0] = np.inf
        evals, codes = ops.eigvals_stack(stack)
        assert codes == [0, 0, 0, int(Status.NOT_FINITE), 0]
        assert np.isnan(evals[3]).all()
    assert ops.eigvals_stack(np.empty((0, n, n)))[0].shape == (0, n)


def test_eigvals_of_exactly_known_matrices(isa: str) -> None:
    """Diagonal matrices and the identity need no arithmetic that rounds."""
    diagonal = np.array([3.0, -1.0, 2.0, 2.0, 0.0, 1e-30])
    found = solve([np.diag(diagonal), np.eye(17), np.zeros((9, 9)), np.array([[4.25]])])
    for got, want in zip(found, (np.sort(diagonal), np.ones(17), np.zeros(9), [4.25]), strict=True):
        np.testing.assert_array_equal(got, want)
    (pair,) = solve([np.array([[2.0, 1.0], [1.0, 2.0]])])
    np.testing.assert_allclose(pair, [1.0, 3.0], rtol=tol.EXACT_FACTOR)


@pytest.mark.parametrize("n", [13, 40, 200])
def test_eigvals_of_tridiagonal_matrices_of_every_coupling(n: int, isa: str) -> None:
    """Couplings from none to strong: eigenvalues that agree to the last bits, and in isolation."""
    rng = np.random.default_rng(n)
    for spread in (0, 30, 60, 600):
        for diagonal in (np.ones(n), rng.standard_normal(n), np.repeat([0.0, 1.0], n)[::2][:n]):
            e = np.ldexp(rng.standard_normal(n - 1), -rng.integers(0, spread + 1, n - 1))
            e[:: n // 3] = 0.0
            A = np.diag(diagonal) + np.diag(e, 1) + np.diag(e, -1)
            assert_evals(solve([A])[0], np.linalg.eigvalsh(A), spread)


def test_eigvals_of_glued_wilkinson_matrices(isa: str) -> None:
    """Each eigenvalue comes several times, apart by less than rounding: no root finder sees it."""
    block = np.diag(np.abs(np.arange(-10.0, 11.0))) + np.eye(21, k=1) + np.eye(21, k=-1)
    A = np.kron(np.eye(5), block)
    for i in range(21, len(A), 21):
        A[i, i - 1] = A[i - 1, i] = 1e-8
    assert_evals(solve([A])[0], np.linalg.eigvalsh(A))


@pytest.mark.parametrize("exponent", [-30, -44, -46, -48])
def test_weak_coupling_of_equal_entries_is_not_dropped(exponent: int, isa: str) -> None:
    """1 + e tridiag(1, 0, 1) has eigenvalues 1 - 2 e cos(pi k / (n + 1)): first order in e."""
    e = 2.0**exponent
    sizes = [2, 2, 3, 8, 17, 40] * 4
    matrices = [np.eye(n) + e * (np.eye(n, k=1) + np.eye(n, k=-1)) for n in sizes]
    for n, got in zip(sizes, solve(matrices), strict=True):
        want = 1.0 - 2.0 * e * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))
        np.testing.assert_allclose(got, want, rtol=tol.EXACT_FACTOR, err_msg=str(n))


def test_eigvals_in_batches_of_mixed_sizes(isa: str) -> None:
    sizes = [1, 300, 2, 2, 64, 3, 1, 128, 65, 20, 7, 7, 7, 7, 7, 7, 7, 7, 7, 96, 5]
    matrices = [random_symmetric(n, i) for i, n in enumerate(sizes)]
    for got, A in zip(solve(matrices), matrices, strict=True):
        assert_evals(got, np.linalg.eigvalsh(A), len(A))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 33])
def test_eigvals_in_batches_of_equal_sizes(count: int, isa: str) -> None:
    for n in (1, 2, 48):
        matrices = [random_symmetric(n, i) for i in range(count)]
        for got, A in zip(solve(matrices), matrices, strict=True):
            assert_evals(got, np.linalg.eigvalsh(A), (count, n))


def test_eigvals_of_a_batch_of_one_are_those_of_the_batch(isa: str) -> None:
    """Up to the last bits: which routine serves may depend on how many matrices there are."""
    sizes = [1, 2, 3, 40, 40, 40, 96, 96, 150, 33, 200, 8, 12]
    matrices = [gram_matrix(n, i) for i, n in enumerate(sizes)]
    for got, A in zip(solve(matrices), matrices, strict=True):
        assert_evals(got, solve([A])[0], len(A))


def test_eigvals_of_a_large_batch_do_not_depend_on_its_order_or_company(isa: str) -> None:
    """The same bits: where there are plenty, a matrix has no part in what happens to the others."""
    matrices = [gram_matrix(n, i) for i, n in enumerate([3, 40, 40, 96, 33, 200, 8, 12] * 4)]
    want = solve(matrices)
    for order in (range(31, -1, -1), range(0, 32, 2), [*range(32), *range(32)]):
        for got, i in zip(solve([matrices[i] for i in order]), order, strict=True):
            np.testing.assert_array_equal(got, want[i], err_msg=str(len(matrices[i])))


def test_eigvals_have_the_same_bits_for_any_number_of_threads(isa: str) -> None:
    matrices = [gram_matrix(n, i) for i, n in enumerate([5, 300, 64, 64, 97, 1, 2, 200])]
    found = []
    for threads in THREADS:
        ops.set_num_threads(threads)
        found.append(b"".join(e.tobytes() for e in solve(matrices)))
    assert found[0] == found[1] == found[2]


def test_eigvals_where_one_matrix_dominates_the_batch() -> None:
    """From order 512 on such a matrix is solved by itself, by all threads."""
    matrices = [gram_matrix(20), gram_matrix(1100), random_symmetric(64)]
    for got, A in zip(solve(matrices), matrices, strict=True):
        assert_evals(got, np.linalg.eigvalsh(A), len(A))


def test_eigvals_of_an_empty_batch_and_of_empty_matrices() -> None:
    assert ops.eigvals([]) == ([], [])
    evals, status = ops.eigvals([np.zeros((0, 0)), np.eye(2), np.zeros((0, 0))])
    assert [len(e) for e in evals] == [0, 2, 0]
    assert status == [Status.OK] * 3


@pytest.mark.parametrize("layout", ["c_order", "f_order", "strided", "negative", "transposed"])
@pytest.mark.parametrize("n", [1, 2, 30, 97])
def test_eigvals_read_only_the_lower_triangle_of_any_layout(layout: str, n: int, isa: str) -> None:
    A = random_symmetric(n)
    hidden = np.tril(A) + np.triu(np.full((n, n), np.nan), 1)
    data = LAYOUTS[layout](hidden)
    kept = data.copy()
    data.flags.writeable = False
    (got,) = solve([data])
    np.testing.assert_array_equal(got, solve([A])[0])
    np.testing.assert_array_equal(data, kept)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [(0, 0), (7, 2), (29, 29), (29, 0)])
def test_what_is_not_finite_spoils_only_its_own_matrix(
    poison: float, at: tuple[int, int], isa: str
) -> None:
    matrices = [random_symmetric(30, i) for i in range(5)]
    clean = solve(matrices)
    matrices[1] = matrices[1].copy()
    matrices[1][at] = poison
    single = np.array([[poison]])
    evals, status = ops.eigvals([*matrices, single])
    assert status == [Status.OK, Status.NOT_FINITE, *[Status.OK] * 3, Status.NOT_FINITE]
    assert np.all(np.isnan(evals[1]))
    assert np.all(np.isnan(evals[5]))
    for i in (0, 2, 3, 4):
        np.testing.assert_array_equal(evals[i], clean[i])


@pytest.mark.parametrize("n", [2, 33, 150])
def test_scaling_by_a_power_of_two_is_exact(n: int, isa: str) -> None:
    A = gram_matrix(n)
    (plain,) = solve([A])
    for exponent in (-40, 3, 60):
        np.testing.assert_array_equal(
            solve([np.ldexp(A, exponent)])[0], np.ldexp(plain, exponent), err_msg=str(exponent)
        )


# --- svdvals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_svdvals_of_every_type_and_layout(dtype: str, layout: str) -> None:
    rng = np.random.default_rng(4)
    for shape in ((1, 1), (1, 9), (9, 1), (60, 33), (33, 60), (40, 40)):
        x = host(rng.standard_normal(shape), dtype)
        data = LAYOUTS[layout](x.data)
        kept = data.copy()
        (sv,), status = ops.svdvals([HostArray(data, dtype)])
        assert status == [Status.OK]
        assert np.all(np.diff(sv) <= 0.0)
        want = np.linalg.svd(decoded(x), compute_uv=False)
        atol = tol.eigvals_atol(max(shape), float(want[0]))
        np.testing.assert_allclose(sv, want, rtol=0.0, atol=atol)
        np.testing.assert_array_equal(data, kept)


def test_svdvals_of_a_batch_with_a_bad_matrix() -> None:
    rng = np.random.default_rng(5)
    xs = [rng.standard_normal(s) for s in ((5, 9), (70, 20), (3, 3), (1, 4))]
    xs[2][1, 1] = np.inf
    found, status = ops.svdvals([HostArray(x, "float64") for x in xs])
    assert status == [Status.OK, Status.OK, Status.NOT_FINITE, Status.OK]
    assert np.all(np.isnan(found[2]))
    for i in (0, 1, 3):
        want = np.linalg.svd(xs[i], compute_uv=False)
        atol = tol.eigvals_atol(max(xs[i].shape), float(want[0]))
        np.testing.assert_allclose(found[i], want, rtol=0.0, atol=atol)
    assert ops.svdvals([]) == ([], [])


def test_svdvals_have_the_same_bits_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(6)
    xs = [HostArray(rng.standard_normal(s), "float64") for s in ((90, 40), (40, 90), (64, 64))]
    found = []
    for threads in THREADS:
        ops.set_num_threads(threads)
        found.append(b"".join(s.tobytes() for s in ops.svdvals(xs)[0]))
    assert found[0] == found[1] == found[2]


# --- ps.eigvals ---------------------------------------------------------------------------------


def test_public_eigvals_of_one_and_of_a_batch() -> None:
    batch = np.stack([random_symmetric(12, i) for i in range(5)])
    evals = ps.eigvals(batch)
    assert evals.shape == (5, 12)
    assert evals.dtype == np.float64
    for i in range(5):
        assert_evals(ps.eigvals(batch[i]), evals[i])
        assert_evals(evals[i], np.linalg.eigvalsh(batch[i]))
    assert ps.eigvals(np.zeros((0, 3, 3))).shape == (0, 3)
    assert ps.eigvals(np.zeros((0, 0))).shape == (0,)
    assert ps.eigvals(np.zeros((2, 0, 0))).shape == (2, 0)
    assert ps.eigvals([[2, 1], [1, 2]]) == pytest.approx([1.0, 3.0])


def test_public_eigvals_reports_status_or_raises() -> None:
    batch = np.stack([np.eye(3), np.full((3, 3), np.nan), 2 * np.eye(3)])
    evals, status = ps.eigvals(batch, out_status=True)
    np.testing.assert_array_equal(status, [Status.OK, Status.NOT_FINITE, Status.OK])
    np.testing.assert_array_equal(evals[[0, 2]], [[1.0] * 3, [2.0] * 3])
    assert np.all(np.isnan(evals[1]))
    evals, status = ps.eigvals(np.eye(3), out_status=True)
    assert status.shape == ()
    with pytest.raises(
        ValueError, match=r"^eigvals: 'A' must be finite, got .* \(matrix 1 of the batch\).* Hint: "
    ):
        ps.eigvals(batch)
    with pytest.raises(ValueError, match=r"^eigvals: 'A' must be finite, got NaN or infinity\. "):
        ps.eigvals(batch[1])


def test_public_eigvals_raises_where_the_iteration_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(A: Array) -> tuple[Array, list[int]]:
        return np.full(A.shape[:2], np.nan), [int(Status.NO_CONVERGENCE)] * len(A)

    monkeypatch.setattr(ops, "eigvals_stack", fails)
    with pytest.raises(ConvergenceError, match=r"^eigvals: the iteration did not converge"):
        ps.eigvals(np.eye(2))
    assert ps.eigvals(np.eye(2), out_status=True)[1] == Status.NO_CONVERGENCE


@pytest.mark.parametrize(
    ("A", "error", "message"),
    [
        (np.ones((2, 3)), ValueError, r"must have shape \(n, n\) or \(b, n, n\), got \(2, 3\)"),
        (np.ones(4), ValueError, r"must have shape \(n, n\) or \(b, n, n\), got \(4,\)"),
        (np.ones((1, 1, 2, 2)), ValueError, r"must have shape .* got \(1, 1, 2, 2\)"),
        (np.ones((2, 2), int), TypeError, "must be a floating-point array, got dtype int64"),
        (np.ones((2, 2), complex), TypeError, "must be a floating-point array, got dtype complex"),
        (np.ones((2, 2), bool), TypeError, "must be a floating-point array, got dtype bool"),
        (None, TypeError, "must be a floating-point array, got an object of type NoneType"),
    ],
)
def test_public_eigvals_errors_have_the_house_form(A: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=f"^eigvals: 'A' {message}.* Hint: "):
        ps.eigvals(A)


def test_unknown_methods_are_named() -> None:
    with pytest.raises(ValueError, match=r"^esd: 'method' must be one of .* got 'qr'"):
        ps.esd(np.eye(2), method="qr")  # type: ignore[call-overload]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_tensors_of_every_float(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    t = torch.tensor(gram_matrix(10)).to(getattr(torch, dtype))
    kept = t.clone()
    want = t.to(torch.float64).numpy()
    assert_evals(ps.eigvals(t), np.linalg.eigvalsh(np.tril(want) + np.tril(want, -1).T))
    W = torch.tensor(np.random.default_rng(1).standard_normal((30, 12))).to(getattr(torch, dtype))
    sv = np.linalg.svd(W.to(torch.float64).numpy(), compute_uv=False)[::-1]
    np.testing.assert_allclose(ps.esd(W).evals, sv**2, rtol=tol.ESD_GRAM_RTOL)
    np.testing.assert_array_equal(ps.esd(W.T).evals.shape, (12,))
    W.requires_grad_()
    np.testing.assert_allclose(ps.esd(W.t()).evals, sv**2, rtol=tol.ESD_GRAM_RTOL)
    assert torch.equal(t, kept)


# --- ps.esd -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "gram", "svd"])
@pytest.mark.parametrize("shape", [(40, 25), (25, 40), (30, 30), (1, 12), (12, 1), (1, 1)])
def test_esd_is_the_squared_singular_values(method: Any, shape: tuple[int, int]) -> None:
    W = np.random.default_rng(7).standard_normal(shape)
    esd = ps.esd(W, method=method)
    want = np.linalg.svd(W, compute_uv=False)[::-1] ** 2
    assert esd.status is Status.OK
    assert sorted(shape) == [esd.M, esd.N]
    assert max(shape) / min(shape) == esd.Q
    assert esd.n_matrices == 1
    assert esd.method == {"auto": "gram"}.get(method, method)
    np.testing.assert_allclose(
        esd.evals, want, rtol=tol.ESD_GRAM_RTOL, atol=tol.ESD_GRAM_RTOL * want[-1]
    )
    np.testing.assert_array_equal(esd.matrix_evals[0], esd.evals)


def rank_deficient(rank: int, N: int = 60, M: int = 40) -> Array:
    sv = np.concatenate([np.linspace(1.0, 3.0, rank), np.zeros(M - rank)])
    return ref.with_singular_values(sv, N, np.random.default_rng(rank))


@pytest.mark.parametrize("rank", [1, 5, 39])
def test_rank_deficient_matrices_go_to_the_svd_and_get_their_rank(rank: int) -> None:
    W = rank_deficient(rank)
    esd = ps.esd(W)
    assert esd.method == "svd"
    sigma = np.sqrt(esd.evals)
    assert np.count_nonzero(sigma > sigma[-1] * 60 * np.finfo(float).eps) == rank
    assert ps.esd(W, method="gram").method == "gram"
    assert np.all(ps.esd(W, method="gram").evals >= 0.0)


def test_the_svd_serves_where_the_gram_matrix_does_not_resolve() -> None:
    """The smallest eigenvalue at 1e-12 of the largest keeps its digits only by SVD."""
    sv = np.logspace(0, -6, 20)
    W = ref.with_singular_values(sv, 30, np.random.default_rng(0))
    esd = ps.esd(W)
    assert esd.method == "svd"
    assert esd.evals[0] == pytest.approx(1e-12, rel=tol.SVD_SMALL_RTOL)
    well = ref.with_singular_values(np.logspace(0, -4, 20), 30, np.random.default_rng(0))
    assert ps.esd(well).method == "gram"


def test_squares_beyond_the_range_of_float64() -> None:
    rng = np.random.default_rng(1)
    W = rng.standard_normal((9, 6))
    sv = np.linalg.svd(W, compute_uv=False)[::-1]
    small = ps.esd(W * 1e-150)
    assert small.method == "svd"
    assert small.status is Status.OK
    np.testing.assert_allclose(small.evals, (sv * 1e-150) ** 2, rtol=tol.ESD_GRAM_RTOL)
    large = ps.esd(W * 1e153)
    assert large.status is Status.OK
    np.testing.assert_allclose(large.evals, (sv * 1e153) ** 2, rtol=tol.ESD_GRAM_RTOL)
    assert np.all(ps.esd(np.zeros((4, 3))).evals == 0.0)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["auto", "gram", "svd"])
def test_esd_of_what_is_not_finite(poison: float, method: Any) -> None:
    W = np.ones((6, 4))
    W[3, 2] = poison
    esd = ps.esd(W, method=method)
    assert esd.status is Status.NOT_FINITE
    assert esd.evals.shape == (4,)
    assert np.all(np.isnan(esd.evals))


@pytest.mark.parametrize(
    ("W", "error", "message"),
    [
        (np.ones(4), ValueError, r"must be 2-D, got shape \(4,\)\. Hint: "),
        (np.ones((2, 2, 2)), ValueError, r"must be 2-D, got shape \(2, 2, 2\)\. Hint: "),
        (np.ones((0, 4)), ValueError, r"must not be empty, got shape \(0, 4\)"),
        (np.ones((2, 2), int), TypeError, "must be a floating-point array, got dtype int64"),
        ("W", TypeError, "must be a floating-point array, got an object of type str"),
    ],
)
def test_esd_errors_have_the_house_form(W: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=f"^esd: 'W' {message}"):
        ps.esd(W)


def test_values_are_frozen() -> None:
    esd = ps.esd(np.eye(3))
    with pytest.raises(AttributeError):
        esd.N = 4  # type: ignore[misc]
    with pytest.raises(AttributeError):
        ps.fit_powerlaw([1.0, 2.0]).alpha = 1.0  # type: ignore[misc]


def test_couplings_whose_squares_underflow_do_not_stop_the_iteration(isa: str) -> None:
    """Off-diagonals near 1e-156, whose squares have no reciprocal, count as zero."""
    for n in (3, 64, 300):
        A = np.zeros((5, n, n))
        A[:, -1, -1] = 1.0
        i = np.arange(n - 1)
        for k, e in enumerate((1e-150, 1e-154, 1e-156, 1e-158, 1e-162)):
            A[k, i + 1, i] = A[k, i, i + 1] = e
        got = ps.eigvals(A)
        want = np.array([np.linalg.eigvalsh(a) for a in A])
        assert np.max(np.abs(got - want)) < 1e-14


# --- the ends of float64's range ----------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 20, 70])
@pytest.mark.parametrize("value", [1e308, 2.0**1000, 1e-300, 5e-324, 1e-310])
def test_matrices_at_the_ends_of_the_range(n: int, value: float, isa: str) -> None:
    """n equal entries have the eigenvalue n times one, once, and nothing else but rounding."""
    largest = n * value
    for run in (ps.eigvals, lambda A, **_: singular(A)):
        evals, status = run(np.full((n, n), value), out_status=True)
        if not np.isfinite(largest):
            assert status == Status.NOT_FINITE
            assert np.isnan(evals).all()
            continue
        assert status == Status.OK
        atol = max(tol.eigvals_atol(n, largest), 5e-324)
        np.testing.assert_allclose(evals[-1], largest, rtol=0, atol=atol)
        assert np.abs(evals[:-1]).max(initial=0.0) <= atol


def singular(A: Array) -> tuple[Array, Status]:
    (values,), (status,) = ops.svdvals([HostArray(A, "float64")])
    return values[::-1], status


def test_scaling_by_a_power_of_two_scales_the_eigenvalues_exactly(isa: str) -> None:
    rng = np.random.default_rng(0)
    for n in (2, 9, 40, 130):
        A = rng.standard_normal((n, n))
        A = A + A.T
        evals, values = ps.eigvals(A), singular(A)[0]
        for power in (1000, 905, 460, -460, -905, -960):
            scaled = np.ldexp(A, power)
            np.testing.assert_array_equal(ps.eigvals(scaled), np.ldexp(evals, power))
            np.testing.assert_array_equal(singular(scaled)[0], np.ldexp(values, power))


def test_an_overflowing_eigenvalue_is_named() -> None:
    with pytest.raises(ValueError, match=r"'A' must have finite eigenvalues, got one beyond"):
        ps.eigvals(np.full((3, 3), 1e308))
    with pytest.raises(ValueError, match=r"'A' must be finite, got NaN or infinity \(matrix 1"):
        ps.eigvals(np.stack([np.eye(2), np.full((2, 2), np.inf)]))


# --- LAPACK in steps ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [(500, 470), (600, 600), (470, 700), (1300, 480), (3000, 300), (400_000, 20), (287, 613)],
)
def test_large_singular_values_are_lapacks(shape: tuple[int, int]) -> None:
    X = np.random.default_rng(0).standard_normal(shape)
    (values,), (status,) = ops.svdvals([HostArray(X, "float64")])
    assert status is Status.OK
    want = np.linalg.svd(X, compute_uv=False)
    np.testing.assert_allclose(values, want, rtol=0, atol=tol.eigvals_atol(min(shape), want[0]))


@pytest.mark.parametrize("n", [280, 288, 289, 320, 321, 700])
def test_eigenvalues_by_lapack_in_steps(n: int) -> None:
    ops.set_isa("baseline")
    A = np.random.default_rng(n).standard_normal((n, n))
    A = A + A.T
    want = np.linalg.eigvalsh(A)
    atol = tol.eigvals_atol(len(A), np.abs(want).max())
    np.testing.assert_allclose(ps.eigvals(A), want, rtol=0, atol=atol)


def test_one_large_matrix_on_many_threads_is_lapacks(isa: str) -> None:
    ops.set_num_threads(8)
    A = np.random.default_rng(0).standard_normal((1100, 1100))
    A = A + A.T
    want = np.linalg.eigvalsh(A)
    atol = tol.eigvals_atol(len(A), np.abs(want).max())
    np.testing.assert_allclose(ps.eigvals(A), want, rtol=0, atol=atol)


def test_large_rank_deficient_and_graded_matrices() -> None:
    rng = np.random.default_rng(0)
    n = 600
    for X in (
        np.zeros((n, n)),
        np.ones((n, 2 * n)),
        np.outer(rng.standard_normal(n), rng.standard_normal(n)),
        np.diag(10.0 ** -np.linspace(0, 12, n)),
        rng.standard_normal((n, n)) * 10.0 ** -np.linspace(0, 8, n),
    ):
        (values,), (status,) = ops.svdvals([HostArray(np.ascontiguousarray(X), "float64")])
        assert status is Status.OK
        want = np.linalg.svd(X, compute_uv=False)
        np.testing.assert_allclose(values, want, rtol=0, atol=tol.eigvals_atol(n, want[0]))
