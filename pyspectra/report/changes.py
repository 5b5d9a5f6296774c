"""What a model that was trained from another is called by what changed: noise, low rank, full.

`CHANGE_LABELS` lists the labels as records, like `pyspectra.report.verdicts.LABELS`. Alpha of a
difference has no bounds that anybody has calibrated, so that none of its words is about alpha.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyspectra._support.text import counted, printable
from pyspectra.report.coverage import Coverage, percent
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.layer import LayerReport
from pyspectra.report.problems import is_small, random_p
from pyspectra.types import Status
from pyspectra.weights import SkippedLayer

LOW_RANK, NOISE, FULL, SMALL = "low rank", "noise", "full", "too small to tell"
NAMES_SHOWN = 5


def change_word(layer: LayerReport) -> str:
    """Return what the change of a layer is; nothing where it has no spectrum, or no base model."""
    if layer.change is None or layer.esd.status is not Status.OK:
        return ""
    if layer.change_rank:
        return f"{LOW_RANK} {layer.change_rank}"
    if random_p(layer) <= THRESHOLDS.random_level:
        return FULL
    return SMALL if is_small(layer) else NOISE


@dataclass(frozen=True)
class Changes:
    """What the label of a difference rests on; sentences name these fields in braces.

    Attributes
    ----------
    moved : int
        Layers that changed by more than rounding explains, and have a spectrum.
    unchanged, rounded : int
        Layers that did not change, or by rounding alone.
    low_rank, tested : int
        Moved layers whose change is of low rank, and those whose structure could be tested.
    large : int
        Moved layers that are not too small to tell.
    tiny : int
        Layers that changed by more than rounding explains, and have too few eigenvalues for a
        spectrum.
    most_tiny : str
        Which of these changed most, and by how much of their norm.
    ranks : tuple of int
        The ranks of changes of low rank, without repetitions.
    structure_p : float
        The least p-value of "no structure" times the number of layers tested (Bonferroni).
    enough : bool
        Whether enough of the model could be compared.
    share : str
        How much that was.
    """

    moved: int
    unchanged: int
    rounded: int
    low_rank: int
    tested: int
    large: int
    tiny: int
    most_tiny: str
    ranks: tuple[int, ...]
    structure_p: float
    enough: bool
    share: str

    @property
    def seen(self) -> bool:
        """Whether the change shows structure."""
        return self.structure_p <= THRESHOLDS.structure_level


def rank_words(ranks: Sequence[int]) -> str:
    """Return ranks as the end of a sentence."""
    least, most = min(ranks, default=0), max(ranks, default=0)
    return f"rank {most}" if least == most else f"ranks {least} to {most}"


@dataclass(frozen=True)
class ChangeLabel:
    """What a difference may be called: like `pyspectra.report.verdicts.Label`, from `Changes`."""

    word: str
    style: str
    holds: Callable[[Changes], bool]
    sentence: str


CHANGE_LABELS = (
    ChangeLabel(
        "cannot be judged", "bold red", lambda c: not c.enough and 2 * c.tested >= c.moved,
        "Cannot be judged: only {share} of the parameters in matrices could be compared.",
    ),
    ChangeLabel(
        "unchanged", "green", lambda c: c.moved + c.tiny + c.rounded == 0,
        "Unchanged: the weight matrices are those of the base model, to the last bit.",
    ),
    ChangeLabel(
        "rounding only", "green", lambda c: c.moved + c.tiny == 0,
        "Rounding only: no entry of {rounded_layers} differs by more than one spacing of the "
        "coarser type, or half a step where its numbers are integers times a scale (int8, int4).",
    ),
    ChangeLabel(
        "cannot be judged", "bold red", lambda c: c.moved == 0,
        "Cannot be judged: only layers with fewer eigenvalues than 'min_evals' changed, by "
        "|dW|/|W| of {most_tiny}.",
    ),
    ChangeLabel(
        "cannot be judged", "bold red", lambda c: 2 * c.tested < c.moved,
        "Cannot be judged: {moved_layers} changed, and only {tested} could be tested.",
    ),
    ChangeLabel(
        "low rank", "cyan", lambda c: 2 * c.low_rank > c.moved,
        "Low rank: the changes of {low_rank} of {moved_layers} that moved have {rank_words}, as "
        "LoRA makes them; rounding explains the rest.",
    ),
    ChangeLabel(
        "cannot be judged", "bold red", lambda c: c.large == 0 and not c.seen,
        "Cannot be judged: all layers that moved are too small to tell (fewer than {few} "
        "eigenvalues).",
    ),
    ChangeLabel(
        "noise", "yellow", lambda c: not c.seen,
        "Noise: {moved_layers} changed by more than rounding explains, and no structure was "
        "detected in any change (least p-value times number of layers: {structure_p:.2g}). A "
        "fine-tuning may be too small to be told from noise.",
    ),
    ChangeLabel(
        "full", "bold", lambda c: True,
        "Full: {moved_layers} changed by more than rounding explains, with structure and without "
        "being of low rank (least p-value times number of layers: {structure_p:.2g}).",
    ),
)  # fmt: skip
LIMIT = "How a change shows in its spectrum says nothing of whether it made the model better."


def count_changes(
    layers: Sequence[LayerReport], skipped: Sequence[SkippedLayer], coverage: Coverage
) -> Changes:
    """Count what the label of a difference rests on."""
    codes = Counter(tensor.skip.code for tensor in skipped)
    tiny = [
        (tensor.skip.detail["relative"], tensor.name)
        for tensor in skipped
        if tensor.skip.code == "few_changed"
    ]
    tested = [p for p in map(random_p, layers) if not math.isnan(p)]
    ranks = sorted({layer.change_rank for layer in layers if layer.change_rank})
    return Changes(
        moved=len(layers),
        unchanged=codes["unchanged"],
        rounded=codes["rounding"],
        low_rank=sum(layer.change_rank > 0 for layer in layers),
        tested=len(tested),
        large=sum(not is_small(layer) for layer in layers),
        tiny=len(tiny),
        most_tiny=_most(tiny),
        ranks=tuple(ranks),
        structure_p=min(1.0, len(tested) * min(tested)) if tested else math.nan,
        enough=coverage.enough,
        share=percent(coverage.total - coverage.unread, coverage.total),
    )


def change_label(counts: Changes) -> ChangeLabel:
    """Return the label of a difference."""
    return next(label for label in CHANGE_LABELS if label.holds(counts))


def change_sentences(layers: Sequence[LayerReport], counts: Changes) -> list[str]:
    """Say what a difference is, which layers moved most, and which did not."""
    label = change_label(counts)
    told = [
        label.sentence.format(
            **vars(counts), rank_words=rank_words(counts.ranks), few=THRESHOLDS.few_evals,
            moved_layers=counted(counts.moved, "layer"),
            rounded_layers=counted(counts.rounded, "layer"),
        )
    ]  # fmt: skip
    moved = [(x.change.relative, x.label) for x in layers if x.change is not None]
    moved = [pair for pair in moved if math.isfinite(pair[0])]
    if moved:
        sizes = [size for size, _ in moved]
        told.append(f"|dW|/|W| is {min(sizes):.2g} to {max(sizes):.2g}, most in {_most(moved)}.")
    words = [change_word(layer) for layer in layers]
    for word in (NOISE, SMALL):
        if word in words and label.word != word:
            told.append(f"{counted(words.count(word), 'change')}: {word}.")
    if counts.moved and counts.tiny:
        told.append(
            f"{counted(counts.tiny, 'layer')} with fewer eigenvalues than 'min_evals' changed, "
            f"too: {counts.most_tiny}."
        )
    if counts.moved + counts.tiny and counts.rounded:
        told.append(f"{counted(counts.rounded, 'layer')} changed by rounding alone.")
    if counts.moved + counts.tiny + counts.rounded and counts.unchanged:
        told.append(f"{counted(counts.unchanged, 'layer')} did not change.")
    return told


def _most(changed: Sequence[tuple[float, str]]) -> str:
    """Name the layers that changed most, of pairs of |dW|/|W| and name."""
    first = sorted(changed, reverse=True)[:NAMES_SHOWN]
    return ", ".join(f"{printable(name)} {size:.2g}" for size, name in first)
