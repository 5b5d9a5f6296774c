"""Rules that freeze: which layers are trained, and which are not."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pyspectra._support.arguments import check_count, check_number, check_seed
from pyspectra._support.random import Purpose, generator
from pyspectra.errors import ArgumentValueError
from pyspectra.finetune.layerwise.rule import Decision, LayerRule
from pyspectra.finetune.layerwise.scores import ALPHA, SNR, LayerScore, takes_part
from pyspectra.finetune.layerwise.units import Unit
from pyspectra.report.findings import THRESHOLDS

__all__ = ["LISA", "FreezeWellTrained", "Spectrum"]


@dataclass(frozen=True, kw_only=True)
class Spectrum(LayerRule):
    """Train the layers with the most signal, of each type the same share; freeze the others.

    Parameters
    ----------
    percent : float
        Share of the layers of each type that are trained, in percent, rounded down. Published runs
        have 25 and 50.
    score : str
        What the layers are sorted by; the published one is `snr`.
    every : int or None
        Calls of ``step()`` between two choices. Published: a single choice, before training.

    Notes
    -----
    The type of a layer is its name after the first number (``self_attn.q_proj``). Whatever is in no
    numbered module is trained, as the released configurations train embedding and head, and so are
    norms. (The script gives all norms the same score, and so takes the first ones.)

    References
    ----------
    Hartford et al., "Spectrum: targeted training on signal to noise ratio", 2024, arXiv 2406.06623,
    and the released script.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import Spectrum, param_groups
    >>> model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(4)])
    >>> ratios = {"0.weight": 0.1, "1.weight": 0.3, "2.weight": 0.4, "3.weight": 0.2}
    >>> _ = param_groups(model, ratios, Spectrum())
    >>> [name for name, p in model.named_parameters() if p.requires_grad]
    ['1.weight', '1.bias', '2.weight', '2.bias']
    """

    percent: float = 50.0
    score: str | None = SNR

    def __post_init__(self) -> None:
        super().__post_init__()
        percent = check_number("Spectrum", "percent", self.percent, least=0.0, most=100.0)
        object.__setattr__(self, "percent", percent)
        if self.score is None:
            raise ArgumentValueError("Spectrum", "score", "name a score", "None")

    def decide(
        self, found: Sequence[Unit], scores: Mapping[str, LayerScore], turn: int
    ) -> Decision:
        """Return the layers that are frozen."""
        types: dict[str, list[str]] = {}
        for unit in found:
            if unit.type is not None and takes_part(scores.get(unit.key)):
                types.setdefault(unit.type, []).append(unit.key)
        frozen: set[str] = set()
        for keys in types.values():
            # The sort is stable: of equal ones the first in the model goes first.
            best = sorted(keys, key=lambda key: _rank(scores[key].value), reverse=True)
            frozen |= {*best[int(len(keys) * self.percent / 100) :]}
        return Decision(frozen=_names(found, frozen))


def _names(found: Sequence[Unit], keys: Collection[str]) -> frozenset[str]:
    """Return the names of all parameters of the units with these keys."""
    return frozenset(name for unit in found if unit.key in keys for name in unit.names)


def _rank(value: float) -> float:
    """Return a number to sort by: no score is the least."""
    return -math.inf if math.isnan(value) else value


@dataclass(frozen=True, kw_only=True)
class FreezeWellTrained(LayerRule):
    """Freeze the layers whose alpha is that of well-trained ones, and train the others.

    Parameters
    ----------
    low, high : float
        A layer with ``low <= alpha <= high`` is frozen.
    score : str
        What alpha is. The bounds are of the estimators ``"ww"`` and ``"csn"``, so by default the
        report's.
    min_evals : int
        Layers with fewer eigenvalues are trained: alpha tells nothing of them.
    every : int or None
        Calls of ``step()`` between two choices; by default there is one.

    Notes
    -----
    This rule is ours, and no published result stands behind it. The bounds are those between which
    Martin and Mahoney find the layers of models that generalise best. Embeddings, and layers
    without an alpha, are trained.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import FreezeWellTrained, param_groups
    >>> model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(2)])
    >>> alphas = {"0.weight": 3.1, "1.weight": 7.5}
    >>> groups = param_groups(model, alphas, FreezeWellTrained(min_evals=0))
    >>> [name for name, p in model.named_parameters() if p.requires_grad]
    ['1.weight', '1.bias']
    """

    low: float = 2.0
    high: float = 4.0
    score: str | None = ALPHA
    min_evals: int = THRESHOLDS.few_evals

    def __post_init__(self) -> None:
        super().__post_init__()
        low = check_number("FreezeWellTrained", "low", self.low)
        high = check_number("FreezeWellTrained", "high", self.high, least=low)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        least = check_count("FreezeWellTrained", "min_evals", self.min_evals, least=0)
        object.__setattr__(self, "min_evals", least)
        if self.score is None:
            raise ArgumentValueError("FreezeWellTrained", "score", "name a score", "None")

    def decide(
        self, found: Sequence[Unit], scores: Mapping[str, LayerScore], turn: int
    ) -> Decision:
        """Return the layers that are frozen."""
        keys = [
            unit.key
            for unit in found
            if takes_part(scores.get(unit.key))
            and scores[unit.key].n_evals >= self.min_evals
            and self.low <= scores[unit.key].value <= self.high
        ]
        return Decision(frozen=_names(found, keys))


@dataclass(frozen=True, kw_only=True)
class LISA(LayerRule):
    """Train a few blocks drawn at random at a time, and all that is outside of the blocks.

    Parameters
    ----------
    active : int
        Blocks that are trained at a time.
    every : int or None
        Calls of ``step()`` between two draws: steps of the optimizer, as published.
    seed : int
        Seed of the draws, in [0, 2^64). Which blocks are trained at a step depends on the seed and
        the number of the draw alone, so that a resumed run goes on as it would have.

    Notes
    -----
    The rule needs no scores. Blocks are the numbered entries of containers with the usual names
    (``layers``, ``h``, ``blocks`` and others), and of module lists. Every block has the
    same probability ``active / n``; embedding, head and final norm are always trained. A block that
    is frozen keeps its moments: no step is taken with them until its turn comes again.
    DistributedDataParallel has to be told that not every parameter gets a gradient
    (``find_unused_parameters=True``). The defaults are those of the released script's documentation
    and of most users (2 blocks, 20 steps); the script itself trains one.

    References
    ----------
    Pan et al., "LISA: layerwise importance sampling for memory-efficient large language model
    fine-tuning", NeurIPS 2024, arXiv 2403.17919, and its code in LMFlow.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import LISA
    >>> block = torch.nn.TransformerEncoderLayer(8, 2, 16)
    >>> model = torch.nn.TransformerEncoder(block, 6, enable_nested_tensor=False)
    >>> optimizer = torch.optim.AdamW(model.parameters())
    >>> scheduler = LISA(active=2, every=20).attach(optimizer, model)
    >>> sum(p.requires_grad for p in model.parameters()) == 2 * len([*block.parameters()])
    True
    """

    active: int = 2
    every: int | None = 20
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score is not None:
            raise ArgumentValueError("LISA", "score", "be None: blocks are drawn", repr(self.score))
        object.__setattr__(self, "active", check_count("LISA", "active", self.active, least=0))
        object.__setattr__(self, "seed", check_seed("LISA", "seed", self.seed))

    def decide(
        self, found: Sequence[Unit], scores: Mapping[str, LayerScore], turn: int
    ) -> Decision:
        """Return the blocks that are frozen."""
        blocks = list(dict.fromkeys(unit.block for unit in found if unit.block is not None))
        if not blocks:
            raise ArgumentValueError(
                "LISA",
                "model",
                "have numbered blocks",
                "none in containers called layer, layers, h, block or blocks, and no module list",
            )
        draws = generator(Purpose.LAYERS, self.seed, "LISA", turn)
        count = min(self.active, len(blocks))
        active = {blocks[i] for i in draws.choice(len(blocks), count, replace=False)}
        keys = [u.key for u in found if u.block is not None and u.block not in active]
        return Decision(frozen=_names(found, keys))
