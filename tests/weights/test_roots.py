"""Folders that are roots of runs and pipelines: read, put together, or answered with the way."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from weights_checks import by_name, nothing_is_read, reasons, values

import pyspectra as ps

Tensors = dict[str, torch.Tensor]


def whole_and_pieces(
    cut: dict[str, int | None], shapes: dict[str, tuple[int, ...]], ranks: int = 2
) -> tuple[Tensors, list[Tensors]]:
    torch.manual_seed(0)
    whole = {key: torch.randn(shape).bfloat16() for key, shape in shapes.items()}
    pieces: list[Tensors] = [{} for _ in range(ranks)]
    for key, tensor in whole.items():
        axis = cut[key]
        parts = [tensor] * ranks if axis is None else tensor.chunk(ranks, axis)
        for rank, part in zip(pieces, parts, strict=True):
            rank[key] = part.clone()
    return whole, pieces


def assert_same(source: Any, whole: Tensors) -> None:
    opened = ps.open_weights(source)
    found = by_name(opened)
    matrices = {k.removesuffix(".weight"): v for k, v in whole.items() if v.ndim == 2}
    assert set(found) == set(matrices)
    for name, layer in found.items():
        expected = matrices[name].double().numpy()
        np.testing.assert_array_equal(values(pickle.loads(pickle.dumps(layer))), expected)


# --- Llama --------------------------------------------------------------------------------------

WIDTH, TOKENS, HIDDEN = 16, 40, 24


def llama(by_tokens: bool) -> tuple[Tensors, list[Tensors]]:
    cut: dict[str, int | None] = {
        "tok_embeddings.weight": 0 if by_tokens else 1,
        "norm.weight": None,
    }
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (TOKENS, WIDTH),
        "norm.weight": (WIDTH,),
    }
    for name in ("attention.wq", "attention.wk", "attention.wv", "feed_forward.w1"):
        cut[f"layers.0.{name}.weight"] = 0
        shapes[f"layers.0.{name}.weight"] = (HIDDEN, WIDTH)
    for name in ("attention.wo", "feed_forward.w2"):
        cut[f"layers.0.{name}.weight"] = 1
        shapes[f"layers.0.{name}.weight"] = (WIDTH, HIDDEN)
    cut["output.weight"], shapes["output.weight"] = 0, (TOKENS, WIDTH)
    return whole_and_pieces(cut, shapes)


def save_ranks(folder: Path, pieces: list[Tensors]) -> Path:
    for rank, tensors in enumerate(pieces):
        torch.save(tensors, folder / f"consolidated.{rank:02}.pth")
    (folder / "params.json").write_text("{}")
    return folder


@pytest.mark.parametrize("by_tokens", [False, True])
def test_ranks_of_llama_are_put_together(tmp_path: Path, by_tokens: bool) -> None:
    whole, pieces = llama(by_tokens)
    with nothing_is_read():
        ps.open_weights(save_ranks(tmp_path, pieces))
    assert_same(tmp_path, whole)


def test_a_missing_rank_is_named(tmp_path: Path) -> None:
    save_ranks(tmp_path, [*llama(False)[1], {}])
    (tmp_path / "consolidated.01.pth").unlink()
    with pytest.raises(ps.FormatError, match=r"rank is missing: consolidated\.01\.pth"):
        ps.open_weights(tmp_path)


def test_ranks_of_two_models_are_refused(tmp_path: Path) -> None:
    pieces = llama(False)[1]
    del pieces[1]["output.weight"]
    with pytest.raises(ps.FormatError, match=r"'output\.weight' is not in both"):
        ps.open_weights(save_ranks(tmp_path, pieces))


def test_pieces_that_no_rule_knows_are_listed(tmp_path: Path) -> None:
    _, pieces = llama(False)
    for rank in pieces:
        rank["layers.0.other.weight"] = torch.ones(9, 8)
    pieces[1]["layers.0.attention.wq.weight"] = torch.ones(9, 9)
    opened = ps.open_weights(save_ranks(tmp_path, pieces))
    for name in ("layers.0.other", "layers.0.attention.wq"):
        assert "2 ranks" in reasons(opened)[name]
    (other,) = (s for s in opened.skipped if s.name == "layers.0.other")
    assert (other.is_matrix, other.parameters) == (True, 144)
    assert len(opened) == 7


# --- Megatron-LM and DeepSpeed ------------------------------------------------------------------


def megatron() -> tuple[Tensors, list[Tensors]]:
    start = "layers.0"
    cut: dict[str, int | None] = {
        "word_embeddings.weight": 0,
        "position_embeddings.weight": None,
        f"{start}.input_layernorm.weight": None,
        f"{start}.attention.query_key_value.weight": 0,
        f"{start}.attention.dense.weight": 1,
        f"{start}.mlp.dense_h_to_4h.weight": 0,
        f"{start}.mlp.dense_4h_to_h.weight": 1,
    }
    shapes = {key: (48, 16) if axis == 0 else (16, 32) for key, axis in cut.items()}
    return whole_and_pieces(cut, {**shapes, f"{start}.input_layernorm.weight": (16,)})


def save_megatron(root: Path, pieces: list[Tensors], names: list[str], latest: str = "100") -> Path:
    for name, tensors in zip(names, pieces, strict=True):
        folder = root / "iter_0000100" / name
        folder.mkdir(parents=True)
        content = {"model": tensors, "optimizer": {"state": {}, "param_groups": []}}
        torch.save(content, folder / "model_optim_rng.pt")
    (root / "latest_checkpointed_iteration.txt").write_text(latest)
    return root


@pytest.mark.parametrize(
    "names", [["mp_rank_00", "mp_rank_01"], ["mp_rank_00_000", "mp_rank_01_000"]]
)
def test_ranks_of_megatron_are_put_together(tmp_path: Path, names: list[str]) -> None:
    whole, pieces = megatron()
    save_megatron(tmp_path, pieces, names)
    assert_same(tmp_path, whole)
    assert_same(tmp_path / "iter_0000100", whole)


def test_one_rank_of_megatron_is_the_model(tmp_path: Path) -> None:
    whole, _ = megatron()
    assert_same(save_megatron(tmp_path, [whole], ["mp_rank_00"]), whole)


@pytest.mark.parametrize(
    ("names", "latest", "words"),
    [
        (["mp_rank_00_000", "mp_rank_00_001"], "100", "pipeline"),
        (["mp_rank_00", "mp_rank_02"], "100", "ranks are missing"),
        (["mp_rank_00", "mp_rank_01"], "200", "iter_0000200, which is not there"),
        (["mp_rank_00", "mp_rank_01"], "../elsewhere", "names no iteration"),
    ],
)
def test_what_megatron_left_out_is_said(
    tmp_path: Path, names: list[str], latest: str, words: str
) -> None:
    save_megatron(tmp_path, megatron()[1], names, latest)
    with pytest.raises(ps.FormatError, match=words):
        ps.open_weights(tmp_path)


def save_deepspeed(root: Path, files: dict[str, Any], latest: str = "global_step5") -> Path:
    (root / "global_step5").mkdir(parents=True)
    for name, content in files.items():
        torch.save(content, root / "global_step5" / name)
    (root / "latest").write_text(latest)
    (root / "zero_to_fp32.py").write_text("")
    return root


def test_model_states_of_deepspeed(tmp_path: Path) -> None:
    whole, pieces = megatron()
    optimizer = {"optimizer_state_dict": {"fp32_flat_groups": [torch.ones(9)]}}
    one = {
        "mp_rank_00_model_states.pt": {"module": whole, "lr_scheduler": None, "dp_world_size": 2},
        "zero_pp_rank_0_mp_rank_00_optim_states.pt": optimizer,
    }
    root = save_deepspeed(tmp_path / "one", one)
    assert_same(root, whole)
    assert_same(root / "global_step5", whole)
    several = {
        f"mp_rank_{i:02}_model_states.pt": {"module": piece} for i, piece in enumerate(pieces)
    }
    assert_same(save_deepspeed(tmp_path / "several", several), whole)


@pytest.mark.parametrize("inside", [False, True])
def test_stage_3_of_zero_names_the_script(tmp_path: Path, inside: bool) -> None:
    states = {"zero_pp_rank_0_mp_rank_00_model_states.pt": {"module": {}}}
    root = save_deepspeed(tmp_path, states)
    with pytest.raises(ps.FormatError, match=r"zero_to_fp32\.py") as caught:
        ps.open_weights(root / "global_step5" if inside else root)
    assert f"in {root}, where" in str(caught.value)


def test_the_latest_step_must_be_there(tmp_path: Path) -> None:
    save_deepspeed(tmp_path, {"mp_rank_00_model_states.pt": {}}, latest="global_step6")
    with pytest.raises(ps.FormatError, match="global_step6, which is not there"):
        ps.open_weights(tmp_path)
    (tmp_path / "latest").write_text("../..")
    with pytest.raises(ps.FormatError, match="names no step"):
        ps.open_weights(tmp_path)


# --- diffusers ----------------------------------------------------------------------------------


def pipeline(root: Path) -> Path:
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": [None, None],
        "../elsewhere": ["diffusers", "UNet2DConditionModel"],
    }
    root.mkdir(exist_ok=True)
    (root / "model_index.json").write_text(json.dumps(index))
    files = {
        "unet": "diffusion_pytorch_model.safetensors",
        "vae": "diffusion_pytorch_model.fp16.safetensors",
        "text_encoder": "model.safetensors",
    }
    for i, (component, name) in enumerate(files.items()):
        (root / component).mkdir()
        (root / component / "config.json").write_text("{}")
        save_file({"fc.weight": torch.full((9, 8), float(i))}, root / component / name)
    (root / "scheduler").mkdir()
    (root / "scheduler" / "scheduler_config.json").write_text("{}")
    return root


def test_a_pipeline_is_all_of_its_components(tmp_path: Path) -> None:
    opened = ps.open_weights(pipeline(tmp_path))
    assert opened.format == "diffusers"
    assert {x.name: values(x)[0, 0] for x in opened} == {
        "unet.fc": 0.0,
        "vae.fc": 1.0,
        "text_encoder.fc": 2.0,
    }


def test_a_component_can_be_chosen(tmp_path: Path) -> None:
    (layer,) = ps.open_weights(pipeline(tmp_path), key="vae")
    assert (layer.name, values(layer)[0, 0]) == ("fc", 1.0)
    with pytest.raises(ValueError, match="did you mean 'unet'"):
        ps.open_weights(tmp_path, key="unett")


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_broken_index_of_a_pipeline(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(ps.FormatError, match=r"model_index\.json"):
        ps.open_weights(tmp_path)


# --- plain folders ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["model.fp16.safetensors", "pytorch_model.fp16.bin"],
        ["weights.safetensors", "weights.bin"],
        [
            "model-00001-of-00001.safetensors",
            "pytorch_model-00001-of-00001.bin",
        ],
    ],
)
def test_copies_in_another_format_are_left_out(tmp_path: Path, names: list[str]) -> None:
    for i, name in enumerate(names):
        save = torch.save if name.endswith(".bin") else save_file
        save({"fc.weight": torch.full((9, 8), float(i))}, tmp_path / name)
    (layer,) = ps.open_weights(tmp_path)
    assert values(layer)[0, 0] == 0.0
