"""Layers: named weights whose elements are read on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pyspectra._arrays import Allocate, HostArray, Loader
from pyspectra._support.cached import cached_property
from pyspectra._support.extents import Extent, extents_of
from pyspectra.errors import ArgumentValueError, FormatError, PyspectraError
from pyspectra.weights.kinds import IN, KINDS, OUT
from pyspectra.weights.precision import StoredAs
from pyspectra.weights.rounding import Change
from pyspectra.weights.skip import Skip, SkippedLayer

__all__ = ["Held", "Layer", "LayerLoader"]

T = TypeVar("T")
LayerLoader = Callable[[], HostArray] | Loader
"""Reads a layer."""


@dataclass(frozen=True)
class Layer:
    """One weight tensor of a model, or a matrix derived from it: what it is, and how to read it.

    Attributes
    ----------
    name : str
        The key without its trailing ``.weight``, unless that is another key; of a part, the name
        of the whole and what part it is, e.g. ``"attn.c_attn[q]"``; of a LoRA pair,
        ``"q_proj[lora BA]"``. No two layers of a source have the same.
    kind : str
        What the tensor is, e.g. ``"linear"``, ``"conv2d"``, ``"embedding"``: a name in
        `pyspectra.weights.kinds.KINDS`, which says how it makes matrices.
    shape : tuple of int
        As stored.
    dtype : str
        ``"float16"``, ``"bfloat16"``, ``"float32"`` or ``"float64"``.
    layer_id : int
        1-based number among the weights of the model, vectors included and ties counted once. It
        follows from the names alone, so that a module, its state dict and its files agree. Of a
        derived layer, that of the tensor in `key`.
    key : str
        The tensor's name in its source, unchanged; of a part the whole's, of a LoRA pair that of A.
    part_of : str or None
        Name of the layer that this one is a part of: one of query, key and value, or a gate. The
        whole is a layer of its own. None for anything else.
    axes : tuple of str
        Meaning of each axis, where the source stores them in another order than the kind has;
        empty where the kind tells.
    position : int
        1-based place among the weights of the source in its own order, ties included, which is
        what WeightWatcher calls ``layer_id``.
    could_be : tuple of str
        Other kinds that name and shape allow, and that would make other matrices. Empty where the
        source knows the kind, as a module does.
    stored_as : StoredAs or None
        From what the elements are computed, where the source stores them in fewer bits than `dtype`
        has: its rounding shows in a spectrum. None where it stores them as they are.
    made_of : tuple of str
        Keys of the tensors that a quantised weight is computed from: packed numbers, scales, zero
        points. `key` is then the name that the weight has where it is not quantised.

    Notes
    -----
    A layer pickles with the address of its tensor where the source is a file, and with this one
    tensor where it is in memory.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    layer_id: int
    key: str
    _loader: LayerLoader = field(repr=False, compare=False)
    part_of: str | None = None
    axes: tuple[str, ...] = ()
    position: int = 0
    could_be: tuple[str, ...] = ()
    stored_as: StoredAs | None = None
    made_of: tuple[str, ...] = ()

    def load(self, allocate: Allocate | None = None) -> HostArray:
        """Read the elements of this tensor, and of no other, now.

        Parameters
        ----------
        allocate : callable, optional
            Takes a shape and a numpy dtype and returns memory that elements from a file are read
            into: whoever sends them on to a device has memory of its own. By default
            `numpy.empty`. Elements that are in memory already stay where they are.

        Returns
        -------
        HostArray
            Of the declared shape and dtype. Fresh memory when read from a file or computed from
            a LoRA pair; a view of the tensor's memory when the source is a model or a state dict
            in host memory. A part is a view of its whole, which is read with it.

        Raises
        ------
        FormatError
            If the tensor cannot be read, or is no longer what it was when the source was opened.
        """
        try:
            loader = self._loader
            array = loader.load(allocate) if isinstance(loader, Loader) else loader()
        except PyspectraError:
            raise
        except Exception as error:  # whatever a reader meets: one layer must not lose the rest
            reason = str(error) or type(error).__name__
            raise FormatError(f"layer {self.key!r} cannot be read: {reason}") from error
        if array.shape != self.shape or array.dtype != self.dtype:
            raise FormatError(
                f"layer {self.key!r} changed since the source was opened: was {self.dtype} "
                f"{self.shape}, is {array.dtype} {array.shape}. Hint: open the source again."
            )
        return array

    def load_with_change(self, allocate: Allocate | None = None) -> tuple[HostArray, Change | None]:
        """Do what `load` does, and tell how large a difference is and what of it is rounding.

        Parameters
        ----------
        allocate : callable, optional
            As for `load`.

        Returns
        -------
        array : HostArray
        change : Change or None
            How large the difference of two models is and what of it is rounding; None for stored
            weights.
        """
        return self.load(allocate), None

    def skipped(self, skip: Skip) -> SkippedLayer:
        """Return what a report says of the layer, if it is not analysed."""
        return SkippedLayer(
            self.name, self.shape, skip, self.dtype, is_part=self.part_of is not None
        )

    def matrix_axes(self, function: str) -> tuple[str, ...]:
        """Return the meaning of each axis, by the kind where the source does not tell.

        Parameters
        ----------
        function : str
            The function, for messages.

        Raises
        ------
        ArgumentValueError
            If the kind is unknown, or the rank does not fit it.
        """
        kind = KINDS.get(self.kind)
        if kind is None:
            raise ArgumentValueError(
                function,
                "layer",
                "be of a kind with a rule",
                f"kind {self.kind!r} (layer {self.name!r})",
                f"kinds with a rule are {', '.join(sorted(KINDS))}",
            )
        axes = self.axes or kind.axes
        if len(self.shape) != len(axes):
            raise ArgumentValueError(
                function,
                "layer",
                f"be {len(axes)}-D where it is of kind {self.kind!r}",
                f"shape {self.shape} (layer {self.name!r})",
            )
        return axes

    @cached_property
    def matrix_sizes(self) -> tuple[int, int, int]:
        """Larger side, smaller side and number of the matrices that the tensor makes."""
        axes = self.matrix_axes("matrix_shape")
        sides, count = [], 1
        for axis, n in zip(axes, self.shape, strict=True):
            if axis in (OUT, IN):
                sides.append(n)
            else:
                count *= n
        return max(sides), min(sides), count

    @property
    def extents(self) -> tuple[Extent, ...]:
        """The parts of files that it is read from, where they are known: to be read ahead."""
        return extents_of(self._loader)

    @property
    def in_memory(self) -> bool:
        """Whether a model or mapping holds the elements, so that pickling takes them along."""
        return isinstance(self._loader, Held)


@dataclass(frozen=True)
class Held(Generic[T]):
    """Loader of a tensor that a model or a mapping holds in memory.

    Attributes
    ----------
    read : callable
        Returns the tensor as it is now.

    Notes
    -----
    It pickles as the tensor of that moment, and never with the model around it. A tensor that
    cannot be read then raises where it is loaded, as it would have here.
    """

    read: Callable[[], T]

    def __call__(self) -> T:
        """Return the tensor as it is now."""
        return self.read()

    def __reduce__(self) -> tuple[object, ...]:
        try:
            array = self.read()
        except PyspectraError as error:
            return Held, (_Failure(str(error)),)
        except Exception as error:  # as Layer.load: one layer must not lose the rest
            return Held, (_Failure(str(error) or type(error).__name__),)
        return Held, (_Value(array),)


@dataclass(frozen=True)
class _Value:
    array: Any

    def __call__(self) -> Any:
        return self.array


@dataclass(frozen=True)
class _Failure:
    message: str

    def __call__(self) -> HostArray:
        raise FormatError(self.message)
