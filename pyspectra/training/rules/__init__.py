"""The rules of the doctor: pure functions of numbers, one record each."""

from __future__ import annotations

from dataclasses import dataclass

from pyspectra.report import findings
from pyspectra.training.rules.classes import ClassThresholds
from pyspectra.training.rules.curves import CurveThresholds
from pyspectra.training.rules.entering import EnteringThresholds
from pyspectra.training.rules.evaluation import EvaluationThresholds
from pyspectra.training.rules.gaps import GapThresholds
from pyspectra.training.rules.initial import InitialThresholds
from pyspectra.training.rules.inputs import InputThresholds
from pyspectra.training.rules.learning import LearningThresholds
from pyspectra.training.rules.losses import LossThresholds
from pyspectra.training.rules.numerics import NumericThresholds
from pyspectra.training.rules.registry import RULES, Rule, conclusions, judge, known_codes
from pyspectra.training.rules.rising import RisingThresholds
from pyspectra.training.rules.shifts import ShiftThresholds
from pyspectra.training.rules.spectra import SpectraThresholds
from pyspectra.training.rules.splits import SplitThresholds
from pyspectra.training.rules.trials import TrialThresholds
from pyspectra.training.rules.units import UnitThresholds
from pyspectra.training.rules.wiring import WiringThresholds

__all__ = ["RULES", "Rule", "Thresholds", "conclusions", "judge", "known_codes"]


@dataclass(frozen=True)
class Thresholds(
    TrialThresholds,
    InputThresholds,
    EnteringThresholds,
    SplitThresholds,
    ShiftThresholds,
    GapThresholds,
    CurveThresholds,
    ClassThresholds,
    UnitThresholds,
    RisingThresholds,
    NumericThresholds,
    WiringThresholds,
    LearningThresholds,
    InitialThresholds,
    EvaluationThresholds,
    LossThresholds,
    SpectraThresholds,
    findings.Thresholds,
):
    """What the numbers of a run are held against: the thresholds of every family of rules.

    It has the fields of `pyspectra.report.findings.Thresholds`, and may stand for it. Each field is
    documented, with its source, in the class of its family, beside the rules that use it.

    Examples
    --------
    >>> from pyspectra.training.rules import Thresholds
    >>> Thresholds(dead_error=0.8).dead_error
    0.8
    """
