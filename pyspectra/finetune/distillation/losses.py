"""The losses of distillation: between the outputs of two models, and between their features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from pyspectra._support.arguments import as_integer, check_choice, check_number, shown
from pyspectra.errors import ArgumentTypeError, ArgumentValueError

__all__ = ["IGNORED", "distillation_loss", "feature_loss"]

IGNORED = -100
"""The label that torch and transformers give to rows that do not count."""

_REDUCTIONS = ("mean", "sum", "none")


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float | None = 2.0,
    weight: float = 0.5,
    mask: Tensor | None = None,
    ignore_index: int = IGNORED,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Return how far a student is from what its teacher says, and from the labels.

    Parameters
    ----------
    student_logits, teacher_logits : torch.Tensor, shape (..., K)
        Logits of K classes, the classes last: (batch, K), or (batch, length, K) of tokens. Those of
        the teacher are taken as they are: no gradient flows into them. float16 and bfloat16 are
        computed in float32.
    labels : torch.Tensor of int, shape (...), optional
        The right classes; with ``temperature=None`` numbers, shape (..., K), or (...) where K is 1.
    temperature : float or None
        What both logits are divided by before their distributions are compared. None for outputs
        that are no logits, as of a regression: they are compared by their squared error.
    weight : float
        Weight of the teacher, in [0, 1]; the labels have the rest. Without labels their term is 0.
    mask : torch.Tensor of bool, shape (...), optional
        True where the teacher counts; by default where the label is not `ignore_index`, and
        everywhere without labels.
    ignore_index : int
        The label of rows in which the labels do not count, such as padding.
    label_smoothing : float
        Share of the labels' distribution that is spread over all classes, in [0, 1).
    reduction : {"mean", "sum", "none"}
        Of each term the mean over the rows in which it counts (0 where there are none), the sum,
        or one number for each row, shape (...).

    Returns
    -------
    torch.Tensor
        The loss, with a gradient for the student.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or shapes do not fit.

    Notes
    -----
    With p = softmax(teacher / T), q = softmax(student / T) and w = `weight`, a row costs

        w T^2 sum_k p_k log(p_k / q_k) + (1 - w) cross_entropy(student, label).

    T^2 keeps the gradients of the first term at one size, whatever the temperature. With
    ``temperature=None`` the terms are the means over k of (student - teacher)^2 and (student -
    label)^2. A class that the teacher rules out (a logit of minus infinity) adds nothing.

    References
    ----------
    Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015,
    arXiv 1503.02531. Squared errors of logits: Ba and Caruana, "Do deep nets really need to be
    deep?", NeurIPS 2014, arXiv 1312.6184.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import distillation_loss
    >>> teacher = torch.tensor([[2.0, 0.0, -2.0]])
    >>> bool(distillation_loss(teacher, teacher, weight=1.0) == 0)
    True
    >>> student = torch.zeros(1, 3, requires_grad=True)
    >>> distillation_loss(student, teacher, torch.tensor([0]), temperature=2.0).backward()
    >>> student.grad.sign()
    tensor([[-1.,  1.,  1.]])
    """
    name = "distillation_loss"
    reduction = check_choice(name, "reduction", reduction, _REDUCTIONS)
    settings = checked_settings(name, temperature, weight, label_smoothing)
    if as_integer(ignore_index) is None:
        raise ArgumentTypeError(name, "ignore_index", "be an integer", shown(ignore_index))
    student, teacher = _pair(name, "student_logits", student_logits, "teacher_logits",
                             teacher_logits)  # fmt: skip
    rows = student.shape[:-1]
    counted = None
    if labels is not None:
        labels = _labels(name, labels, student, settings.temperature)
        counted = None if settings.temperature is None else labels != ignore_index
    soft_counted = counted if mask is None else _mask(name, mask, rows, student.device)
    soft = _soft(student, teacher, settings.temperature)
    loss = settings.weight * _reduced(soft, soft_counted, reduction)
    if labels is None:
        return loss
    if settings.temperature is None:
        hard = (student - labels).square().mean(dim=-1)
    else:
        hard = F.cross_entropy(
            student.reshape(-1, student.shape[-1]), labels.reshape(-1),
            ignore_index=ignore_index, reduction="none", label_smoothing=settings.label_smoothing,
        ).reshape(rows)  # fmt: skip
    return loss + (1.0 - settings.weight) * _reduced(hard, counted, reduction)


@dataclass(frozen=True)
class Settings:
    """What a loss of distillation is told, checked."""

    temperature: float | None
    weight: float
    label_smoothing: float


def checked_settings(
    function: str, temperature: object, weight: object, label_smoothing: object
) -> Settings:
    """Return the settings of `distillation_loss` that are numbers.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If one is out of range.
    """
    if temperature is not None:
        temperature = check_number(function, "temperature", temperature, above=0.0)
    smoothing = check_number(function, "label_smoothing", label_smoothing, least=0.0, below=1.0)
    if temperature is None and smoothing:
        requirement = "be 0 with temperature=None"
        raise ArgumentValueError(function, "label_smoothing", requirement, shown(label_smoothing))
    return Settings(
        temperature, check_number(function, "weight", weight, least=0.0, most=1.0), smoothing
    )


