"""The share of the weights that the default choice has, in the architectures of transformers."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn  # noqa: E402

from pyspectra.finetune import coverage, fisher_diag  # noqa: E402
from pyspectra.finetune.blocks import block_weights  # noqa: E402

COMMON = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
          "num_attention_heads": 4, "vocab_size": 50}  # fmt: skip
DECODER: dict[str, Any] = {**COMMON, "num_key_value_heads": 2}
LATENT = {"num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
          "qk_nope_head_dim": 4, "v_head_dim": 4, "first_k_dense_replace": 1, "n_routed_experts": 4,
          "moe_intermediate_size": 12, "num_experts_per_tok": 2}  # fmt: skip
SMALL = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
IMAGES = {"image_size": 16, "patch_size": 4}
NO_WORDS = {k: v for k, v in COMMON.items() if k != "vocab_size"}

# Configuration, model, and one of the weights that an earlier choice left out.
FAMILIES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "XLNet": ("XLNetConfig", "XLNetForSequenceClassification",
              {"vocab_size": 50, "d_model": 16, "n_layer": 2, "n_head": 4, "d_inner": 24},
              "transformer.layer.0.rel_attn.q"),
    "Mixtral": ("MixtralConfig", "MixtralForCausalLM", {**DECODER, "num_local_experts": 4},
                "model.layers.1.mlp.experts.gate_up_proj"),
    "Qwen3-MoE": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM",
                  {**DECODER, "num_experts": 4, "moe_intermediate_size": 12, "head_dim": 4},
                  "model.layers.0.mlp.experts.down_proj"),
    "Qwen2-MoE": ("Qwen2MoeConfig", "Qwen2MoeForCausalLM",
                  {**DECODER, "num_experts": 4, "moe_intermediate_size": 12,
                   "shared_expert_intermediate_size": 12}, "model.layers.0.mlp.experts.down_proj"),
    "DeepSeek-V3": ("DeepseekV3Config", "DeepseekV3ForCausalLM",
                    {**DECODER, **LATENT, "n_group": 2, "topk_group": 1},
                    "model.layers.1.mlp.experts.gate_up_proj"),
    "gpt-oss": ("GptOssConfig", "GptOssForCausalLM",
                {**DECODER, "num_local_experts": 4, "head_dim": 4},
                "model.layers.0.mlp.experts.gate_up_proj"),
    "ALBERT": ("AlbertConfig", "AlbertForSequenceClassification", {**COMMON, "embedding_size": 16},
               "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight"),
    "XLM": ("XLMConfig", "XLMForSequenceClassification",
            {"vocab_size": 50, "emb_dim": 16, "n_layers": 2, "n_heads": 4},
            "transformer.attentions.0.q_lin.weight"),
    "T5": ("T5Config", "T5ForConditionalGeneration", SMALL,
           "decoder.block.1.layer.2.DenseReluDense.wo.weight"),
    "BERT": ("BertConfig", "BertForSequenceClassification", COMMON,
             "bert.encoder.layer.0.attention.self.query.weight"),
    "ViT": ("ViTConfig", "ViTForImageClassification", {**NO_WORDS, **IMAGES}, ""),
}  # fmt: skip


def model(family: str) -> Any:
    config, kind, settings, _ = FAMILIES[family]
    return getattr(transformers, kind)(getattr(transformers, config)(**settings))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_choice_has_the_weights_between_embeddings_and_head(family: str) -> None:
    m = model(family)
    chosen = block_weights(m)
    covered = coverage(m, chosen)
    assert covered.share > 0.95, covered.left_out
    assert covered.chosen == sum(m.get_parameter(name).numel() for name in chosen)
    assert FAMILIES[family][3] in ("", *chosen)
    words = ("lm_head", "classifier", "pooler", "embed", "logits_proj", "score", "bias", "norm")
    assert not [n for n in chosen if any(word in n.lower() for word in words)]
    output = m.get_output_embeddings()
    own = {m.get_parameter(name) for name in chosen}
    assert output is None or own.isdisjoint(output.parameters())
    assert own.isdisjoint(p for e in m.modules() if isinstance(e, nn.Embedding)
                          for p in e.parameters())  # fmt: skip


class Odd(nn.Module):
    """Most of its weights are where the rule does not look."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(2))
        self.trunk = nn.Linear(4, 40)
        self.head = nn.Linear(40, 1)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return self.head(self.trunk(x))


def score(m: Any, **options: Any) -> Any:
    return fisher_diag(m, [torch.ones(3, 4)], lambda m, x: m(x).mean(), **options)


def test_a_small_share_is_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"has 16\.7% of the weights of Odd.*'trunk\.weight'"):
        scores = score(Odd())
    found = coverage(Odd(), scores)
    assert (found.chosen, found.weights) == (32, 192)
    assert found.left_out == ("trunk.weight",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(Odd(), params=["layers.0.0.weight"])  # the caller's own choice


def test_what_is_frozen_does_not_count() -> None:
    m = Odd()
    m.trunk.weight.requires_grad_(False)
    score(m)
    assert coverage(m, block_weights(m)).share == 1.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, []), TypeError, "coverage: 'model' must be"),
        ((nn.Linear(2, 2), ["weigth"]), ValueError, "coverage: 'chosen' must hold names"),
    ],
)
def test_refusals(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        coverage(*arguments)


def test_nothing_chosen_is_a_share_of_zero() -> None:
    assert coverage(nn.Linear(2, 2), []).share == 0.0
    assert coverage(nn.LayerNorm(2), []).share == 0.0
