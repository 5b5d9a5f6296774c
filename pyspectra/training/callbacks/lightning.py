"""Averaged weights in Lightning: validation with them, and both kinds in the checkpoint."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from pyspectra._support.arguments import check_path
from pyspectra._support.termination import cleaning_up
from pyspectra.edit.files.torch_files import save_torch
from pyspectra.errors import ArgumentTypeError, FormatError, missing_dependency
from pyspectra.optim import EMA
from pyspectra.optim._fused.averages import load_file
from pyspectra.training.callbacks import _source
from pyspectra.training.callbacks._watching import Watching, validation
from pyspectra.training.run_report import RunReport

__all__ = ["EMACallback", "WatchCallback", "averaged_checkpoint"]


def _callback_class() -> Any:
    # Two packages hold the same code; a Trainer of the one does not know callbacks of the other.
    names = sorted(("lightning.pytorch", "pytorch_lightning"), key=lambda n: n not in sys.modules)
    for name in names:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name).Callback
    raise missing_dependency(
        "lightning", "pyspectra.training.callbacks.lightning", extra="lightning", minimum="2.2"
    )


class EMACallback(_callback_class()):  # type: ignore[misc]
    """Validate, test and predict with averaged weights, and save them with each checkpoint.

    Parameters
    ----------
    ema : EMA, optional
        Averages beside any optimizer; it is attached to all that move its parameters when fitting
        begins, and its state travels with this callback's. None where optimizers average by
        themselves (``ChildAdamW(..., ema_decay=...)``), whose states have the averages.
    swap : bool
        Put the averaged weights in place for validation, test and prediction. They leave it when
        it ends, and when an exception ends it.
    save_weights : bool
        Add the averaged weights to checkpoints as ``"ema_state_dict"``, in the type of the model:
        for ``model.load_state_dict``. The weights in training stay under ``"state_dict"``.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        When fitting begins, if nothing keeps an average.

    Notes
    -----
    Averages belong to the weights in training. Where the Trainer loads a checkpoint in order to
    validate, test or predict (``ckpt_path="best"``), the averages of that checkpoint are put in
    place; a checkpoint without averages, and weights that were loaded by other ways, are evaluated
    as they are. ``docs/trainers.md`` lists what each trainer evaluates and saves.
    """

    def __init__(
        self, ema: EMA | None = None, *, swap: bool = True, save_weights: bool = True
    ) -> None:
        _source.check_ema("EMACallback", ema)
        for name, value in (("swap", swap), ("save_weights", save_weights)):
            if not isinstance(value, bool):
                raise ArgumentTypeError("EMACallback", name, "be a bool", repr(value))
        super().__init__()
        self._ema = ema
        self._swap = swap
        self._save_weights = save_weights
        self._in_place = contextlib.ExitStack()
        self._left = _source.Left()
        # Averages of the checkpoint whose weights the module has, and which weights these are.
        self._loaded: dict[str, Any] = {}
        self._of_loaded = _source.Left()
        self._in_file: dict[str, Any] = {}  # the averages of the file that was read last
        self._restored = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Put the averages into whatever is saved, and find them in whatever is loaded."""
        self._restored = False
        self._in_file = {}
        # Of a checkpoint of weights alone no hook of a callback hears, and of one that is loaded in
        # order to test not every version's.
        for name, around in (("save_checkpoint", self._save), ("load_checkpoint", self._load)):
            original = getattr(trainer.strategy, name)
            if getattr(original, "func", None) != around:
                setattr(trainer.strategy, name, functools.partial(around, trainer, original))

    def _save(
        self, trainer: Any, save: Any, checkpoint: dict[str, Any], *args: Any, **kw: Any
    ) -> Any:
        self._add_averages(trainer, trainer.lightning_module, checkpoint)
        return save(checkpoint, *args, **kw)

    def _load(self, _trainer: Any, load: Any, *args: Any, **kwargs: Any) -> Any:
        checkpoint = load(*args, **kwargs)
        self._in_file = checkpoint.get("ema_state_dict", {})
        return checkpoint

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach the averages to the optimizers that move their parameters."""
        found = _source.keepers(self._ema, trainer.optimizers)
        if self._ema is not None:
            _source.attach(self._ema, trainer.optimizers)
        replaced = self._left.replaced(pl_module)
        if not self._restored and (trainer.ckpt_path or replaced):
            for keeper in found:  # other weights: their average begins with them
                keeper._restart()
        self._left.forget()
        self._of_loaded.forget()
        self._loaded = self._in_file = {}

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Remember the weights that training leaves."""
        self._left.note(pl_module)

    def _keepers(self, trainer: Any, pl_module: Any) -> list[_source.Keeper]:
        """Return what keeps averages of the weights that the module has; none for other weights."""
        if (self._ema is None and not trainer.optimizers) or self._left.replaced(pl_module):
            return []
        found = _source.keepers(self._ema, trainer.optimizers)
        own = {*pl_module.parameters()}
        return [keeper for keeper in found if own & keeper._moved()]

    def _enter(self, trainer: Any, pl_module: Any) -> None:
        if not self._swap:
            return
        outside = trainer.state.fn != "fit"
        if outside and trainer.ckpt_path:
            self._take(trainer, pl_module)
        if self._loaded and not self._of_loaded.replaced(pl_module):
            self._in_place.enter_context(self._of_loaded.unchanged(pl_module))
            self._in_place.enter_context(_source.put_in(pl_module, self._loaded))
        elif not (outside and trainer.ckpt_path):
            self._in_place.enter_context(self._left.unchanged(pl_module))
            self._in_place.enter_context(_source.swap(self._keepers(trainer, pl_module)))

    def _take(self, trainer: Any, pl_module: Any) -> None:
        """Take the averages of the checkpoint that the Trainer has loaded."""
        self._loaded = self._in_file
        self._of_loaded.note(pl_module)
        if not self._loaded:
            warnings.warn(
                f"EMACallback: {trainer.ckpt_path} has no averaged weights; those that it has are "
                "evaluated.",
                stacklevel=2,
            )

    def _leave(self) -> None:
        self._in_place.close()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Put the averaged weights in place."""
        self._enter(trainer, pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Put the weights in training back."""
        self._leave()

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Put the averaged weights in place."""
        self._enter(trainer, pl_module)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Put the weights in training back."""
        self._leave()

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Put the averaged weights in place."""
        self._enter(trainer, pl_module)

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Put the weights in training back."""
        self._leave()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Put the weights in training back."""
        self._leave()
        if trainer.state.fn == "fit":
            self._left.note(pl_module)

    def _add_averages(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if not self._save_weights:
            return
        if self._loaded and not self._of_loaded.replaced(pl_module):
            checkpoint["ema_state_dict"] = self._loaded
            return
        found = self._keepers(trainer, pl_module)
        if found:
            checkpoint["ema_state_dict"] = _source.averaged(found, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of `ema`, if there is one."""
        return {} if self._ema is None else self._ema.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of `ema`.

        Parameters
        ----------
        state_dict : dict
            What `state_dict` returned.
        """
        self._restored = True
        if self._ema is not None:
            self._ema.load_state_dict(state_dict)


def averaged_checkpoint(checkpoint: str | Path, out: str | Path) -> None:
    """Write a checkpoint whose weights are the averages, for ``load_from_checkpoint``.

    Parameters
    ----------
    checkpoint : path
        A checkpoint that has been saved with `EMACallback`.
    out : path
        A new file. It has what a module is made from, and no states of training.

    Raises
    ------
    FormatError
        If `checkpoint` is no checkpoint of Lightning, or has no averages.
    OSError
        If `out` exists or cannot be written. Nothing is left half-written.

    Examples
    --------
    >>> averaged_checkpoint("run/best.ckpt", "run/average.ckpt")  # doctest: +SKIP
    >>> module = Module.load_from_checkpoint("run/average.ckpt")  # doctest: +SKIP
    """
    source = check_path("averaged_checkpoint", "checkpoint", checkpoint)
    target = check_path("averaged_checkpoint", "out", out)
    whole = load_file(source)
    if not isinstance(whole, dict) or "ema_state_dict" not in whole:
        raise FormatError(
            f"{source}: has no averaged weights. Hint: EMACallback(save_weights=True) adds them to "
            "the checkpoints of a run."
        )
    training = ("callbacks", "optimizer_states", "lr_schedulers", "ema_state_dict", "loops")
    kept = {key: value for key, value in whole.items() if key not in training}
    with cleaning_up():
        try:
            save_torch(torch.save, {**kept, "state_dict": whole["ema_state_dict"]}, target)
        except FileExistsError:
            raise
        except BaseException:
            target.unlink(missing_ok=True)
            raise


class WatchCallback(_callback_class()):  # type: ignore[misc]
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
    >>> trainer = Trainer(callbacks=[callback])  # doctest: +SKIP
    >>> print(callback.report())
    Nothing was found in 0 steps.
    """

    def __init__(self, history: Any = None, **options: Any) -> None:
        super().__init__()
        self._watching = Watching(history, **options)
        self._loss: Any = None
        self._parts: list[Any] = []
        self._count = self._steps = 0

    def report(self) -> RunReport:
        """Return what was found so far, causes first."""
        return self._watching.report()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to watch."""
        planned = trainer.estimated_stepping_batches
        known = int(planned) if math.isfinite(planned) and planned > 0 else 0
        self._watching.begin(pl_module, list(trainer.optimizers), trainer.global_step, known)
        self._steps = trainer.global_step

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Keep the loss with its graph until the batch is done."""
        self._loss = loss
        self._parts.append(loss.detach())

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take note of a step; in a batch (inputs, targets) the second part are the targets."""
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        self._count += len(batch[0]) if pair else 0
        watch = self._watching.watch
        if watch is None or trainer.global_step == self._steps:
            return  # gradients of more batches are added up
        self._steps = trainer.global_step
        loss, parts, count = self._loss, self._parts, self._count
        self._loss, self._parts, self._count = None, [], 0
        if loss is not None and trainer.accumulate_grad_batches > 1:
            # Lightning has divided each by the number of batches of a full step.
            share = trainer.accumulate_grad_batches / len(parts)
            loss = loss * share + share * sum(parts[:-1])
        watch.step(loss, targets=batch[1] if pair else None, n=count or None)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Judge curves and units."""
        if self._watching.watch is not None:
            self._watching.watch.end_epoch(**validation(trainer.callback_metrics, "val_"))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the history."""
        if self._watching.watch is not None:
            self._watching.watch.history.flush()
