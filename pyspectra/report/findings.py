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
        What programs go by: ``"heavy_tail"``.
    severity : {"error", "warning", "info"}
        An error is an exact violation, a warning a statistical judgement.
    where : str or None
        Parameter, layer, metric or split that it is about; None for the whole.
    step, epoch : int or None
        Step and epoch of a finding in a training run.
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
        Most layers of large published models have alpha between these: Martin, Mahoney, "Implicit
        self-regularization in deep neural networks", JMLR 22 (2021). WeightWatcher 0.7.7 has the
        same two. Trained models with many layers outside are common, too (docs/verdict.md).
    errors : float
        Standard errors of alpha within which it may lie on the other side of a bound: 95 %.
    implausible : float
        A power law is ruled out where its p-value is this or less: Clauset, Shalizi, Newman,
        "Power-law distributions in empirical data", SIAM Review 51 (2009), section 4.1.
    random_level : float
        A layer shows no structure where the p-value of that exceeds this, a convention: one random
        layer in a hundred does not.
    structure_level : float
        A model shows structure where the least p-value of its layers, times their number, is at
        most this: one random model in a thousand does.
    few_evals : int
        A layer with fewer eigenvalues is too small to tell.
    most_failed : float
        A model more than this share of whose layers have no fit, or one that its p-value rules
        out, is not judged by the others.
    """

    alpha_low: float = 2.0
    alpha_high: float = 6.0
    errors: float = 1.96
    implausible: float = 0.1
    random_level: float = 0.01
    structure_level: float = 1e-3
    few_evals: int = 32
    most_failed: float = 0.5


THRESHOLDS = Thresholds()
