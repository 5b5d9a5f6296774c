"""How a page shows what is to be said of a layer: a word, a colour and a sign."""

from __future__ import annotations

from typing import NamedTuple

from pyspectra.report.columns import fitted
from pyspectra.report.layer import LayerReport
from pyspectra.report.problems import (
    HEAVY_TAIL,
    LIGHT_TAIL,
    NO_POWER_LAW,
    NO_STRUCTURE,
    TOO_SMALL,
    evidence,
    problem_of,
)

__all__ = ["JUDGEMENTS", "Judgement", "judgement"]


class Judgement(NamedTuple):
    """What a layer is called, the class of its style, and the sign that is drawn for it."""

    word: str
    style: str
    sign: str


TYPICAL = Judgement("typical", "typical", "disc")
FITTED = Judgement("fitted", "plain", "disc")
FAILED = Judgement("no fit", "failed", "cross")
_OF_PROBLEMS = {
    HEAVY_TAIL.code: Judgement(HEAVY_TAIL.word, "heavy", "down"),
    LIGHT_TAIL.code: Judgement(LIGHT_TAIL.word, "light", "up"),
    NO_POWER_LAW.code: Judgement(NO_POWER_LAW.word, "lawless", "square"),
    NO_STRUCTURE.code: Judgement(NO_STRUCTURE.word, "quiet", "ring"),
    TOO_SMALL.code: Judgement(TOO_SMALL.word, "small", "ring"),
}
# In the order of legends.
JUDGEMENTS = (TYPICAL, FITTED, *_OF_PROBLEMS.values(), FAILED)


def judgement(layer: LayerReport) -> Judgement:
    """Return how a layer is shown."""
    if not fitted(layer):
        return FAILED
    problem = problem_of(layer)
    if problem is not None:
        return _OF_PROBLEMS[problem.code]
    return TYPICAL if evidence(layer).calibrated else FITTED
