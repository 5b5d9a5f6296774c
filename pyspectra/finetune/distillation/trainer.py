"""Distillation in the Trainer of Hugging Face transformers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.finetune.distillation.distil import Distillation
from pyspectra.finetune.distillation.features import FeatureMatching
from pyspectra.finetune.distillation.losses import IGNORED, distillation_loss

if TYPE_CHECKING:
    from transformers import Trainer
else:  # whoever has a Trainer puts it beside the mixin; this module needs none
    Trainer = object

__all__ = ["DistillationMixin"]


class DistillationMixin(Trainer):
    """Let a Trainer of transformers train its model on what a teacher says as well.

    Parameters
    ----------
    *args, **kwargs
        Those of the Trainer.
    teacher : torch.nn.Module
        A model with the classes of the student.
    temperature : float or None
        As in `distillation_loss`. None for a regression, and for labels that are several at once.
    distillation_weight : float
        Weight of the teacher, in [0, 1]; the loss of the task has the rest.
    features : FeatureMatching, optional
        Layers of the student that follow layers of the teacher. Its projections, if it has any,
        have to be a part of the student (``student.matching = features``), so that the Trainer
        trains, clips and saves them.
    feature_weight : float
        What their loss is multiplied by.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Notes
    -----
    In training the loss is ``weight * soft + (1 - weight) * task``, plus that of the features.
    `task` is the Trainer's own, with its label smoothing and ``compute_loss_func``. `soft` is the
    divergence of `distillation_loss` over the rows with a label (of a causal model, the positions
    whose next word is one), summed and divided as the Trainer does it: by ``num_items_in_batch``
    where it counts the items of all accumulated batches, else as a mean of each batch. Some models
    take that number and do not use it (BERT's heads in transformers 5): with accumulation, the
    Trainer then takes the task several times. The mixin warns of it;
    ``trainer.model_accepts_loss_kwargs = False`` mends it.

    In evaluation the loss is that of the task alone, and the teacher does not run: losses can be
    compared with those of a run without a teacher, and the best checkpoint is the best at the task.

    With ``distillation_weight=1`` batches need no labels.

    The teacher is moved to the device of the student and given the inputs of the student that it
    takes. It is no part of the model: no checkpoint and no optimizer has it.

    Examples
    --------
    >>> from transformers import Trainer  # doctest: +SKIP
    >>> class Distilling(DistillationMixin, Trainer):  # doctest: +SKIP
    ...     pass
    >>> trainer = Distilling(student, args, train_dataset=rows, teacher=teacher)  # doctest: +SKIP
    >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(
        self,
        *args: Any,
        teacher: nn.Module,
        temperature: float | None = 2.0,
        distillation_weight: float = 0.5,
        features: FeatureMatching | None = None,
        feature_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        with called_as("DistillationMixin", weight="distillation_weight"):
            self.distillation = Distillation(
                teacher, temperature=temperature, weight=distillation_weight, features=features,
                feature_weight=feature_weight,
            )  # fmt: skip
        self._asked_for_means = False
        super().__init__(*args, **kwargs)
        if teacher is self.model:
            requirement = "be another model than the student"
            raise ArgumentValueError("DistillationMixin", "teacher", requirement, "the same")
        if features is not None:
            _check_trained(self.model, self.model_init is not None, features)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch: in training with what the teacher says.

        Parameters
        ----------
        model : torch.nn.Module
            The student.
        inputs : dict
        return_outputs : bool
        num_items_in_batch : torch.Tensor or int, optional
            Items of all batches that are accumulated.

        Returns
        -------
        torch.Tensor, or (torch.Tensor, object) with `return_outputs`

        Raises
        ------
        TypeError, ValueError
            If the student returns no logits, or labels do not fit the temperature.
        """
        distil = self.distillation
        if not model.training:
            return super().compute_loss(
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        given = dict(inputs)  # the Trainer takes the labels out of it where it smooths them
        if distil.weight == 1.0 and given.get("labels") is None:
            task, outputs = None, model(**inputs)
        else:
            task, outputs = super().compute_loss(
                model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
            )
        student = outputs.get("logits") if isinstance(outputs, dict) else None
        if not isinstance(student, Tensor):
            got = f"an object of type {type(outputs).__name__}"
            hint = "return a dict or a ModelOutput; liger kernels leave the logits out"
            raise ArgumentTypeError("DistillationMixin", "model", "return 'logits'", got, hint)
        with self.accelerator.autocast():
            teacher = distil.teacher_logits(given, student.device)
        labels = self._classes(given)
        if labels is not None and student.ndim == 3 and labels.shape[1] == student.shape[1] - 1:
            student, teacher = student[:, :-1], teacher[:, :-1]  # nothing follows the last position
        mask = _attended(given) if student.ndim == 3 else None
        if labels is not None:
            mask = labels != IGNORED
            self._warn_of_means(student, labels, task, num_items_in_batch)
        soft = self._soft(student, teacher, mask, _items_of_a_row(given), num_items_in_batch)
        loss = distil.weight * soft
        if task is not None and distil.weight < 1.0:
            loss = loss + (1.0 - distil.weight) * task
        if distil.features is not None:
            found = distil.features.loss(_attended(given))
            loss = loss + distil.feature_weight * found / self._shares(num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _classes(self, inputs: dict[str, Any]) -> Tensor | None:
        """Return the label of each row of logits, if labels are classes."""
        labels = inputs.get("shift_labels", inputs.get("labels"))
        temperature = self.distillation.temperature
        if not isinstance(labels, Tensor):
            return None
        if labels.is_floating_point() and temperature is None:
            return None
        if labels.is_floating_point():
            hint = "temperature=None compares outputs by their squared error"
            requirement = "be None where labels are no classes"
            raise ArgumentValueError(
                "DistillationMixin", "temperature", requirement, str(temperature), hint
            )
        shifted = "shift_labels" not in inputs and self._labels_are_of_the_next()
        return labels[:, 1:] if shifted else labels

    def _soft(
        self,
        student: Tensor,
        teacher: Tensor,
        mask: Tensor | None,
        items_of_a_row: int,
        items: Tensor | int | None,
    ) -> Tensor:
        """Return the divergence from the teacher, divided as the Trainer divides its own loss."""
        by_items = self._is_scaled(items) and items is not None
        with called_as("DistillationMixin"):
            soft = distillation_loss(
                student, teacher, temperature=self.distillation.temperature, weight=1.0, mask=mask,
                reduction="sum" if by_items else "mean",
            )  # fmt: skip
        if not by_items:
            return soft / self._shares(items)
        share = items_of_a_row * self._processes_of_a_mean() / _number(items).to(soft.device)
        return soft * share

    def _warn_of_means(
        self, student: Tensor, labels: Tensor, task: Tensor | None, items: Tensor | int | None
    ) -> None:
        """Warn, once, where the model's loss is a mean although it was told the number of items."""
        own = self.compute_loss_func is None and self.label_smoother is None
        own = own and self.distillation.temperature is not None
        if self._asked_for_means or task is None or items is None or not own:
            return
        if not self._is_scaled(items) or self._shares(items) == 1:
            return
        self._asked_for_means = True
        with torch.no_grad():
            mean = cross_entropy(
                student.flatten(0, -2).float(), labels.flatten().to(student.device)
            )
            share = float((labels != IGNORED).sum() / _number(items).to(labels.device))
            found = float(task) / self._processes_of_a_mean()
        if abs(found - mean) < 1e-3 * abs(mean) and share < 0.99:
            warnings.warn(
                f"DistillationMixin: the loss of {type(self.model).__name__} is the mean of each "
                f"batch, though it takes 'num_items_in_batch': the sum over {self._shares(items)} "
                "accumulated batches is not divided, and the teacher counts for less. Hint: "
                "trainer.model_accepts_loss_kwargs = False.",
                stacklevel=3,
            )

    def _labels_are_of_the_next(self) -> bool:
        """Tell whether the model predicts the label of the next position."""
        # What the Trainer knows of it leaves out the causal models whose loss is the default one.
        if getattr(self, "_loss_shifts_labels", False):
            return True
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        plain: Any = self.accelerator.unwrap_model(self.model)
        plain = plain.get_base_model() if hasattr(plain, "get_base_model") else plain  # of peft
        causal = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}
        return any(cls.__name__ in causal for cls in type(plain).__mro__)

    def _is_scaled(self, items: Tensor | int | None) -> bool:
        """Tell whether the Trainer takes a loss for one that accumulated batches need not share."""
        told: bool | None = getattr(self, "loss_is_scaled_for_ga", None)
        if told is not None:
            return told
        by_model = self.model_accepts_loss_kwargs and items is not None
        return by_model or self.compute_loss_func is not None

    def _shares(self, items: Tensor | int | None) -> int:
        """Return into how many shares a mean is cut here, since the Trainer will not divide it."""
        if not self._is_scaled(items):
            return 1
        own: int = self.args.gradient_accumulation_steps
        return int(getattr(self, "current_gradient_accumulation_steps", own))

    def _processes_of_a_mean(self) -> float:
        """Return what a share of all items is multiplied by, since processes take a mean of it."""
        across = self.args.average_tokens_across_devices
        if self.args.n_gpu > 1:  # one process; its devices' logits have been gathered
            return 1.0 if across else 1.0 / self.args.n_gpu
        if not across:
            return 1.0
        parallel = self.get_tp_size() if hasattr(self, "get_tp_size") else 1
        return float(self.accelerator.num_processes // parallel)


def _number(items: Tensor | int | None) -> Tensor:
    """Return the number of items, which comes once for each device of the process."""
    return torch.as_tensor(items).flatten()[0]


def _items_of_a_row(inputs: dict[str, Any]) -> int:
    """Return how many items the Trainer counts for a row: each number of a regression is one."""
    labels = inputs.get("labels")
    numbers = isinstance(labels, Tensor) and labels.is_floating_point() and labels.ndim > 1
    return labels.shape[-1] if numbers and isinstance(labels, Tensor) else 1


def _attended(inputs: dict[str, Any]) -> Tensor | None:
    mask = inputs.get("attention_mask")
    return mask.bool() if isinstance(mask, Tensor) and mask.ndim == 2 else None


def _check_trained(model: Any, made_anew: bool, features: FeatureMatching) -> None:
    """Refuse projections that the Trainer would neither train nor set to zero gradients."""
    name = "DistillationMixin"
    if made_anew:
        requirement = "be None with model_init, which makes other students"
        raise ArgumentValueError(name, "features", requirement, "a FeatureMatching")
    own = {id(p) for p in model.parameters()}
    if any(id(p) not in own for p in features.parameters()):
        requirement, hint = "be a part of the student if it has projections", "student.x = features"
        raise ArgumentValueError(name, "features", requirement, "one that is none", hint)
