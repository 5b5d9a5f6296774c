"""The special functions of our own, against SciPy's and, where those are wrong, against laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special as reference

from pyspectra.spectra.special import airy_ai, gamma_tails


@pytest.mark.parametrize("shape", [0.01, 0.3, 1.0, 2.5, 11.9, 12.0, 100.0, 3e3, 1e5])
def test_both_tails_of_a_gamma_law(shape: float) -> None:
    sds = np.concatenate([np.linspace(-4.0, 4.0, 17), [8.0, 25.0]])
    for x in np.maximum(shape + sds * math.sqrt(shape), 1e-3 * shape):
        lower, upper = gamma_tails(shape, float(x))
        assert lower == pytest.approx(float(reference.gammainc(shape, x)), rel=2e-11)
        assert upper == pytest.approx(float(reference.gammaincc(shape, x)), rel=2e-11)


@pytest.mark.parametrize("sd", [-6.0, -2.0, 2.0, 6.0])
def test_a_gamma_law_of_a_huge_shape_is_normal(sd: float) -> None:
    """Wilson and Hilferty: the cube root of it is. SciPy's lower tail is wrong by half there."""
    shape = 1e9
    x = shape + sd * math.sqrt(shape)
    root = ((x / shape) ** (1 / 3) - 1.0 + 1.0 / (9.0 * shape)) * 3.0 * math.sqrt(shape)
    normal = 0.5 * math.erfc(abs(root) / math.sqrt(2.0))
    assert min(gamma_tails(shape, x)) == pytest.approx(normal, rel=1e-3)


@pytest.mark.parametrize("shape", [1e-3, 0.3, 1.0, 2.5, 20.0])
@pytest.mark.parametrize("part", [1e-4, 1e-9, 1e-15, 1e-17, 1e-40])
def test_the_lower_end_of_a_gamma_law(shape: float, part: float) -> None:
    """There it is x^a / Gamma(a + 1), but for a part of about x."""
    x = part * shape
    log = shape * math.log(x) - math.lgamma(shape + 1.0) - x * shape / (shape + 1.0)
    assert gamma_tails(shape, x)[0] == pytest.approx(math.exp(log), rel=1e-6 * part + 2e-11)


def test_ends_of_a_gamma_law() -> None:
    assert gamma_tails(3.0, 0.0) == (0.0, 1.0)
    assert gamma_tails(3.0, math.inf) == (1.0, 0.0)
    assert all(map(math.isnan, gamma_tails(math.nan, 1.0)))
    assert all(map(math.isnan, gamma_tails(0.0, 1.0)))


def test_airy_function() -> None:
    z = np.concatenate([np.linspace(-8.5, 1.5, 400), np.linspace(1.5, 16.0, 300), [50.0, 100.0]])
    want = reference.airy(z)[0]
    falls = z > 0.0
    np.testing.assert_allclose(airy_ai(z[falls]), want[falls], rtol=2e-13)
    np.testing.assert_allclose(airy_ai(z[~falls]), want[~falls], atol=1e-14)
    assert airy_ai(np.empty(0)).shape == (0,)
