"""What the folder of a model says of how its weights were quantised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pyspectra.weights.formats._files import read_json

__all__ = ["quantisation"]

# The configuration of the model, and what AutoGPTQ and AutoAWQ wrote beside it.
_FILES: Final = (
    ("config.json", "quantization_config"),
    ("config.json", "compression_config"),
    ("quantize_config.json", ""),
    ("quant_config.json", ""),
)


def quantisation(folder: Path) -> Mapping[str, Any]:
    """Read the configuration of the quantisation.

    Parameters
    ----------
    folder : Path
        The folder of the weights.

    Returns
    -------
    Mapping
        Empty if there is none.

    Raises
    ------
    FormatError
        If a configuration is broken: what it would say may change every number.
    """
    for name, part in _FILES:
        path = folder / name
        if not path.is_file():
            continue
        config = read_json(path, "a valid configuration")
        found = config.get(part) if part and isinstance(config, dict) else config
        if isinstance(found, dict) and found:
            return found
    return {}
