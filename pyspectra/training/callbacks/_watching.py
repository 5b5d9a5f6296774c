"""What the callbacks of all frameworks share about `Watch`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pyspectra.training.callbacks import _source
from pyspectra.training.run_report import RunReport
from pyspectra.training.watch import Watch


class Watching:
    """A `Watch` that begins when a trainer has its optimizer.

    Parameters
    ----------
    history : History or path, optional
        As of `Watch`.
    **options
        Of `Watch`.
    """

    def __init__(self, history: Any = None, **options: Any) -> None:
        self._options = {"history": history, **options}
        self.watch: Watch | None = None

    def begin(self, model: Any, optimizers: list[Any]) -> None:
        """Begin, once."""
        if self.watch is None:
            inner = [_source.innermost(optimizer) for optimizer in optimizers]
            self.watch = Watch(model, inner, **self._options)

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
