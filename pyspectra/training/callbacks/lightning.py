"""Averaged weights in Lightning: validation with them, and both kinds in the checkpoint."""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
from typing import Any

from pyspectra.errors import ArgumentTypeError, missing_dependency
from pyspectra.optim import EMA
from pyspectra.training.callbacks import _source
from pyspectra.training.callbacks._watching import Watching, validation
from pyspectra.training.run_report import RunReport

__all__ = ["EMACallback", "WatchCallback"]


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
    """Validate and test with averaged weights, and save them with each checkpoint.

    Parameters
    ----------
    ema : EMA, optional
        Averages beside any optimizer; it is attached to the first one when fitting begins, and its
        state travels with this callback's. None where the optimizer averages by itself
        (``ChildAdamW(..., ema_decay=...)``), whose state has the averages.
    swap : bool
        Put the averaged weights in place for validation and test. They leave it when it ends, and
        when an exception ends it.
    save_weights : bool
        Add the averaged weights to checkpoints as ``"ema_state_dict"``, in the type of the model:
        for ``model.load_state_dict``. The weights in training stay under ``"state_dict"``.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        When fitting begins, if nothing keeps an average.
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

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach the averages to the first optimizer."""
        optimizer = trainer.optimizers[0] if trainer.optimizers else None
        _source.source(self._ema, optimizer)
        if self._ema is not None:
            self._ema.detach()
            self._ema.attach(_source.innermost(optimizer))

    def _enter(self, trainer: Any) -> None:
        # Without an optimizer the weights are those of a file, and of the caller's choice.
        if self._swap and (self._ema is not None or trainer.optimizers):
            optimizer = trainer.optimizers[0] if trainer.optimizers else None
            self._in_place.enter_context(_source.swap(_source.source(self._ema, optimizer)))

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Put the averaged weights in place."""
        self._enter(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Put the weights in training back."""
        self._in_place.close()

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Put the averaged weights in place."""
        self._enter(trainer)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Put the weights in training back."""
        self._in_place.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Put the weights in training back."""
        self._in_place.close()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the averaged weights to the checkpoint."""
        if self._save_weights and (self._ema is not None or trainer.optimizers):
            optimizer = trainer.optimizers[0] if trainer.optimizers else None
            averages = _source.source(self._ema, optimizer)
            checkpoint["ema_state_dict"] = averages.ema_state_dict(pl_module)

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
        if self._ema is not None:
            self._ema.load_state_dict(state_dict)


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
