"""The loop around the model: its history, what is wrong with it, and averaging of checkpoints.

What records, reads and judges numbers needs neither torch nor matplotlib, so the names of this
package load on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspectra.training.checkpoints import AveragedCheckpoint, average_checkpoints
    from pyspectra.training.history import History
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
    "average_checkpoints": "checkpoints",
}
_MODULES = ("curves", "metrics")

__all__ = ["AveragedCheckpoint", "History", "average_checkpoints"]
