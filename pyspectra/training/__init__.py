"""The loop around the model: its history, what is wrong with it, and averaging of checkpoints.

What records, reads and judges numbers needs neither torch nor matplotlib, so the names of this
package load on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspectra.training.checkpoints import AveragedCheckpoint, average_checkpoints
    from pyspectra.training.decomposition import bias_variance
    from pyspectra.training.diagnosis import diagnose
    from pyspectra.training.history import History
    from pyspectra.training.lr_range import LRCurve, lr_range_test
    from pyspectra.training.plot import plot_history
    from pyspectra.training.reading_out import read_out
    from pyspectra.training.rules import Thresholds
    from pyspectra.training.spectra_plot import plot_spectra
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
    "LRCurve": "lr_range",
    "Thresholds": "rules",
    "Watch": "watch",
    "average_checkpoints": "checkpoints",
    "bias_variance": "decomposition",
    "diagnose": "diagnosis",
    "lr_range_test": "lr_range",
    "plot_history": "plot",
    "plot_spectra": "spectra_plot",
    "read_out": "reading_out",
}
_MODULES = ("curves", "data", "metrics", "predictions", "rules", "sanity", "search")

__all__ = [
    "AveragedCheckpoint",
    "History",
    "LRCurve",
    "Thresholds",
    "Watch",
    "average_checkpoints",
    "bias_variance",
    "diagnose",
    "lr_range_test",
    "plot_history",
    "plot_spectra",
    "read_out",
]
