"""The statistics of random signs against singular values."""

from __future__ import annotations

import numpy as np
import pytest
from reference import sign_draws as ref

from pyspectra import ops

# Slices of two and of three columns, wide and tall ones, many of which a few decide, both sides of
# the orders that go side by side, numbers of entries that no byte divides and draws that do not
# fill the lanes; (matrices, rows, cols).
SHAPES = [
    (1, 1, 9),
    (3, 2, 2),
    (9, 32, 3),
    (2, 7, 5),
    (1, 24, 144),
    (1, 130, 70),
    (4, 9, 9),
    (40, 16, 18),
    (5, 67, 21),
    (2, 51, 77),
    (2, 129, 131),
]
DRAWS = 11


def entries(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(shape)
    stack = rng.standard_normal(shape) * np.exp(rng.standard_normal((*shape[:2], 1)))
    return stack, np.frombuffer(rng.bytes(-(-DRAWS * stack.size // 8)), np.uint8)


@pytest.fixture(autouse=True)
def restored():  # type: ignore[no-untyped-def]
    threads, isa = ops.get_num_threads(), ops.get_isa()
    yield
    ops.set_num_threads(threads)
    ops.set_isa(isa)


# Nothing is left of a single row without its means.
CASES = [(s, c) for s in SHAPES for c in (False, True) if not (c and 1 in s[1:])]


@pytest.mark.parametrize(("shape", "centred"), CASES, ids=str)
def test_statistics_are_those_of_the_reference(shape: tuple[int, int, int], centred: bool) -> None:
    stack, bits = entries(shape)
    expected = ref.sign_draws(stack, bits, DRAWS, centred)
    for isa in ops.available_isas():
        ops.set_isa(isa)
        found = []
        for threads in (1, 3):
            ops.set_num_threads(threads)
            found.append(ops.sign_draws(stack, bits, DRAWS, centred=centred))
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_allclose(found[0], expected, rtol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 12, 40])
def test_eigenvalues_that_are_all_the_largest(n: int) -> None:
    bits = np.zeros(n * n, np.uint8)
    orthogonal = np.linalg.qr(np.random.default_rng(n).standard_normal((n, n)))[0]
    blocks = np.kron(np.eye(n // 2 or 1), np.array([[2.0, 1.0], [1.0, 2.0]]))
    for W in (np.eye(n), orthogonal, blocks, np.ones((n, n)), np.diag(np.arange(n) + 1.0)):
        found = ops.sign_draws(W[None], bits, 1, centred=False)
        np.testing.assert_allclose(found, ref.sign_draws(W[None], bits, 1, False), rtol=1e-12)


def test_the_largest_of_many_is_found_wherever_it_is() -> None:
    rng = np.random.default_rng(0)
    alike = np.sign(rng.standard_normal((24, 12, 12)))
    for place in (0, 11, 23):
        stack = alike.copy()
        # Rows and columns promise what they do elsewhere; rank one makes it the largest.
        stack[place] = 1.0
        bits = np.zeros(stack.size // 8, np.uint8)
        for isa in ops.available_isas():
            ops.set_isa(isa)
            found = ops.sign_draws(stack, bits, 1, centred=False)
            np.testing.assert_allclose(found, ref.sign_draws(stack, bits, 1, False), rtol=1e-12)


@pytest.mark.parametrize("n", [4, 33, 64, 128])
def test_the_largest_of_many_is_found_where_all_eigenvalues_are_alike(n: int) -> None:
    """Their variance is rounding then, and rules nothing out."""
    bits = np.zeros(-(-2 * n * n // 8), np.uint8)
    for beside in np.linspace(1e-9, 1.5e-7, 25):
        promising, largest = np.eye(n) * np.sqrt(1.0 + beside), np.eye(n)
        largest[0, 1] = largest[1, 0] = beside
        stack = np.stack([promising, largest])
        for isa in ops.available_isas():
            ops.set_isa(isa)
            found = ops.sign_draws(stack, bits, 1, centred=False)
            np.testing.assert_allclose(found, ref.sign_draws(stack, bits, 1, False), rtol=1e-12)


def test_what_is_not_finite_counts_as_large() -> None:
    stack = np.ones((2, 6, 4))
    stack[1, 2, 3] = np.nan
    found = ops.sign_draws(stack, np.zeros(12, np.uint8), 2, centred=False)
    assert np.all(found == np.inf)


@pytest.mark.parametrize("shape", [(1, 7, 1), (2, 1, 9), (1, 64, 52)])
def test_what_leaves_nothing_counts_as_large(shape: tuple[int, int, int]) -> None:
    bits = np.zeros(-(-int(np.prod(shape)) // 8), np.uint8)
    for stack, centred in ((np.zeros(shape), False), (np.ones(shape), True)):
        found = ops.sign_draws(stack, bits, 1, centred=centred)
        assert np.all(found == np.inf)


def test_too_few_bits_and_other_shapes_are_refused() -> None:
    stack, bits = entries((2, 7, 5))
    with pytest.raises(ValueError, match="too few bits"):
        ops.sign_draws(stack, bits, DRAWS + 1, centred=False)
    with pytest.raises(ValueError, match="empty"):
        ops.sign_draws(stack[:0], bits, 1, centred=False)
    with pytest.raises(ValueError, match="matrices, rows, cols"):
        ops.sign_draws(stack[0], bits, 1, centred=False)
