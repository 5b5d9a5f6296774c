"""WeightWatcher's names are answered with ours, and errors name the function that was called."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.analysis import porting

W = np.random.default_rng(0).standard_normal((40, 30))


@pytest.mark.parametrize(
    ("option", "ours"),
    [
        ({"fit": "PL"}, "estimator='ww'"),
        ({"plot": True}, r"plot\('esd'"),
        ({"savefig": "dir"}, r"plot\('esd'"),
        ({"detX": True}, "detx=True"),
        ({"min_size": 3}, "min_evals=n"),
        ({"ww2x": True}, "pool=False"),
    ],
)
def test_names_of_weightwatcher(option: dict[str, Any], ours: str) -> None:
    name = next(iter(option))
    with pytest.raises(TypeError, match=f"no option '{name}', which is WeightWatcher's.*{ours}"):
        ps.analyze({"a.weight": W}, **option)


def test_no_option_of_ours_is_answered_as_foreign() -> None:
    assert not set(porting._INSTEAD) & set(inspect.signature(ps.analyze).parameters)


def test_an_array_is_no_model_but_a_matrix() -> None:
    with pytest.raises(TypeError) as raised:
        ps.analyze(W)
    assert str(raised.value).startswith("analyze: 'model_or_path' must be a torch module")
    assert "pyspectra.esd(W)" in str(raised.value)
    with pytest.raises(TypeError) as raised:
        ps.open_weights(3)
    assert "esd" not in str(raised.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (ps.analyze, "analyze: 'model_or_path' must exist"),
        (lambda path: ps.analyze({"a.weight": W}, base_model=path), "analyze: 'base_model' must "),
        (lambda path: ps.distances({"a.weight": W}, path), "distances: 'b' must exist"),
        (lambda path: ps.distances(path, {"a.weight": W}), "distances: 'a' must exist"),
        (ps.open_weights, "open_weights: 'model_or_path' must exist"),
    ],
)
def test_errors_come_from_the_function_that_was_called(
    call: Any, words: str, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        call(tmp_path / "missing.safetensors")
    assert str(raised.value).startswith(words)
