"""
Compiled kernels of pyspectra. Private: pyspectra.ops is the only caller.
"""

from __future__ import annotations
import typing
from . import cuda
from . import linalg
from . import optim
from . import powerlaw
from . import spectra

__all__: list[str] = [
    "available_isas",
    "build_info",
    "cuda",
    "is_alone",
    "isa",
    "linalg",
    "num_threads",
    "optim",
    "powerlaw",
    "set_alone",
    "set_isa",
    "set_num_threads",
    "spectra",
    "status_names",
]

def available_isas() -> list[str]: ...
def build_info() -> dict[str, typing.Any]: ...
def is_alone() -> bool: ...
def isa() -> str: ...
def num_threads() -> int: ...
def set_alone(alone: bool) -> None: ...
def set_isa(name: str) -> None: ...
def set_num_threads(n: typing.SupportsInt | typing.SupportsIndex) -> None: ...
def status_names() -> dict[str, int]: ...
