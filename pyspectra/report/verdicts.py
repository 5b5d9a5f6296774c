"""What the numbers mean, in words: per layer, and for the whole model.

`PROBLEMS` lists what may be wrong with a layer, `LABELS` what a model may be called. Both are
records: their words, their colours and their sentences are written here and nowhere else. The
numbers that they are held against, with their sources, are `pyspectra.report.findings.Thresholds`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pyspectra.report.findings import THRESHOLDS, Finding, Thresholds
from pyspectra.report.layer import LayerReport
from pyspectra.types import PowerLawFit, Status, Value
from pyspectra.weights import SkippedLayer

NO_FIT = "no_fit"


@dataclass(frozen=True)
class Problem:
    """One thing that may be wrong with a layer that has a fit.

    Attributes
    ----------
    word : str
        What the layer is called: `LayerReport.warning`.
    short : str
        The same where a terminal is narrow.
    code, severity : str
        Of its finding.
    style : str
        Its colour, for rich.
    holds : callable
        Of the fit, the p-value of "a random matrix" and the thresholds: whether it is so.
    quantity : str
        Name of what was measured.
    value, threshold : callable
        What was measured, of the fit and that p-value; and against what it was held.
    one, many : str
        What the layer does, or several layers do, after their number.
    """

    word: str
    short: str
    code: str
    severity: str
    style: str
    holds: Callable[[PowerLawFit, float, Thresholds], bool]
    quantity: str
    value: Callable[[PowerLawFit, float], float]
    threshold: Callable[[Thresholds], float]
    one: str
    many: str


RANDOM = Problem(
    word="random", short="random", code="random_layer", severity="warning", style="cyan",
    holds=lambda fit, p, t: p > t.random_level,
    quantity="p",
    value=lambda fit, p: p,
    threshold=lambda t: t.random_level,
    one="cannot be told from a random matrix",
    many="cannot be told from random matrices",
)  # fmt: skip
NO_POWER_LAW = Problem(
    word="no power law", short="no law", code="no_power_law", severity="warning", style="blue",
    holds=lambda fit, p, t: fit.p_value <= t.implausible,
    quantity="p",
    value=lambda fit, p: fit.p_value,
    threshold=lambda t: t.implausible,
    one="follows no power law (p <= {threshold:g})",
    many="follow no power law (p <= {threshold:g})",
)  # fmt: skip
OVER_TRAINED = Problem(
    word="over-trained", short="over", code="over_trained", severity="warning", style="magenta",
    holds=lambda fit, p, t: fit.alpha < t.alpha_low,
    quantity="alpha",
    value=lambda fit, p: fit.alpha,
    threshold=lambda t: t.alpha_low,
    one="looks over-trained (alpha < {threshold:g})",
    many="look over-trained (alpha < {threshold:g})",
)  # fmt: skip
UNDER_TRAINED = Problem(
    word="under-trained", short="under", code="under_trained", severity="warning", style="yellow",
    holds=lambda fit, p, t: fit.alpha > t.alpha_high,
    quantity="alpha",
    value=lambda fit, p: fit.alpha,
    threshold=lambda t: t.alpha_high,
    one="looks under-trained (alpha > {threshold:g})",
    many="look under-trained (alpha > {threshold:g})",
)  # fmt: skip

# The first that holds is what is wrong with a layer.
PROBLEMS = (RANDOM, NO_POWER_LAW, OVER_TRAINED, UNDER_TRAINED)
# The order in which a verdict mentions them.
_MENTIONED = (RANDOM, UNDER_TRAINED, OVER_TRAINED, NO_POWER_LAW)


@dataclass(frozen=True)
class Label:
    """What a model may be called.

    Attributes
    ----------
    word : str
        `Verdict.label`.
    style : str
        Its colour, for rich.
    sentence : str
        The first sentence of the verdict; names in braces are fields of `_Counts`.
    problem : Problem or None
        The problem that the sentence speaks of already.
    """

    word: str
    style: str
    sentence: str
    problem: Problem | None = None


UNTRAINED = Label(
    "untrained", RANDOM.style,
    "Untrained: {random_layer} of {n} layers cannot be told from random matrices of their shapes, "
    "whatever their alpha.",
    RANDOM,
)  # fmt: skip
UNDER = Label(
    UNDER_TRAINED.word, UNDER_TRAINED.style,
    "Under-trained: in {under_trained} of {n} layers alpha exceeds {alpha_high:g}, as in weights "
    "that are still close to random; {share}.",
    UNDER_TRAINED,
)  # fmt: skip
OVER = Label(
    OVER_TRAINED.word, OVER_TRAINED.style,
    "Over-trained or dominated by few directions: in {over_trained} of {n} layers alpha lies below "
    "{alpha_low:g}; {share}.",
    OVER_TRAINED,
)  # fmt: skip
WELL_TRAINED = Label("well trained", "green", "Well trained: {share}.")
NOTHING_FITTED = Label(
    "cannot be judged", "bold red",
    "No layer has a power-law fit, so there is nothing to judge.",
)  # fmt: skip
UNCHANGED = Label(
    "unchanged", "green",
    "Unchanged: the weights are those of the base model, to the last bit.",
)  # fmt: skip
FEW_FITTED = Label(
    "cannot be judged", "bold red",
    "Cannot be judged: only {left} of {rows} layers have a power-law fit{that_holds}. {share}.",
)  # fmt: skip

LABELS = (UNTRAINED, UNDER, OVER, WELL_TRAINED, UNCHANGED, NOTHING_FITTED, FEW_FITTED)


# --- one layer ----------------------------------------------------------------------------------


def layer_warning(fit: PowerLawFit, random_p_value: float) -> str:
    """Return what is wrong with a layer, the first that applies; nothing without a fit.

    ``"random"``: its spectrum cannot be told from that of a random matrix of its shape, so that
    alpha says nothing. ``"no power law"``: the p-value of the fit, if one was asked for, rules the
    law out. ``"over-trained"``, ``"under-trained"``: alpha below 2, above 6.
    """
    problem = None
    if fit.status is Status.OK:
        problem = _first(PROBLEMS, fit, random_p_value)
    return problem.word if problem else ""


def alpha_warning(fit: PowerLawFit) -> str:
    """Return what alpha alone says of a fit: ``"over-trained"``, ``"under-trained"`` or ``""``."""
    problem = _first((OVER_TRAINED, UNDER_TRAINED), fit, math.nan)
    return problem.word if problem else ""


def _first(problems: Sequence[Problem], fit: PowerLawFit, random_p: float) -> Problem | None:
    return next((p for p in problems if p.holds(fit, random_p, THRESHOLDS)), None)


def problem_of(layer: LayerReport) -> Problem | None:
    """Return the record of a layer's warning; None if nothing is wrong or nothing was fitted."""
    return next((p for p in PROBLEMS if p.word == layer.warning), None)


