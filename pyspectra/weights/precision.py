"""From how many bits a layer came, where its file stores it in fewer than it is analysed in."""

from __future__ import annotations

from dataclasses import dataclass

from pyspectra.types import Value

__all__ = ["StoredAs"]


@dataclass(frozen=True, eq=False)
class StoredAs(Value):
    """How weights were quantised that have been dequantised.

    Attributes
    ----------
    bits : float
        Bits of one weight, the scales beside it not counted.
    words : str
        The format and its blocks, e.g. ``"fp8 e4m3, blocks of 128 x 128"``.

    Examples
    --------
    >>> print(StoredAs(4, "GPTQ, groups of 128"))
    4 bits: GPTQ, groups of 128
    """

    bits: float
    words: str

    def __str__(self) -> str:
        return f"{self.bits:g} bits: {self.words}"
