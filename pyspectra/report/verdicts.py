"""What the numbers mean, in words: per layer and for the whole model.

References
----------
Martin, Mahoney, "Implicit self-regularization in deep neural networks", JMLR 22 (2021):
well-trained layers have heavy tails with alpha between 2 and 6. WeightWatcher 0.7.7 uses the same
two bounds, and alpha alone.
Clauset, Shalizi, Newman, "Power-law distributions in empirical data", SIAM Review 51 (2009),
section 4.1: a power law is ruled out where its p-value is 0.1 or less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspectra.types import PowerLawFit, Status

if TYPE_CHECKING:
    from pyspectra.report.report import LayerReport

ALPHA_OVER_TRAINED = 2.0
ALPHA_UNDER_TRAINED = 6.0
IMPLAUSIBLE = 0.1
# The level of the test for randomness, by convention: of random layers one in a hundred passes for
# more than that.
RANDOM_LEVEL = 0.01

RANDOM = "random"
NO_POWER_LAW = "no power law"
OVER_TRAINED = "over-trained"
UNDER_TRAINED = "under-trained"

UNTRAINED = "untrained"
WELL_TRAINED = "well trained"
CANNOT_JUDGE = "cannot be judged"

# House convention, not from the literature: one layer in three colours the verdict of the model.
NOTABLE_SHARE = 1.0 / 3.0
# A model most of whose layers have no fit, or one that its p-value rules out, is not judged by the
# others.
MOST_FAILED = 0.5


def layer_warning(fit: PowerLawFit, random_p_value: float) -> str:
    """Return what is wrong with a layer, the first that applies; nothing without a fit.

    ``"random"``: its spectrum cannot be told from that of a random matrix of its shape, so that
    alpha says nothing. ``"no power law"``: the p-value of the fit, if one was asked for, rules the
    law out. ``"over-trained"``, ``"under-trained"``: alpha below 2, above 6.
    """
    if fit.status is not Status.OK:
        return ""
    if random_p_value > RANDOM_LEVEL:
        return RANDOM
    if fit.p_value <= IMPLAUSIBLE:
        return NO_POWER_LAW
    return alpha_warning(fit.alpha)


def alpha_warning(alpha: float) -> str:
    """``"over-trained"`` (alpha < 2), ``"under-trained"`` (alpha > 6), else ``""``."""
    if alpha < ALPHA_OVER_TRAINED:
        return OVER_TRAINED
    return UNDER_TRAINED if alpha > ALPHA_UNDER_TRAINED else ""


@dataclass(frozen=True)
class Verdict:
    """The judgement of a model.

    Attributes
    ----------
    label : str
        ``"well trained"``, ``"untrained"``, ``"under-trained"``, ``"over-trained"`` or ``"cannot
        be judged"``.
    text : str
        A few sentences that say so, with the counts they rest on.
    n_well_trained, n_under_trained, n_over_trained, n_random, n_no_power_law, n_failed : int
        Rows without a warning, with each of them (`layer_warning`), and without a fit.
    mean_alpha : float
        Over the rows that have a fit; NaN if none has.
    """

    label: str
    text: str
    n_well_trained: int
    n_under_trained: int
    n_over_trained: int
    n_random: int
    n_no_power_law: int
    n_failed: int
    mean_alpha: float


def judge(layers: Sequence[LayerReport], n_skipped: int) -> Verdict:
    """Judge a model by the status, the test for randomness, the p-value and alpha of its layers."""
    fitted = [layer for layer in layers if layer.fit.status is Status.OK]
    failed = len(layers) - len(fitted)
    n = len(fitted)
    counts = {
        warning: sum(layer.warning == warning for layer in fitted)
        for warning in ("", RANDOM, NO_POWER_LAW, OVER_TRAINED, UNDER_TRAINED)
    }
    mean = sum(layer.fit.alpha for layer in fitted) / n if fitted else math.nan
    label = _label(counts, n, failed)
    text = _sentences(label, counts, n, len(layers), mean)
    if failed:
        reasons = sorted({str(layer.status) for layer in layers if layer.status is not Status.OK})
        text += f" {failed} could not be fitted ({', '.join(reasons)})."
    if n_skipped:
        text += f" {n_skipped} {'tensor was' if n_skipped == 1 else 'tensors were'} not analysed."
    return Verdict(
        label=label,
        text=text,
        n_well_trained=counts[""],
        n_under_trained=counts[UNDER_TRAINED],
        n_over_trained=counts[OVER_TRAINED],
        n_random=counts[RANDOM],
        n_no_power_law=counts[NO_POWER_LAW],
        n_failed=failed,
        mean_alpha=mean,
    )


def _label(counts: dict[str, int], n: int, failed: int) -> str:
    # A power law that its p-value rules out tells no more than a fit that failed.
    if n == 0 or failed + counts[NO_POWER_LAW] > MOST_FAILED * (n + failed):
        return CANNOT_JUDGE
    notable = {w: count for w, count in counts.items() if w and count > NOTABLE_SHARE * n}
    if RANDOM in notable:
        return UNTRAINED
    if notable.get(UNDER_TRAINED, 0) >= max(counts[OVER_TRAINED], 1):
        return UNDER_TRAINED
    return OVER_TRAINED if OVER_TRAINED in notable else WELL_TRAINED


def _sentences(label: str, counts: dict[str, int], n: int, rows: int, mean: float) -> str:
    share = (
        f"{counts['']} of {n} {'layer has' if n == 1 else 'layers have'} a power-law tail with "
        f"alpha between {ALPHA_OVER_TRAINED:g} and {ALPHA_UNDER_TRAINED:g} (mean alpha {mean:.2f})"
    )
    if n == 0:
        return "No layer has a power-law fit, so there is nothing to judge."
    if label == CANNOT_JUDGE:
        left = n - counts[NO_POWER_LAW]
        text = f"Cannot be judged: only {left} of {rows} layers have a power-law fit"
        return f"{text}{' that holds (p > 0.1)' if left < n else ''}. {share}."
    text = {
        UNTRAINED: f"Untrained: {counts[RANDOM]} of {n} layers cannot be told from random matrices "
        "of their shapes, whatever their alpha.",
        UNDER_TRAINED: f"Under-trained: in {counts[UNDER_TRAINED]} of {n} layers alpha exceeds "
        f"{ALPHA_UNDER_TRAINED:g}, as in weights that are still close to random; {share}.",
        OVER_TRAINED: f"Over-trained or dominated by few directions: in {counts[OVER_TRAINED]} of "
        f"{n} layers alpha lies below {ALPHA_OVER_TRAINED:g}; {share}.",
        WELL_TRAINED: f"Well trained: {share}.",
    }[label]
    said = RANDOM if label == UNTRAINED else label
    for warning, one, many in (
        (RANDOM, "cannot be told from a random matrix", "cannot be told from random matrices"),
        (UNDER_TRAINED, "looks under-trained (alpha > 6)", "look under-trained (alpha > 6)"),
        (OVER_TRAINED, "looks over-trained (alpha < 2)", "look over-trained (alpha < 2)"),
        (NO_POWER_LAW, "follows no power law (p <= 0.1)", "follow no power law (p <= 0.1)"),
    ):
        count = counts[warning]
        if count and warning != said:
            text += f" 1 layer {one}." if count == 1 else f" {count} layers {many}."
    return text
