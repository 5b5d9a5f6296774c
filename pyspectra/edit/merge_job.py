"""One merge, computed a part of a tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from pyspectra import ops
from pyspectra._support.random import Purpose, random_key
from pyspectra.edit.files import Tensor
from pyspectra.edit.files.rounding import within_range
from pyspectra.edit.merge_methods import MergeMethod, combined
from pyspectra.edit.task_vectors import Base, chunk_of
from pyspectra.edit.trimming import Trim, largest
from pyspectra.types import FloatArray

__all__ = ["Job", "MergedTensor", "Settings", "TaskVector"]

# Elements that are in memory at a time, of each model.
CHUNK: Final = 1 << 16
Trims = list[Trim]


class TaskVector(Protocol):
    """What was added to a base."""

    @property
    def name(self) -> str:
        """How messages call the model."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is read from."""

    def parts(self, key: str, count: int) -> Iterator[FloatArray] | None:
        """Read what belongs to a tensor of the base, `count` elements at a time; None: nothing."""

    def delta(self, part: FloatArray, base: FloatArray) -> FloatArray:
        """Return the task vector where `parts` has yielded `part`, and the base has `base`."""


@dataclass(frozen=True)
class Settings:
    """How to merge.

    Attributes
    ----------
    method : MergeMethod
    weights, densities : tuple of float
        One for each task vector.
    scale : float
        Factor on the merged vector.
    is_mean : bool
        See `MergeMethod`.
    scope : str
        ``"tensor"`` or ``"global"``: among what the largest are looked for.
    seed : int
        Seed of what is dropped.
    """

    method: MergeMethod
    weights: tuple[float, ...]
    densities: tuple[float, ...]
    scale: float
    is_mean: bool
    scope: str
    seed: int


@dataclass(frozen=True)
class MergedTensor:
    """What became of one tensor; norms are Frobenius norms.

    Attributes
    ----------
    name : str
        Its name in the base.
    norm : float
        Norm of the base's values.
    delta_norms : tuple of float
        Norm of each model's difference from them.
    merged_norm : float
        Norm of what was added to them, before it was rounded.

    Examples
    --------
    >>> import tempfile, pyspectra as ps
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from safetensors.numpy import save_file
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name, value in (("base", 3.0), ("tuned", 5.0)):
    ...     save_file({"w": np.full(4, value)}, folder / f"{name}.safetensors")
    >>> base, tuned = folder / "base.safetensors", folder / "tuned.safetensors"
    >>> done = ps.merge(base, [tuned], weights=[0.5], out=folder / "merged.safetensors")
    >>> done.tensors[0]
    MergedTensor(name='w', norm=6.0, delta_norms=(4.0,), merged_norm=2.0)
    """

    name: str
    norm: float
    delta_norms: tuple[float, ...]
    merged_norm: float


class Job:
    """Merges task vectors into a base.

    Attributes
    ----------
    tensors : list of MergedTensor
        What is done so far.
    not_finite : list of str
        Names of tensors so far that hold a NaN or an infinity which the base has not.
    """

    def __init__(self, base: Base, vectors: Sequence[TaskVector], settings: Settings) -> None:
        self.base = base
        self.vectors = vectors
        self.settings = settings
        self.tensors: list[MergedTensor] = []
        self.not_finite: list[str] = []
        self._global: Trims | None = None
        method = settings.method
        if method.keeps == "largest" and settings.scope == "global":
            self._global = [self._global_trim(i) for i in range(len(vectors))]

    def values(self, tensor: Tensor) -> Iterator[FloatArray]:
        """Yield the new values of a floating-point tensor of the base, some at a time."""
        owner = self.base.owners[tensor.key]
        trims = self._trims(owner)
        count = chunk_of(tensor, CHUNK)
        sources = [vector.parts(owner, count) for vector in self.vectors]
        squares = np.zeros(len(sources) + 2)
        done, finite = 0, True
        for part in tensor.chunks(count):
            deltas = [self._delta(i, source, part) for i, source in enumerate(sources)]
            kept = [self._kept(i, owner, d, done, trims) for i, d in enumerate(deltas)]
            added = self.settings.scale * combined(
                kept, self.settings.weights,
                elects=self.settings.method.elects, is_mean=self.settings.is_mean,
            )  # fmt: skip
            with np.errstate(all="ignore"):  # what is not finite is reported by name
                squares += [float(np.vdot(x, x)) for x in (part, *deltas, added)]
                # Nothing added leaves infinities, NaN and zeros of either sign as they are.
                new = part + added
                new = np.where(np.isfinite(new), within_range(new, tensor.dtype.name), new)
                new = np.where(added == 0.0, part, new)
            finite = finite and bool(np.isfinite(new[added != 0.0]).all())
            done += part.size
            yield new
        norm, *norms, merged = np.sqrt(squares).tolist()
        self.tensors.append(MergedTensor(tensor.key, norm, tuple(norms), merged))
        if not finite:
            self.not_finite.append(tensor.key)

    def _delta(
        self, which: int, source: Iterator[FloatArray] | None, part: FloatArray
    ) -> FloatArray:
        """Return the next part of a task vector, which belongs to `part` of the base."""
        if source is None:
            return np.zeros_like(part)
        return self.vectors[which].delta(next(source), part)

    def _kept(
        self, which: int, key: str, delta: FloatArray, done: int, trims: Trims | None
    ) -> FloatArray:
        """Return what the method leaves of a part of a task vector, whose begin is at `done`."""
        density = self.settings.densities[which]
        if trims is not None:
            return trims[which](delta)
        if self.settings.method.keeps == "all" or density >= 1.0:
            return delta
        number = random_key(Purpose.MERGE, self.settings.seed, key, which)
        high, low = (ops.random_draws(number, 0, half, done, delta.size) for half in (0, 1))
        draws = (high.astype(np.uint32) << np.uint32(16)) | low
        return np.where(draws < density * 2.0**32, delta / density, 0.0)

    # --- the largest ------------------------------------------------------------------------------

    def _trims(self, owner: str) -> Trims | None:
        if self.settings.method.keeps != "largest":
            return None
        if self._global is not None:
            return self._global
        tensor = self.base.model.tensors[owner]
        total = math.prod(tensor.shape)
        counts = [int(density * total) for density in self.settings.densities]
        return [
            largest(lambda i=i: self._vector(i, tensor), total, count)  # type: ignore[misc]
            for i, count in enumerate(counts)
        ]

    def _global_trim(self, which: int) -> Trim:
        """Find the largest of a whole model; of equal ones all stay, whose order no file tells."""
        total = sum(math.prod(tensor.shape) for tensor in self.base.tensors)
        count = int(self.settings.densities[which] * total)

        def parts() -> Iterator[FloatArray]:
            for tensor in self.base.tensors:
                yield from self._vector(which, tensor)

        return Trim(largest(parts, total, count).limit)

    def _vector(self, which: int, tensor: Tensor) -> Iterator[FloatArray]:
        """Yield a task vector of one tensor, some of it at a time."""
        count = chunk_of(tensor, CHUNK)
        source = self.vectors[which].parts(self.base.owners[tensor.key], count)
        for part in tensor.chunks(count):
            yield self._delta(which, source, part)
