"""Findings: what is wrong, as data, in weights and in training runs alike; and the thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyspectra.types import Value

SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True, eq=False, kw_only=True)
class Finding(Value):
    """One thing that is wrong, or worth knowing.

    Attributes
    ----------
    code : str
        What programs go by: ``"over_trained"``.
    severity : {"error", "warning", "info"}
        An error is an exact violation, a warning a statistical judgement.
    where : str or None
        Parameter, layer, metric or split that it is about; None for the whole.
    step, epoch : int or None
        When, for a finding of a training run.
    value, threshold : float or None
        What was measured, and against what it was held.
    message : str
        One sentence with the measured value in it.
    advice : tuple of str
        What to do, the most likely first.
    evidence : mapping of str to object
        Further numbers that it rests on.
    """

    code: str
    severity: str
    where: str | None = None
    step: int | None = None
    epoch: int | None = None
    value: float | None = None
    threshold: float | None = None
    message: str
    advice: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Thresholds:
    """What numbers are held against.

    Attributes
    ----------
    alpha_low, alpha_high : float
        A layer is over-trained below the first, under-trained above the second. Well-trained layers
        have heavy tails with alpha between 2 and 6: Martin, Mahoney, "Implicit self-regularization
        in deep neural networks", JMLR 22 (2021). WeightWatcher 0.7.7 has the same two.
    implausible : float
        A power law is ruled out where its p-value is this or less: Clauset, Shalizi, Newman,
        "Power-law distributions in empirical data", SIAM Review 51 (2009), section 4.1.
    random_level : float
        A layer cannot be told from a random matrix where the p-value of that exceeds this, a
        convention: one random layer in a hundred does not.
    notable_share : float
        House convention, not from the literature: one layer in three colours the verdict of a
        model.
    most_failed : float
        A model more than this share of whose layers have no fit, or one that its p-value rules
        out, is not judged by the others.
    """

    alpha_low: float = 2.0
    alpha_high: float = 6.0
    implausible: float = 0.1
    random_level: float = 0.01
    notable_share: float = 1.0 / 3.0
    most_failed: float = 0.5


THRESHOLDS = Thresholds()
