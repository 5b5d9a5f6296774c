"""Averaged weights and the fused optimizers in the Trainer of Hugging Face transformers."""

from __future__ import annotations

import functools
import inspect
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyspectra._support.arguments import check_path, shown
from pyspectra.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    FormatError,
    MissingPathError,
    missing_dependency,
)
from pyspectra.optim import EMA, ChildAdamW
from pyspectra.optim._fused.averages import load_file
from pyspectra.optim._fused.groups import check_option, checked_group
from pyspectra.optim._fused.sharded import is_sharded
from pyspectra.training.callbacks import _source
from pyspectra.training.callbacks._watching import Watching, validation
from pyspectra.training.run_report import RunReport

try:
    import safetensors.torch
    from transformers import TrainerCallback, TrainingArguments
except ImportError as error:
    raise missing_dependency(
        "transformers", "pyspectra.training.callbacks.hf", extra="hf", minimum="4.47"
    ) from error

__all__ = ["EMACallback", "WatchCallback", "optimizer_cls_and_kwargs"]

_FOLDER, _STATE, _WEIGHTS = "ema", "ema_state.pt", "model.safetensors"


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


class EMACallback(TrainerCallback):
    """Save averaged weights with each checkpoint of a Trainer, and resume them.

    Parameters
    ----------
    ema : EMA, optional
        Averages beside any optimizer; it is attached when training begins. None where the
        optimizer averages by itself (``ChildAdamW(..., ema_decay=...)``); its averages are in
        ``optimizer.pt``.
    resume_from : str or path, optional
        With `ema`: checkpoint folder to resume the averages from. Default: the one of
        ``args.resume_from_checkpoint``, or ``checkpoint-N`` of the output folder.

    Raises
    ------
    TypeError, ValueError
        If `ema` is no `EMA`, or `resume_from` is no path or comes without `ema`.
    FileNotFoundError
        If there is no folder `resume_from`.

    Notes
    -----
    After the Trainer has written ``checkpoint-N``, there is ``checkpoint-N/ema``: a model folder
    with the averaged weights in the type of the model, complete or not there, for
    ``from_pretrained``. The weights in training stay where the Trainer puts them. With `ema` the
    folder also has ``ema_state.pt``, the float32 averages and their count.

    Examples
    --------
    >>> kwargs = optimizer_cls_and_kwargs(model, args, ema_decay=0.999)  # doctest: +SKIP
    >>> trainer = Trainer(
    ...     model, args, optimizer_cls_and_kwargs=kwargs, callbacks=[EMACallback()]
    ... )  # doctest: +SKIP
    """

    def __init__(self, ema: EMA | None = None, *, resume_from: str | Path | None = None) -> None:
        _source.check_ema("EMACallback", ema)
        if resume_from is not None:
            resume_from = check_path("EMACallback", "resume_from", resume_from)
            if ema is None:
                raise ArgumentValueError(
                    "EMACallback",
                    "resume_from",
                    "come with 'ema'",
                    shown(str(resume_from)),
                    "an optimizer that averages by itself resumes with its own state",
                )
            if not resume_from.is_dir():
                got = shown(str(resume_from))
                raise MissingPathError("EMACallback", "resume_from", "be a folder", got)
        self._ema = ema
        self._resume_from = resume_from

    def swap_around_evaluation(self, trainer: Any) -> None:
        """Let ``trainer.evaluate()`` and ``predict()`` use the averaged weights from now on.

        They do so within training too; the weights come back after an exception as well. Before the
        first training of an optimizer that averages by itself there is nothing to swap.

        Parameters
        ----------
        trainer : transformers.Trainer
            The one that has this callback.
        """
        loop = trainer.evaluation_loop

        @functools.wraps(loop)
        def with_averages(*args: Any, **kwargs: Any) -> Any:
            if self._ema is None and trainer.optimizer is None:
                return loop(*args, **kwargs)
            with _source.swap(_source.source(self._ema, trainer.optimizer)):
                return loop(*args, **kwargs)

        trainer.evaluation_loop = with_averages

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Attach the averages to the optimizer; resume them where training resumes.

        Raises
        ------
        ValueError
            If nothing keeps an average, or parameters are sharded over processes.
        FormatError
            If training resumes and the checkpoint has no averages, or broken ones.
        """
        _source.source(self._ema, optimizer)
        if any(is_sharded(p) for group in optimizer.param_groups for p in group["params"]):
            raise ValueError(
                "EMACallback: parameters must be whole in each process, got DTensors. Hint: use "
                "ChildAdamW(ema_decay=...) alone; a sharded optimizer state has the averages."
            )
        if self._ema is None:
            return
        self._ema.detach()
        self._ema.attach(_source.innermost(optimizer))
        if state.global_step > 0:
            folders = (
                args.resume_from_checkpoint,
                Path(args.output_dir, f"checkpoint-{state.global_step}"),
            )
            folder = next(
                (Path(f) for f in folders if f and Path(f).is_dir()), Path(args.output_dir)
            )
            if self._resume_from is not None:
                folder = Path(self._resume_from)
            file = folder / _FOLDER / _STATE
            if not file.is_file():
                raise FormatError(
                    f"EMACallback: training resumes at step {state.global_step}, and {file} is "
                    "not there. Hint: resume_from=folder of the checkpoint."
                )
            self._ema.load_state_dict(load_file(file))

    def on_save(
        self,
        args: Any,
        state: Any,
        control: Any,
        *,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Write the averaged weights into the checkpoint."""
        if not state.is_world_process_zero:
            return
        weights = _source.source(self._ema, optimizer).ema_state_dict(model)
        checkpoint = Path(args.output_dir, f"checkpoint-{state.global_step}")
        temporary = checkpoint / f".{_FOLDER}.{secrets.token_hex(8)}.tmp"
        try:
            temporary.mkdir(parents=True)
            if hasattr(model, "save_pretrained"):
                model.save_pretrained(temporary, state_dict=weights)
            else:
                file = temporary / _WEIGHTS
                safetensors.torch.save_file(_untied(weights), file, metadata={"format": "pt"})
            if self._ema is not None:
                torch.save(self._ema.state_dict(), temporary / _STATE)
            target = checkpoint / _FOLDER
            shutil.rmtree(target, ignore_errors=True)  # left by an earlier run in the same folder
            os.replace(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _untied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give each name memory of its own: the format stores no sharing."""
    seen: set[int] = set()
    out = {}
    for name, value in weights.items():
        own = value.contiguous()
        out[name] = own.clone() if own.data_ptr() in seen else own
        seen.add(own.data_ptr())
    return out


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