def layer_finding(layer: LayerReport) -> Finding | None:
    """Return what is wrong with a layer as a finding; None if nothing is."""
    if layer.status is not Status.OK:
        return Finding(
            code=NO_FIT,
            severity="error" if layer.status is Status.NOT_FINITE else "warning",
            where=layer.label,
            message=f"{layer.label} has no power-law fit: {words(layer.status)}.",
            evidence={"status": str(layer.status)},
        )
    problem = problem_of(layer)
    if problem is None:
        return None
    random_p = float(layer.metrics.get("random_p_value", math.nan))
    value, threshold = problem.value(layer.fit, random_p), problem.threshold(THRESHOLDS)
    does = problem.one.format(threshold=threshold)
    return Finding(
        code=problem.code,
        severity=problem.severity,
        where=layer.label,
        value=value,
        threshold=threshold,
        message=f"{layer.label} {does}: {problem.quantity} = {value:.3g}.",
        evidence={"alpha": layer.alpha, "alpha_stderr": layer.fit.alpha_stderr},
    )


def skip_finding(skipped: SkippedLayer) -> Finding | None:
    """Return a tensor that should have been analysed, and could not be, as a finding."""
    if not skipped.failed:
        return None
    return Finding(
        code=skipped.skip.code,
        severity="error",
        where=skipped.name,
        message=f"{skipped.name}: {skipped.reason}.",
        evidence=dict(skipped.skip.detail),
    )


