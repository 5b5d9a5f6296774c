"""One order and one id for a parameter: of a module, its state dict, its file and its shards."""

from __future__ import annotations

import random
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from pyspectra.weights import open_weights
from pyspectra.weights.order import natural_key, order_key


def test_digits_compare_by_their_value() -> None:
    names = ["l.10", "l.9", "l.090", "l.1" + "0" * 5000, "l.x", "l"]
    assert sorted(names, key=natural_key)[:4] == ["l", "l.9", "l.10", "l.090"]


@pytest.mark.parametrize(
    "text",
    [
        # Llama
        "model.embed_tokens, model.layers.2.input_layernorm, model.layers.2.self_attn.q_proj,"
        " model.layers.2.self_attn.k_proj, model.layers.2.self_attn.v_proj,"
        " model.layers.2.self_attn.o_proj, model.layers.2.post_attention_layernorm,"
        " model.layers.2.mlp.gate_proj, model.layers.2.mlp.up_proj, model.layers.2.mlp.down_proj,"
        " model.layers.10.self_attn.q_proj, model.norm, lm_head",
        # BERT with a head
        "bert.embeddings.word_embeddings, bert.embeddings.position_embeddings,"
        " bert.embeddings.token_type_embeddings, bert.embeddings.LayerNorm,"
        " bert.encoder.layer.0.attention.self.query, bert.encoder.layer.0.attention.self.key,"
        " bert.encoder.layer.0.attention.self.value, bert.encoder.layer.0.attention.output.dense,"
        " bert.encoder.layer.0.intermediate.dense, bert.encoder.layer.0.output.dense,"
        " bert.pooler.dense, classifier",
        # GPT-2
        "transformer.wte, transformer.wpe, transformer.h.0.ln_1, transformer.h.0.attn.c_attn,"
        " transformer.h.0.attn.c_proj, transformer.h.0.ln_2, transformer.h.0.mlp.c_fc,"
        " transformer.h.0.mlp.c_proj, transformer.ln_f, lm_head",
        # torchvision's ResNet
        "conv1, bn1, layer1.0.conv1, layer1.0.bn1, layer1.0.conv2, layer1.0.bn2,"
        " layer1.0.downsample.0, layer2.0.conv1, fc",
        # nn.LSTM, two layers, both directions
        "weight_ih_l0, weight_hh_l0, weight_hr_l0, weight_ih_l0_reverse, weight_hh_l0_reverse,"
        " weight_ih_l1, weight_hh_l1",
        # encoder and decoder
        "shared, encoder.block.0.layer.0.SelfAttention.q,"
        " encoder.block.0.layer.0.SelfAttention.k, encoder.block.0.layer.0.SelfAttention.v,"
        " encoder.block.0.layer.0.SelfAttention.o, encoder.block.0.layer.1.DenseReluDense.wi,"
        " encoder.block.0.layer.1.DenseReluDense.wo, decoder.block.0.layer.0.SelfAttention.q,"
        " decoder.block.0.layer.1.EncDecAttention.q, lm_head",
    ],
)
def test_names_come_as_data_flow(text: str) -> None:
    names = re.split(r",\s*", text)
    shuffled = random.Random(0).sample(names, len(names))
    assert sorted(shuffled, key=order_key) == names


def test_hostile_names_are_ordered_at_once() -> None:
    long = ["conv" * 20_000, "e" * 100_000 + "_embed", "weight_ih_l" + "9" * 50_000]
    names = [*long, "", ".", "9", "x", "x9", "x9x", "weight_ih_l0", "conv1"]
    assert len(sorted(names, key=order_key)) == len(names)
    assert len(sorted(names, key=natural_key)) == len(names)


SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 50,
}
# Defines its shortcuts before the layers that they pass by.
OTHER_ORDER = {"resnet"}
# save_pretrained writes other names than the module has.
RENAMED = {"mixtral", "vit"}


def models() -> dict[str, Any]:
    tr = pytest.importorskip("transformers")
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    image = {k: v for k, v in SIZE.items() if k != "vocab_size"}
    return {
        "llama": lambda: tr.LlamaForCausalLM(
            tr.LlamaConfig(**SIZE, **ids, num_key_value_heads=2, tie_word_embeddings=False)
        ),
        "bert": lambda: tr.BertForPreTraining(tr.BertConfig(**SIZE)),
        "gpt2": lambda: tr.GPT2LMHeadModel(
            tr.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, **ids)
        ),
        "t5": lambda: tr.T5ForConditionalGeneration(
            tr.T5Config(
                d_model=32,
                d_ff=48,
                num_layers=2,
                num_heads=4,
                d_kv=8,
                vocab_size=50,
                decoder_start_token_id=0,
            )
        ),
        "mixtral": lambda: tr.MixtralForCausalLM(
            tr.MixtralConfig(**SIZE, **ids, num_key_value_heads=2, num_local_experts=4)
        ),
        "vit": lambda: tr.ViTForImageClassification(
            tr.ViTConfig(**image, image_size=32, patch_size=8)
        ),
        "resnet": lambda: tr.ResNetForImageClassification(
            tr.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
        ),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["llama", "bert", "gpt2", "t5", "mixtral", "vit", "resnet"])
def test_every_route_gives_the_same_ids_in_the_same_order(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = models()[name]()
        model.save_pretrained(tmp_path / "one")
        model.save_pretrained(tmp_path / "shards", max_shard_size="4KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1

    def listed(source: Any) -> list[tuple[int, str]]:
        with open_weights(source) as opened:
            return [(layer.layer_id, layer.name) for layer in opened if layer.part_of is None]

    expected = listed(model)
    assert len(expected) > 5
    assert [layer_id for layer_id, _ in expected] == sorted({i for i, _ in expected})
    assert listed(model.state_dict()) == expected
    if name in RENAMED:
        save_file = pytest.importorskip("safetensors.torch").save_file
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        assert listed(tmp_path / "model.safetensors") == expected
    else:
        assert listed(tmp_path / "one") == expected
        assert listed(tmp_path / "one" / "model.safetensors") == expected
    assert listed(tmp_path / "shards") == listed(tmp_path / "one")
    if name not in OTHER_ORDER:
        defined = [key.removesuffix(".weight") for key, _ in model.named_parameters()]
        names = [layer for _, layer in expected]
        assert names == [key for key in defined if key in names]


def test_positions_are_those_of_the_source() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.ModuleDict({"head": torch.nn.Linear(3, 4), "embed": torch.nn.Embedding(4, 3)})
    assert [(x.name, x.layer_id, x.position) for x in open_weights(model)] == [
        ("embed", 1, 2),
        ("head", 2, 1),
    ]


def test_a_tie_has_no_id_of_its_own_whatever_its_rank() -> None:
    torch = pytest.importorskip("torch")
    block = torch.nn.ModuleDict({"fc": torch.nn.Linear(3, 4), "norm": torch.nn.LayerNorm(4)})
    model = torch.nn.ModuleDict({"a": block, "b": block, "c": torch.nn.Linear(4, 4)})
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith("b.")}

    def ids(source: Any) -> dict[str, int]:
        return {layer.name: layer.layer_id for layer in open_weights(source)}

    assert ids(model) == ids(model.state_dict()) == ids(kept) == {"a.fc": 2, "c": 3}
