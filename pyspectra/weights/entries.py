"""What a format lists: the tensors of a source, before anything is decided about them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from pyspectra._arrays import HostArray, Loader
from pyspectra.weights.kernels import KernelLayout, folded
from pyspectra.weights.kinds import is_weight_key
from pyspectra.weights.lora import LoraScale
from pyspectra.weights.precision import StoredAs
from pyspectra.weights.skip import Skip, SkippedLayer

__all__ = ["Contents", "TensorEntry"]


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as a format lists it.

    Attributes
    ----------
    key : str
        Name in the source.
    shape : tuple of int or None
        None if the source does not tell.
    dtype : str
        Element type as the source spells it; the four names of `FLOAT_DTYPES` can be loaded.
    load : callable or None
        Reads this tensor alone; None if `problem` says why it cannot be read.
    kind : str or None
        Kind of the layer where the source knows it (a module); otherwise guessed from name and
        rank.
    identity : hashable or None
        Equal for tensors that share their memory, or are one weight for another reason.
    tie : str
        Code of the reason for which tensors of one identity are one weight.
    problem : Skip or None
        Why the tensor cannot be used, if it cannot.
    part_names : tuple of str or None
        Parts that are stacked along the rows, where the source knows them (empty: none);
        otherwise guessed from names and shapes.
    axes : tuple of str
        Meaning of each axis, where the format stores them in another order than PyTorch; see
        `pyspectra.weights.kinds.Kind`. Names such as ``kernel`` tell it, too.
    stored_as : StoredAs or None
        From what the elements are computed, where the source stores them in fewer bits than
        `dtype` has; None where it stores them as they are.
    raw : callable or None
        Reads the elements as they are stored, integers and 8-bit floats included (as their bit
        patterns); None if they cannot be read, or only as floats.
    made_of : tuple of str
        Keys of the tensors of the source that it is computed from, if it is computed.
    per_element : int
        Parameters that one element stands for, of a tensor that packs several and is not unpacked.
    is_weight : bool or None
        True for a weight, whatever it is called; False for what is none; None where the name tells.
    """

    key: str
    shape: tuple[int, ...] | None
    dtype: str
    load: Callable[[], HostArray] | Loader | None
    kind: str | None = None
    identity: Hashable | None = None
    problem: Skip | None = None
    part_names: tuple[str, ...] | None = None
    axes: tuple[str, ...] = ()
    tie: str = "shared"
    stored_as: StoredAs | None = None
    per_element: int = 1
    is_weight: bool | None = None
    raw: Callable[[], npt.NDArray[Any]] | None = None
    made_of: tuple[str, ...] = ()

    def skipped(self, name: str, skip: Skip) -> SkippedLayer:
        """Return what a report says of it, if it is not analysed."""
        return SkippedLayer(name, self.shape, skip, self.dtype, self.per_element)

    def laid_out(self, layout: KernelLayout) -> TensorEntry:
        """Return the same tensor with what is known of its axes, folded where they are to be."""
        shape, load = self.shape, self.load
        if shape is not None:
            shape = layout.shape(shape)
        if load is not None and layout.groups is not None:
            load = folded(load, layout.groups)
        return replace(
            self,
            shape=shape,
            load=load,
            kind=layout.kind,
            axes=layout.axes,
            part_names=layout.part_names,
        )

    @property
    def counts(self) -> bool:
        """Whether it is a weight."""
        return is_weight_key(self.key, self.shape) if self.is_weight is None else self.is_weight


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Contents:
    """What a reader found.

    Attributes
    ----------
    format : str
        Name of the format, e.g. ``"safetensors"``.
    entries : sequence of TensorEntry
        Tensors in source order.
    close : callable
        Releases what the entries hold on to.
    lora_scale : LoraScale or None
        The factors on the products of LoRA pairs; None for 1.
    beside : tuple of SkippedLayer
        What the source holds besides the model, and why it is not analysed.
    files : tuple of Path
        What was read, and what belongs to it: no result may be written over these.
    quantisation : Mapping or None
        What the configuration of the model says of how its weights were quantised.
    """

    format: str
    entries: Sequence[TensorEntry]
    close: Callable[[], None] = _nothing
    lora_scale: LoraScale | None = None
    beside: tuple[SkippedLayer, ...] = ()
    files: tuple[Path, ...] = ()
    quantisation: Mapping[str, Any] | None = None
