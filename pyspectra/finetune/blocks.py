"""Which parameters of a transformer are the weights of its blocks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from pyspectra._support.arguments import shown
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.weights.roles import block_of

__all__ = ["Coverage", "block_weights", "coverage"]

# What goes on before or after the blocks may have blocks of its own.
_OUTSIDE = re.compile(r"(?:\w*_)?(?:heads?|poolers?|classifiers?|embeddings?)")
# What heads and embeddings are called where they are no more than a layer.
_LAYER = re.compile(r"score|cls|logits_proj|qa_outputs|sequence_summary|output|\w*embed\w*")
# Parameters of a block that are tables or offsets, whatever their shape.
_NO_WEIGHT = re.compile(r"(?:^|_)(?:bias(?:es)?|emb|embed\w*|table|tokens?)(?:_|$)")


@dataclass(frozen=True)
class Coverage:
    """Which share of a model's weights a choice of parameters has.

    Attributes
    ----------
    share : float
        Elements chosen, as a share of those of all weights between embeddings and head.
    chosen, weights : int
        The two numbers of elements.
    left_out : tuple of str
        Names of the weights that are not chosen, the largest first.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import coverage
    >>> layer = torch.nn.TransformerEncoderLayer(4, 2, dim_feedforward=8)
    >>> coverage(layer, ["linear1.weight"]).left_out
    ('self_attn.in_proj_weight', 'linear2.weight', 'self_attn.out_proj.weight')
    """

    share: float
    chosen: int
    weights: int
    left_out: tuple[str, ...]


def block_weights(model: nn.Module) -> list[str]:
    """Return the names of the weights inside the blocks of a model, those that are trained.

    They are the matrices, and the stacks of them that experts (Mixtral) and heads (XLNet) have.
    Embeddings, pooler and heads are left out, and so are biases, embeddings (T5's relative
    positions) and convolutions inside blocks. The rule goes by the usual names and by module lists;
    it is empty for a model that has neither.
    """
    return [
        name
        for name, p, module, in_block in _matrices(model)
        if in_block and not _is_convolution(name, p, module)
    ]


def coverage(model: nn.Module, chosen: Collection[str]) -> Coverage:
    """Return which share of a model's weights is under a mask.

    Parameters
    ----------
    model : torch.nn.Module
        The model, of which the parameters with ``requires_grad`` count.
    chosen : collection of str
        Names of parameters; the scores or masks by name will do.

    Returns
    -------
    Coverage
        The share, and what is left out of the weights: every matrix or larger tensor but biases,
        embeddings and heads.

    Raises
    ------
    TypeError, ValueError
        If `model` is no module, or has no parameter of a name.

    Notes
    -----
    What a mask leaves out is trained in full. In the paper the masked share is of everything inside
    the encoder; where it is far below 1, most of the network is fine-tuned as usual.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import coverage
    >>> model = torch.nn.TransformerEncoderLayer(4, 2, dim_feedforward=8)
    >>> coverage(model, ["linear1.weight", "linear2.weight"]).share
    0.5
    """
    if not isinstance(model, nn.Module):
        got = f"an object of type {type(model).__name__}"
        raise ArgumentTypeError("coverage", "model", "be a torch.nn.Module", got)
    sizes = {name: p.numel() for name, p, *_ in _matrices(model)}
    every = dict(model.named_parameters())
    for name in chosen:
        if name not in every:
            requirement, got = "hold names of parameters of the model", shown(name)
            raise ArgumentValueError("coverage", "chosen", requirement, got)
    own = {name: every[name].numel() for name in chosen}
    sizes.update(own)
    total, part = sum(sizes.values()), sum(own.values())
    rest = sorted(sizes.keys() - own.keys(), key=lambda name: (-sizes[name], name))
    return Coverage(part / total if total else 0.0, part, total, tuple(rest))


def _matrices(model: nn.Module) -> Iterator[tuple[str, Tensor, nn.Module, bool]]:
    """Yield the trained weights between embeddings and head.

    Each comes as its name, the parameter, the module that has it, and whether that is in a block.
    """
    tables = {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if isinstance(output, nn.Module):
        tables.update(output.parameters())
    for name, p in model.named_parameters():
        path, _, leaf = name.rpartition(".")
        if not p.requires_grad or p in tables or _NO_WEIGHT.search(leaf) or not _is_matrix(p):
            continue
        block = _block(model, path)
        before = (path if block is None else block).split(".")
        before = before if block is None else before[:-1]
        if any(map(_OUTSIDE.fullmatch, before)) or (
            block is None and any(map(_LAYER.fullmatch, before))
        ):
            continue
        yield name, p, model.get_submodule(path), block is not None


def _is_matrix(p: Tensor) -> bool:
    """Tell whether `p` is a matrix or a stack of them; (1, 1, n) is a vector."""
    return p.ndim == 2 or sum(n > 1 for n in p.shape) >= 2


def _block(model: nn.Module, name: str) -> str | None:
    """Return the name of the block that a part of a model is in: ``"encoder.layer.3"``.

    It is what `block_of` tells from the name, or else the first entry of an ``nn.ModuleList`` on
    the way. At least one word comes after the block: given the name of a weight's module, a plain
    stack such as ``classifier.layers.0`` has no blocks.
    """
    found = block_of(name)
    if found is not None:
        return found
    parts = name.split(".")
    for i in range(1, len(parts) - 1):
        if parts[i].isdigit() and _is_entry(model, ".".join(parts[: i + 1])):
            return ".".join(parts[: i + 1])
    return None


def numbered_block(model: nn.Module, name: str) -> str | None:
    """Return the name of the block that a parameter is in, or is a parameter of."""
    found = _block(model, name)
    if found is None or found != name.rpartition(".")[0]:
        return found
    # A plain stack of layers has no blocks.
    has_parts = next(model.get_submodule(found).children(), None) is not None
    return found if has_parts or _is_entry(model, found) else None


def _is_entry(model: nn.Module, path: str) -> bool:
    """Tell whether a module is an entry of an ``nn.ModuleList``."""
    return isinstance(model.get_submodule(path.rpartition(".")[0]), nn.ModuleList)


def _is_convolution(name: str, p: Tensor, module: nn.Module) -> bool:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    *_, own, leaf = ("", *name.split("."))
    return p.ndim > 2 and (isinstance(module, kinds) or (leaf == "weight" and "conv" in own))
