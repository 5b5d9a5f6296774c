"""Architectures of torch, transformers, timm and diffusers, tiny and with random weights.

One record an architecture: how it is built, and which of its tensors of two axes or more are no
weights to analyse, by the end of their names, with the code of the reason.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class Architecture:
    """A model of some library.

    Attributes
    ----------
    package : str
        What must be installed.
    build : callable
        Makes the module.
    skipped : Mapping
        Ends of names of tensors with two axes or more -> why they are not analysed.
    renamed : bool
        True if transformers saves it under the names that its files on the hub have.
    regrouped : bool
        True if transformers saves its experts one by one, which the module stacks.
    """

    package: str
    build: Callable[[], Any]
    skipped: Mapping[str, str] = field(default_factory=dict)
    renamed: bool = False
    regrouped: bool = False


def _torch(name: str, *args: Any, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(importlib.import_module("torch.nn"), name)(*args, **options)


def _transformers(model: str, config: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        transformers = importlib.import_module("transformers")
        made = {k: v() if callable(v) else v for k, v in options.items()}
        return getattr(transformers, model)(getattr(transformers, config)(**made))

    return build


def _diffusers(model: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(importlib.import_module("diffusers"), model)(**options)


def _timm(name: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        with _without_torchvision():
            timm = importlib.import_module("timm")
        return timm.create_model(name, **options)

    return build


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Let timm be imported: it needs torchvision for pictures and one class, and no weight of it.

    On PyPI torchvision is built for CUDA, and cannot be imported beside a CPU build of torch.
    """
    if "timm" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        yield
        return
    names = ["", ".transforms", ".transforms.functional", ".datasets", ".ops", ".ops.misc"]
    modules = {f"torchvision{name}": mock.MagicMock() for name in names}
    modules["torchvision.ops.misc"] = types.SimpleNamespace(
        FrozenBatchNorm2d=type("Frozen", (), {})
    )
    with mock.patch.dict(sys.modules, modules):
        yield


_WIDTHS: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_GROUPED: dict[str, Any] = {**_WIDTHS, "num_key_value_heads": 2, "head_dim": 8}
_PICTURE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
_UNET: dict[str, Any] = {
    "block_out_channels": (16, 32), "norm_num_groups": 8, "layers_per_block": 1, "sample_size": 16,
}  # fmt: skip

