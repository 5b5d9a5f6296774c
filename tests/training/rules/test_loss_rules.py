"""Rules of losses, on both sides of each threshold."""

from __future__ import annotations

import numpy as np
import pytest
from rule_facts import RNG, codes, found

from pyspectra.training.rules import facts as f
from pyspectra.training.rules.losses import softmax_floor

LOGITS = [RNG.standard_normal((40, 5)) for _ in range(2)]


def softmax(x, axis=1):
    e = np.exp(x)
    return e / e.sum(axis, keepdims=True)


def batches(kind, *outputs, targets=()):
    return f.LossBatches(2, kind, list(outputs), list(targets))


def problem(kind, *outputs, **more):
    return found(batches(kind, *outputs, **more)).evidence["problem"]


def test_cross_entropy_wants_logits():
    assert codes(batches("cross_entropy", *LOGITS)) == []
    twice = [softmax(x) for x in LOGITS]
    assert problem("cross_entropy", *twice) == "softmax_twice"
    assert found(batches("cross_entropy", *twice)).evidence["floor"] == softmax_floor(5)
    over_batch = [softmax(x, 0) for x in LOGITS]
    assert problem("cross_entropy", *over_batch) == "softmax_over_batch"
    assert problem("cross_entropy", *[x[:, :1] for x in LOGITS]) == "softmax_of_one"
    # One batch may sum to one by chance, and half a per mille of rounding is no other thing.
    assert codes(batches("cross_entropy", twice[0], LOGITS[1])) == []
    assert codes(batches("cross_entropy", twice[0])) == []
    assert problem("cross_entropy", *[x * 1.0005 for x in twice]) == "softmax_twice"
    assert codes(batches("cross_entropy", *[x * 1.01 for x in twice])) == []


def test_log_softmax_before_cross_entropy_is_a_note():
    logs = [np.log(softmax(x)) for x in LOGITS]
    assert codes(batches("cross_entropy", *logs)) == [("loss_input", "info")]


def test_nll_wants_log_probabilities():
    logs = [np.log(softmax(x)) for x in LOGITS]
    assert codes(batches("nll", *logs)) == []
    for wrong in ([softmax(x) for x in LOGITS], LOGITS):
        assert problem("nll", *wrong) == "log_softmax_missing"
    assert problem("nll", *[np.log(softmax(x, 0)) for x in LOGITS]) == "softmax_over_batch"


def test_bce_wants_probabilities_and_with_logits_it_does_not():
    p = [RNG.random(40) for _ in range(2)]
    assert codes(batches("bce", *p)) == []
    assert problem("bce", p[0], p[1] + 0.1) == "not_probabilities"
    assert codes(batches("bce_logits", *[4 * x - 2 for x in p])) == []
    assert codes(batches("bce_logits", *p)) == [("loss_input", "warning")]
    assert codes(batches("bce_logits", *[x[:31] for x in p])) == []  # 62 are too few to tell
    assert codes(batches("bce_logits", *[x / 2 for x in p])) == []  # one side of a half only


@pytest.mark.parametrize(
    ("labels", "fires"),
    [([0, 4], False), ([0, 5], True), ([-1, 2], True), ([-100, 2], False), ([0.5, 7.0], False)],
)
def test_labels_lie_within_the_outputs(labels, fires):
    targets = [np.resize(labels, 40)]
    assert bool(codes(batches("cross_entropy", *LOGITS, targets=targets))) is fires


@pytest.mark.parametrize(
    ("kind", "prediction", "target", "fires"),
    [
        ("mse", (40, 1), (40,), True),
        ("mse", (40,), (40,), False),
        ("l1", (40, 1), (1, 40), True),
        ("mse", (40, 3), (40,), False),  # torch refuses it
        ("mse", (40,), (), False),
        ("cross_entropy", (40, 5), (40,), False),
    ],
)
def test_shapes_that_broadcast(kind, prediction, target, fires):
    expected = [("loss_broadcast", "error")] if fires else []
    assert codes(f.LossShapes(1, kind, prediction, target)) == expected


def test_the_graph_of_a_loss():
    assert codes(f.LossGraph(1, "cross_entropy", ("softmax",), None, 5))[0][1] == "error"
    assert codes(f.LossGraph(1, "bce_logits", ("sigmoid",)))[0][1] == "warning"
    assert codes(f.LossGraph(1, "nll", ("softmax",)))[0][1] == "error"
    assert codes(f.LossGraph(1, "cross_entropy", ())) == []
    assert codes(f.LossGraph(1, "mse", (), ((40, 1), (40, 40)))) == [("loss_broadcast", "error")]
