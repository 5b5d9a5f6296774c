"""Intruder dimensions of models and adapters, against PEFT on a LoRA that was trained."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import real_models
import torch
import trained_lora

import pyspectra as ps
from pyspectra.spectra import intruders as module

rng = np.random.default_rng(0)
W = rng.standard_normal((60, 40))
B, A = rng.standard_normal((60, 2)), rng.standard_normal((2, 40))


def reference(before, after, k=10, epsilon=0.5):
    """The definition, by whole decompositions, in the precision that PEFT takes."""
    known = torch.linalg.svd(before.float(), full_matrices=False)[0]
    found = torch.linalg.svd(after.float(), full_matrices=False)[0][:, :k]
    return tuple(np.flatnonzero(((found.T @ known).abs().amax(1) < epsilon).numpy()).tolist())


def test_of_an_adapter_and_of_the_tuned_model():
    adapter = {"fc.lora_A.weight": A, "fc.lora_B.weight": B}
    base = {"fc.weight": W, "other.weight": W.T.copy()}
    by_adapter = ps.intruder_dimensions(base, adapter)
    by_model = ps.intruder_dimensions(base, {**base, "fc.weight": W + B @ A})
    assert list(by_adapter) == ["fc"]
    assert sorted(by_model) == ["fc", "other"]
    assert by_adapter["fc"].indices == by_model["fc"].indices == (0, 1)
    assert np.allclose(by_adapter["fc"].similarities, by_model["fc"].similarities, atol=1e-8)
    assert by_model["other"].n == 0


def test_what_a_wrapper_or_a_part_adds_to_names():
    adapter = {
        "base_model.model.fc.lora_A.default.weight": A,
        "base_model.model.fc.lora_B.default.weight": B,
    }
    for base in ({"fc.weight": W}, {"bert.fc.weight": W}, {"base_model.model.fc.weight": W}):
        assert len(ps.intruder_dimensions(base, adapter)) == 1
    with pytest.raises(ValueError, match="'tuned' must share a layer with 'base'"):
        ps.intruder_dimensions({"fd.weight": W}, adapter)
    twice = {"a.fc.weight": W, "b.fc.weight": W + 1.0}
    with pytest.raises(ValueError, match="share a layer"):
        ps.intruder_dimensions(twice, adapter)


def test_what_is_left_out():
    base = {"fc.weight": W, "conv.weight": rng.standard_normal((8, 8, 3, 3))}
    assert list(ps.intruder_dimensions(base, base)) == ["fc"]
    bad = {"fc.lora_A.weight": np.full_like(A, np.nan), "fc.lora_B.weight": B}
    assert ps.intruder_dimensions(base, bad) == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [({"top_k": 0}, "'top_k' must be"), ({"epsilon": 0.0}, "'epsilon' must be in")],
)
def test_refused_arguments(options, words):
    with pytest.raises(ValueError, match=words):
        ps.intruder_dimensions({"fc.weight": W}, {"fc.weight": W}, **options)


@pytest.fixture(scope="module")
def trained():
    return trained_lora.minilm_with_lora()


@pytest.fixture(scope="module")
def expected(trained):
    """The indices of each adapted layer by the definition."""
    found = {}
    for name, layer in trained.named_modules():
        if hasattr(layer, "get_delta_weight"):
            before = layer.get_base_layer().weight.data
            after = before + layer.get_delta_weight("default").detach()
            found[f"{name}.base_layer"] = reference(before, after)
    return found


@pytest.mark.parametrize("large", [module.LARGE, 64])
def test_equal_to_peft_on_every_layer_of_a_trained_lora(trained, expected, monkeypatch, large):
    monkeypatch.setattr(module, "LARGE", large)
    found = ps.intruder_dimensions(trained, trained)
    assert {name: x.indices for name, x in found.items()} == expected
    assert len(found) == 12
    assert 0 < sum(x.n for x in found.values()) < 120


def test_from_files_as_from_memory(trained, expected, tmp_path):
    trained.save_pretrained(tmp_path)
    found = ps.intruder_dimensions(real_models.minilm_dir(), tmp_path)
    assert [x.indices for x in found.values()] == list(expected.values())


def test_peft_itself_counts_as_many(trained, expected):
    from peft.tuners.lora.intruders import reduce_intruder_dimension

    said = []
    reduce_intruder_dimension(copy.deepcopy(trained), logging_sink=said.append)
    lines = [line for line in said if "ntruders" in line and "Enabling" not in line]
    counts = [int(x.rpartition(" ")[2]) if x[-1].isdigit() else 0 for x in lines]
    assert counts == [len(x) for x in expected.values()]
