"""Units of a layer: dead, saturated, out of scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import Scales, Units
from pyspectra.training.rules.learning import LearningThresholds, has_learned, is_stuck
from pyspectra.training.rules.registry import rule


@dataclass(frozen=True)
class UnitThresholds(LearningThresholds):
    """Thresholds of the rules of units.

    Attributes
    ----------
    dead_note, dead_error : float
        Share of a layer's units that no sample activates. SageMaker Debugger and TheDeepChecker
        speak at 50 %; healthy small ReLU layers of the fault suite lose 10 to 55 %, and learn. So
        that is a note, and 90 % an error, or a warning where the loss falls all the same. The share
        of zeros in a batch is never used: it made 58 of the 68 false alarms of DeepDiagnosis.
    dead_samples, dead_batches : int
        A unit is dead if it was silent on at least so many samples and batches.
    saturated : float
        Share of the units beyond +-5 in 95 % of the samples: DeepDiagnosis' limits.
    activation_low, activation_high : float
        Standard deviation of an activation over the median of the network.
    """

    dead_note: float = 0.5
    dead_error: float = 0.9
    dead_samples: int = 1000
    dead_batches: int = 10
    saturated: float = 0.5
    activation_low: float = 0.1
    activation_high: float = 10.0


@rule("D17", "dead_units", needs=Units, explains=("zero_gradient", "vanishing_gradient",
      "not_learning", "plateau"))  # fmt: skip
def dead_units(facts: Units, thresholds: UnitThresholds) -> Iterator[Finding]:
    """Units that no sample activates."""
    enough = (
        facts.n_samples >= thresholds.dead_samples and facts.n_batches >= thresholds.dead_batches
    )
    if not enough or facts.activation in ("tanh", "sigmoid") or not facts.n_units:
        return
    share = facts.n_dead / facts.n_units
    if share > thresholds.dead_note:
        grave = share > thresholds.dead_error
        learns = facts.curve is not None and has_learned(facts.curve)
        yield Finding(
            code="dead_units",
            severity=("warning" if learns else "error") if grave else "info",
            where=facts.name,
            step=facts.step,
            value=share,
            threshold=thresholds.dead_error if grave else thresholds.dead_note,
            message=(
                f"{facts.n_dead} of {facts.n_units} units of {facts.name} were never active on "
                f"{facts.n_samples} samples."
            ),
            advice=(
                "lower the learning rate",
                "initialise with He's scheme, biases at zero",
                "use LeakyReLU or GELU",
                "check the scale of the inputs",
            ),
        )


@rule("D18", "saturated_units", needs=Units, severity="warning",
      explains=("vanishing_gradient", "not_learning", "plateau"))  # fmt: skip
def saturated_units(facts: Units, thresholds: UnitThresholds) -> Iterator[Finding]:
    """Hidden units sit where tanh or sigmoid are flat, while nothing is learned."""
    if facts.activation not in ("tanh", "sigmoid") or facts.is_output:
        return
    if not is_stuck(facts.curve, thresholds):
        return
    enough = facts.n_batches >= thresholds.dead_batches and facts.n_units > 0
    share = facts.n_saturated / facts.n_units if facts.n_units else 0.0
    if enough and share > thresholds.saturated:
        yield Finding(
            code="saturated_units",
            severity="warning",
            where=facts.name,
            step=facts.step,
            value=share,
            threshold=thresholds.saturated,
            message=(
                f"{100 * share:.0f} % of the units of {facts.name} lie beyond ±5 before "
                f"{facts.activation}."
            ),
            advice=("initialise with Xavier's scheme", "normalise the inputs", "lower the rate"),
        )


@rule("D19", "activation_scale", needs=Scales, severity="info")
def activation_scale(facts: Scales, thresholds: UnitThresholds) -> Iterator[Finding]:
    """The activations of one layer are far smaller or larger than those of the network."""
    known = {name: s for name, s in facts.std.items() if np.isfinite(s)}
    if len(known) < 3:
        return
    middle = float(np.median(list(known.values())))
    if middle <= 0:
        return
    for name, s in known.items():
        ratio = s / middle
        if not thresholds.activation_low <= ratio <= thresholds.activation_high:
            yield Finding(
                code="activation_scale",
                severity="info",
                where=name,
                step=facts.step,
                value=ratio,
                threshold=thresholds.activation_low if ratio < 1 else thresholds.activation_high,
                message=f"The activations of {name} have {ratio:.2g} times the usual spread.",
                advice=("check its initialisation", "add a normalisation"),
            )