def feature_loss(
    student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    """Return the mean squared difference between the features of two models.

    Parameters
    ----------
    student_features, teacher_features : torch.Tensor, any shape
        What two layers return, of equal shape; `FeatureMatching` projects where widths differ. No
        gradient flows into those of the teacher.
    mask : torch.Tensor of bool, optional
        True where features count; its shape is that of their first axes, as (batch, length).

    Returns
    -------
    torch.Tensor
        Mean over all entries that count, a scalar; 0 if there are none.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or shapes do not fit.

    Notes
    -----
    FitNets has half the squared norm, which is this times half the number of entries of a sample:
    the mean does not grow with the width of a layer.

    References
    ----------
    Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, arXiv 1412.6550, equation 3.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import feature_loss
    >>> feature_loss(torch.zeros(2, 4), torch.full((2, 4), 3.0))
    tensor(9.)
    """
    name = "feature_loss"
    student, teacher = _pair(name, "student_features", student_features, "teacher_features",
                             teacher_features)  # fmt: skip
    squares = (student - teacher).square()
    counted = None
    if mask is not None:
        shape = squares.shape[: mask.ndim] if isinstance(mask, Tensor) else squares.shape
        counted = _mask(name, mask, shape, student.device)
        counted = counted.reshape(*counted.shape, *[1] * (squares.ndim - counted.ndim))
        counted = counted.expand_as(squares)
    return _reduced(squares, counted, "mean")


def _pair(
    function: str, first: str, student: object, second: str, teacher: object
) -> tuple[Tensor, Tensor]:
    """Return both as tensors of one type, in which a loss can be computed."""
    for argument, value in ((first, student), (second, teacher)):
        if not isinstance(value, Tensor) or not value.is_floating_point() or not value.ndim:
            raise ArgumentTypeError(
                function, argument, "be a floating-point tensor of at least one axis", _type(value)
            )
    assert isinstance(student, Tensor)
    assert isinstance(teacher, Tensor)
    if student.shape != teacher.shape:
        raise ArgumentValueError(
            function, second, f"have the shape of {first!r}, {tuple(student.shape)}",
            f"{tuple(teacher.shape)}",
            "compare what both have: the classes, the words or the positions in common",
        )  # fmt: skip
    dtype = torch.promote_types(student.dtype, torch.float32)
    return student.to(dtype), teacher.detach().to(student.device, dtype)


def _labels(function: str, labels: object, student: Tensor, temperature: float | None) -> Tensor:
    rows = student.shape[:-1]
    if not isinstance(labels, Tensor) or labels.is_complex():
        raise ArgumentTypeError(function, "labels", "be a tensor", _type(labels))
    if temperature is None:
        if labels.shape == rows and student.shape[-1] == 1:
            labels = labels.unsqueeze(-1)
        if labels.shape != student.shape:
            requirement = f"have the shape of the outputs, {tuple(student.shape)}"
            raise ArgumentValueError(function, "labels", requirement, f"{tuple(labels.shape)}")
        return labels.to(student.device, student.dtype)
    if labels.is_floating_point() or labels.dtype == torch.bool:
        hint = "for a regression pass temperature=None"
        raise ArgumentTypeError(function, "labels", "be integers", str(labels.dtype), hint)
    if labels.shape != rows:
        requirement = f"have the shape {tuple(rows)}, one class for each row of logits"
        raise ArgumentValueError(function, "labels", requirement, f"{tuple(labels.shape)}")
    return labels.to(student.device, torch.int64)


def _mask(function: str, mask: object, shape: torch.Size, device: torch.device) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        hint = "attention_mask.bool()"
        raise ArgumentTypeError(function, "mask", "be a tensor of bool", _type(mask), hint)
    if mask.shape != shape:
        requirement = f"have the shape {tuple(shape)}"
        raise ArgumentValueError(function, "mask", requirement, f"{tuple(mask.shape)}")
    return mask.to(device)


def _type(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}, shape {tuple(value.shape)}"
    return f"an object of type {type(value).__name__}"


def _soft(student: Tensor, teacher: Tensor, temperature: float | None) -> Tensor:
    """Return what the difference from the teacher costs, for each row."""
    if temperature is None:
        return (student - teacher).square().mean(dim=-1)
    log_q = F.log_softmax(student / temperature, dim=-1)
    log_p = F.log_softmax(teacher / temperature, dim=-1)
    p = log_p.exp()
    # A class without probability adds nothing, where 0 times infinity would be no number. A teacher
    # that is broken must not look like one that agrees: NaN stays.
    divergence = torch.where(p == 0, 0.0, p * (log_p - log_q)).sum(dim=-1)
    return temperature**2 * divergence


def _reduced(values: Tensor, counted: Tensor | None, reduction: str) -> Tensor:
    if counted is not None:
        values = torch.where(counted, values, 0.0)
    if reduction == "none":
        return values
    total = values.sum()
    if reduction == "sum":
        return total
    number = values.numel() if counted is None else counted.sum()
    return total / torch.as_tensor(number, device=total.device).clamp(min=1)
