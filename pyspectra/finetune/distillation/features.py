"""Features: what named modules of a network return, and how far two networks are apart in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from pyspectra._support.arguments import check_flag, check_seed, shown
from pyspectra._support.text import did_you_mean
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.finetune.distillation.losses import feature_loss
from pyspectra.finetune.forward import evaluating, outputs_of

__all__ = ["FeatureMatching", "FeatureRecorder"]


class FeatureRecorder(Mapping[str, Tensor]):
    """Keep what modules of a model return, by hooks, until it is removed.

    Parameters
    ----------
    model : torch.nn.Module
    modules : iterable of str
        Names of ``model.named_modules()``. Of a module that returns several tensors the first is
        kept; of one that is called several times in a forward pass, the last.
    with_gradient : bool
        Keep nothing of forward passes without gradients, such as those of evaluation.

    Raises
    ------
    TypeError, ValueError
        If `model` is no module, or has none of a name.

    Notes
    -----
    Use it in a ``with`` block, or call `remove`. It maps names to the tensors of the last forward
    pass, whose graph lives as long as they are kept: `clear` lets go of them.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import FeatureRecorder
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> with FeatureRecorder(model, ["1"]) as features:
    ...     _ = model(torch.randn(5, 4))
    >>> features["1"].shape
    torch.Size([5, 8])
    """

    def __init__(
        self, model: nn.Module, modules: Iterable[str], *, with_gradient: bool = False
    ) -> None:
        name = "FeatureRecorder"
        if not isinstance(model, nn.Module):
            raise ArgumentTypeError(name, "model", "be a torch.nn.Module", shown(model))
        if isinstance(modules, str) or not isinstance(modules, Iterable):
            raise ArgumentTypeError(name, "modules", "be names of modules", shown(modules))
        found = named(name, "modules", model, modules)
        self._with_gradient = check_flag(name, "with_gradient", with_gradient)
        self._kept: dict[str, Tensor] = {}
        self._hooks = [
            module.register_forward_hook(self._hook(path)) for path, module in found.items()
        ]

    def _hook(self, path: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if self._with_gradient and not torch.is_grad_enabled():
                return
            tensor = _first_tensor(output)
            if tensor is None:
                got = f"an object of type {type(output).__name__} from {path!r}"
                raise ArgumentTypeError("FeatureRecorder", "modules", "return tensors", got)
            self._kept[path] = tensor

        return keep

    def __getitem__(self, name: str) -> Tensor:
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Let go of the tensors that were kept."""
        self._kept.clear()

    def remove(self) -> None:
        """Take the hooks out; what was kept stays."""
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> FeatureRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.remove()


def named(
    function: str, argument: str, model: nn.Module, names: Iterable[str]
) -> dict[str, nn.Module]:
    """Return modules of a model by name.

    Raises
    ------
    ArgumentValueError
        If there is none of a name, or no name.
    """
    known = dict(model.named_modules())
    found = {}
    for name in names:
        if name not in known:
            requirement, hint = "name modules of the model", did_you_mean(name, [*known])
            raise ArgumentValueError(function, argument, requirement, shown(name), hint)
        found[name] = known[name]
    if not found:
        raise ArgumentValueError(function, argument, "name at least one module", "none")
    return found


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        return next((item for item in output if isinstance(item, Tensor)), None)
    return None


