r"""Patterns of names: what regular expressions mean, in a time that no pattern stretches."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyspectra.errors import FormatError
from pyspectra.weights import name_patterns, open_weights
from pyspectra.weights.lora import LoraScale
from pyspectra.weights.name_patterns import Name, NamePattern, UnsafePatternError

CHARACTERS = st.sampled_from(
    ["a", "b", "1", r"\.", ".", r"\d", r"\w", "[0-9]", "[^a.]", "[ab_-]", "-", "_", r"\-"]
)
ITEMS = st.tuples(CHARACTERS, st.sampled_from(["", "", "", "*", "+", "?"])).map("".join)


def patterns() -> st.SearchStrategy[str]:
    sequence = st.lists(ITEMS, max_size=5).map("".join)
    return st.recursive(
        sequence,
        lambda inner: st.tuples(
            sequence,
            st.sampled_from(["(", "(?:"]),
            st.lists(inner, min_size=1, max_size=3).map("|".join),
            st.sampled_from([")", ")?"]),
            sequence,
        ).map("".join),
        max_leaves=4,
    )


@settings(max_examples=500, deadline=None)
@given(
    patterns(),
    st.sampled_from(["", "^"]),
    st.sampled_from(["", "$"]),
    st.text("ab1._-\n", max_size=9),
)
def test_they_mean_what_regular_expressions_mean(
    pattern: str, begin: str, end: str, name: str
) -> None:
    whole = f"{begin}{pattern}{end}"
    expected = re.match(rf"(?:.*\.)?(?:{whole})$", name) is not None
    assert NamePattern(whole).matches(Name(name)) == expected


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a)", "*a", "a**", "a+?", "(a)*", "(a+)+", "[", "[]", "a{3}", r"\1", r"\b", "\\",
     "(?=a)", "(?P<n>a)", "^*", "(" * 30 + ")" * 30, "a" * 1001, "[b-a]", "]"],
)  # fmt: skip
def test_what_is_broken_or_could_take_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(UnsafePatternError):
        NamePattern(pattern)


HARD = [
    ".*" * 500,
    r"\w*" * 333,
    r"(?:a?" * 20 + ")?" * 20,
    "(a|a)" * 200,
    "a?" * 500,
    r"[0-9a-z_]+\.?" * 70,
    "".join(f"[{chr(c)}]" for c in range(256, 589)),
    ".",
]


@pytest.mark.parametrize("pattern", HARD)
def test_no_pattern_takes_long(pattern: str) -> None:
    names = ["a" * 512, "a." * 256, "".join(map(chr, range(256, 768)))]
    parsed = NamePattern(pattern)
    start = time.process_time()
    for name in names:
        parsed.matches(Name(name))
    # Each took hours or milliseconds, with nothing in between.
    assert time.process_time() - start < 1


def test_long_names_and_much_work_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = LoraScale(1.0, alpha_pattern={".*x": 2.0})
    assert scale("a.x", 1) == 2.0
    with pytest.raises(FormatError, match="a name of more than 512 characters"):
        scale("a" * 600, 1)
    assert LoraScale(1.0)("a" * 600, 1) == 1.0
    monkeypatch.setattr("pyspectra.weights.lora.MAX_STEPS", 20)
    assert scale("a.x", 1) == 2.0
    for _ in range(4):
        assert scale("a.x", 1) == 2.0
    with pytest.raises(FormatError, match=r"more patterns than can be tried .*not scaled"):
        [scale("a.x", 1) for _ in range(20)]


def test_of_a_folder(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.numpy").save_file
    halves = {"A": np.ones((2, 9), np.float32), "B": np.ones((8, 2), np.float32)}
    module = "a.b" * 100
    save_file(
        {f"{module}.lora_{half}.weight": array for half, array in halves.items()},
        tmp_path / "adapter_model.safetensors",
    )
    config = {"lora_alpha": 8, "alpha_pattern": {f".*.*.*{i}" * 40: 4 for i in range(60)}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    start = time.process_time()
    assert len(open_weights(tmp_path).layers) == 1
    assert time.process_time() - start < 5
    many = {f"{i}" * 500: 4 for i in range(10_000, 11_000)}
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "alpha_pattern": many}))
    with pytest.raises(FormatError, match="more of them than any adapter has modules"):
        open_weights(tmp_path)
    assert name_patterns.MAX_NAME == 512
