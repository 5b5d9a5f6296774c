"""Which parameters of a transformer are the weights of its blocks."""

from __future__ import annotations

import re

from torch import nn

# A block is entry i of a container of one of these names: BERT, RoBERTa, MiniLM, ViT
# (encoder.layer.i), Llama (layers.i), GPT-2 (h.i), T5 (encoder.block.i), timm (blocks.i), CLIP
# (resblocks.i). At least one module lies between it and the weight: in a plain stack such as
# classifier.layers.0.weight there are no blocks.
_IN_BLOCK = re.compile(r"(?:(.*?)\.)?(?:h|layers?|(?:res)?blocks?)\.\d+\.(?:.+\.)?[^.]+\.\w*weight")
# What goes on before or after the blocks may have blocks of its own.
_OUTSIDE = re.compile(r"(?:^|[._])(?:head|heads|pooler|classifier|embeddings?)(?:\.|$)")


def block_weights(model: nn.Module) -> list[str]:
    """Return the names of the 2-D weights inside the blocks of a model, those that are trained.

    Embeddings, pooler and heads are left out, and so are embeddings inside blocks (T5's relative
    positions). The rule goes by the usual names; it is empty for a model that has others.
    """
    embeddings = {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    chosen = []
    for name, p in model.named_parameters():
        if p.ndim != 2 or not p.requires_grad or p in embeddings:
            continue
        match = _IN_BLOCK.fullmatch(name)
        if match and not _OUTSIDE.search(match[1] or ""):
            chosen.append(name)
    return chosen
