"""What rules read: plain numbers about a run, collected by `Watch` or taken from its history.

Nothing here needs torch: every rule is tested with numbers written by hand.
"""

from __future__ import annotations

from pyspectra.training.rules.facts.inputs import (
    BatchMixing,
    BatchSize,
    Inputs,
    Labels,
    OverfitTrial,
    Reduction,
    Split,
)
from pyspectra.training.rules.facts.series import (
    Classes,
    Curves,
    GradientNorms,
    LayerSpectrum,
    LossCurve,
    Scales,
    Trajectories,
    Units,
)
from pyspectra.training.rules.facts.steps import (
    Array,
    Backwards,
    Evaluation,
    InitialLoss,
    InitialWeights,
    LossBatches,
    LossGraph,
    LossShapes,
    NonFinite,
    ParameterInfo,
    Parameters,
    RecentSteps,
    Retained,
    StepMode,
    TensorStep,
    WeightSummary,
)

__all__ = [
    "Array",
    "Backwards",
    "BatchMixing",
    "BatchSize",
    "Classes",
    "Curves",
    "Evaluation",
    "GradientNorms",
    "InitialLoss",
    "InitialWeights",
    "Inputs",
    "Labels",
    "LayerSpectrum",
    "LossBatches",
    "LossCurve",
    "LossGraph",
    "LossShapes",
    "NonFinite",
    "OverfitTrial",
    "ParameterInfo",
    "Parameters",
    "RecentSteps",
    "Reduction",
    "Retained",
    "Scales",
    "Split",
    "StepMode",
    "TensorStep",
    "Trajectories",
    "Units",
    "WeightSummary",
]