class FeatureMatching(nn.Module):
    """Compare layers of a student with layers of its teacher, through projections where needed.

    Parameters
    ----------
    student, teacher : torch.nn.Module
    layers : mapping of str to str
        Name of a module of the student -> name of the module of the teacher that it is to follow.
    example : object
        A batch for both, as for `Distillation`: it tells the widths of these layers.
    seed : int
        Seed of the projections' first weights, in [0, 2^64).

    Raises
    ------
    TypeError, ValueError
        If a name is unknown, or features differ in more than their width.

    Notes
    -----
    Its parameters are the projections, one for each pair whose widths differ: a linear layer over
    the last axis or, of images (batch, channels, height, width), a convolution of size 1. They map
    what the student has to the width of the teacher, and are trained with the student: give
    ``[*student.parameters(), *matching.parameters()]`` to the optimizer. Neither model is a part of
    this module. `remove` takes the hooks out of both.

    References
    ----------
    Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, arXiv 1412.6550.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import FeatureMatching
    >>> student = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    >>> teacher = torch.nn.Sequential(torch.nn.Linear(4, 9), torch.nn.Linear(9, 2))
    >>> x = torch.randn(6, 4)
    >>> matching = FeatureMatching(student, teacher, {"0": "0"}, x)
    >>> [p.shape for p in matching.parameters()]
    [torch.Size([9, 3]), torch.Size([9])]
    >>> _ = student(x), teacher(x)
    >>> matching.loss().backward()
    >>> matching.remove()
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        layers: Mapping[str, str],
        example: Any,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        name = "FeatureMatching"
        for argument, model in (("student", student), ("teacher", teacher)):
            if not isinstance(model, nn.Module):
                raise ArgumentTypeError(name, argument, "be a torch.nn.Module", shown(model))
        if not isinstance(layers, Mapping):
            got = f"an object of type {type(layers).__name__}"
            raise ArgumentTypeError(name, "layers", "be a mapping of names to names", got)
        seed = check_seed(name, "seed", seed)
        named(name, "layers", student, layers)
        named(name, "layers", teacher, layers.values())
        self._layers = dict(layers)
        of_student, of_teacher = _features_of(student, layers, example), _features_of(
            teacher, layers.values(), example
        )  # fmt: skip
        generator = torch.Generator().manual_seed(seed % 2**63)
        self.projections = nn.ModuleList(
            _projection(f"{a!r} and {b!r}", of_student[a], of_teacher[b], generator)
            for a, b in layers.items()
        )
        # Plain objects: modules that are attributes would be parts of this one.
        self._student = FeatureRecorder(student, self._layers, with_gradient=True)
        self._teacher = FeatureRecorder(teacher, self._layers.values())

    def loss(self, mask: Tensor | None = None) -> Tensor:
        """Return the mean of `feature_loss` over the pairs, of the last forward pass of both.

        Parameters
        ----------
        mask : torch.Tensor of bool, optional
            True where features count; its shape is that of their first axes, as (batch, length). In
            layers without more axes than it has, as those behind a pooling, all count.

        Returns
        -------
        torch.Tensor
            A scalar. The features are let go.

        Raises
        ------
        RuntimeError
            If one of the two has not been run since, or the student without gradients.
        """
        losses = []
        for projection, (a, b) in zip(self.projections, self._layers.items(), strict=True):
            if a not in self._student or b not in self._teacher:
                which, path = ("teacher", b) if a in self._student else ("student", a)
                raise RuntimeError(
                    f"FeatureMatching.loss: there are no features of {path!r} of the {which}. "
                    "Hint: run both models, the student with gradients, before each loss()."
                )
            student = projection(self._student[a])
            own = mask if mask is not None and mask.ndim < student.ndim else None
            losses.append(feature_loss(student, self._teacher[b], mask=own))
        self._student.clear()
        self._teacher.clear()
        return torch.stack(losses).mean()

    def remove(self) -> None:
        """Take the hooks out of both models."""
        for recorder in (self._student, self._teacher):
            recorder.remove()
            recorder.clear()


def _features_of(model: nn.Module, names: Iterable[str], example: Any) -> Mapping[str, Tensor]:
    with FeatureRecorder(model, dict.fromkeys(names)) as features, evaluating(model):
        outputs_of(model, example)
    return features


def _projection(which: str, a: Tensor, b: Tensor, generator: torch.Generator) -> nn.Module:
    """Return what maps features of the first kind to the width of the second."""
    axis = 1 if a.ndim == 4 else a.ndim - 1
    ours, theirs = [*a.shape], [*b.shape]
    if len(ours) == len(theirs) and ours == theirs:
        return nn.Identity()
    same_rest = [*ours[:axis], *ours[axis + 1 :]] == [*theirs[:axis], *theirs[axis + 1 :]]
    if len(ours) != len(theirs) or len(ours) < 2 or not same_rest:
        got = f"{tuple(ours)} and {tuple(theirs)} of {which}"
        requirement = "pair features that differ in their width alone"
        raise ArgumentValueError("FeatureMatching", "layers", requirement, got)
    # Made without values, so that the generator of the caller is not drawn from.
    layer: nn.Module
    if a.ndim == 4:
        layer = nn.Conv2d(ours[1], theirs[1], 1, device="meta", dtype=a.dtype)
    else:
        layer = nn.Linear(ours[axis], theirs[axis], device="meta", dtype=a.dtype)
    layer.to_empty(device=a.device)
    bound = ours[axis] ** -0.5  # the usual first weights of both kinds
    with torch.no_grad():
        for parameter in layer.parameters():
            draws = torch.rand(parameter.shape, generator=generator)
            parameter.copy_((2.0 * draws - 1.0) * bound)
    return layer
