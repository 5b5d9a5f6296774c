"""Which layer of one model is which of another."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.weights import open_weights
from pyspectra.weights.pairing import Pairing, pair_layers

Array = np.ndarray


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([*shape, seed]).standard_normal(shape)


def state(*names: str) -> dict[str, Array]:
    return {f"{name}.weight": random(12, 10, seed=i) for i, name in enumerate(names)}


def paired(a: Any, b: Any) -> Pairing:
    return pair_layers(open_weights(a), open_weights(b))


def names(pairing: Pairing) -> list[tuple[str, str]]:
    return [(one.name, other.name) for one, other in pairing.pairs]


def words(pairing: Pairing) -> list[str]:
    return [note.words("a", "b") for note in pairing.notes]


def test_identical_names_need_no_note() -> None:
    found = paired(state("x", "only.a"), state("x", "only.b"))
    assert names(found) == [("x", "x")]
    assert [layer.name for layer in found.only_in_a] == ["only.a"]
    assert [layer.name for layer in found.only_in_b] == ["only.b"]
    assert found.notes == ()


@pytest.mark.parametrize("swapped", [False, True])
def test_one_prefix_is_left_out(swapped: bool) -> None:
    a = state("bert.enc.q", "bert.enc.k", "bert.pooler", "classifier")
    b = state("enc.q", "enc.k", "pooler")
    found = paired(b, a) if swapped else paired(a, b)
    expected = [("bert.enc.q", "enc.q"), ("bert.enc.k", "enc.k"), ("bert.pooler", "pooler")]
    assert names(found) == [(y, x) if swapped else (x, y) for x, y in expected]
    (only,) = found.only_in_b if swapped else found.only_in_a
    assert only.name == "classifier"
    which = "b" if swapped else "a"
    assert words(found) == [f"names of '{which}' are compared without their prefix 'bert.'"]


def test_two_prefixes_that_fit_as_well_are_told_and_not_left_out() -> None:
    found = paired(state("student.fc", "teacher.fc"), state("fc"))
    assert found.pairs == ()
    assert words(found) == [
        "names of 'a' fit with several prefixes ('student.', 'teacher.'), and none was left out"
    ]


def test_a_prefix_without_which_two_names_would_be_one_stays_and_is_named() -> None:
    a = state("enc.x", "enc.y", "x")
    found = paired(a, state("x", "y"))
    assert names(found) == [("x", "x")]
    assert words(found) == [
        "names of 'a' fit without their prefix 'enc.', which stays: two would become one"
    ]


def test_identical_names_go_before_a_prefix() -> None:
    found = paired(state("fc", "head", "ema.fc", "ema.head"), state("fc", "head"))
    assert names(found) == [("fc", "fc"), ("head", "head")]
    assert found.notes == ()


@pytest.mark.parametrize(
    "wrapped",
    [
        "_orig_mod.block.fc",
        "module.block.fc",
        "module._orig_mod.block.fc",
        "block._orig_mod.fc",
        "base_model.model.block.fc",
        "block._fsdp_wrapped_module.fc",
        "block.fc.base_layer",
    ],
)
def test_names_of_wrappers_do_not_count(wrapped: str) -> None:
    found = paired(state(wrapped), state("block.fc"))
    assert names(found) == [(wrapped, "block.fc")]
    assert all(note.code == "wrapper" for note in found.notes)


def test_a_wrapper_whose_removal_makes_two_names_one_stays() -> None:
    both = state("module.fc", "fc")
    assert names(paired(both, both)) == [("module.fc", "module.fc"), ("fc", "fc")]


def test_parts_and_lora_pairs_go_with_their_modules() -> None:
    a = {"model.c_attn.weight": random(12, 4), "model.x.lora_A.default.weight": random(2, 5)}
    a["model.x.lora_B.default.weight"] = random(4, 2)
    b = {key.removeprefix("model.").replace(".default", ""): W for key, W in a.items()}
    assert [one for _, one in names(paired(a, b))] == [
        "c_attn",
        "c_attn[q]",
        "c_attn[k]",
        "c_attn[v]",
        "x[lora BA]",
    ]


def test_tied_weights_pair_under_any_of_their_names() -> None:
    W, V = random(12, 4), random(12, 4, seed=1)
    tied = {"emb.qkv.weight": W, "head.qkv.weight": W}
    # A file keeps one of the names, and not always the first.
    kept = {"head.qkv.weight": W}
    for a, b in ((tied, kept), (kept, tied)):
        found = paired(a, b)
        assert names(found)[0][0] == "head.qkv"
        assert len(found.pairs) == 4  # with its parts
        assert found.only_in_a == found.only_in_b == ()
    untied = {"emb.qkv.weight": W, "head.qkv.weight": V}
    for a, b in ((tied, untied), (untied, tied)):
        found = paired(a, b)
        assert [x for x, _ in names(found) if "[" not in x] == ["emb.qkv", "head.qkv"]
        assert found.only_in_a == found.only_in_b == ()
        assert ps.distances(a, b).only_in_b == ()
    assert len(paired(tied, tied).pairs) == 4


SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 50,
}


@pytest.mark.filterwarnings("ignore")
def test_a_classifier_against_its_own_base(tmp_path: Path) -> None:
    tr = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = tr.BertModel(tr.BertConfig(**SIZE))
        base.save_pretrained(tmp_path)
        tuned = tr.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    found = ps.distances(tuned, tmp_path)
    assert found.mean == 0.0
    assert found.only_in_a == ("classifier",)
    assert found.only_in_b == ()
    assert found.notes == ("names of 'a' are compared without their prefix 'bert.'",)
    key = "bert.encoder.layer.0.attention.self.query"
    tuned.get_submodule(key).weight.data.add_(0.1)
    report = ps.analyze(tuned, base_model=base)
    assert [layer.name for layer in report.layers] == [key]
    codes = {s.name: s.skip.code for s in report.skipped}
    assert codes["classifier"] == "not_in_base"
    assert codes["bert.encoder.layer.1.attention.self.query"] == "unchanged"


@pytest.mark.filterwarnings("ignore")
def test_compiled_and_parallel_modules_against_the_plain_one() -> None:
    torch = pytest.importorskip("torch")
    plain = torch.nn.Sequential(torch.nn.Linear(12, 10), torch.nn.Linear(10, 12))
    for wrapped in (torch.compile(plain), torch.nn.DataParallel(plain)):
        for a, b in ((plain, wrapped), (wrapped, plain)):
            found = ps.distances(a, b)
            assert found.mean == 0.0
            assert found.only_in_a == found.only_in_b == ()
            assert len(found.notes) == 1
