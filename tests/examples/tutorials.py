"""How tests get a tutorial: as a module, from the source tree."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def tutorial(name: str) -> Any:
    """Return ``examples/NAME.py`` as a module."""
    script = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
