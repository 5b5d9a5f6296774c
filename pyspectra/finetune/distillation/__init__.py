"""Distillation: a small model learns what a large one says."""

from pyspectra.finetune.distillation.distil import Distillation
from pyspectra.finetune.distillation.features import FeatureMatching, FeatureRecorder
from pyspectra.finetune.distillation.losses import distillation_loss, feature_loss
from pyspectra.finetune.distillation.trainer import DistillationMixin

__all__ = [
    "Distillation",
    "DistillationMixin",
    "FeatureMatching",
    "FeatureRecorder",
    "distillation_loss",
    "feature_loss",
]
