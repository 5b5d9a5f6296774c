"""How the weights and the loss begin."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pyspectra._support.text import counted
from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import InitialLoss, InitialWeights, WeightSummary
from pyspectra.training.rules.registry import listed, rule
from pyspectra.training.rules.wiring import NOT_LEARNING


@dataclass(frozen=True)
class InitialThresholds:
    """Thresholds of the rules of initialisation.

    Attributes
    ----------
    constant_variance : float
        A matrix is constant where its variance is at most this times one and its squared mean.
        TheDeepChecker has a relative tolerance of 1e-8 on the variance.
    equal_rows : float
        Rows are equal if they differ by at most this share of the largest entry: float32 rounding.
    rank_one : float
        A matrix is of rank one at most where its stable rank is no larger; of random matrices with
        a side of `least_side` and more it is far larger.
    least_side : int
        Smaller matrices are not judged by their stable rank.
    scale_low, scale_high : float
        Standard deviation in units of the expected one. PyTorch's own default is 0.41 times He's,
        and must stay silent.
    excess_loss : float
        Nats that the first loss may exceed ln K by. House convention: logits of standard deviation
        s add about s^2 / 2, so that 2 nats are logits of 2.
    grave_loss : float
        A first loss of more than so many ln K is a warning: the model is sure, and wrong.
    low_loss : float
        A first loss below this share of ln K and of the entropy of the classes knows something.
    """

    constant_variance: float = 1e-12
    equal_rows: float = 1e-7
    rank_one: float = 1.001
    least_side: int = 8
    scale_low: float = 0.3
    scale_high: float = 3.0
    excess_loss: float = 2.0
    grave_loss: float = 4.0
    low_loss: float = 0.5


@rule("D09", "symmetric_init", needs=InitialWeights, explains=("zero_gradient", *NOT_LEARNING,
      "dead_units"))  # fmt: skip
def symmetric_init(facts: InitialWeights, thresholds: InitialThresholds) -> Iterator[Finding]:
    """Units begin with the same weights, and so stay the same.

    A warning before training, an error once the gradients of the first steps confirm it: B of LoRA
    and residual branches that begin at zero get gradients, and are left alone.
    """
    alike = [row for row in facts.rows if _symmetric(row, thresholds)]
    stuck = [row for row in alike if row.name in facts.without_gradient]
    suspects = stuck if facts.without_gradient else _told_now(alike)
    if not suspects:
        return
    names = [row.name for row in suspects]
    worst = suspects[0]
    rank = 0.0 if worst.max_abs == 0 else 1.0
    if not math.isnan(worst.stable_rank):
        rank = worst.stable_rank
    many = counted(len(names), "matrix starts", "matrices start")
    yield Finding(
        code="symmetric_init",
        severity="error" if stuck else "warning",
        where=names[0] if len(names) == 1 else None,
        step=facts.step,
        value=rank,
        threshold=thresholds.rank_one,
        message=(
            f"{many} constant (stable rank {rank:.3g}), so that units stay identical: "
            f"{listed(names)}."
        ),
        advice=(
            "initialise with He's scheme before a ReLU",
            "initialise with Xavier's scheme before a tanh",
        ),
        evidence={"names": tuple(names)},
    )


def _told_now(alike: list[WeightSummary]) -> list[WeightSummary]:
    """Return those that are worth a warning before any gradient: not the ones that begin at zero.

    Zero is how LoRA's B, residual branches and output layers begin on purpose; if it is a fault,
    their neighbours' gradients show it three steps later. Biases and scales are no matrices.
    """
    return [row for row in alike if row.max_abs > 0]


def _symmetric(row: WeightSummary, t: InitialThresholds) -> bool:
    if len(row.shape) < 2 or min(row.shape[:2]) < 2:
        return False
    if row.std**2 <= t.constant_variance * (1 + row.mean**2):
        return True
    if min(row.row_difference, row.column_difference) <= t.equal_rows:
        return True
    small = min(row.shape[0], math.prod(row.shape[1:])) < t.least_side
    return not small and row.stable_rank <= t.rank_one


_SCHEMES = {
    "relu": ("He",), "leaky_relu": ("He",), "gelu": ("He",), "silu": ("He",), "elu": ("He",),
    "tanh": ("Xavier", "LeCun"), "sigmoid": ("LeCun", "Xavier"), "selu": ("LeCun",),
}  # fmt: skip


def expected_std(shape: tuple[int, ...], scheme: str) -> float:
    """Return the standard deviation of a scheme for a matrix (outputs, inputs, ...)."""
    field = math.prod(shape[2:])
    fan_in, fan_out = shape[1] * field, shape[0] * field
    if scheme == "He":
        return math.sqrt(2 / fan_in)
    return math.sqrt(2 / (fan_in + fan_out)) if scheme == "Xavier" else math.sqrt(1 / fan_in)


def _nearest_scheme(row: WeightSummary) -> tuple[float, str] | None:
    """Return the ratio to the scheme of the activation that the weights come nearest to."""
    if row.std <= 0:
        return None
    ratios = [
        (row.std / expected_std(row.shape, s), s) for s in _SCHEMES.get(row.activation or "", ())
    ]
    return min(ratios, key=lambda r: abs(math.log(r[0]))) if ratios else None


@rule("D10", "init_scale", needs=InitialWeights, severity="info")
def init_scale(facts: InitialWeights, thresholds: InitialThresholds) -> Iterator[Finding]:
    """Weights begin far smaller or larger than the scheme of their activation."""
    if facts.without_gradient:
        return
    for row in facts.rows:
        nearest = _nearest_scheme(row)
        if nearest is None or row.normalized or _symmetric(row, thresholds):
            continue
        ratio, scheme = nearest
        if not thresholds.scale_low <= ratio <= thresholds.scale_high:
            yield Finding(
                code="init_scale",
                severity="info",
                where=row.name,
                step=facts.step,
                value=ratio,
                threshold=thresholds.scale_low if ratio < 1 else thresholds.scale_high,
                message=(
                    f"The standard deviation of {row.name} is {ratio:.3g} times that of {scheme}'s "
                    "scheme."
                ),
                advice=("rescale the initial weights, unless the model was trained before",),
            )


@rule("D11", "initial_loss", needs=InitialLoss, severity="warning")
def initial_loss(facts: InitialLoss, thresholds: InitialThresholds) -> Iterator[Finding]:
    """The first loss is not that of a classifier that knows nothing."""
    if facts.pretrained or facts.n_classes < 2 or not math.isfinite(facts.loss):
        return
    chance = math.log(facts.n_classes)
    floor = chance if facts.entropy is None else min(chance, facts.entropy)
    excess = facts.loss - chance
    if excess > thresholds.excess_loss:
        grave = facts.loss > thresholds.grave_loss * chance and excess > 2 * thresholds.excess_loss
        yield Finding(
            code="initial_loss",
            severity="warning" if grave else "info",
            where="loss",
            step=1,
            value=facts.loss,
            threshold=chance + thresholds.excess_loss,
            message=(
                f"The first loss is {facts.loss:.3g}, ln K = {chance:.3g}: logits begin with a "
                f"standard deviation of about {math.sqrt(2 * excess):.2g}."
            ),
            advice=(
                "rescale the initial weights, those of the last layer first",
                "check the scale of the inputs",
                "check the labels",
            ),
        )
    elif facts.loss < thresholds.low_loss * floor:
        yield Finding(
            code="initial_loss",
            severity="info",
            where="loss",
            step=1,
            value=facts.loss,
            threshold=thresholds.low_loss * floor,
            message=(
                f"The first loss is {facts.loss:.3g} before any training, ln K = {chance:.3g}: "
                "something is known of the labels."
            ),
            advice=("look for labels among the inputs", "expected of a model trained before"),
        )
