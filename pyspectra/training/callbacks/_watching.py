"""What the callbacks of all frameworks share about `Watch`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyspectra.optim._fused.wrappers import innermost
from pyspectra.training.history import History
from pyspectra.training.run_report import RunReport
from pyspectra.training.watch import Watch


class Watching:
    """A `Watch` that begins when a trainer has its optimizer.

    Parameters
    ----------
    history : History or path, optional
        As for `Watch`.
    **options
        Options of `Watch`.
    """

    def __init__(self, history: Any = None, **options: Any) -> None:
        self._options = {"history": history, **options}
        self.watch: Watch | None = None

    def begin(self, model: Any, optimizers: list[Any], step: int, planned: int) -> None:
        """Begin, once.

        Parameters
        ----------
        model : torch.nn.Module
        optimizers : list of torch.optim.Optimizer
        step : int
            Steps that were made before: more than 0 where training resumes.
        planned : int
            Steps that will be made; 0 where that is not known.
        """
        if self.watch is not None:
            return
        options = {"planned_steps": planned or None, **self._options}
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            options.setdefault("process_group", torch.distributed.group.WORLD)
        if step and isinstance(options["history"], str | Path):
            first = not options.get("process_group") or torch.distributed.get_rank() == 0
            options["history"] = History.open(options["history"], resume_step=step, write=first)
        inner = [innermost(optimizer) for optimizer in optimizers]
        self.watch = Watch(model, inner, **options)

    def report(self) -> RunReport:
        """Return what was found so far, causes first."""
        return RunReport(()) if self.watch is None else self.watch.report()


def validation(metrics: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the metrics of validation among those of a trainer, by our names."""
    found = {}
    for name, value in metrics.items():
        number = value.detach() if isinstance(value, Tensor) else value
        if name.startswith(prefix) and isinstance(number, int | float | Tensor):
            found["val_" + name.removeprefix(prefix)] = number
    return found
