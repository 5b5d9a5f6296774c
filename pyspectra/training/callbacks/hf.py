"""Averaged weights and the fused optimizers in the Trainer of Hugging Face transformers."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from pyspectra._support.arguments import shown
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, missing_dependency
from pyspectra.optim import ChildAdamW
from pyspectra.optim._fused.groups import check_option, checked_group
from pyspectra.training.callbacks._watching import Watching, validation
from pyspectra.training.run_report import RunReport

try:
    from transformers import TrainerCallback, TrainingArguments
except ImportError as error:
    raise missing_dependency(
        "transformers", "pyspectra.training.callbacks.hf", extra="hf", minimum="4.47"
    ) from error

from pyspectra.training.callbacks._hf_averages import EMACallback

__all__ = ["EMACallback", "WatchCallback", "optimizer_cls_and_kwargs"]


def optimizer_cls_and_kwargs(
    model: torch.nn.Module,
    args: Any,
    *,
    optimizer_cls: type[ChildAdamW] = ChildAdamW,
    **options: Any,
) -> tuple[type[ChildAdamW], dict[str, Any]]:
    """Return what ``Trainer(optimizer_cls_and_kwargs=...)`` takes.

    The groups are the Trainer's: ``args.weight_decay``, and none for biases and norms. It does not
    hand on the names of the parameters; they are put back here, since random masks belong to names.

    Parameters
    ----------
    model : torch.nn.Module
        The one given to the Trainer.
    args : transformers.TrainingArguments
        Learning rate, betas and epsilon come from here.
    optimizer_cls : type
        `ChildAdamW` or `AdamW` of this package.
    **options
        Options of that class; they take precedence over `args`.

    Returns
    -------
    (type, dict)
        The class and its options. Clip gradients in one place only: either with ``max_grad_norm``
        here and ``args.max_grad_norm = 0``, or with ``args.max_grad_norm`` alone.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or an option is unknown or out of range; when the Trainer
        builds the optimizer, also if it trains another model.
    """
    _check_arguments(model, args)
    if not (isinstance(optimizer_cls, type) and issubclass(optimizer_cls, ChildAdamW)):
        raise ArgumentTypeError(
            "optimizer_cls_and_kwargs",
            "optimizer_cls",
            "be ChildAdamW or AdamW of pyspectra.optim",
            repr(optimizer_cls),
        )

    class Named(optimizer_cls):  # type: ignore[valid-type, misc]
        def __init__(self, params: Any, **kwargs: Any) -> None:
            names = {id(p): name for name, p in model.named_parameters()}
            if any(id(p) not in names for group in params for p in group["params"]):
                raise ArgumentValueError(
                    "optimizer_cls_and_kwargs",
                    "model",
                    "be the one that the Trainer trains",
                    f"another {type(model).__name__}",
                    "model_init is not supported",
                )
            groups = [
                {**group, "params": [(names[id(p)], p) for p in group["params"]]}
                for group in params
                if group["params"]  # torch takes an empty group for one without names
            ]
            super().__init__(groups, **kwargs)

    Named.__name__ = Named.__qualname__ = optimizer_cls.__name__
    settings: dict[str, Any] = {
        "lr": args.learning_rate,
        "betas": (args.adam_beta1, args.adam_beta2),
        "eps": args.adam_epsilon,
    }
    settings.update(options)
    _check_options(optimizer_cls, settings)
    return Named, settings


def _check_arguments(model: Any, args: Any) -> None:
    if not isinstance(model, torch.nn.Module):
        raise ArgumentTypeError(
            "optimizer_cls_and_kwargs",
            "model",
            "be a torch.nn.Module",
            f"an object of type {type(model).__name__}",
        )
    if not isinstance(args, TrainingArguments):
        raise ArgumentTypeError(
            "optimizer_cls_and_kwargs",
            "args",
            "be TrainingArguments",
            f"an object of type {type(args).__name__}",
        )


def _check_options(optimizer_cls: type[ChildAdamW], settings: dict[str, Any]) -> None:
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


class WatchCallback(TrainerCallback):
    """Watch the training of a Trainer: its history, and what is silently wrong.

    Parameters
    ----------
    history : History or path, optional
        Where the run is recorded.
    **options
        Options of `pyspectra.training.Watch`.

    Examples
    --------
    >>> callback = WatchCallback("run.jsonl")
    >>> trainer = Trainer(model, args, callbacks=[callback])  # doctest: +SKIP
    >>> print(callback.report())
    Nothing was found in 0 steps.
    """

    def __init__(self, history: Any = None, **options: Any) -> None:
        self._watching = Watching(history, **options)

    def report(self) -> RunReport:
        """Return what was found so far, causes first."""
        return self._watching.report()

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: Any = None, optimizer: Any = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Begin to watch."""
        self._watching.begin(model, [optimizer], state.global_step, max(state.max_steps, 0))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take note of a step."""
        if self._watching.watch is not None:
            self._watching.watch.step()

    def on_evaluate(
        self, args: Any, state: Any, control: Any, *, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Record an evaluation."""
        watch = self._watching.watch
        values = validation(metrics or {}, "eval_")
        if watch is not None and values:
            watch.record(step=state.global_step, epoch=state.epoch, **values)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Judge curves and units."""
        if self._watching.watch is not None:
            self._watching.watch.end_epoch()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the history."""
        if self._watching.watch is not None:
            self._watching.watch.history.flush()
