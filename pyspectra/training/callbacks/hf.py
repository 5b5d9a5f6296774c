"""Averaged weights and the fused optimizers in the Trainer of Hugging Face transformers."""

from __future__ import annotations

from typing import Any

from pyspectra.errors import missing_dependency
from pyspectra.training.callbacks._watching import Watching, validation
from pyspectra.training.run_report import RunReport

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise missing_dependency(
        "transformers", "pyspectra.training.callbacks.hf", extra="hf", minimum="4.47"
    ) from error

from pyspectra.training.callbacks._hf_averages import EMACallback
from pyspectra.training.callbacks._hf_optimizer import optimizer_cls_and_kwargs

__all__ = ["EMACallback", "WatchCallback", "optimizer_cls_and_kwargs"]


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
