"""Does the loss fall at all: of the losses of single steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import LossCurve
from pyspectra.training.rules.progress import not_learning as is_stuck
from pyspectra.training.rules.registry import rule


@dataclass(frozen=True)
class LearningThresholds:
    """Thresholds of the rule of learning.

    Attributes
    ----------
    baseline_share : float
        A loss within this share of that of predicting class frequencies has learned nothing else.
    least_decrease : float
        A loss that fell by less than this share, and is near the baseline, has not moved.
        TheDeepChecker asks 5 % in a period, too.
    """

    baseline_share: float = 0.02
    least_decrease: float = 0.05


@rule("D32", "not_learning", needs=LossCurve, severity="warning", explains=("plateau",))
def not_learning(facts: LossCurve, thresholds: LearningThresholds) -> Iterator[Finding]:
    """The loss is that of a model which knows class frequencies, or the mean, and nothing else."""
    stuck = facts.stuck
    if stuck is None:
        stuck = is_stuck(
            facts.losses,
            facts.baseline,
            near=thresholds.baseline_share,
            decrease=thresholds.least_decrease,
        )
    if not stuck or facts.baseline is None:
        return
    now = float(facts.losses[-20:].mean())
    yield Finding(
        code="not_learning",
        severity="warning",
        where="loss",
        step=facts.start + len(facts.losses) - 1,
        value=now,
        threshold=facts.baseline,
        message=(
            f"After {len(facts.losses)} steps the loss {now:.4g} is still about that of the "
            f"baseline {facts.baseline:.4g}, which predicts class frequencies or the mean."
        ),
        advice=(
            "run sanity.check and sanity.overfit_one_batch",
            "check that inputs and labels belong together",
            "look for gradients that are zero",
            "check the learning rate: updates should be about 1e-3 of the weights",
        ),
    )
