"""What a model is called, and the sentences that say why.

`LABELS` lists what a model may be called as records: its word, its colour and its first sentence
are written there and nowhere else; what is said of its layers is in `pyspectra.report.problems`. A
tail exponent is no accuracy, and every verdict says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pyspectra._support.text import counted
from pyspectra.report.changes import (
    CHANGE_LABELS,
    LOW_RANK,
    change_label,
    change_sentences,
    count_changes,
    rank_words,
)
from pyspectra.report.changes import LIMIT as CHANGE_LIMIT
from pyspectra.report.counts import Counts, count_layers
from pyspectra.report.coverage import Coverage, percent
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.layer import LayerReport
from pyspectra.report.problems import (
    HEAVY_TAIL,
    LIGHT_TAIL,
    NO_POWER_LAW,
    NO_STRUCTURE,
    TYPICAL_STYLE,
    UNJUDGED,
    WITHIN_ERROR,
    certainty,
    is_judged,
    problem_of,
)
from pyspectra.types import Status, Value
from pyspectra.weights import SkippedLayer


@dataclass(frozen=True)
class Label:
    """What a model may be called.

    Attributes
    ----------
    word : str
        `Verdict.label`.
    style : str
        Its colour, for rich.
    holds : callable
        ``holds(counts)`` tells whether the model may be called so; the first of `LABELS` that holds
        is the label.
    sentence : str
        The first sentence of the verdict; names in braces are fields of `Counts`,
        or one with ``_layers``, which counts them.
    """

    word: str
    style: str
    holds: Callable[[Counts], bool]
    sentence: str


_BETWEEN = (
    "alpha between {low:g} and {high:g} in {typical} of {judged_layers} that show structure and "
    "follow a power law, below in {heavy}, above in {light} (estimator {estimator}, "
    "mean alpha {mean:.2f})"
)
CANNOT = "cannot be judged"
_CANNOT_STYLE = "bold red"

NOTHING_TESTED = Label(
    CANNOT, _CANNOT_STYLE, lambda c: math.isnan(c.structure_p),
    "No layer has a spectrum, so there is nothing to judge.",
)  # fmt: skip
NOTHING_FITTED = Label(
    CANNOT, _CANNOT_STYLE, lambda c: c.n == 0,
    "No layer has a power-law fit, so there is nothing to judge.",
)  # fmt: skip
MOST_FAILED = Label(
    CANNOT, _CANNOT_STYLE, lambda c: c.untested > THRESHOLDS.most_failed * c.rows,
    "Cannot be judged: {untested} of {rows_layers} have no spectrum that could be tested.",
)  # fmt: skip
NOT_READ = Label(
    CANNOT, _CANNOT_STYLE, lambda c: not c.enough,
    "Cannot be judged: only {share} of the parameters in matrices could be analysed, and what is "
    "left over says nothing of the model.",
)  # fmt: skip
ALL_SMALL = Label(
    CANNOT, _CANNOT_STYLE, lambda c: c.large == 0,
    "Cannot be judged: all layers have fewer than {few} eigenvalues, too few to tell.",
)  # fmt: skip
NO_STRUCTURE_SEEN = Label(
    "no structure", NO_STRUCTURE.style, lambda c: not c.seen,
    "No structure detected in {any_layers}, whatever {their} alpha (least p-value times number "
    "of layers: {structure_p:.2g}): the weights may be untrained, or changed too little to see.",
)  # fmt: skip
SMALL_SEEN = Label(
    CANNOT, _CANNOT_STYLE, lambda c: not c.seen_in_large,
    "Cannot be judged: only layers with fewer than {few} eigenvalues show structure.",
)  # fmt: skip
NOT_CALIBRATED = Label(
    CANNOT, _CANNOT_STYLE, lambda c: not c.calibrated,
    "Cannot be judged by alpha: estimator {estimator} has no calibrated bounds (mean alpha "
    "{mean:.2f} over {judged_layers}). {shown} of {large_layers} show structure.",
)  # fmt: skip
FEW_FITTED = Label(
    CANNOT, _CANNOT_STYLE,
    lambda c: c.judged + c.lawless == 0 or c.rows - c.n > THRESHOLDS.most_failed * c.rows,
    "Cannot be judged: only {judged} of {rows_layers} have a power-law fit that holds and "
    "structure.",
)  # fmt: skip
UNDER_A_MASK = Label(
    CANNOT, _CANNOT_STYLE, lambda c: 2 * c.masked > c.judged + c.lawless,
    "Cannot be judged by alpha: about half of the entries or more are zero in {masked} of "
    "{tailed_layers} that show structure. A mask that training chose is structure, whatever the "
    "weights under it are, and no bounds of alpha are known for such matrices (estimator "
    "{estimator}, mean alpha {mean:.2f}).",
)  # fmt: skip
ALL_LAWLESS = Label(
    CANNOT, _CANNOT_STYLE, lambda c: c.judged == 0,
    "Cannot be judged by alpha: structure in {shown} of {large_layers}, and a power law in none "
    "(p <= {implausible:g}), so that there is no tail whose exponent could be named (estimator "
    "{estimator}).",
)  # fmt: skip
MOST_LAWLESS = Label(
    "mixed", "bold", lambda c: c.lawless > c.judged,
    "Mixed: structure in {shown} of {large_layers}, and no power law in {lawless} of them "
    f"(p <= {{implausible:g}}); {_BETWEEN}.",
)  # fmt: skip
TYPICAL = Label(
    "typical", TYPICAL_STYLE, lambda c: 2 * c.typical > c.judged, f"Typical: {_BETWEEN}."
)
HEAVY_TAILED = Label(
    "heavy-tailed", HEAVY_TAIL.style, lambda c: 2 * c.heavy > c.judged, f"Heavy-tailed: {_BETWEEN}."
)
LIGHT_TAILED = Label(
    "light-tailed", LIGHT_TAIL.style, lambda c: 2 * c.light > c.judged, f"Light-tailed: {_BETWEEN}."
)
MIXED = Label("mixed", "bold", lambda c: True, f"Mixed: {_BETWEEN}.")

LABELS = (
    NOTHING_TESTED, MOST_FAILED, NOT_READ, ALL_SMALL, NO_STRUCTURE_SEEN, SMALL_SEEN,
    NOTHING_FITTED, NOT_CALIBRATED, FEW_FITTED, UNDER_A_MASK, ALL_LAWLESS, MOST_LAWLESS,
    TYPICAL, HEAVY_TAILED, LIGHT_TAILED, MIXED,
)  # fmt: skip
# What the first sentence of a label tells already.
TOLD_FIRST = {NO_STRUCTURE_SEEN: NO_STRUCTURE, ALL_LAWLESS: NO_POWER_LAW,
              MOST_LAWLESS: NO_POWER_LAW}  # fmt: skip

# What is said of a file that holds nothing but LoRA updates.
ADAPTER = (
    "The model that they are added to was not analysed. Alpha of a change has no bounds, and says "
    "nothing of so few eigenvalues."
)
# Code of LoRA updates with fewer eigenvalues than a row needs.
SMALL_UPDATE = "small_update"
LIMIT = (
    "A model that memorised noise, was pruned or scrambled can have the same spectra: this is not "
    "accuracy."
)


@dataclass(frozen=True, eq=False)
class Verdict(Value):
    """The judgement of a model.

    Attributes
    ----------
    label : str
        ``"no structure"``, ``"typical"``, ``"heavy-tailed"``, ``"light-tailed"``, ``"mixed"`` or
        ``"cannot be judged"``; ``"unchanged"`` beside a base model that has the same weights.
    text : str
        A few sentences that say so, with the counts they rest on and what they do not say.
    n_typical, n_heavy_tail, n_light_tail : int
        Layers whose alpha lies between 2 and 6, below, above (`layer_warning`).
    n_no_structure, n_too_small, n_no_power_law, n_failed : int
        Layers whose alpha is not judged, by reason; those without a fit are the last.
    mean_alpha : float
        Over the layers that are judged; NaN if none is.
    structure_p : float
        Least p-value of "no structure" times the number of layers (Bonferroni), at most 1; NaN if
        nothing was tested.
    n_moved, n_rounding, n_unchanged : int
        With a base model: layers that changed by more than rounding explains, by rounding alone,
        and not at all.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> verdict = ps.analyze({"fc.weight": np.random.default_rng(0).random((60, 40)) - 0.5}).verdict
    >>> verdict.label, verdict.n_no_structure
    ('no structure', 1)
    """

    label: str
    text: str
    n_typical: int
    n_heavy_tail: int
    n_light_tail: int
    n_no_structure: int
    n_too_small: int
    n_no_power_law: int
    n_failed: int
    mean_alpha: float
    structure_p: float
    n_moved: int = 0
    n_rounding: int = 0
    n_unchanged: int = 0


def judge(
    layers: Sequence[LayerReport],
    skipped: Sequence[SkippedLayer],
    estimator: str,
    coverage: Coverage,
) -> Verdict:
    """Judge a model by its layers; LoRA updates tell their rank, those without a row included."""
    small = [tensor.skip.detail["rank"] for tensor in skipped if tensor.skip.code == SMALL_UPDATE]
    ranks = [*(layer.update_rank for layer in layers if layer.is_update), *small]
    own = [layer for layer in layers if not layer.is_update]
    told = [f"{counted(len(ranks), 'LoRA update')} of {rank_words(ranks)}."] if ranks else []
    others = rest(layers, coverage)
    counts = count_layers(own, coverage.enough)
    if ranks and not own:
        sentences = [f"Low rank: {told[0]}", ADAPTER, *others, CHANGE_LIMIT]
        return _verdict(LOW_RANK, sentences, layers, count_layers(layers))
    label = next(label for label in LABELS if label.holds(counts))
    sentences = [
        label.sentence.format(
            **vars(counts), **counts.layers, shown=counts.large - counts.silent,
            mean=_mean_alpha(own), estimator=estimator, few=THRESHOLDS.few_evals,
            low=THRESHOLDS.alpha_low, high=THRESHOLDS.alpha_high,
            implausible=THRESHOLDS.implausible,
            share=percent(coverage.total - coverage.unread, coverage.total),
        ),
        *_details(own, label, counts),
        *_precision(own),
        *told,
        *others,
        LIMIT,
    ]  # fmt: skip
    return _verdict(label.word, sentences, own, counts)


def judge_change(
    layers: Sequence[LayerReport], skipped: Sequence[SkippedLayer], coverage: Coverage
) -> Verdict:
    """Judge what changed since a base model.

    Parameters
    ----------
    layers : sequence of LayerReport
        The differences that are more than rounding.
    skipped : sequence of SkippedLayer
        What was not analysed, layers among it that did not change, or by rounding alone.
    coverage : Coverage
        How much of the model could be compared.
    """
    changes = count_changes(layers, skipped, coverage)
    sentences = [*change_sentences(layers, changes), *rest(layers, coverage), CHANGE_LIMIT]
    return replace(
        _verdict(change_label(changes).word, sentences, layers, count_layers(layers)),
        n_moved=changes.moved + changes.tiny,
        n_unchanged=changes.unchanged,
        n_rounding=changes.rounded,
    )


def style_of(word: str) -> str:
    """Return the colour of a label, for rich."""
    return next(label.style for label in (*LABELS, *CHANGE_LABELS) if label.word == word)


def _mean_alpha(layers: Sequence[LayerReport]) -> float:
    judged = [layer.alpha for layer in layers if is_judged(layer)]
    return sum(judged) / len(judged) if judged else math.nan


def _verdict(
    word: str, sentences: Sequence[str], layers: Sequence[LayerReport], counts: Counts
) -> Verdict:
    return Verdict(
        label=word,
        text=" ".join(sentences),
        n_typical=counts.typical,
        n_heavy_tail=counts.heavy,
        n_light_tail=counts.light,
        n_no_structure=counts.silent,
        n_too_small=counts.small,
        n_no_power_law=counts.lawless,
        n_failed=counts.rows - counts.n,
        mean_alpha=_mean_alpha(layers),
        structure_p=counts.structure_p,
    )


def _details(layers: Sequence[LayerReport], label: Label, counts: Counts) -> list[str]:
    """Return sentences about layers that the first one left out."""
    told = []
    for problem in UNJUDGED:
        count = sum(problem_of(layer) is problem for layer in layers)
        if count and TOLD_FIRST.get(label) is not problem:
            does = problem.one if count == 1 else problem.many
            does = does.format(threshold=problem.threshold(THRESHOLDS))
            told.append(f"{counted(count, 'layer')} {does}.")
    if label.word == CANNOT or not counts.seen:
        return told
    unsure = sum(certainty(layer) == WITHIN_ERROR for layer in layers)
    if unsure:
        lie = counted(unsure, "lies within its", "lie within their")
        told.append(f"{lie} error (1.96 standard errors) of a bound.")
    if counts.heavy or counts.light:
        told.append(
            f"WeightWatcher would call alpha between {THRESHOLDS.alpha_low:g} and "
            f"{THRESHOLDS.alpha_high:g} well-trained, below over-trained, above under-trained."
        )
    return told


def _precision(layers: Sequence[LayerReport]) -> list[str]:
    """Return the sentence about layers that were dequantised."""
    found = Counter(f"{layer.stored_as.bits:g}" for layer in layers if layer.stored_as)
    if not found:
        return []
    widths = " and ".join(sorted(found, key=float))
    were = counted(found.total(), "layer was", "layers were")
    return [
        f"{were} dequantised from {widths} bits, whose rounding is a part of the spectrum: it "
        "raises the smallest eigenvalues."
    ]


def rest(layers: Sequence[LayerReport], coverage: Coverage) -> list[str]:
    """Return sentences about what could not be fitted and how much was analysed."""
    told = []
    failed = [layer for layer in layers if layer.status is not Status.OK]
    if failed:
        reasons = sorted({layer.status.words for layer in failed})
        told.append(f"{len(failed)} could not be fitted ({', '.join(reasons)}).")
    return told + coverage.sentences
