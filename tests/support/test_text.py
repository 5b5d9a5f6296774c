"""Hints and counts of messages."""

from __future__ import annotations

import numpy as np
import pytest

import pyspectra as ps
from pyspectra._support.text import counted, did_you_mean
from pyspectra.errors import ArgumentValueError, hint_words


def test_counts_agree_with_their_noun() -> None:
    assert [counted(n, "layer") for n in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]
    assert counted(1, "matrix is", "matrices are") == "1 matrix is"
    assert counted(3, "matrix is", "matrices are") == "3 matrices are"


def test_a_hint_ends_once() -> None:
    assert hint_words("count again") == " Hint: count again."
    assert hint_words("did you mean 'x'?") == " Hint: did you mean 'x'?"
    assert hint_words(None) == ""
    assert str(ArgumentValueError("f", "x", "be 3", "4", "why not?")).endswith(" Hint: why not?")


def test_what_was_probably_meant_is_asked() -> None:
    assert did_you_mean("Grams", ("gram", "svd")) == "did you mean 'gram'?"
    assert did_you_mean("nothing alike", ("gram", "svd")) is None
    assert did_you_mean(3, ("gram", "svd")) is None
    assert did_you_mean("gramophone", ("gram",), 0.9) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda model: ps.analyze(model, layers="d"),
        lambda model: ps.analyze(model, method="grams"),
        lambda model: ps.analyze(model, methd="gram"),
        lambda model: ps.svd_smoothing(model, keep="powerlow"),
    ],
)
def test_messages_that_ask_end_in_a_question_mark(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((TypeError, ValueError)) as caught:
        call({"dd.weight": np.ones((60, 60))})
    assert str(caught.value).count("?") == 1
    assert str(caught.value).endswith("?")


def test_one_layer_is_one_layer_everywhere() -> None:
    report = ps.analyze({"a.weight": np.random.default_rng(0).standard_normal((200, 100))})
    assert "1 layer," in repr(report)
    assert "1 layers" not in report.verdict.text + repr(report)
    with pytest.raises(ValueError, match=r"it has 1 layer, e\.g\. 'a'"):
        ps.analyze({"a.weight": np.ones((60, 60))}, layers="zzz")


def test_a_status_has_words_of_its_own() -> None:
    words = [status.words for status in ps.Status]
    assert words == ["ok", "not finite", "too few points", "no convergence", "degenerate"]
    nothing = {"a.weight": np.full((60, 60), np.nan)}
    report = ps.analyze(nothing)
    assert "1 could not be fitted (not finite)" in report.verdict.text
    assert report.findings[0].message == "a has no power-law fit: not finite."
    assert ps.distances(nothing, nothing, "ks").layers[0].reason == "not finite"
