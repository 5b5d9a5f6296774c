"""Rules of fine-tuning that train fixed parts of a network: half of it, or the biases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspectra._support.arguments import check_seed
from pyspectra._support.random import Purpose, generator
from pyspectra.errors import ArgumentValueError
from pyspectra.finetune.layerwise.rule import Decision, LayerRule
from pyspectra.finetune.layerwise.scores import LayerScore
from pyspectra.finetune.layerwise.units import Unit

__all__ = ["HFT", "BitFit"]

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
# Names of what a task brings along, as a part of the path of a parameter.
_HEADS = ("classifier", "head", "lm_head", "score", "qa_outputs", "cls", "pooler")


def _without_scores(rule: LayerRule) -> None:
    if rule.score is not None:
        name = type(rule).__name__
        raise ArgumentValueError(name, "score", "be None: none is needed", repr(rule.score))


@dataclass(frozen=True, kw_only=True)
class HFT(LayerRule):
    """Half fine-tuning: freeze a random half of the matrices of each block.

    Parameters
    ----------
    every : int or None
        Calls of ``step()`` between two draws; by default there is one. The paper draws anew for
        each round of fine-tuning.
    seed : int
        Seed of the draws, in [0, 2^64). What is frozen depends on the seed, the number of the draw
        and the blocks alone.

    Notes
    -----
    Of the matrices of attention half are frozen in each block (two of query, key, value and
    output), and so of the others. Of an odd number n, (n + 1) / 2 are frozen in a random half of
    the blocks and (n - 1) / 2 in the rest. Norms, and what is outside of blocks, are trained. The
    rule follows descriptions of the paper: no code of its authors was found.

    References
    ----------
    Hui et al., "HFT: half fine-tuning for large language models", ACL 2025, arXiv 2404.18466.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import HFT, param_groups
    >>> block = torch.nn.TransformerEncoderLayer(8, 2, 16)
    >>> model = torch.nn.TransformerEncoder(block, 4, enable_nested_tensor=False)
    >>> _ = param_groups(model, None, HFT())
    >>> sum(p.requires_grad for p in model.parameters() if p.ndim > 1)  # of 4 times 4
    8
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _without_scores(self)
        object.__setattr__(self, "seed", check_seed("HFT", "seed", self.seed))

    def decide(
        self, found: Sequence[Unit], scores: Mapping[str, LayerScore], turn: int
    ) -> Decision:
        """Return the matrices that are frozen, with their biases."""
        parts: dict[bool, dict[str, list[Unit]]] = {}
        for unit in found:
            if unit.block is not None and unit.is_matrix:
                attends = _ATTENTION.search(unit.key.removeprefix(unit.block)) is not None
                parts.setdefault(attends, {}).setdefault(unit.block, []).append(unit)
        if not parts:
            raise ArgumentValueError("HFT", "model", "have matrices in numbered blocks", "none")
        frozen: set[str] = set()
        for attends, blocks in sorted(parts.items()):
            draws = generator(Purpose.LAYERS, self.seed, f"HFT {attends}", turn)
            odd = [block for block, own in blocks.items() if len(own) % 2]
            more = {odd[i] for i in draws.permutation(len(odd))[: len(odd) // 2]}
            for block, own in blocks.items():
                count = (len(own) + (block in more)) // 2
                for i in draws.permutation(len(own))[:count]:
                    frozen.update(own[i].names)
        return Decision(frozen=frozenset(frozen))


@dataclass(frozen=True, kw_only=True)
class BitFit(LayerRule):
    """Train the biases, and the head that the task brings along.

    Parameters
    ----------
    also : tuple of str
        Parts of the path of parameters that are trained too: the head of the task.

    References
    ----------
    Ben Zaken, Goldberg, Ravfogel, "BitFit: simple parameter-efficient fine-tuning for
    transformer-based masked language-models", ACL 2022, arXiv 2106.10199.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import BitFit, param_groups
    >>> model = torch.nn.ModuleDict({"fc": torch.nn.Linear(4, 4), "head": torch.nn.Linear(4, 2)})
    >>> _ = param_groups(model, None, BitFit())
    >>> [name for name, p in model.named_parameters() if p.requires_grad]
    ['fc.bias', 'head.weight', 'head.bias']
    """

    also: tuple[str, ...] = _HEADS

    def __post_init__(self) -> None:
        super().__post_init__()
        _without_scores(self)
        if isinstance(self.also, str) or not all(isinstance(part, str) for part in self.also):
            raise ArgumentValueError(
                "BitFit", "also", "hold parts of names", repr(self.also), "('classifier',)"
            )

    def decide(
        self, found: Sequence[Unit], scores: Mapping[str, LayerScore], turn: int
    ) -> Decision:
        """Return all parameters but biases and head."""
        names = [name for unit in found for name in unit.names]
        return Decision(
            frozen=frozenset(
                name
                for name in names
                if "bias" not in name.rpartition(".")[2] and not {*name.split(".")} & {*self.also}
            )
        )
