"""What the numbers mean, in words: per layer and for the whole model.

References
----------
Martin, Mahoney, "Implicit self-regularization in deep neural networks", JMLR 22 (2021):
well-trained layers have heavy tails with alpha between 2 and 6. WeightWatcher 0.7.7 uses the same
two bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspectra.types import PowerLawFit, Status

if TYPE_CHECKING:
    from pyspectra.diagnostics.report import LayerReport

ALPHA_OVER_TRAINED = 2.0
ALPHA_UNDER_TRAINED = 6.0
OVER_TRAINED = "over-trained"
UNDER_TRAINED = "under-trained"

# House convention, not from the literature: one layer in three colours the verdict of the model.
NOTABLE_SHARE = 1.0 / 3.0
# A model most of whose layers have no fit is not judged by the others.
MOST_FAILED = 0.5
CANNOT_JUDGE = "cannot be judged"


def layer_warning(fit: PowerLawFit) -> str:
    """``"over-trained"`` (alpha < 2), ``"under-trained"`` (alpha > 6), else (no fit too) ``""``."""
    if fit.status is not Status.OK:
        return ""
    if fit.alpha < ALPHA_OVER_TRAINED:
        return OVER_TRAINED
    if fit.alpha > ALPHA_UNDER_TRAINED:
        return UNDER_TRAINED
    return ""


@dataclass(frozen=True)
class Verdict:
    """The judgement of a model.

    Attributes
    ----------
    label : str
        ``"well trained"``, ``"under-trained"``, ``"over-trained"`` or ``"cannot be judged"``.
    text : str
        A few sentences that say so, with the counts they rest on.
    n_well_trained, n_under_trained, n_over_trained, n_failed : int
        Rows with alpha in [2, 6], above, below, and without a fit.
    mean_alpha : float
        Over the rows that have a fit; NaN if none has.
    """

    label: str
    text: str
    n_well_trained: int
    n_under_trained: int
    n_over_trained: int
    n_failed: int
    mean_alpha: float


def judge(layers: Sequence[LayerReport], n_skipped: int) -> Verdict:
    """Judge a model by the alphas of its layers."""
    fitted = [layer for layer in layers if layer.fit.status is Status.OK]
    under = sum(layer.warning == UNDER_TRAINED for layer in fitted)
    over = sum(layer.warning == OVER_TRAINED for layer in fitted)
    well = len(fitted) - under - over
    failed = len(layers) - len(fitted)
    mean = sum(layer.fit.alpha for layer in fitted) / len(fitted) if fitted else math.nan
    if not fitted:
        label = CANNOT_JUDGE
        text = "No layer has a power-law fit, so there is nothing to judge."
    elif failed > MOST_FAILED * len(layers):
        label = CANNOT_JUDGE
        text = (
            f"Cannot be judged: only {len(fitted)} of {len(layers)} layers have a power-law fit "
            f"({well} well trained, {under} under-trained, {over} over-trained)."
        )
    else:
        n = len(fitted)
        share = (
            f"{well} of {n} {'layer has' if n == 1 else 'layers have'} a power-law tail with alpha "
            f"between {ALPHA_OVER_TRAINED:g} and {ALPHA_UNDER_TRAINED:g} (mean alpha {mean:.2f})"
        )
        if under > NOTABLE_SHARE * n and under >= over:
            label = UNDER_TRAINED
            text = (
                f"Under-trained: in {under} of {n} layers alpha exceeds {ALPHA_UNDER_TRAINED:g}, "
                "as in weights that are still close to random; "
                f"{share}."
            )
        elif over > NOTABLE_SHARE * n:
            label = OVER_TRAINED
            text = (
                f"Over-trained or dominated by few directions: in {over} of {n} layers alpha lies "
                f"below {ALPHA_OVER_TRAINED:g}; {share}."
            )
        else:
            label = "well trained"
            text = f"Well trained: {share}."
            if under:
                text += f" {_looks(under)} under-trained (alpha > {ALPHA_UNDER_TRAINED:g})."
            if over:
                text += f" {_looks(over)} over-trained (alpha < {ALPHA_OVER_TRAINED:g})."
    if failed:
        reasons = sorted({str(layer.status) for layer in layers if layer.status is not Status.OK})
        text += f" {failed} could not be fitted ({', '.join(reasons)})."
    if n_skipped:
        text += f" {n_skipped} {'tensor was' if n_skipped == 1 else 'tensors were'} not analysed."
    return Verdict(label, text, well, under, over, failed, mean)


def _looks(count: int) -> str:
    return f"{count} layer looks" if count == 1 else f"{count} layers look"
