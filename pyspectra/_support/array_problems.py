"""Why an array cannot be read as floating-point numbers, as data; its English in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["ARRAY_PROBLEMS", "ArrayProblem"]

_CONVERT = "convert it to float32 or float64"

ARRAY_PROBLEMS: Final[Mapping[str, tuple[str, str]]] = {
    "dtensor": (
        "a DTensor (sharded over processes)",
        "gather it first with .full_tensor()",
    ),
    "meta": (
        "a tensor without data (meta device)",
        "load the weights onto a real device first",
    ),
    "lazy": ("an uninitialised lazy parameter", "run one forward pass first"),
    "quantised": (
        "a quantised tensor ({dtype})",
        "dequantise it first with .dequantize()",
    ),
    "sparse": ("a sparse tensor (layout {layout})", "convert it first with .to_dense()"),
    "nested": ("a nested tensor", "pass its components one at a time"),
    "negated": (
        "a tensor that is yet to be negated (a view of a complex one)",
        "save a copy with .resolve_neg()",
    ),
    "repeated": (
        "a tensor of {count} elements that repeats {stored} stored ones",
        "save a copy with .contiguous()",
    ),
    "masked": ("a masked array", "fill the masked elements first with .filled()"),
    "subclass": (
        "a tensor of subclass {type}",
        "convert it to a plain torch.Tensor first",
    ),
    "compressed": ("a tensor that was compressed when it was saved", "save it as it is"),
    "dtype": ("dtype {dtype}", _CONVERT),
    "no_array": ("an object of type {type}", _CONVERT),
}
"""Code -> what is the matter with an array, and what to do about it."""


@dataclass(frozen=True)
class ArrayProblem:
    """Why an array cannot be read as floating-point host memory, as data.

    Attributes
    ----------
    code : str
        One of `ARRAY_PROBLEMS`.
    detail : Mapping
        What the sentence speaks of, by name.
    """

    code: str
    detail: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return ARRAY_PROBLEMS[self.code][0].format_map(self.detail)

    @property
    def hint(self) -> str:
        """What to do about it: a sentence without its final full stop."""
        if self.code == "dtype" and self.detail["dtype"].startswith("complex"):
            return "pass the real and the imaginary part apart"
        return ARRAY_PROBLEMS[self.code][1]
