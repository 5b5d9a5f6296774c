"""A teacher and what is learned from it: for loops of one's own, and for Lightning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyspectra._support.arguments import check_number
from pyspectra.errors import ArgumentTypeError, called_as
from pyspectra.finetune.distillation.features import FeatureMatching
from pyspectra.finetune.distillation.losses import IGNORED, checked_settings, distillation_loss
from pyspectra.finetune.forward import device_of, evaluating, logits_of, outputs_of

__all__ = ["Distillation"]


class Distillation:
    """A teacher, with the loss of a student that learns from it.

    Parameters
    ----------
    teacher : torch.nn.Module
        It is run in the mode of evaluation and without gradients, whatever mode it is in.
    temperature, weight, label_smoothing : float
        As in `distillation_loss`.
    features : FeatureMatching, optional
        Layers of the student that follow layers of the teacher.
    feature_weight : float
        What their loss is multiplied by, at least 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Notes
    -----
    It is no ``torch.nn.Module``. As an attribute of a model, or of a ``LightningModule``, it is no
    part of that: the teacher is neither saved nor trained nor put in the mode of training.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import Distillation
    >>> teacher, student = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    >>> distil = Distillation(teacher, temperature=4.0, weight=0.9)
    >>> x, y = torch.randn(8, 4), torch.arange(8) % 3
    >>> loss = distil(student(x), x, y)
    >>> loss.backward()
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        temperature: float | None = 2.0,
        weight: float = 0.5,
        label_smoothing: float = 0.0,
        features: FeatureMatching | None = None,
        feature_weight: float = 1.0,
    ) -> None:
        name = "Distillation"
        if not isinstance(teacher, nn.Module):
            got = f"an object of type {type(teacher).__name__}"
            raise ArgumentTypeError(name, "teacher", "be a torch.nn.Module", got)
        if features is not None and not isinstance(features, FeatureMatching):
            got = f"an object of type {type(features).__name__}"
            raise ArgumentTypeError(name, "features", "be a FeatureMatching or None", got)
        settings = checked_settings(name, temperature, weight, label_smoothing)
        self.teacher, self.features = teacher, features
        self.temperature, self.weight = settings.temperature, settings.weight
        self.label_smoothing = settings.label_smoothing
        self.feature_weight = check_number(name, "feature_weight", feature_weight, least=0.0)

    def __call__(
        self,
        student_logits: Tensor,
        batch: Any,
        labels: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        ignore_index: int = IGNORED,
    ) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        student_logits : torch.Tensor, shape (..., K)
            What the student has just said of `batch`.
        batch : torch.Tensor, mapping, or list or tuple
            What the teacher is given: a mapping as keywords, of a list or tuple the first item.
        labels, mask, ignore_index : object
            As in `distillation_loss`; `mask` is also that of the features, where it is given.

        Returns
        -------
        torch.Tensor
            A scalar.

        Raises
        ------
        TypeError, ValueError
            If shapes do not fit, or the teacher returns no logits.
        """
        logits = self.teacher_logits(batch, student_logits.device)
        with called_as("Distillation"):
            loss = distillation_loss(
                student_logits, logits, labels, temperature=self.temperature, weight=self.weight,
                mask=mask, ignore_index=ignore_index, label_smoothing=self.label_smoothing,
            )  # fmt: skip
            if self.features is not None:
                loss = loss + self.feature_weight * self.features.loss(mask)
        return loss

    def teacher_logits(self, batch: Any, device: torch.device | None = None) -> Tensor:
        """Return what the teacher says of a batch.

        Parameters
        ----------
        batch : torch.Tensor, mapping, or list or tuple
        device : torch.device, optional
            Where the teacher is moved to, unless it is spread over several devices.

        Returns
        -------
        torch.Tensor, shape (..., K)
            Without gradients.

        Raises
        ------
        TypeError
            If it returns no logits.
        """
        spread = getattr(self.teacher, "hf_device_map", None) is not None
        if device is not None and not spread and device_of(self.teacher) not in (None, device):
            self.teacher.to(device)
        with evaluating(self.teacher):
            outputs = outputs_of(self.teacher, batch)
        return logits_of("Distillation", "teacher", outputs)
