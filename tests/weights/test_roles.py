"""Blocks and roles: what a name tells of the place of a layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pyspectra as ps
from pyspectra.weights.kinds import guess_kind, layer_name
from pyspectra.weights.roles import NOWHERE, Place, place_of

# By family: names that its libraries write, each with stack, block and role.
NAMES = {
    "gpt-2": [
        ("transformer.wte", "", None, "embedding"),
        ("transformer.wpe", "", None, "position embedding"),
        ("transformer.h.3.attn.c_attn", "transformer.h", 3, "qkv"),
        ("transformer.h.3.attn.c_attn[k]", "transformer.h", 3, "k"),
        ("transformer.h.3.attn.c_proj", "transformer.h", 3, "o"),
        ("transformer.h.3.mlp.c_fc", "transformer.h", 3, "up"),
        ("transformer.h.3.mlp.c_proj", "transformer.h", 3, "down"),
        ("lm_head", "", None, "head"),
    ],
    "efficientnet": [
        ("_conv_stem", "", None, "conv"),
        ("_blocks.1._expand_conv", "_blocks", 1, "up"),
        ("_blocks.1._depthwise_conv", "_blocks", 1, "depthwise conv"),
    ],
    "bert": [
        ("bert.encoder.layer.11.attention.self.query", "bert.encoder.layer", 11, "q"),
        ("bert.encoder.layer.11.attention.output.dense", "bert.encoder.layer", 11, "o"),
        ("bert.encoder.layer.11.intermediate.dense", "bert.encoder.layer", 11, "up"),
        ("bert.encoder.layer.11.output.dense", "bert.encoder.layer", 11, "down"),
        ("bert.embeddings.token_type_embeddings", "", None, "type embedding"),
        ("bert.pooler.dense", "", None, "pooler"),
        ("cls.predictions.transform.dense", "", None, "head"),
    ],
    "llama": [
        ("model.embed_tokens", "", None, "embedding"),
        ("model.layers.31.self_attn.q_proj", "model.layers", 31, "q"),
        ("model.layers.31.self_attn.o_proj", "model.layers", 31, "o"),
        ("model.layers.31.mlp.gate_proj", "model.layers", 31, "gate"),
        ("layers.5.attention.wo", "layers", 5, "o"),
        ("layers.5.feed_forward.w2", "layers", 5, "down"),
        ("base_model.model.layers.0.self_attn.v_proj[lora BA]", "base_model.model.layers", 0, "v"),
        ("model.layers.0.mlp.up_proj.base_layer", "model.layers", 0, "up"),
    ],
    "t5": [
        ("encoder.block.2.layer.0.SelfAttention.q", "encoder.block", 2, "q"),
        ("decoder.block.2.layer.1.EncDecAttention.o", "decoder.block", 2, "cross o"),
        ("decoder.block.2.layer.2.DenseReluDense.wi_0", "decoder.block", 2, "gate"),
        ("decoder.block.2.layer.2.DenseReluDense.wo", "decoder.block", 2, "down"),
    ],
    "experts": [
        ("model.layers.0.block_sparse_moe.experts.7.w1", "model.layers", 0, "expert gate"),
        ("model.layers.0.block_sparse_moe.gate", "model.layers", 0, "router"),
        ("model.layers.4.mlp.experts.down_proj", "model.layers", 4, "expert down"),
        ("model.layers.4.mlp.shared_experts.up_proj", "model.layers", 4, "shared expert up"),
        ("model.layers.4.self_attn.kv_a_proj_with_mqa", "model.layers", 4, "kv a"),
        ("blk.2.ffn_gate_inp", "blk", 2, "router"),
        ("blk.2.ffn_up_exps", "blk", 2, "expert up"),
    ],
    "state spaces": [
        ("backbone.layers.7.mixer.in_proj", "backbone.layers", 7, "ssm in"),
        ("backbone.layers.7.mixer.dt_proj", "backbone.layers", 7, "ssm dt"),
        ("backbone.layers.7.mixer.conv1d", "backbone.layers", 7, None),
    ],
    "vision": [
        ("blocks.3.attn.qkv", "blocks", 3, "qkv"),
        ("blocks.3.attn.proj", "blocks", 3, "o"),
        ("blocks.3.mlp.fc1", "blocks", 3, "up"),
        ("patch_embed.proj", "", None, "patch embedding"),
        ("encoder.layers.encoder_layer_0.mlp.3", "encoder.layers.encoder_layer", 0, "down"),
        ("layers.1.blocks.0.attn.qkv", "layers.1.blocks", 0, "qkv"),
        ("layer3.5.downsample.0", "layer3", 5, "shortcut"),
        ("stages.2.blocks.8.conv_dw", "stages.2.blocks", 8, "depthwise conv"),
        ("blocks.2.1.conv_pwl", "blocks.2", 1, "down"),
        ("blocks.2.1.se.conv_reduce", "blocks.2", 1, "squeeze"),
        ("layers.1.downsample.reduction", "", None, "shortcut"),
        ("encoder.stages.1.layers.0.attention.attention.projection_key",
         "encoder.stages.1.layers", 0, "k"),
    ],
    "two towers": [
        ("text_model.encoder.layers.0.mlp.fc1", "text_model.encoder.layers", 0, "up"),
        ("vision_model.encoder.layers.0.mlp.fc1", "vision_model.encoder.layers", 0, "up"),
        ("visual.transformer.resblocks.3.attn.in_proj_weight",
         "visual.transformer.resblocks", 3, "qkv"),
        ("text_projection", "", None, "projection"),
    ],
    "speech": [
        ("encoder.layers.0.feed_forward.output_dense", "encoder.layers", 0, "down"),
        ("model.encoder.layers.1.self_attn.q_proj", "model.encoder.layers", 1, "q"),
        ("model.decoder.layers.1.encoder_attn.q_proj", "model.decoder.layers", 1, "cross q"),
    ],
    "diffusers": [
        ("down_blocks.1.attentions.0.transformer_blocks.2.attn1.to_q",
         "down_blocks.1.attentions.0.transformer_blocks", 2, "q"),
        ("down_blocks.1.attentions.0.transformer_blocks.2.attn2.to_out.0",
         "down_blocks.1.attentions.0.transformer_blocks", 2, "cross o"),
        ("up_blocks.3.resnets.2.time_emb_proj", "up_blocks.3.resnets", 2, "modulation"),
        ("down_blocks.1.attentions.0.proj_out", "down_blocks.1.attentions", 0, "projection"),
        ("time_embedding.linear_1", "", None, "time embedding"),
    ],
    "other files": [
        ("blk.0.attn_q", "blk", 0, "q"),
        ("blk.0.attn_output", "blk", 0, "o"),
        ("token_embd", "", None, "embedding"),
        ("h/0/attn/c_attn/kernel", "h", 0, "qkv"),
        ("encoder/layers_2/mlp/wi_1/kernel", "encoder.layers", 2, "up"),
        ("conv2_block1_1_conv/kernel", "conv2_block", 1, None),
        ("rnn.weight_hh_l0[o]", "", None, "recurrent"),
    ],
    "not blocks": [
        ("fc1", "", None, None),
        ("net.0", "", None, None),
        ("q", "", None, None),
        ("classifier.layers.0", "", None, "head"),
        ("mlp.weird", "", None, None),
    ],
}  # fmt: skip


@pytest.mark.parametrize("family", NAMES)
def test_names_of_a_family(family: str) -> None:
    found = {name: place_of(name, "linear") for name, *_ in NAMES[family]}
    wanted = {name: Place(*place) for name, *place in NAMES[family]}
    assert found == wanted


def test_a_kind_tells_where_a_name_does_not() -> None:
    assert place_of("body.3", "conv2d_grouped").role == "conv"
    assert place_of("words", "embedding").role == "embedding"
    assert place_of("body.3", "linear") == NOWHERE


@pytest.mark.parametrize(
    "name", ["", ".", "...", "h." * 5000, "layers." + "9" * 300 + ".q", "a" * 10**6, "\n.h.0.q"]
)
def test_a_strange_name_costs_nothing(name: str) -> None:
    place = place_of(name)
    assert place.block is None or place.block < 10**9


# Tiny ones of architectures that the table was not written for.
HELD_OUT = {
    "falcon": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2},
    "gptj": {"n_layer": 2, "n_embd": 16, "n_head": 2, "rotary_dim": 4},
    "deberta-v2": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2},
    "speecht5": {"encoder_layers": 2, "decoder_layers": 2},
    "segformer": {},
    "qwen2_moe": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2},
}


@pytest.mark.parametrize("family", HELD_OUT)
def test_most_matrices_of_other_architectures_have_a_role(family: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CONFIG_MAPPING[family](**HELD_OUT[family])
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    shapes = {layer_name(n): tuple(p.shape) for n, p in model.named_parameters() if p.ndim > 1}
    places = [place_of(name, guess_kind(name, shape).name) for name, shape in shapes.items()]
    assert sum(place.role is not None for place in places) >= 0.9 * len(places)
    assert sum(place.block is not None for place in places) >= 0.6 * len(places)


def test_rows_of_a_report_know_their_place() -> None:
    W = np.random.default_rng(0).standard_normal((24, 16))
    report = ps.analyze(
        {"decoder.block.3.layer.1.EncDecAttention.q.weight": W, "other.weight": W + 1}
    )
    other, row = report.rows()
    assert (row["stack"], row["block"], row["role"]) == ("decoder.block", 3, "cross q")
    assert (other["stack"], other["block"], other["role"]) == ("", None, None)
    layer = report.layers[1]
    assert (layer.stack, layer.block, layer.role) == ("decoder.block", 3, "cross q")
