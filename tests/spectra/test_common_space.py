"""One Krylov space for W and W + B A: what each finds in it, and when there is none."""

from __future__ import annotations

import numpy as np
import pytest

from pyspectra.spectra import intruders as module
from pyspectra.spectra.block_krylov import BLOCK
from pyspectra.spectra.common_space import common_space
from pyspectra.spectra.single_space import SingleSpace
from pyspectra.spectra.topk import leading_triplets
from pyspectra.spectra.weight_products import read_factors


def layer(rows, cols, rank, strength=3.0, seed=0):
    """A matrix of singular values up to 2 or so, and factors of `rank` directions that lead."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((rows, cols)) / np.sqrt(max(rows, cols))
    B = np.linalg.qr(rng.standard_normal((rows, rank)))[0]
    A = np.linalg.qr(rng.standard_normal((cols, rank)))[0].T
    return W, strength * B, np.linspace(1.0, 0.7, rank)[:, None] * A


def both(W, B, A):
    return read_factors(W, "W"), read_factors((W, B, A), "W")


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("shape", [(320, 240), (240, 320)])
def test_both_find_what_they_look_for(rank, shape):
    W, B, A = layer(*shape, rank)
    common = common_space(*both(W, B, A))
    assert common is not None
    for _ in range(9):
        common[1].grow()
    for space, dense in zip(common, (W, W + B @ A), strict=True):
        assert space.size == 9 * BLOCK
        s = np.linalg.svd(dense, compute_uv=False)[:6]
        ritz = space.ritz(6)
        assert np.allclose(ritz.s, s, rtol=1e-4)
        # What is said of the residuals is so: the space has all of the range of the difference.
        tall = dense if shape[0] > shape[1] else dense.T
        V = space.vectors(ritz)
        F = tall.T @ (tall @ V) - V * ritz.s**2
        said = np.sqrt(np.diagonal(ritz.residual_gram)) * ritz.s
        assert np.allclose(np.linalg.norm(F, axis=0), said, rtol=1e-3, atol=1e-5 * s[0] ** 2)


def test_values_are_right_and_certified_from_one_space():
    W, B, A = layer(1000, 900, 8)
    products = both(W, B, A)
    common = common_space(*products)
    assert common is not None
    new = leading_triplets(products[1], 11, 1e-8, common[1])
    spent = common[0].size
    assert new.method == "krylov"
    assert 0 < spent == new.n_products
    old = leading_triplets(products[0], 8, 1e-8, common[0])
    assert old.method == "krylov"
    assert old.n_products == common[0].size >= spent
    for top, dense in ((new, W + B @ A), (old, W)):
        exact = np.linalg.svd(dense, compute_uv=False)[: len(top.s)]
        assert np.all(np.abs(top.s - exact) <= top.bounds)
        assert np.all(top.bounds <= 1e-8 * exact)


def test_a_space_that_lacks_the_leading_direction_is_given_up():
    W, B, A = layer(800, 300, 8)
    W[:400, 150:] = W[400:, :150] = B[:400] = A[:, :150] = 0.0
    W[:400, :150] *= 4.0  # what the update does not touch, and the first block does not see
    products = both(W, B, A)
    common = common_space(*products)
    assert common is not None
    for one, space, dense in zip(products, common, (W, W + B @ A), strict=True):
        top = leading_triplets(one, 3, 1e-8, space)
        assert np.allclose(top.s, np.linalg.svd(dense, compute_uv=False)[:3], rtol=1e-8)


def test_where_one_space_does_not_serve():
    W, B, A = layer(320, 240, 9)
    assert common_space(*both(W, B, A)) is None  # more than one block begins with
    W, B, A = layer(320, 240, 4)
    assert common_space(*both(W, 0.0 * B, A)) is None
    assert common_space(*both(W, B, np.repeat(A[:1], 4, axis=0))) is None
    assert common_space(read_factors(W, "W"), read_factors(W + B @ A, "W")) is None
    small = 1e-12  # which read_factors brings to another scale
    assert common_space(*both(small * W, small * B, A)) is None


def test_intruders_take_the_products_once(monkeypatch):
    W, B, A = layer(1000, 900, 8)
    grown = []
    grow = SingleSpace.grow
    monkeypatch.setattr(SingleSpace, "grow", lambda self: grown.append(1) or grow(self))
    together = module.intruders(W, (B, A))
    once = len(grown)
    apart = module.intruders(W, W + B @ A)
    assert once < 0.7 * (len(grown) - once)
    assert together is not None
    assert apart is not None
    assert together.indices == apart.indices == tuple(range(8))
    assert np.allclose(together.similarities, apart.similarities, atol=1e-5)
    assert np.allclose(together.singular_values, apart.singular_values, rtol=1e-10)
