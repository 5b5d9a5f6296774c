"""The fused optimizers in the Trainer of Hugging Face transformers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from pyspectra._support.arguments import shown
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.optim import SGD, Adam, ChildAdamW
from pyspectra.optim._fused.groups import check_option, checked_group

Fused = type[ChildAdamW] | type[Adam] | type[SGD]


def optimizer_cls_and_kwargs(
    model: torch.nn.Module | Callable[..., torch.nn.Module],
    args: Any,
    *,
    optimizer_cls: Fused = ChildAdamW,
    **options: Any,
) -> tuple[Any, dict[str, Any]]:
    """Return what ``Trainer(optimizer_cls_and_kwargs=...)`` takes.

    The groups are the Trainer's: ``args.weight_decay``, and none for biases and norms. It does not
    hand on the names of the parameters; they are put back here, since random masks belong to names.

    Parameters
    ----------
    model : torch.nn.Module or callable
        The model given to the Trainer, or its ``model_init`` (which needs transformers 5).
    args : transformers.TrainingArguments
        Learning rate, betas, epsilon and the seed of random masks come from here, as they are when
        the Trainer builds the optimizer: a search over hyper-parameters sets them for each trial.
    optimizer_cls : type
        `ChildAdamW`, `AdamW`, `Adam` or `SGD` of this package.
    **options
        Options of that class; they take precedence over `args`.

    Returns
    -------
    (type or callable, dict)
        The class, or with ``model_init`` what makes it, and its options. Clip gradients in one
        place only: either with ``max_grad_norm`` here and ``args.max_grad_norm = 0``, or with
        ``args.max_grad_norm`` alone.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or an option is unknown or out of range; when the Trainer
        builds the optimizer, also if it trains another model.
    """
    _check_arguments(model, args, optimizer_cls)
    settings = {**_of_args(optimizer_cls, args), **options}
    _check_options(optimizer_cls, settings)

    def current(given: dict[str, Any]) -> dict[str, Any]:
        """Return the options, where `args` has changed since with its values of now."""
        now = _of_args(optimizer_cls, args)
        own = {k for k in now if k not in options and given.get(k) == settings[k]}
        return {**given, **{k: now[k] for k in own}}

    if not isinstance(model, torch.nn.Module):
        return _Factory(optimizer_cls, args, current), settings

    trained = model

    class Named(optimizer_cls):  # type: ignore[valid-type, misc]
        def __init__(self, params: Any, **kwargs: Any) -> None:
            super().__init__(_named(trained, params), **current(kwargs))

    Named.__name__ = Named.__qualname__ = optimizer_cls.__name__
    return Named, settings


class _Factory:
    """Makes the optimizer of a model that there is not yet: transformers calls it with the model.

    Its Trainer takes for a factory what is no class of an optimizer, and calls it twice.
    """

    def __init__(
        self, cls: Fused, args: Any, current: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        self._cls, self._args, self._current = cls, args, current

    def __call__(self, *groups: Any, **kwargs: Any) -> Any:
        if groups or kwargs:
            raise ArgumentValueError(
                "optimizer_cls_and_kwargs",
                "model",
                "be the model itself with this version of transformers",
                "model_init",
                "transformers 5 builds the optimizer from the model that model_init returns",
            )
        return self._build

    def _build(self, model: torch.nn.Module, **kwargs: Any) -> Any:
        # The method needs no Trainer: it goes by names and layers.
        decayed = {*Trainer.get_decay_parameter_names(None, model)}  # type: ignore[arg-type]
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        groups = [
            {
                "params": [(n, p) for n, p in trained if (n in decayed) == decays],
                "weight_decay": rate,
            }
            for decays, rate in ((True, self._args.weight_decay), (False, 0.0))
        ]
        return self._cls([g for g in groups if g["params"]], **self._current(kwargs))


def _named(model: torch.nn.Module, groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the Trainer's groups with the names that its parameters have in the model."""
    groups = list(groups)
    names = {id(p): name for name, p in model.named_parameters()}
    if any(id(p) not in names for group in groups for p in group["params"]):
        raise ArgumentValueError(
            "optimizer_cls_and_kwargs",
            "model",
            "be the one that the Trainer trains",
            f"another {type(model).__name__}",
            "a model beside model_init is not supported: pass model_init itself",
        )
    return [
        {**group, "params": [(names[id(p)], p) for p in group["params"]]}
        for group in groups
        if group["params"]  # torch takes an empty group for one without names
    ]


def _of_args(cls: Fused, args: Any) -> dict[str, Any]:
    """Return what the Trainer's arguments say of options that a class has."""
    values = {
        "lr": args.learning_rate,
        "betas": (args.adam_beta1, args.adam_beta2),
        "eps": args.adam_epsilon,
        "seed": args.seed,
    }
    known = inspect.signature(cls).parameters
    return {name: value for name, value in values.items() if name in known}


def _check_arguments(model: Any, args: Any, cls: Any) -> None:
    function = "optimizer_cls_and_kwargs"
    if not (isinstance(model, torch.nn.Module) or callable(model)) or isinstance(model, type):
        raise ArgumentTypeError(
            function,
            "model",
            "be a torch.nn.Module, or the model_init of the Trainer",
            f"an object of type {type(model).__name__}",
        )
    if not isinstance(args, TrainingArguments):
        got = f"an object of type {type(args).__name__}"
        raise ArgumentTypeError(function, "args", "be TrainingArguments", got)
    if not (isinstance(cls, type) and issubclass(cls, (ChildAdamW, Adam, SGD))):
        requirement = "be ChildAdamW or AdamW (or Adam or SGD) of pyspectra.optim"
        raise ArgumentTypeError(function, "optimizer_cls", requirement, repr(cls))


def _check_options(optimizer_cls: Fused, settings: dict[str, Any]) -> None:
    """Check names and values now: the Trainer builds the optimizer much later."""
    parameters = inspect.signature(optimizer_cls).parameters
    known = {name: x.default for name, x in parameters.items() if name != "params"}
    unknown = sorted(settings.keys() - known.keys())
    if unknown:
        raise ArgumentTypeError(
            "optimizer_cls_and_kwargs",
            unknown[0],
            f"be an option of {optimizer_cls.__name__}",
            shown(settings[unknown[0]]),
            f"they are {', '.join(known)}",
        )
    values = {**known, **settings}
    owner = optimizer_cls.__name__
    for name, value in values.items():
        check_option(owner, name, value)
    checked_group(owner, values)
