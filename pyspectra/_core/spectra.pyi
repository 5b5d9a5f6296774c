"""
Random permutation of entries.
"""

from __future__ import annotations
import numpy
import typing

__all__: list[str] = ["permute"]

def permute(
    X: numpy.ndarray,
    dtype: typing.SupportsInt | typing.SupportsIndex,
    key: typing.SupportsInt | typing.SupportsIndex,
    out: numpy.ndarray,
) -> None: ...
