"""The file formats, one line each: suffix to reader.

A reader takes a path and returns :class:`~pyspectra.weights.catalogue.Contents`: names, shapes
and element types, with a loader per tensor. It reads no elements (a torch checkpoint in the old,
non-zip layout is the exception: it cannot be read in part).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pyspectra.weights.catalogue import Contents
from pyspectra.weights.formats import npz, safetensors, torch_checkpoint

__all__ = ["FORMATS", "NOT_YET", "Reader"]

Reader = Callable[[Path], Contents]

FORMATS: Final[Mapping[str, Reader]] = {
    ".safetensors": safetensors.read,
    ".pt": torch_checkpoint.read,
    ".pth": torch_checkpoint.read,
    ".bin": torch_checkpoint.read,
    ".ckpt": torch_checkpoint.read,
    ".npz": npz.read,
}

NOT_YET: Final = (".h5", ".hdf5", ".keras", ".onnx", ".gguf")
"""Suffixes of weights files that are known and not read."""
