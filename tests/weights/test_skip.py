"""Reasons for skipping: one record each, grouped by what they are and not by how they read."""

from __future__ import annotations

import pickle
import string

import numpy as np
import pytest

from pyspectra.weights import Skip, SkippedLayer, open_weights
from pyspectra.weights.skip import REASONS, Reason


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("reason", REASONS.values(), ids=lambda r: r.code)
def test_the_sentence_of_a_group_needs_no_more_than_that_of_one(reason: Reason) -> None:
    assert reason.text
    assert fields(reason.group) <= fields(reason.text)


def test_what_differs_from_tensor_to_tensor_makes_one_group() -> None:
    three, five = (Skip("few_evals", {"count": n, "limit": 8}) for n in (3, 5))
    assert str(three) != str(five)
    assert three.group == five.group == "fewer eigenvalues than min_evals = 8"
    assert Skip("read_failed", {"error": "a"}).group == Skip("read_failed", {"error": "b"}).group
    assert Skip("bias").group == str(Skip("bias")) == "bias: not a weight matrix"


def test_a_skipped_layer_answers_from_its_skip() -> None:
    tied = SkippedLayer("head", (4, 3), Skip("shared", {"same_as": "wte"}))
    assert (tied.reason, tied.failed, tied.same_as) == ("shares its tensor with wte", False, "wte")
    lost = SkippedLayer("head", None, Skip("read_failed", {"error": "gone"}))
    assert (lost.reason, lost.failed, lost.same_as) == ("could not be read: gone", True, None)
    assert pickle.loads(pickle.dumps(lost)) == lost


def test_codes_of_a_state_dict() -> None:
    W = np.ones((3, 2))
    state = {
        "a.weight": W,
        "a.bias": np.ones(3),
        "b.weight": W,
        "norm.weight": np.ones(3),
        "s.weight": np.ones(()),
        "e.weight": np.ones((0, 3)),
        "i.weight": np.ones((3, 3), np.int8),
        "flag.weight": np.ones((3, 3), bool),
        "c.weight": np.ones((3, 3), complex),
        "six.weight": np.ones((1,) * 6),
        "masked.weight": np.ma.ones((3, 3)),
        "step": 3,
        "alpha": np.ones(2),
        "fc.weight_g": np.ones((3, 1)),
    }
    codes = {s.name: s.skip.code for s in open_weights(state).skipped}
    assert codes == {
        "a.bias": "bias",
        "b": "shared",
        "norm": "vector",
        "s": "scalar",
        "e": "empty",
        "i": "integer",
        "flag": "boolean",
        "c": "complex",
        "six": "no_rule",
        "masked": "masked",
        "step": "not_a_tensor",
        "alpha": "name",
        "fc.weight_g": "parametrized",
    }
