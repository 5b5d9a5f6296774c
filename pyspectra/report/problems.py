"""What the numbers of a layer mean, in words.

`PROBLEMS` lists what may be said of a layer as records: its words, its colour and its sentences are
written there and nowhere else. The numbers that they are held against, with their sources, are
`pyspectra.report.findings.Thresholds`. No word says more than was measured: a test that finds no
structure has not found randomness. WeightWatcher's words are in `pyspectra.report.weightwatcher`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyspectra.report.findings import THRESHOLDS, Finding, Thresholds
from pyspectra.report.layer import LayerReport
from pyspectra.spectra.estimators import CALIBRATED
from pyspectra.types import PowerLawFit, Status
from pyspectra.weights import SkippedLayer

NO_FIT = "no_fit"
CLEARLY, WITHIN_ERROR = "clearly", "within its error"


@dataclass(frozen=True)
class Evidence:
    """What a layer is judged by.

    Attributes
    ----------
    fit : PowerLawFit
    random_p : float
        P-value of "no structure"; NaN if that was not tested.
    n_evals : int
        Number of eigenvalues.
    is_change : bool
        Whether it is the difference of two models.
    """

    fit: PowerLawFit
    random_p: float
    n_evals: int
    is_change: bool = False

    @property
    def calibrated(self) -> bool:
        """Whether alpha has known bounds: for this estimator, and for weights, not for changes."""
        return not self.is_change and self.fit.estimator.partition("(")[0] in CALIBRATED


@dataclass(frozen=True)
class Problem:
    """One thing that may be said of a layer that has a fit.

    Attributes
    ----------
    word : str
        What the layer is called: `LayerReport.warning`.
    short : str
        The same where a terminal is narrow.
    code, severity : str
        Code and severity of its finding.
    style : str
        Its colour, for rich.
    holds : callable
        ``holds(evidence, thresholds)`` tells whether it is to be said.
    quantity : str
        Name of what was measured.
    value, threshold : callable
        ``value(evidence)`` is what was measured, ``threshold(thresholds)`` what it is held against.
    one, many : str
        What the layer does, or several layers do, after their number.
    """

    word: str
    short: str
    code: str
    severity: str
    style: str
    holds: Callable[[Evidence, Thresholds], bool]
    quantity: str
    value: Callable[[Evidence], float]
    threshold: Callable[[Thresholds], float]
    one: str
    many: str


TOO_SMALL = Problem(
    word="too small to tell", short="small", code="too_small", severity="info", style="dim",
    holds=lambda e, t: e.n_evals < t.few_evals,
    quantity="eigenvalues",
    value=lambda e: e.n_evals,
    threshold=lambda t: t.few_evals,
    one="is too small to tell (fewer than {threshold:g} eigenvalues)",
    many="are too small to tell (fewer than {threshold:g} eigenvalues)",
)  # fmt: skip
NO_STRUCTURE = Problem(
    word="no structure detected", short="no struct.", code="no_structure", severity="warning",
    style="cyan",
    holds=lambda e, t: e.random_p > t.random_level,
    quantity="p",
    value=lambda e: e.random_p,
    threshold=lambda t: t.random_level,
    one="shows no structure (p > {threshold:g})",
    many="show no structure (p > {threshold:g})",
)  # fmt: skip
NO_POWER_LAW = Problem(
    word="no power law", short="no law", code="no_power_law", severity="warning", style="blue",
    holds=lambda e, t: e.fit.p_value <= t.implausible,
    quantity="p",
    value=lambda e: e.fit.p_value,
    threshold=lambda t: t.implausible,
    one="follows no power law (p <= {threshold:g})",
    many="follow no power law (p <= {threshold:g})",
)  # fmt: skip
HEAVY_TAIL = Problem(
    word="heavy tail", short="heavy", code="heavy_tail", severity="warning", style="magenta",
    holds=lambda e, t: e.calibrated and e.fit.alpha < t.alpha_low,
    quantity="alpha",
    value=lambda e: e.fit.alpha,
    threshold=lambda t: t.alpha_low,
    one="has a heavy tail (alpha < {threshold:g})",
    many="have a heavy tail (alpha < {threshold:g})",
)  # fmt: skip
LIGHT_TAIL = Problem(
    word="light tail", short="light", code="light_tail", severity="warning", style="yellow",
    holds=lambda e, t: e.calibrated and e.fit.alpha > t.alpha_high,
    quantity="alpha",
    value=lambda e: e.fit.alpha,
    threshold=lambda t: t.alpha_high,
    one="has a light tail (alpha > {threshold:g})",
    many="have a light tail (alpha > {threshold:g})",
)  # fmt: skip

# The first that holds is what is said of a layer.
PROBLEMS = (TOO_SMALL, NO_STRUCTURE, NO_POWER_LAW, HEAVY_TAIL, LIGHT_TAIL)
# The problems with which there is no tail that alpha could be the exponent of.
UNJUDGED = (TOO_SMALL, NO_STRUCTURE, NO_POWER_LAW)
TYPICAL_STYLE = "green"


def layer_warning(
    fit: PowerLawFit, random_p: float, n_evals: int, *, is_change: bool = False
) -> str:
    """Return what is to be said of a layer, the first that applies; nothing without a fit.

    ``"too small to tell"``: fewer than 32 eigenvalues. ``"no structure detected"``: the test for
    structure does not reject, so that alpha says nothing. ``"no power law"``: the goodness of the
    fit rules the law out. ``"heavy tail"``, ``"light tail"``: alpha below 2, above 6, where these
    bounds are those of the estimator, and not of what changed since a base model.
    """
    if fit.status is not Status.OK:
        return ""
    found = Evidence(fit, random_p, n_evals, is_change)
    return next((p.word for p in PROBLEMS if p.holds(found, THRESHOLDS)), "")


def certainty(layer: LayerReport) -> str:
    """Return how sure it is on which side of 2 and 6 alpha lies: nothing where it is not judged.

    ``"within its error"``: a bound is nearer than 1.96 standard errors; ``"clearly"`` otherwise.
    """
    problem = problem_of(layer)
    if layer.status is not Status.OK or problem in UNJUDGED or not evidence(layer).calibrated:
        return ""
    bounds = (THRESHOLDS.alpha_low, THRESHOLDS.alpha_high)
    margin = min(abs(layer.alpha - bound) for bound in bounds)
    return CLEARLY if margin > THRESHOLDS.errors * layer.fit.alpha_stderr else WITHIN_ERROR


def problem_of(layer: LayerReport) -> Problem | None:
    """Return the record of a layer's warning; None if there is none or nothing was fitted."""
    return next((p for p in PROBLEMS if p.word == layer.warning), None)


