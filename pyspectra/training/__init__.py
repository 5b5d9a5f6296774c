"""The loop around the model: its history, what is wrong with it, and averaging of checkpoints.

What records, reads and judges numbers needs neither torch nor matplotlib, so the names of this
package load on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspectra.training.checkpoints import AveragedCheckpoint, average_checkpoints
    from pyspectra.training.diagnosis import diagnose
    from pyspectra.training.history import History
    from pyspectra.training.plot import plot_history
    from pyspectra.training.reading_out import read_out
    from pyspectra.training.rules import Thresholds
    from pyspectra.training.watch import Watch
else:

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        if name in _MODULES:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module 'pyspectra.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})


# Name -> the module that it is in.
_HOMES = {
    "AveragedCheckpoint": "checkpoints",
    "History": "history",
    "Thresholds": "rules",
    "Watch": "watch",
    "average_checkpoints": "checkpoints",
    "diagnose": "diagnosis",
    "plot_history": "plot",
    "read_out": "reading_out",
}
_MODULES = ("curves", "data", "metrics", "rules", "sanity")

__all__ = [
    "AveragedCheckpoint",
    "History",
    "Thresholds",
    "Watch",
    "average_checkpoints",
    "diagnose",
    "plot_history",
    "read_out",
]
