"""
What CUDA devices there are.
"""

from __future__ import annotations

__all__: list[str] = ["available", "built", "device_names"]

def available() -> bool: ...
def built() -> bool: ...
def device_names() -> list[str]: ...