def is_judged(layer: LayerReport) -> bool:
    """Tell whether alpha of a layer says something: there is a fit, structure, and a power law."""
    return layer.status is Status.OK and problem_of(layer) not in UNJUDGED


def has_tail(layer: LayerReport) -> bool:
    """Tell whether alpha of a layer describes something, be it no power law."""
    return is_judged(layer) or problem_of(layer) is NO_POWER_LAW


def is_small(layer: LayerReport) -> bool:
    """Tell whether a layer that has a spectrum is too small to tell."""
    return layer.esd.status is Status.OK and len(layer.esd.evals) < THRESHOLDS.few_evals


def random_p(layer: LayerReport) -> float:
    """Return the p-value of "no structure" of a layer; NaN if it was not tested."""
    return float(layer.metrics.get("random_p_value", math.nan))


def evidence(layer: LayerReport) -> Evidence:
    """Return what a layer is judged by."""
    is_change = layer.change is not None or layer.is_update
    return Evidence(layer.fit, random_p(layer), len(layer.esd.evals), is_change)


def layer_finding(layer: LayerReport) -> Finding | None:
    """Return what is to be said of a layer as a finding; None if nothing is."""
    if layer.status is not Status.OK:
        return Finding(
            code=NO_FIT,
            severity="error" if layer.status is Status.NOT_FINITE else "warning",
            where=layer.label,
            message=f"{layer.label} has no power-law fit: {layer.status.words}.",
            evidence={"status": str(layer.status)},
        )
    problem = problem_of(layer)
    if problem is None:
        return None
    value, threshold = problem.value(evidence(layer)), problem.threshold(THRESHOLDS)
    does = problem.one.format(threshold=threshold)
    sure = certainty(layer)
    sure = f", {sure}" if sure else ""
    return Finding(
        code=problem.code,
        severity=problem.severity,
        where=layer.label,
        value=value,
        threshold=threshold,
        message=f"{layer.label} {does}: {problem.quantity} = {value:.3g}{sure}.",
        evidence={"alpha": layer.alpha, "alpha_stderr": layer.fit.alpha_stderr},
    )


def kind_finding(layer: LayerReport) -> Finding | None:
    """Say of a layer that its kind, and so its matrices, are guessed; None if they are known."""
    if not layer.could_be or layer.slice_id not in (None, 0):
        return None
    others = " or ".join(layer.could_be)
    return Finding(
        code="kind_guessed",
        severity="info",
        where=layer.name,
        message=f"{layer.name} is taken for {layer.kind}: by its name and shape it could be "
        f"{others} as well, whose matrices are others.",
        advice=("Pass the module, which knows what its layers are.",),
        evidence={"kind": layer.kind, "could_be": list(layer.could_be)},
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


def find(layers: Sequence[LayerReport], skipped: Sequence[SkippedLayer]) -> tuple[Finding, ...]:
    """Return what is to be said of the layers, in their order, and what was not read."""
    found = (
        *map(layer_finding, layers),
        *map(kind_finding, layers),
        *map(skip_finding, skipped),
    )
    return tuple(finding for finding in found if finding is not None)
