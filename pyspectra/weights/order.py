"""The order of a model's weights, from their names alone: a module and its files agree on it.

Files list tensors alphabetically, and a module's own order cannot be told from a file. So the
order is computed: what models of the field call their parts is ranked as data flow through them
(embeddings, encoder, decoder, head; query, key, value, output; gate, up, down), and the rest runs
in natural order, in which 10 follows 9.
"""

from __future__ import annotations

import functools
import re
from typing import Final

__all__ = ["natural_key", "order_key"]

# Between dots a name has words. Words that stand beside each other under the same prefix compare
# by the first line that matches them; a word on no line stands where the empty line is. Each line
# is matched as a whole, in lower case, without leading underscores.
_LINES: Final = (
    # What is looked up first.
    r"shared|wte|tok(en)?_?emb\w*|word_emb\w*|embed_tokens|embed_in|patch_emb\w*",
    r"wpe|pos(ition)?s?_?emb\w*|embed_positions|cls_token",
    r"tok(en)?_type_emb\w*|type_emb\w*|segment_emb\w*",
    r"emb|embs|embed\w*|\w+_embed(ding)?s?|rotary_emb|time_emb\w*|class_emb\w*",
    r"(conv_)?stem\w*|conv_in|features_in|proj_in|input_proj\w*",
    r"(?:conv|bn)\d+[a-z]?",  # in pairs: `_NUMBERED`
    r"vision_tower|vision_encoder|visual",
    r"encoder|encoder_?(?:blocks?|layers?|stages?)|down_blocks?|downs",
    # A block: the norm before attention, attention, the norm before the rest, the rest.
    r"norm_?1|ln_?1|layer_?norm_?1|input_layernorm|layernorm_before|pre\w*_norm|attention_norm"
    r"|attn_norm|self_attn_layer_norm",
    r"self|attn|attn1|attention|self_?attn|self_?attention",
    r"norm_?2|ln_?2|layer_?norm_?2|post_attention_layernorm|layernorm_after|ffn_norm"
    r"|post_attention_norm",
    r"cross_?attn|crossattention|cross_attention|encoder_attn|encdecattention|attn2"
    r"|multihead_attn",
    # Attention: query, key, value, output. Anything that comes in, before what goes out.
    r"qkv\w*|wqkv|c_attn|query_key_value|in_proj\w*|in_projection|q|query|q_\w+|wq|to_q|query_\w+",
    r"k|key|k_\w+|wk|to_k|key_\w+|kv_\w+",
    r"v|value|v_\w+|wv|to_v|value_\w+",
    # Feed-forward: router or gate, up, down.
    r"router|gate|gate_proj|gate_up_proj|wg",
    r"up|up_proj|dense_h_to_4h|fc_in|expand_conv|conv_pw|intermediate|base_layer",
    r"depthwise_conv|conv_dw",
    "",
    r"experts?|ff|ffn|mlp|feed_forward|moe",
    r"shared_experts?",
    r"se_reduce|squeeze",
    r"se_expand|excite",
    r"down|down_proj|dense_4h_to_h|fc_out|project_conv|conv_pwl|dt_proj",
    r"o|wo|o_\w+|out|output|to_out|out_proj|out_lin|proj|c_proj|dense(?:_\d+)?",
    r"relative_attention_bias|downsample|shortcut",
    # What comes out last.
    r"mid_blocks?|bridge",
    r"decoder|decoder_?(?:blocks?|layers?|stages?)|up_blocks?|ups|language_model",
    r"norm|ln|ln_f|norm_f|norm_out|conv_norm_out|layernorm|layer_norm|final_layer_?norm|final_norm"
    r"|post_layernorm|ln_post",
    r"pooler|pool|conv_head|\w+_projection|conv_out|proj_out",
    r"lm_head|heads?|\w+_head|classifier|cls|score|seq_relationship|fc|logits\w*|qa_outputs|embed_out|predictions"
    r"|output_layer|output_projection",
)
_RANKED: Final = tuple((i, re.compile(line)) for i, line in enumerate(_LINES) if line)
_MIDDLE: Final = _LINES.index("")
# A convolution is followed by its norm, and both by the next two.
_NUMBERED: Final = re.compile(r"(conv|bn)(\d+)([a-z]?)")
# Layer by layer, forwards and backwards, inputs before hidden units before projections.
_RECURRENT: Final = re.compile(r"(weight|bias)_(ih|hh|hr)_l(\d+)(_reverse)?")

_Key = tuple[object, ...]


def natural_key(text: str) -> _Key:
    """Sort key under which ``layers.10`` follows ``layers.9``.

    Digits compare by length and then by value, never through ``int``: a hostile name may hold
    more digits than Python converts.
    """
    parts = re.split(r"([0-9]+)", text)
    # Apart from the text, so that what follows the last of the shorter name is never compared.
    return tuple(_digits(part) if i % 2 else part for i, part in enumerate(parts)), text


def _digits(text: str) -> tuple[int, str]:
    digits = text.lstrip("0")
    return len(digits), digits


def order_key(name: str) -> _Key:
    """Sort key of the weights of a model, as data flow through it.

    Parameters
    ----------
    name : str
        A parameter's name, with words between dots or slashes.

    Returns
    -------
    tuple
        A key to compare with those of other names of the same model. It depends on the name alone.

    Examples
    --------
    >>> names = ["lm_head", "model.layers.10.mlp", "model.layers.9.mlp", "model.embed_tokens"]
    >>> sorted(names, key=order_key)
    ['model.embed_tokens', 'model.layers.9.mlp', 'model.layers.10.mlp', 'lm_head']
    """
    return tuple(_word_key(word) for word in re.split(r"[./]", name))


@functools.lru_cache(maxsize=4096)
def _word_key(word: str) -> _Key:
    plain = word.lower().lstrip("_")
    recurrent = _RECURRENT.fullmatch(plain)
    if recurrent is not None:
        what, which, layer, reverse = recurrent.groups()
        order = (what == "bias", ("ih", "hh", "hr").index(which))
        return _MIDDLE, ("", _digits(layer), f"{reverse or ''}{order}"), word
    rank = next((i for i, line in _RANKED if line.fullmatch(plain)), _MIDDLE)
    numbered = _NUMBERED.fullmatch(plain)
    if numbered is not None:
        what, number, letter = numbered.groups()
        return rank, ("", _digits(number), f"{letter}{what != 'conv'}"), word
    return rank, *natural_key(word)
