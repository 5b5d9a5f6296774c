"""Calibration: the error against loops, bins, scores, and the temperature that fits."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from reference.distillation import calibration_error, softmax

from pyspectra.training.metrics import Classification, calibration, fit_temperature
from pyspectra.training.metrics import calibration as public

CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def samples(n: int = 300, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and classes drawn from what they say at a temperature."""
    rng = np.random.default_rng(0)
    z = 2 * rng.standard_normal((n, 4))
    y = [rng.choice(4, p=softmax(row, temperature)) for row in z]
    return z, np.array(y)


@pytest.mark.parametrize("logits", [True, False])
def test_scores_are_those_of_the_definitions(logits: bool) -> None:
    z, y = samples()
    p = np.array([softmax(row) for row in z])
    found = calibration(z if logits else p, y, logits=logits, n_bins=7)
    right = np.eye(4)[y]
    assert found.accuracy == np.mean(z.argmax(1) == y)
    assert found.nll == pytest.approx(-np.mean([np.log(p[i, y[i]]) for i in range(300)]))
    assert found.brier == pytest.approx(sum(((p - right) ** 2).ravel()) / 300)
    best, correct = p.max(1), p.argmax(1) == y
    wanted = calibration_error(best, correct, np.arange(8) / 7)
    assert found.ece == pytest.approx(wanted, rel=1e-12)
    assert found.count.sum() == 300
    share = np.nansum(found.count * found.correct) / 300
    assert share == pytest.approx(found.accuracy)


def test_bins_of_equal_mass() -> None:
    z, y = samples(300)
    found = calibration(z, y, bins="mass", n_bins=7)
    assert sorted(set(found.count)) == [42, 43]
    p = np.array([softmax(row) for row in z])
    ordered = np.sort(p.max(1))
    ends = np.cumsum(found.count)[:-1]
    edges = np.array([0, *ordered[ends], 1.0])
    wanted = calibration_error(p.max(1), p.argmax(1) == y, edges)
    assert found.ece == pytest.approx(wanted, rel=1e-12)
    few = calibration(z[:3], y[:3], bins="mass", n_bins=7)
    assert sorted(few.count) == [0, 0, 0, 0, 1, 1, 1]


def test_it_is_what_the_batches_of_a_stream_give() -> None:
    z, y = samples()
    stream = Classification(4)
    for i in range(0, 300, 64):
        stream.update(z[i : i + 64], y[i : i + 64])
    found = calibration(z, y)
    assert found.ece == pytest.approx(stream.compute()["ece"], rel=1e-12)
    np.testing.assert_array_equal(found.count, stream.calibration["count"])
    np.testing.assert_allclose(found.confidence, stream.calibration["confidence"], **CLOSE)


def test_tensors_tokens_and_labels_that_do_not_count() -> None:
    torch = pytest.importorskip("torch")
    z, y = samples()
    y[::4] = -100
    own = calibration(z[y >= 0], y[y >= 0])
    tokens = torch.from_numpy(z.reshape(30, 10, 4))
    found = calibration(tokens, torch.from_numpy(y.reshape(30, 10)))
    assert (found.nll, found.ece) == (own.nll, own.ece)
    assert fit_temperature(tokens, y.reshape(30, 10)) == fit_temperature(z[y >= 0], y[y >= 0])
    half = calibration(tokens.bfloat16(), y.reshape(30, 10))
    assert half.nll == pytest.approx(own.nll, rel=1e-2)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_the_temperature_is_where_the_likelihood_is_greatest(scale: float) -> None:
    z, y = samples(2000, temperature=2.5)
    T = fit_temperature(scale * z, y)
    assert pytest.approx(2.5 * scale, rel=0.1) == T
    best = calibration(scale * z / T, y)
    for factor in (0.999, 1.001):
        assert calibration(scale * z / (T * factor), y).nll > best.nll
    assert best.ece < calibration(z, y).ece / 3
    assert best.accuracy == calibration(z, y).accuracy
    shift = np.random.default_rng(1).standard_normal((2000, 1))
    assert fit_temperature(scale * (z + shift), y) == pytest.approx(T, rel=1e-9)


def test_probabilities_of_zero_do_not_end_in_infinity() -> None:
    found = calibration([[1.0, 0.0], [0.0, 1.0]], [0, 0], logits=False)
    assert np.isfinite(found.nll)
    assert found.brier == 1.0
    assert found.ece == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z, y: calibration(z, y[:-1]), "'outputs' must have a row of classes"),
        (lambda z, y: calibration(z, y + 0.5), "'targets' must be integers"),
        (lambda z, y: calibration(z, y + 4), r"'targets' must lie in \[0, 3\]"),
        (lambda z, y: calibration(z, y, logits=False), "'outputs' must be probabilities"),
        (lambda z, y: calibration(z * np.nan, y), "'outputs' must be finite"),
        (lambda z, y: calibration(z, y, n_bins=0), "'n_bins' must be a positive integer"),
        (lambda z, y: calibration(z, y, bins="equal"), "'bins' must be one of"),
        (lambda z, y: calibration(z, y * 0 - 100), "'targets' must hold at least one sample"),
        (lambda z, y: fit_temperature(z, z.argmax(1)), "'targets' must hold some that the logits"),
        (lambda z, y: fit_temperature(-z, z.argmax(1)), "'logits' must tell something"),
        (lambda z, y: fit_temperature(0 * z, y), "fit_temperature: 'logits' must tell something"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call(*samples(50))


def test_examples_run() -> None:
    import sys

    module = sys.modules[public.__module__]
    assert doctest.testmod(module).attempted >= 8
    assert doctest.testmod(module).failed == 0