def words(status: Status) -> str:
    """Return a status as words of a sentence."""
    return str(status).replace("_", " ")


# --- the whole model ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Verdict(Value):
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

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> verdict = ps.analyze({"fc.weight": np.random.default_rng(0).random((60, 40)) - 0.5}).verdict
    >>> verdict.label, verdict.n_random
    ('untrained', 1)
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


def find(layers: Sequence[LayerReport], skipped: Sequence[SkippedLayer]) -> tuple[Finding, ...]:
    """Return what is wrong with the layers of a model, in their order, and what was not read."""
    found = (*map(layer_finding, layers), *map(skip_finding, skipped))
    return tuple(finding for finding in found if finding is not None)


def judge(
    layers: Sequence[LayerReport],
    findings: Sequence[Finding],
    n_skipped: int,
    n_unchanged: int = 0,
) -> Verdict:
    """Judge a model by the findings on its layers.

    `n_unchanged` counts the layers that are left out because a base model has the very same.
    """
    fitted = [layer for layer in layers if layer.status is Status.OK]
    counts = Counter(finding.code for finding in findings)
    well = len(fitted) - sum(counts[problem.code] for problem in PROBLEMS)
    mean = sum(layer.alpha for layer in fitted) / len(fitted) if fitted else math.nan
    failed = counts[NO_FIT]
    label = UNCHANGED if n_unchanged and not layers else _label(counts, len(fitted))
    text = _sentences(label, counts, well, len(fitted), mean)
    if failed:
        reasons = sorted({str(layer.status) for layer in layers if layer.status is not Status.OK})
        text += f" {failed} could not be fitted ({', '.join(reasons)})."
    if n_skipped:
        text += f" {n_skipped} {'tensor was' if n_skipped == 1 else 'tensors were'} not analysed."
    return Verdict(
        label=label.word,
        text=text,
        n_well_trained=well,
        n_under_trained=counts[UNDER_TRAINED.code],
        n_over_trained=counts[OVER_TRAINED.code],
        n_random=counts[RANDOM.code],
        n_no_power_law=counts[NO_POWER_LAW.code],
        n_failed=failed,
        mean_alpha=mean,
    )


def _label(counts: Mapping[str, int], n: int) -> Label:
    if n == 0:
        return NOTHING_FITTED
    # A power law that its p-value rules out tells no more than a fit that failed.
    lost = counts[NO_FIT] + counts[NO_POWER_LAW.code]
    if lost > THRESHOLDS.most_failed * (n + counts[NO_FIT]):
        return FEW_FITTED
    notable = {p.code for p in PROBLEMS if counts[p.code] > THRESHOLDS.notable_share * n}
    if RANDOM.code in notable:
        return UNTRAINED
    over, under = counts[OVER_TRAINED.code], counts[UNDER_TRAINED.code]
    if UNDER_TRAINED.code in notable and under >= max(over, 1):
        return UNDER
    return OVER if OVER_TRAINED.code in notable else WELL_TRAINED


def _sentences(label: Label, counts: Mapping[str, int], well: int, n: int, mean: float) -> str:
    left = n - counts[NO_POWER_LAW.code]
    held = f" that holds (p > {THRESHOLDS.implausible:g})" if left < n else ""
    share = (
        f"{well} of {n} {'layer has' if n == 1 else 'layers have'} a power-law tail with alpha "
        f"between {THRESHOLDS.alpha_low:g} and {THRESHOLDS.alpha_high:g} (mean alpha {mean:.2f})"
    )
    text = label.sentence.format(
        share=share, n=n, rows=n + counts[NO_FIT], left=left, that_holds=held,
        alpha_low=THRESHOLDS.alpha_low, alpha_high=THRESHOLDS.alpha_high,
        **{problem.code: counts[problem.code] for problem in PROBLEMS},
    )  # fmt: skip
    if label in (UNCHANGED, NOTHING_FITTED, FEW_FITTED):
        return text
    for problem in _MENTIONED:
        count = counts[problem.code]
        if count and problem is not label.problem:
            does = (problem.one if count == 1 else problem.many).format(
                threshold=problem.threshold(THRESHOLDS)
            )
            text += f" {count} {'layer' if count == 1 else 'layers'} {does}."
    return text