ARCHITECTURES: dict[str, Architecture] = {
    "lstm": Architecture("torch", _torch("LSTM", 12, 16, num_layers=2, bidirectional=True)),
    "gru": Architecture("torch", _torch("GRU", 12, 16)),
    "lstm_projected": Architecture("torch", _torch("LSTM", 12, 16, proj_size=8)),
    "transformer": Architecture(
        "torch", _torch("Transformer", 16, 2, 1, 1, 24, batch_first=True)
    ),
    "attention_of_three_sizes": Architecture(
        "torch", _torch("MultiheadAttention", 16, 2, kdim=12, vdim=20)
    ),
    "gpt2": Architecture(
        "transformers",
        _transformers("GPT2LMHeadModel", "GPT2Config", vocab_size=96, n_positions=24, n_embd=32,
                      n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2),
    ),
    "bert": Architecture(
        "transformers", _transformers("BertForPreTraining", "BertConfig", **_WIDTHS)
    ),
    "t5": Architecture(
        "transformers",
        _transformers("T5ForConditionalGeneration", "T5Config", vocab_size=96, d_model=32, d_kv=8,
                      d_ff=48, num_layers=2, num_heads=4),
    ),
    "llama": Architecture(
        "transformers", _transformers("LlamaForCausalLM", "LlamaConfig", **_GROUPED)
    ),
    "gemma": Architecture(
        "transformers", _transformers("Gemma2ForCausalLM", "Gemma2Config", **_GROUPED)
    ),
    "falcon": Architecture(
        "transformers", _transformers("FalconForCausalLM", "FalconConfig", **_WIDTHS)
    ),
    "bloom": Architecture(
        "transformers",
        _transformers("BloomForCausalLM", "BloomConfig", vocab_size=96, hidden_size=32, n_layer=2,
                      n_head=4),
    ),
    "mixtral": Architecture(
        "transformers",
        _transformers("MixtralForCausalLM", "MixtralConfig", **_GROUPED, num_local_experts=3),
        regrouped=True,
    ),
    "qwen3_moe": Architecture(
        "transformers",
        _transformers("Qwen3MoeForCausalLM", "Qwen3MoeConfig", **_GROUPED, num_experts=3,
                      num_experts_per_tok=2, moe_intermediate_size=24),
        regrouped=True,
    ),
    "deepseek_v3": Architecture(
        "transformers",
        _transformers("DeepseekV3ForCausalLM", "DeepseekV3Config", **_WIDTHS, n_routed_experts=4,
                      n_group=2, topk_group=1, num_experts_per_tok=2, moe_intermediate_size=24,
                      kv_lora_rank=16, q_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8,
                      v_head_dim=8, first_k_dense_replace=1, num_key_value_heads=4),
        regrouped=True,
    ),
    "gpt_oss": Architecture(
        "transformers",
        _transformers("GptOssForCausalLM", "GptOssConfig", **_GROUPED, num_local_experts=3),
        skipped={"_proj_bias": "bias"},
    ),
    "mamba": Architecture(
        "transformers",
        _transformers("MambaForCausalLM", "MambaConfig", vocab_size=96, hidden_size=32,
                      state_size=8, num_hidden_layers=2, time_step_rank=9),
        skipped={"A_log": "name"},
    ),
    "zamba": Architecture(
        "transformers",
        _transformers("ZambaForCausalLM", "ZambaConfig", vocab_size=96, hidden_size=32,
                      intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
                      attn_layer_offset=1, attn_layer_period=2, mamba_d_state=8, mamba_dt_rank=9,
                      n_mamba_heads=2, num_key_value_heads=4, pad_token_id=0,
                      layers_block_type=["mamba", "hybrid", "mamba", "hybrid"]),
        skipped={"A_log": "name", "mamba.D": "name", "dt_proj_bias": "bias"},
    ),
    "vit": Architecture(
        "transformers",
        _transformers("ViTForImageClassification", "ViTConfig", **_PICTURE),
        skipped={"position_embeddings": "name", "cls_token": "name"},
        renamed=True,
    ),
    "swin": Architecture(
        "transformers",
        _transformers("SwinModel", "SwinConfig", image_size=32, patch_size=4, embed_dim=16,
                      depths=[1, 1], num_heads=[2, 4], window_size=4),
        skipped={"relative_position_bias_table": "name"},
        renamed=True,
    ),
    "convnext_v2": Architecture(
        "transformers",
        _transformers("ConvNextV2Model", "ConvNextV2Config", hidden_sizes=[8, 16],
                      depths=[1, 1], num_stages=2),
        skipped={"grn": "one_axis", "grn.bias": "bias"},
    ),
    "resnet": Architecture(
        "transformers",
        _transformers("ResNetModel", "ResNetConfig", embedding_size=8, hidden_sizes=[16, 24],
                      depths=[1, 1]),
    ),
    "mobilenet_v2": Architecture(
        "transformers",
        _transformers("MobileNetV2Model", "MobileNetV2Config", depth_multiplier=0.1),
    ),
    "wav2vec2": Architecture(
        "transformers",
        _transformers("Wav2Vec2ForPreTraining", "Wav2Vec2Config", vocab_size=32, hidden_size=32,
                      intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
                      conv_dim=(16, 16), conv_kernel=(5, 3), conv_stride=(5, 2),
                      num_feat_extract_layers=2, num_conv_pos_embeddings=8,
                      num_conv_pos_embedding_groups=4, codevector_dim=16, proj_codevector_dim=16,
                      num_codevectors_per_group=12),
        skipped={"weight.original0": "factor", "weight.original1": "factor",
                 "codevectors": "name"},
    ),
    "whisper": Architecture(
        "transformers",
        _transformers("WhisperForConditionalGeneration", "WhisperConfig", vocab_size=96,
                      d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
                      decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48,
                      num_mel_bins=16, max_source_positions=20, max_target_positions=16,
                      pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1),
    ),
    "clip": Architecture(
        "transformers",
        _transformers("CLIPModel", "CLIPConfig", projection_dim=24, vision_config=lambda: _PICTURE,
                      text_config=lambda: {**_WIDTHS, "max_position_embeddings": 16}),
    ),
    "sam": Architecture(
        "transformers",
        _transformers("SamModel", "SamConfig",
                      vision_config=lambda: {**_PICTURE, "mlp_dim": 48, "output_channels": 16,
                                             "window_size": 2, "global_attn_indexes": [1]},
                      prompt_encoder_config=lambda: {"hidden_size": 16, "image_size": 32,
                                                     "patch_size": 8, "mask_input_channels": 8},
                      mask_decoder_config=lambda: {"hidden_size": 16, "mlp_dim": 24,
                                                   "num_attention_heads": 2,
                                                   "iou_head_hidden_dim": 16}),
        skipped={"pos_embed": "name", "rel_pos_h": "name", "rel_pos_w": "name",
                 "positional_embedding": "name"},
    ),
    "vit_timm": Architecture(
        "timm", _timm("test_vit"), skipped={"pos_embed": "name", "cls_token": "name"}
    ),
    "resnet_timm": Architecture("timm", _timm("test_resnet")),
    "convnext_timm": Architecture("timm", _timm("test_convnext")),
    "efficientnet_timm": Architecture("timm", _timm("test_efficientnet")),
    "maxvit_timm": Architecture(
        "timm", _timm("test_maxvit"), skipped={"relative_position_bias_table": "name"}
    ),
    "nfnet_timm": Architecture("timm", _timm("test_nfnet"), skipped={"gain": "name"}),
    "unet": Architecture(
        "diffusers",
        _diffusers("UNet2DConditionModel", **_UNET, cross_attention_dim=24, attention_head_dim=4,
                   down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                   up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")),
    ),
    "vae": Architecture(
        "diffusers",
        _diffusers("AutoencoderKL", **_UNET, down_block_types=("DownEncoderBlock2D",) * 2,
                   up_block_types=("UpDecoderBlock2D",) * 2),
    ),
    "dit": Architecture(
        "diffusers",
        _diffusers("DiTTransformer2DModel", num_attention_heads=2, attention_head_dim=16,
                   in_channels=4, num_layers=2, sample_size=8, norm_num_groups=4,
                   num_embeds_ada_norm=10),
    ),
}  # fmt: skip
