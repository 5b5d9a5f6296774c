"""The default choice: 2-D weights inside the blocks of the usual transformers."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from pyspectra.finetune.blocks import block_weights, numbered_block  # noqa: E402


class Tree(torch.nn.Module):
    """A model with given parameter names; `embeddings` are weights of nn.Embedding modules."""

    def __init__(
        self, shapes: dict[str, tuple[int, ...]], embeddings: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        for name, shape in shapes.items():
            *path, leaf = name.split(".")
            node: Any = self
            for part in path[:-1]:
                if part not in node._modules:
                    node.add_module(part, torch.nn.Module())
                node = node._modules[part]
            if path[-1] not in node._modules:
                kind = torch.nn.Embedding(*shape) if name in embeddings else torch.nn.Module()
                node.add_module(path[-1], kind)
            node._modules[path[-1]].register_parameter(leaf, torch.nn.Parameter(torch.zeros(shape)))


W = (2, 2)
IN = {
    "BERT": [
        "bert.encoder.layer.0.attention.self.query.weight",
        "bert.encoder.layer.11.output.dense.weight",
    ],
    "MiniLM": ["encoder.layer.0.intermediate.dense.weight"],
    "RoBERTa": ["roberta.encoder.layer.3.attention.output.dense.weight"],
    "GPT-2": ["transformer.h.0.attn.c_attn.weight", "h.11.mlp.c_proj.weight"],
    "Llama": ["model.layers.0.self_attn.q_proj.weight", "model.layers.31.mlp.down_proj.weight"],
    "ViT": ["vit.encoder.layer.0.attention.attention.key.weight", "blocks.5.mlp.fc1.weight"],
    "T5": [
        "encoder.block.0.layer.0.SelfAttention.q.weight",
        "decoder.block.5.layer.2.DenseReluDense.wo.weight",
    ],
    "torch.nn": ["layers.0.self_attn.in_proj_weight", "encoder.layers.1.linear1.weight"],
    "CLIP": ["visual.transformer.resblocks.0.attn.in_proj_weight"],
    "LoRA": ["model.layers.0.self_attn.q_proj.lora_A.default.weight"],
}
OUT = {
    "bert.embeddings.word_embeddings.weight": W,
    "bert.pooler.dense.weight": W,
    "classifier.weight": W,
    "lm_head.weight": W,
    "wte.weight": W,
    "shared.weight": W,
    "score.weight": W,
    "cls.predictions.transform.dense.weight": W,
    "patch_embed.proj.weight": (2, 2, 2, 2),
    "classifier.layers.0.weight": W,
    "layers.0.weight": W,
    "decode_head.layers.0.proj.weight": W,
    "text_embeddings.layer.0.proj.weight": W,
    "encoder.layer.0.attention.output.LayerNorm.weight": (2,),
    "encoder.layer.0.output.dense.bias": (2,),
    "blocks.0.conv.weight": (2, 2, 2),
    "layers.0.attn.relative_position_bias_table": W,
    "player.0.proj.weight": W,
}


@pytest.mark.parametrize("family", IN)
def test_weights_inside_the_blocks(family: str) -> None:
    model = Tree({**dict.fromkeys(IN[family], W), **OUT})
    assert block_weights(model) == [n for n, _ in model.named_parameters() if n in IN[family]]
    assert len(block_weights(model)) == len(IN[family])


def test_embeddings_inside_blocks_and_frozen_weights_are_left_out() -> None:
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    q = "encoder.block.0.layer.0.SelfAttention.q.weight"
    k = "encoder.block.0.layer.0.SelfAttention.k.weight"
    model = Tree(dict.fromkeys((bias, q, k), W), embeddings=(bias,))
    model.get_parameter(k).requires_grad_(False)
    assert block_weights(model) == [q]


def test_the_real_thing() -> None:
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = torch.nn.Sequential(
        torch.nn.Embedding(10, 8), torch.nn.TransformerEncoder(layer, 2), torch.nn.Linear(8, 2)
    )
    assert len(block_weights(model)) == 8
    assert all(name.startswith("1.layers.") for name in block_weights(model))


def test_a_model_inside_a_wrapper_that_is_called_after_embeddings() -> None:
    names = ["embedder.encoder.layer.0.output.dense.weight", "text_embedder.layers.1.fc.weight"]
    model = Tree({**dict.fromkeys(names, W), "embedder.pooler.dense.weight": W})
    assert block_weights(model) == names


def test_stacks_of_weights_and_blocks_of_any_list() -> None:
    model = Tree(
        {
            "layers.0.mlp.experts.gate_up_proj": (3, 4, 2),
            "layers.0.mlp.experts.gate_up_proj_bias": (3, 4),
            "layers.0.moe.input_linear.weight": (3, 4, 2),
            "layers.0.attn.r_w_bias": W,
            "layers.0.attn.seg_embed": (2, 2, 2),
            "layers.0.mix.time_mix_key": (1, 1, 4),
            "layers.0.mixer.conv1d.weight": (4, 1, 3),
        }
    )
    model.attentions = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(2, 2))])
    model.heads = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(2, 2))])
    assert block_weights(model) == [
        "layers.0.mlp.experts.gate_up_proj",
        "layers.0.moe.input_linear.weight",
        "attentions.0.0.weight",
    ]


def test_the_block_of_a_parameter_is_that_of_its_role() -> None:
    names = {
        "blocks.1.mlp.fc1.weight": "blocks.1",
        "blocks.1.gamma": "blocks.1",  # of the block itself
        "layers.2.blocks.3.attn.qkv.weight": "layers.2.blocks.3",  # Swin: a block of a stage
        "encoder.block.0.layer.1.DenseReluDense.wo.weight": "encoder.block.0",
        "model.layers.4.mlp.experts.7.w1.weight": "model.layers.4",
        "towers.0.fc.weight": "towers.0",  # a module list of any name
        "classifier.layers.0.weight": None,
        "head.weight": None,
    }
    model = Tree(dict.fromkeys(names, W))
    model.towers = torch.nn.ModuleList(model.towers.children())
    assert {name: numbered_block(model, name) for name in names} == names
