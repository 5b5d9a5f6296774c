"""Where a layer stands in its model and what it does there, told from its name.

`_BLOCKS` says how libraries number the blocks of a network, and `_ROLES` what they call the parts
of a block: one record each, of which the first that fits is taken. To teach another spelling, add
it to the line it belongs to. What no record knows has no block and no role, which is never an
error: nothing is guessed from shapes.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

__all__ = ["NOWHERE", "Place", "block_of", "place_of"]


@dataclass(frozen=True)
class Place:
    """Where a layer stands, and what it does.

    Attributes
    ----------
    stack : str
        The beginning of its name, up to the number of its block: ``"encoder.layer"``. It tells the
        blocks of an encoder from those of a decoder, and those of one stage from those of the next.
        Empty outside of blocks.
    block : int or None
        Number of its block in the stack, as the name has it; None outside of blocks.
    role : str or None
        ``"q"``, ``"k"``, ``"v"``, ``"qkv"``, ``"o"``, ``"up"``, ``"gate"``, ``"down"``,
        ``"embedding"``, ``"head"``, ``"conv"``, ...; with ``"cross "`` in front in an attention to
        another sequence, with ``"expert "`` or ``"shared expert "`` in front in a mixture of
        experts. None where the name does not tell.

    Examples
    --------
    >>> place_of("decoder.block.3.layer.1.EncDecAttention.q", "linear")
    Place(stack='decoder.block', block=3, role='cross q')
    """

    stack: str = ""
    block: int | None = None
    role: str | None = None


NOWHERE: Final = Place()

# Longer names are no names of layers, and their owners may mean harm.
_LONGEST: Final = 512
_MOST_DIGITS: Final = 9

# --- blocks -------------------------------------------------------------------------------------

# Each is looked for behind a dot or at the beginning, and at least one more word comes after it:
# in a plain stack such as classifier.layers.0 there are no blocks.
_BLOCKS: Final = tuple(
    re.compile(rf"(?<![^.])_?(?:{line})[._]?(?P<block>\d+)\.(?=.)")
    for line in (
        # diffusers: several of them may stand in one of `attentions`.
        r"(?:\w+_)?transformer_blocks",
        # A block of a stage: ConvNeXt, ResNet of transformers, U-Nets.
        r"(?:stages?|levels?|down_blocks|up_blocks|down|up)[._]?\d+\.(?:\w+\.)?"
        r"(?:blocks?|layers?|resnets|attentions|motion_modules)",
        # Swin; ConvNeXt, EfficientNet and Swin of torchvision; timm; SegFormer.
        r"(?:layers?|features)[._]?\d+\.blocks?",
        r"(?:stages?[._]?|blocks?\.|features\.|layer)\d+\.(?=\d+\.)",
        r"dense_?block[._]?\d+\.dense_?layers?",
        # Keras: conv2_block1_1_conv.
        r"(?:\w+\.)?conv\d+_block(?=\d+_)",
        # All others: h.0 (GPT-2), layers.0, layers_0 (flax), blk.0 (GGUF), encoderblock_0.
        r"(?:(?:encoder|decoder|transformer|attention|hidden|self|cross|single|double|joint|albert|res"
        r"|mamba|rwkv|input|output|mid|down|up|text|vision|image|audio)_?)?(?:layers?|blocks?|blk)(?![._]?\d+\.(?:down|up)sampl)",
        r"h|res_?nets|res_?units|attentions|ffns|self_attends|cells?|features(?=\.\d+\.(?:conv|block))",
    )
)
# Keras joins the words of a layer's name with underscores.
_KERAS_BLOCK: Final = re.compile(r"(?<![^.])(?P<stack>conv\d+_block)(?P<block>\d+)_")

# --- roles --------------------------------------------------------------------------------------

_ATTENTION: Final = r"\w*(?:attn|attention|mlstm)\w*"
_FEED_FORWARD: Final = (
    r"\w*(?:mlp|ffn|feed_?forward|moe|experts?)\w* ff ffn?s ff_context densereludense "
    r"dense\w*actdense"
)
_STATE_SPACE: Final = r"\w*(?:mamba|mixer|ssm)\w*"
_CROSS: Final = (
    r"\w*cross_?(?:attn|attention)\w* encoder_attn encoder_attention encdecattention attn2 "
    r"multihead_attn encoder_decoder_attention"
)
_SHARED: Final = r"shared_experts?(?:_\w+)? \w+_shexp shared_mlp"
_EXPERT: Final = r"(?:local_)?experts?(?:_?\d+)? \w+_exps"


@dataclass(frozen=True)
class _Role:
    """What a layer does: its name, how paths of such layers end, and a word that must be before."""

    name: str
    ends: re.Pattern[str]
    within: re.Pattern[str] | None = None
    inside: bool | None = None  # only in blocks; only outside of them; None for both

    def fits(self, path: str, in_block: bool) -> bool:
        if self.inside is not None and self.inside != in_block:
            return False
        if self.ends.search(path) is None:
            return False
        return self.within is None or self.within.search(path) is not None


def _any(spellings: str) -> str:
    """Return the expression for any of several, which stand with spaces between them."""
    return "|".join(spellings.split())


def _words(spellings: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^.])(?:{_any(spellings)})(?![^.])")


def _role(name: str, ends: str, within: str = "", inside: bool | None = None) -> _Role:
    pattern = re.compile(rf"(?<![^.])_?(?:{_any(ends)})\Z")
    return _Role(name, pattern, _words(within) if within else None, inside)


_ROLES: Final = (
    # Tables that are looked up, and what stands for them.
    _role("relative position",
          r"relative_attention_bias rel_pos\w* relative_position\w* \w*dist\w*_embedding"),
    _role("position embedding",
          r"wpe \w*pos(?:ition)?s?(?:al)?_?(?:emb|embd|embed|embeds|embeddings?)(?:_table)? "
          r"embed_positions position_embd absolute_pos_embed pos_conv_embed\.conv "
          r"positional_embedding"),
    _role("type embedding", r"tok(?:en)?_types?(?:_emb\w*)? type_emb\w* segment_emb\w*"),
    _role("patch embedding",
          r"patch_emb\w*(?:\.(?:proj|projection|conv\d*|backbone\.\w+))? conv_proj"),
    _role("time embedding", r"(?:\w*time|\w*timestep|add|t)_emb\w*\.(?:\w+\.)*\w+ time_embed\w*"),
    _role("embedding",
          r"wte \w*embed_tokens \w*word_emb\w* tok(?:en)?_emb\w* embed_in shared "
          r"embed(?:ding|dings)? token_embd word_embeddings"),
    # Between an image and the sequence of its pixels, in a U-Net.
    _role("projection",
          r"(?:attentions|(?:in|out)put_blocks|middle_block)\.(?:\d+\.)+proj_(?:in|out)"),
    # Two in one: Flux.
    _role("qkv and up", r"single_blocks\.\d+\.linear1"),
    _role("o and down", r"single_(?:transformer_)?blocks\.\d+\.(?:linear2|proj_out)"),
    # Modulation of norms by time or class: DiT, SD3, Flux.
    _role("modulation",
          r"(?:norm\w*|adaln\w*|\w*modulation\w*|\w+_mod)\.(?:linear|lin|\d+) "
          r"(?:x_|c_)?adaln_\w+ time_emb_proj emb_layers\.\d+"),
    # A mixture of experts.
    _role("router",
          r"router(?:\.\w+)? gate gate_inp ffn_gate_inp wg shared_expert_gate ffn_gate_inp_shexp",
          _FEED_FORWARD + r" ffn_gate_inp\w* router"),
    # State spaces.
    _role("ssm x", r"x_proj ssm_x"),
    _role("ssm dt", r"dt_proj ssm_dt"),
    _role("ssm in", r"in_proj ssm_in", _STATE_SPACE),
    _role("ssm out", r"out_proj ssm_out", _STATE_SPACE),
    # Feed-forward; before attention, since RWKV has keys and values here too.
    _role("gate",
          r"(?:ffn_)?gate(?:_proj|_exps|_shexp)? wi_0 w1 receptance proj_up_gate",
          _FEED_FORWARD + r" ffn_gate\w*"),
    _role("gate and up", r"gate_up_proj gate_and_up wi_fused input_linear weights_in w12"),
    _role("up",
          r"(?:ffn_)?up(?:_proj|_exps|_shexp)? wi_1 wi w3 v1 w_1 c_fc fc_?in fc_?1 "
          r"lin(?:ear)?_?1 dense_?1 dense_h_to_4h intermediate(?:\.dense)? intermediate_dense "
          r"key net\.0(?:\.proj)? 0 linear_in dense_0 mlp_in layers?\.0 up_project proj_up ffn "
          r"dense\.dense",
          _FEED_FORWARD + r" ffn_up\w* intermediate"),
    _role("down",
          r"(?:ffn_)?down(?:_proj|_exps|_shexp)? wo w2 w_2 c_proj fc_?out fc_?2 lin(?:ear)?_?2 "
          r"dense_?2 dense_4h_to_h output_dense output\.dense value net\.[12] [1-4] linear_out "
          r"out_proj output_linear weights_out dense_1 mlp_out layers?\.[1-3] proj proj_down "
          r"ffn_output",
          _FEED_FORWARD + r" ffn_down\w*"),
    # Attention. Latent attention (DeepSeek) has two matrices for one.
    _role("q a", r"q_a_proj attn_q_a wq_a"),
    _role("q b", r"q_b_proj attn_q_b wq_b"),
    _role("kv a", r"kv_a_proj\w* attn_kv_a\w* wkv_a"),
    _role("kv b", r"kv_b_proj attn_kv_b wkv_b attn_[kv]_b"),
    _role("qkv",
          r"\w*qkv\w* c_attn query_key_value w_pack in_proj(?:_weight)?",
          _ATTENTION + r" \w*qkv\w* w_pack"),
    _role("kv", r"(?:to_|w)?kv(?:_proj)? key_value c_kv", _ATTENTION + r" \w*kv\w*"),
    _role("q",
          r"q query wq to_q (?:attn_|add_)?q(?:_\w+)? projection_query query_\w+ receptance r_proj",
          _ATTENTION + r" q_\w+ to_q wq"),
    _role("k",
          r"k key wk to_k (?:attn_|add_)?k(?:_\w+)? projection_key key_\w+",
          _ATTENTION + r" k_\w+ to_k wk"),
    _role("v",
          r"v value wv to_v (?:attn_|add_)?v(?:_\w+)? projection_value value_\w+",
          _ATTENTION + r" v_\w+ to_v wv"),
    _role("o",
          r"o out wo o_\w+ out_(?:proj|lin|project) out_projection to_(?:add_)?out(?:\.0)? "
          r"c_proj proj proj_out proj_attn output output\.dense dense attn_output "
          r"attention_output linear_out post_proj projection o_net",
          _ATTENTION),
    # Linear layers of blocks that name neither.
    _role("up",
          r"fc_?1 lin(?:ear)?_?1 intermediate\.dense wi pw_?conv1 conv_pw expand_conv layer_1",
          inside=True),
    _role("down",
          r"fc_?2 lin(?:ear)?_?2 output\.dense pw_?conv2 conv_pwl project_conv layer_2",
          inside=True),
    # Convolutions.
    _role("conv", r"conv_(?:head|stem|in|out|first|last)"),
    _role("depthwise conv", r"\w*(?:dw_?conv|depth_?wise)\w*(?:\.\w+)? conv_dw\w*"),
    _role("squeeze", r"(?:se\w*|squeeze\w*)\.(?:conv_reduce|reduce|fc1|0) se_reduce squeeze"),
    _role("excite", r"(?:se\w*|squeeze\w*)\.(?:conv_expand|expand|fc2|2) se_expand excite"),
    _role("shortcut", r"(?:\w*downsample\w*|\w*shortcut\w*|skip\w*)(?:\.\w+)*"),
    _role("upsample", r"upsample\w*(?:\.\w+)*"),
    # Recurrent cells.
    _role("input", r"\w*weight_ih\w*"),
    _role("recurrent", r"\w*weight_hh\w* recurrent_kernel"),
    # What comes last.
    _role("pooler", r"(?:\w+\.)?pooler(?:\.\w+)*", inside=False),
    _role("projection",
          r"(?:text|visual|image|audio)_proj(?:ection)? (?:multi_modal|mm)_proj\w*(?:\.\w+)* "
          r"feature_projection\.\w+ visual\.proj embeddings_project embedding_hidden_mapping_in",
          inside=False),
    _role("head",
          r"(?:\w*heads?|classifier\w*|cls|\w*predictions?|lm_head\w*|pred_layer)(?:\.\w+)* "
          r"score fc output output_layer embed_out logits\w* qa_outputs seq_relationship "
          r"proj_out last_linear output_projection lm_loss vocab_\w+",
          inside=False),
)  # fmt: skip

# By what the kind of a layer tells where its name does not.
_BY_KIND: Final = {"conv": "conv", "embedding": "embedding"}

# --- from a name to its place -------------------------------------------------------------------

_PART: Final = re.compile(r"\[([^\[\]]*)\](?: \d+)?\Z")
_LEAF: Final = re.compile(
    r"(?:\.(?:weight|kernel|embedding|base_layer|original_module|linear_layer|(?:to|from)_rank))+\Z"
)
_ADAPTER: Final = re.compile(r"\.(?:base_layer|lora_[ab](?:\.\w+)?)(?![^.])")
_QUALIFIERS: Final = (
    ("shared expert ", _words(_SHARED)),
    ("expert ", _words(_EXPERT)),
    ("cross ", _words(_CROSS)),
)
_QUALIFIED: Final = {
    "expert ": {"gate", "up", "down", "gate and up"},
    "shared expert ": {"gate", "up", "down", "gate and up"},
    "cross ": {"q", "k", "v", "kv", "qkv", "o"},
}


@functools.lru_cache(maxsize=8192)
def place_of(name: str, kind: str = "") -> Place:
    """Tell where a layer stands in its model, and what it does, from its name.

    Parameters
    ----------
    name : str
        The name of the layer, with dots, slashes or (in Keras) underscores between its words.
    kind : str
        Its kind, which tells a convolution and an embedding where the name does not.

    Returns
    -------
    Place
        `NOWHERE` if the name tells nothing.

    Examples
    --------
    >>> place_of("model.layers.11.mlp.gate_proj", "linear")
    Place(stack='model.layers', block=11, role='gate')
    """
    if len(name) > _LONGEST:
        return NOWHERE
    part = _PART.search(name)
    path = _PART.sub("", name).replace("/", ".")
    bare = _ADAPTER.sub("", _LEAF.sub("", path.lower())) or path.lower()
    stack, block, begin, end = _block(path)
    # What stands before the word that holds the number tells nothing of a part of the block.
    inner = bare[begin:] if end < len(bare) else bare
    role = _role_of(inner, block is not None)
    if part is not None and part[1] in ("q", "k", "v"):
        role = f"cross {part[1]}" if role is not None and role.startswith("cross ") else part[1]
    if role is None:
        role = next((r for k, r in _BY_KIND.items() if kind.startswith(k)), None)
    return Place(stack, block, role)


def block_of(name: str) -> str | None:
    """Tell the name of the numbered block that a layer is in.

    Parameters
    ----------
    name : str
        The name of the layer, with dots between its words.

    Returns
    -------
    str or None
        The beginning of the name, with the number; None outside of blocks.

    Examples
    --------
    >>> block_of("model.layers.11.mlp.gate_proj")
    'model.layers.11'
    """
    if len(name) > _LONGEST:
        return None
    _, block, _, end = _block(name)
    return None if block is None else name[:end].rstrip("._")


def _block(path: str) -> tuple[str, int | None, int, int]:
    """Return the stack, the number of the block, where its last word begins, and where it ends."""
    lowered = path.lower()
    keras = _KERAS_BLOCK.search(lowered)
    for match in (*(pattern.search(lowered) for pattern in _BLOCKS), keras):
        if match is not None and len(match["block"]) <= _MOST_DIGITS:
            stack = path[: match.start("block")].rstrip("._")
            return stack, int(match["block"]), stack.rfind(".") + 1, match.end()
    return "", None, 0, 0


def _role_of(inner: str, in_block: bool) -> str | None:
    found = next((role.name for role in _ROLES if role.fits(inner, in_block)), None)
    if found is None:
        return None
    for word, pattern in _QUALIFIERS:
        if found in _QUALIFIED[word] and pattern.search(inner):
            return word + found
    return found
