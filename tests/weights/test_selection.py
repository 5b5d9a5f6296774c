"""Which layers: ids, names, beginnings of names, patterns; and what was probably meant."""

from __future__ import annotations

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.weights import open_weights
from pyspectra.weights.selection import chosen_layers

STATE = {
    "wte.weight": np.ones((9, 3)),
    **{f"encoder.layer.{i}.c_attn.weight": np.ones((3, 9)) for i in (0, 1, 10)},
    **{f"encoder.layer.{i}.fc.weight": np.ones((3, 3)) for i in (0, 1, 10)},
    "odd*name.fc.weight": np.ones((3, 3)),
}


def chosen(*selection: int | str) -> list[str]:
    source = open_weights(STATE)
    return [x.name for x in chosen_layers(source.layers, source.skipped, selection, "analyze")]


@pytest.mark.parametrize("prefix", ["encoder.layer.1", "encoder.layer.1."])
def test_the_beginning_of_names_selects_what_is_below(prefix: str) -> None:
    assert set(chosen(prefix)) == {
        "encoder.layer.1.fc",
        *(f"encoder.layer.1.c_attn{part}" for part in ("", "[q]", "[k]", "[v]")),
    }


def test_parts_are_selected_by_their_brackets() -> None:
    assert chosen("*c_attn[q]") == [f"encoder.layer.{i}.c_attn[q]" for i in (0, 1, 10)]
    assert chosen("encoder.layer.0.c_attn[k]") == ["encoder.layer.0.c_attn[k]"]
    # A set of characters is a set of characters still.
    assert chosen("encoder.layer.[01].fc") == ["encoder.layer.0.fc", "encoder.layer.1.fc"]
    assert chosen("encoder.layer.0.c_attn") == ["encoder.layer.0.c_attn"]
    assert chosen("encoder.layer.0.c_attn.weight") == ["encoder.layer.0.c_attn"]
    assert chosen("odd*name.fc") == ["odd*name.fc"]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("encodr.layer.0", "encoder.layer.0"),
        ("encoder.layer.0.cattn", "encoder.layer.0.c_attn"),
        ("wta", "wte"),
    ],
)
def test_what_was_probably_meant_is_said(wrong: str, meant: str) -> None:
    with pytest.raises(ArgumentValueError) as caught:
        chosen(wrong, "wte")
    assert (caught.value.function, caught.value.argument) == ("analyze", "layers")
    assert f"got [{wrong!r}]" in str(caught.value)
    assert f"did you mean {meant!r}?" in str(caught.value)


def test_what_is_like_nothing_gets_an_example() -> None:
    with pytest.raises(ArgumentValueError, match=r"e\.g\. 'wte' \(id 1\)\.$"):
        chosen("zzz*")
    with pytest.raises(ArgumentValueError, match=r"got \[99\]"):
        chosen(99)
    with pytest.raises(ArgumentTypeError, match="must hold ids or names"):
        chosen_layers((), (), 2.5, "analyze")  # type: ignore[arg-type]


def tied() -> dict[str, np.ndarray]:
    both = np.random.default_rng(0).standard_normal((60, 180))
    return {
        "encoder.embed.weight": both,
        "decoder.embed.weight": both,
        "encoder.c_attn.weight": np.ones((60, 180)),
        "decoder.c_attn.weight": np.ones((60, 180)),
    }


@pytest.mark.parametrize("name", ["decoder.embed", "decoder.embed.weight", "deco*embed"])
def test_a_tied_weight_answers_to_all_its_names(name: str) -> None:
    source = open_weights(tied())
    assert [s.same_as for s in source.skipped] == ["encoder.embed"]
    found = chosen_layers(source.layers, source.skipped, name, "analyze")
    assert [layer.name for layer in found] == ["encoder.embed"]
    assert [row.name for row in ps.analyze(tied(), layers=name).layers] == ["encoder.embed"]
    state = tied()
    edited = ps.svd_smoothing(state, keep=0.2, layers=name)
    changed = {key for key in state if (edited[key] != state[key]).any()}
    assert changed == {"encoder.embed.weight", "decoder.embed.weight"}


def test_what_is_below_a_name_includes_a_tied_weight() -> None:
    names = [row.name for row in ps.analyze(tied(), layers="decoder").layers]
    assert names[:2] == ["encoder.embed", "decoder.c_attn"]


def test_the_parts_of_a_tied_weight_have_all_its_names() -> None:
    both = np.random.default_rng(0).standard_normal((60, 180))
    source = open_weights({"a.c_attn.weight": both, "b.c_attn.weight": both})
    for part in ("", "[q]"):
        found = chosen_layers(source.layers, source.skipped, f"b.c_attn{part}", "analyze")
        assert [layer.name for layer in found] == [f"a.c_attn{part}"]
    with pytest.raises(ArgumentValueError, match=r"did you mean 'b\.c_attn'\?"):
        ps.analyze({"a.c_attn.weight": both, "b.c_attn.weight": both}, layers="b.cattn")
