"""Averages and states of optimizers in a file are named as such, and chosen by a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from weights_checks import reasons, values

import pyspectra as ps
from pyspectra.weights.pairing import pair_layers

NAMES = ("blocks.0.attn", "blocks.1.attn", "head")
SHAPE = (12, 9)


def weights(value: float = 0.0) -> dict[str, np.ndarray]:
    return {f"{name}.weight": np.full(SHAPE, value, np.float32) for name in NAMES}


def flat(prefix: str, value: float, *, dots: bool = True) -> dict[str, np.ndarray]:
    named = weights(value)
    return {f"{prefix}.{k if dots else k.replace('.', '')}": v for k, v in named.items()}


def firsts(source: ps.WeightSource) -> dict[str, float]:
    return {layer.name: values(layer)[0, 0] for layer in source}


@pytest.mark.parametrize("layout", ["safetensors", "torch", "state dict"])
@pytest.mark.parametrize(
    ("model", "average", "dots"),
    [
        ("model", "model_ema", False),  # Stable Diffusion
        ("online_model", "ema_model", True),
        ("net", "params_ema", True),
        ("model", "ema.shadow", True),
    ],
)
def test_averages_of_flat_names_are_copies(
    tmp_path: Path, layout: str, model: str, average: str, dots: bool
) -> None:
    tensors = {**flat(model, 1.0), **flat(average, 2.0, dots=dots)}
    source: Any = tensors
    if layout == "safetensors":
        source = tmp_path / "model.safetensors"
        save_file(tensors, source)
    elif layout == "torch":
        source = tmp_path / "model.pt"
        torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, source)
    opened = ps.open_weights(source)
    assert firsts(opened) == {f"{model}.{name}": 1.0 for name in NAMES}
    assert [layer.layer_id for layer in opened] == [1, 2, 3]
    prefix = average.partition(".")[0]
    assert set(reasons(opened).values()) == {
        f"a moving average of the weights, beside them: key={prefix!r} chooses it"
    }
    assert not any(skipped.is_matrix for skipped in opened.skipped)
    averaged = ps.open_weights(source, key=average)
    if dots:
        assert firsts(averaged) == dict.fromkeys(NAMES, 2.0)
    else:
        assert {values(layer)[0, 0] for layer in averaged} == {2.0}


def test_a_module_that_is_called_ema_is_no_copy() -> None:
    tensors = {**weights(), "ema.gate.weight": np.ones(SHAPE), "ema.out.weight": np.ones(SHAPE)}
    assert len(ps.open_weights(tensors)) == 5


def test_an_average_without_a_model_is_the_model() -> None:
    tensors = flat("model_ema", 2.0)
    assert len(ps.open_weights(tensors)) == 3
    for name in ("params_ema", "ema", "ema_state_dict", "model_ema"):
        assert firsts(ps.open_weights({name: weights(2.0), "epoch": 3})) == dict.fromkeys(
            NAMES, 2.0
        )
    both = {"params": weights(1.0), "params_ema": weights(2.0)}
    assert firsts(ps.open_weights(both)) == dict.fromkeys(NAMES, 1.0)
    assert firsts(ps.open_weights(both, key="params_ema")) == dict.fromkeys(NAMES, 2.0)


def test_states_of_optimizers_are_no_layers() -> None:
    states = {f"optimizer.state.{k}.exp_avg": v for k, v in weights().items()}
    states |= {f"state.{k}.exp_avg_sq": v for k, v in weights().items()}
    opened = ps.open_weights({**weights(1.0), **states})
    assert set(firsts(opened)) == set(NAMES)
    assert set(reasons(opened).values()) == {"state of the training, not weights of the model"}
    assert not any(skipped.is_matrix for skipped in opened.skipped)


def test_keys_that_are_no_text_stand_in_nobodys_way() -> None:
    tensors: dict[Any, Any] = {**flat("model", 1.0), **flat("ema", 2.0), 7: np.ones(3)}
    assert firsts(ps.open_weights(tensors, key="ema")) == dict.fromkeys(NAMES, 2.0)


def test_a_prefix_that_nothing_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(flat("model", 1.0), path)
    assert len(ps.open_weights(path, key="model")) == 3
    with pytest.raises(ValueError, match="what names in it begin with"):
        ps.open_weights(path, key="other")


@pytest.mark.parametrize(
    "wrapped",
    [
        "module.{}", "_orig_mod.{}", "module._orig_mod.{}", "_forward_module.{}",
        "_fsdp_wrapped_module.{}", "base_model.model.{}", "{}._checkpoint_wrapped_module.fc",
    ],
)  # fmt: skip
def test_layers_answer_to_their_names_without_wrappers(wrapped: str) -> None:
    plain = "{}.fc" if wrapped.endswith(".fc") else "{}"
    tensors = {f"{wrapped.format(name)}.weight": np.ones(SHAPE) for name in NAMES}
    asked = [plain.format(name) for name in NAMES]
    report = ps.analyze(tensors, layers=asked, min_evals=3)
    assert len(report) == 3
    (report_of_one,) = ps.analyze(tensors, layers=asked[0], min_evals=3)
    assert report_of_one.layer_id == 1


def test_the_language_model_of_pictures_pairs_with_the_language_model() -> None:
    plain = {f"model.{name}.weight": np.ones(SHAPE) for name in NAMES}
    towers = {f"model.language_model.{name}.weight": np.ones(SHAPE) for name in NAMES}
    towers["model.visual.patch.weight"] = np.ones(SHAPE)
    a, b = ps.open_weights(towers), ps.open_weights(plain)
    pairing = pair_layers(a, b)
    assert [(x.name, y.name) for x, y in pairing.pairs] == [
        (f"model.language_model.{name}", f"model.{name}") for name in NAMES
    ]
    assert [layer.name for layer in pairing.only_in_a] == ["model.visual.patch"]
    assert [note.text for note in pairing.notes] == ["language_model."]
    assert len(pair_layers(b, a).pairs) == 3
