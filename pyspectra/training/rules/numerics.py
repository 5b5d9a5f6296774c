"""Numbers of the steps: not finite, exploding, vanishing, too long, too short, rounded away."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyspectra._support.text import counted
from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import (
    GradientNorms,
    LossCurve,
    NonFinite,
    RecentSteps,
    TensorStep,
)
from pyspectra.training.rules.learning import LearningThresholds, is_stuck, loss_falls
from pyspectra.training.rules.registry import listed, rule

SYMPTOMS = ("exploding_gradient", "divergence", "loss_spike", "not_learning", "plateau",
            "oscillation", "update_ratio", "vanishing_gradient", "zero_gradient",
            "accuracy_paradox", "dead_units", "step_has_no_effect")  # fmt: skip


@dataclass(frozen=True)
class NumericThresholds(LearningThresholds):
    """Thresholds of the rules of numerics.

    Attributes
    ----------
    explosion : float
        A gradient explodes if its norm exceeds this many times the median of the last hundred.
        House convention.
    explosion_checks : int
        Checks in a row that must say so.
    explosion_mean : float
        Mean magnitude of a tensor's gradient that no training has. TheDeepChecker's 1e6.
    vanishing : float
        Relative signal (gradient over weight norm) of the first matrix over that of the last.
        AUTOTRAINER's ratio of 1e-3, which it too applies only where the model does not learn.
    update_low, update_high, update_error : float
        Median of |dw|/|w| over recent steps. Karpathy: 1e-3 is healthy. TheDeepChecker warns
        outside 1e-4 to 1e-1, SageMaker Debugger outside 1e-8 to 10, DeepDiagnosis outside 1e-5
        to 1e-1.
    jump, jump_rms : float
        The same of the first three steps, half of the matrices, if their entries are larger than
        `jump_rms`. Adam's first step is lr over the size of an entry, 0.05 for the defaults of a
        wide layer.
    update_checks : int
        Checks whose median is taken, at least.
    rate_first, rate_last : int
        Between these steps a learning rate that was zero in every step so far is reported: no
        warm-up is so slow, and later the first steps are forgotten.
    least_rms : float
        Weights smaller than this have no scale to compare an update with.
    collapse : float
        Share of their first norm below which matrices have been decayed away. House convention.
    lost : float
        Share of the elements whose updates are lost to rounding. Under rounding to nearest each
        update below 2^-9 of its weight is lost in bfloat16.
    """

    explosion: float = 10.0
    explosion_checks: int = 3
    explosion_mean: float = 1e6
    vanishing: float = 1e-3
    update_low: float = 1e-6
    update_high: float = 1e-1
    update_error: float = 1.0
    jump: float = 3.0
    jump_rms: float = 1e-3
    update_checks: int = 5
    rate_first: int = 50
    rate_last: int = 1000
    least_rms: float = 1e-8
    collapse: float = 1e-3
    lost: float = 0.5


_ADVICE = {
    "inputs": ("clean the data: it has NaN or Inf before the model sees it",),
    "targets": ("clean the targets: they have NaN or Inf",),
    "outputs": (
        "add an epsilon to log, exp, sqrt and divisions there; use log_softmax",
        "in float16 use bfloat16 or a GradScaler",
        "lower the learning rate and clip gradients",
    ),
    "loss": (
        "use log_softmax and losses on logits, not the logarithm of probabilities",
        "add an epsilon to log, sqrt and divisions",
    ),
    "gradient": (
        "lower the learning rate by a factor of 10, and clip gradients to norm 1",
        "sqrt and norms have infinite derivatives at 0: add an epsilon",
    ),
    "weight": ("lower the learning rate by a factor of 10", "clip gradients to norm 1"),
}

_GROWN = ("divide the learning rate by 10: the loss had grown many times over before",)


@rule("D12", "nonfinite", needs=NonFinite, explains=SYMPTOMS)
def nonfinite(facts: NonFinite, thresholds: NumericThresholds) -> Iterator[Finding]:
    """There is a NaN or an infinity."""
    place = {
        "inputs": "the inputs", "targets": "the targets", "loss": "the loss",
        "outputs": f"the output of {facts.name or 'the model'}",
        "gradient": f"the gradient of {facts.name}",
        "weight": f"the weights of {facts.name}",
    }[facts.place]  # fmt: skip
    size = "" if facts.max_abs is None else f" (largest input {facts.max_abs:.3g})"
    half = ", float16 ends at 65504" if facts.dtype == "float16" else ""
    yield Finding(
        code="nonfinite",
        severity="error",
        where=facts.name or facts.place,
        step=facts.step,
        message=f"The first {facts.what} is in {place} at step {facts.step}{size}{half}.",
        advice=(*_GROWN, *_ADVICE[facts.place]) if facts.grew else _ADVICE[facts.place],
        evidence={"place": facts.place, "what": facts.what, "max_abs": facts.max_abs},
    )


@rule("D13", "exploding_gradient", needs=GradientNorms, severity="warning",
      explains=("loss_spike",))  # fmt: skip
def exploding_gradient(facts: GradientNorms, thresholds: NumericThresholds) -> Iterator[Finding]:
    """The gradient is many times what it was, and the loss does not fall."""
    k = thresholds.explosion_checks
    norms = facts.norms[np.isfinite(facts.norms)]
    if _falls(facts.curve) or len(norms) < 4 * k:
        return
    usual = float(np.median(norms[-100:-k]))
    recent = norms[-k:]
    if usual > 0 and float(recent.min()) > thresholds.explosion * usual:
        ratio = float(recent[-1]) / usual
        yield Finding(
            code="exploding_gradient",
            severity="warning",
            step=facts.step,
            value=ratio,
            threshold=thresholds.explosion,
            message=f"The gradient norm is {ratio:.3g} times its median.",
            advice=("clip gradients to norm 1", "divide the learning rate by 3", "add a warm-up"),
            evidence={"norm": float(recent[-1]), "median": usual},
        )


def _falls(curve: LossCurve | None) -> bool:
    return curve is not None and bool(loss_falls(curve.losses))


@rule("D14", "vanishing_gradient", needs=RecentSteps, severity="warning",
      explains=("not_learning", "plateau"))  # fmt: skip
def vanishing_gradient(facts: RecentSteps, thresholds: NumericThresholds) -> Iterator[Finding]:
    """The first layers get next to no gradient, and the loss does not move."""
    if not (facts.warm_steps and is_stuck(facts.curve, thresholds)):
        return
    signals = _median_signals(facts)
    known = [signals[t.name] for t in facts.steps[-1] if _is_matrix(t) and t.name in signals]
    if len(known) < 3 or known[-1] <= 0:
        return
    ratio = known[0] / known[-1]
    if 0 < ratio < thresholds.vanishing:
        yield Finding(
            code="vanishing_gradient",
            severity="warning",
            where=next(t.name for t in facts.steps[-1] if _is_matrix(t)),
            step=facts.step,
            value=ratio,
            threshold=thresholds.vanishing,
            message=(
                f"The first layer receives {ratio:.2g} of the last layer's relative gradient, and "
                "the loss is not moving."
            ),
            advice=(
                "use ReLU or GELU in place of sigmoid and tanh",
                "add residual connections or normalisation",
                "initialise by the scheme of the activation",
            ),
        )


def _median_signals(facts: RecentSteps) -> dict[str, float]:
    """Return the median of gradient over weight norm of each parameter, in one pass."""
    values: dict[str, list[float]] = {}
    for step in facts.warm_steps:
        for t in step:
            if t.statistics is not None and t.statistics.param_norm > 0:
                ratio = t.statistics.grad_norm / t.statistics.param_norm
                values.setdefault(t.name, []).append(ratio)
    return {name: float(np.median(v)) for name, v in values.items()}


def _is_matrix(t: TensorStep) -> bool:
    return len(t.shape) >= 2 and not t.sparse and t.statistics is not None


@rule("D16", "update_ratio", needs=RecentSteps,
      explains=("divergence", "oscillation", "loss_spike", "exploding_gradient", "not_learning",
                "dead_units", "zero_gradient", "plateau", "vanishing_gradient"))  # fmt: skip
def update_ratio(facts: RecentSteps, thresholds: NumericThresholds) -> Iterator[Finding]:
    """Steps are far too long or far too short for the weights."""
    jump = _jump(facts, thresholds)
    if jump is not None:
        yield jump
    collapse = _collapse(facts, thresholds)
    if collapse is not None:
        yield collapse
        return
    if _never_had_a_rate(facts, thresholds):
        yield Finding(
            code="update_ratio",
            severity="warning",
            step=facts.step,
            value=0.0,
            threshold=thresholds.update_low,
            message=f"The learning rate was zero in all {facts.step} steps: nothing is trained.",
            advice=(
                "print the rates of the schedule: a division of whole numbers may make them zero",
                "count the warm-up in steps where the schedule is stepped once a batch",
            ),
            evidence={"direction": "low"},
        )
        return
    if len(facts.warm_steps) < thresholds.update_checks:
        return
    known = _median_updates(facts, thresholds)
    if not known:
        return
    high = {name: u for name, u in known.items() if u > thresholds.update_high}
    # A tensor that hardly moves is one of many ways to train; a model that does not move is not.
    low = known if max(known.values()) < thresholds.update_low else {}
    if not (high or low):
        return
    name = max(high, key=lambda n: high[n]) if high else max(low, key=lambda n: low[n])
    u = known[name]
    factor = u / 1e-3 if high else 1e-3 / max(u, 1e-12)
    falls = _falls(facts.curve)
    error = u > thresholds.update_error and not falls
    if high and not error and falls:
        return
    yield Finding(
        code="update_ratio",
        severity="error" if error else "warning",
        step=facts.step,
        value=u,
        threshold=thresholds.update_error
        if error
        else (thresholds.update_high if high else thresholds.update_low),
        message=(
            f"The median update is {u:.2g} of the weights in {name} (usual 1e-4 to 1e-2)"
            + (f", and too large in {len(high)} tensors: {listed(high)}." if len(high) > 1 else ".")
        ),
        advice=(
            f"{'divide' if high else 'multiply'} the learning rate by about {factor:.1g}",
            "add a warm-up" if high else "check the schedule: its rate may begin or end at zero",
        ),
        evidence={"direction": "high" if high else "low", "ratios": known},
    )


def _never_had_a_rate(facts: RecentSteps, thresholds: NumericThresholds) -> bool:
    if not thresholds.rate_first <= facts.step <= thresholds.rate_last:
        return False
    rates = [t.lr for step in facts.steps for t in step]
    return bool(rates) and max(rates) == 0.0


def _jump(facts: RecentSteps, thresholds: NumericThresholds) -> Finding | None:
    """Return the finding that the very first steps threw the weights far away."""
    first = facts.steps[:3]
    if len(facts.steps) != 3:
        return None
    worst = []
    for step in first:
        ratios = [
            s.update_norm / s.param_norm
            for t in step
            if (s := t.statistics) is not None
            and len(t.shape) >= 2
            and s.param_norm > thresholds.jump_rms * math.sqrt(s.n)
            and not math.isnan(s.update_norm)
        ]
        worst.append(float(np.median(ratios)) if ratios else 0.0)
    if max(worst, default=0.0) <= thresholds.jump:
        return None
    u = max(worst)
    return Finding(
        code="update_ratio",
        severity="warning",
        step=facts.step,
        value=u,
        threshold=thresholds.jump,
        message=(
            f"One of the first steps changed the matrices by {u:.2g} times what they were (usual "
            "1e-4 to 1e-2)."
        ),
        advice=(f"divide the learning rate by about {u / 1e-2:.1g}", "add a warm-up"),
        evidence={"direction": "high"},
    )


def _collapse(facts: RecentSteps, thresholds: NumericThresholds) -> Finding | None:
    """Return the finding that matrices have shrunk to next to nothing."""
    if not facts.steps or not facts.steps[-1]:
        return None
    norms = facts.column("param_norms")
    most = np.fmax.reduce(norms, axis=0)
    known = ~np.isnan(norms[-1]) & (most > 0) & ~np.isinf(norms).any(0)
    gone = known & (norms[-1] < thresholds.collapse * most)
    if not known.any() or gone.sum() < max(known.sum() / 2, 1):
        return None
    names = [t.name for t, is_gone in zip(facts.steps[-1], gone, strict=True) if is_gone]
    share = float((norms[-1][gone] / most[gone]).max())
    return Finding(
        code="update_ratio",
        severity="warning",
        step=facts.step,
        value=share,
        threshold=thresholds.collapse,
        message=(
            f"{counted(len(names), 'matrix has', 'matrices have')} shrunk to {share:.2g} of what "
            f"they were, or less: {listed(names)}."
        ),
        advice=(
            "lower the weight decay: each step takes rate times decay of the weights",
            "divide the learning rate by 10",
        ),
        evidence={"direction": "collapse", "names": tuple(names)},
    )


def _median_updates(facts: RecentSteps, thresholds: NumericThresholds) -> dict[str, float]:
    n = min(len(facts.warm_steps), 50)
    ratios = facts.column("update_ratios", n)
    # Weights of no size have no scale to compare an update with.
    ratios[facts.column("weight_sizes", n) <= thresholds.least_rms] = math.nan
    n_known = (~np.isnan(ratios)).sum(0)
    ratios.sort(axis=0)  # NaN at the end
    middle = np.maximum(n_known - 1, 0)
    column = np.arange(len(n_known))
    medians = (ratios[middle // 2, column] + ratios[(middle + 1) // 2, column]) / 2
    return {
        t.name: float(u)
        for t, u, k in zip(facts.steps[-1], medians, n_known, strict=True)
        if k >= thresholds.update_checks
    }


@rule("D16b", "lost_updates", needs=RecentSteps, severity="warning",
      explains=("not_learning", "plateau", "update_ratio"))  # fmt: skip
def lost_updates(facts: RecentSteps, thresholds: NumericThresholds) -> Iterator[Finding]:
    """Updates are too small for the precision of the weights, and are rounded away."""
    if len(facts.steps) < thresholds.update_checks:
        return
    if not any(t.dtype in ("bfloat16", "float16") for t in facts.steps[-1]):
        return
    shares: dict[str, list[float]] = {}
    for step in facts.steps:
        for t in step:
            s = t.statistics
            if s is None or t.dtype not in ("bfloat16", "float16") or t.master or t.masked:
                continue
            if len(t.shape) >= 2 and t.lr > 0 and s.n_non_finite == 0:
                live = max(s.n - s.n_zero, 1)
                shares.setdefault(t.name, []).append(min(s.n_rounded_away / live, 1.0))
    lost = {
        name: float(np.mean(values))
        for name, values in shares.items()
        if len(values) >= thresholds.update_checks and np.mean(values) > thresholds.lost
    }
    if lost:
        name = max(lost, key=lambda n: lost[n])
        dtype = next(t.dtype for t in facts.steps[-1] if t.name == name)
        yield Finding(
            code="lost_updates",
            severity="warning",
            where=name if len(lost) == 1 else None,
            step=facts.step,
            value=lost[name],
            threshold=thresholds.lost,
            message=(
                f"{100 * lost[name]:.0f} % of the updates of {name} vanish in {dtype} rounding."
            ),
            advice=(
                "keep a float32 copy of the weights: autocast with float32 parameters",
                "or round stochastically: ChildAdamW(stochastic_rounding=True)",
            ),
            evidence={"shares": lost},
        )
