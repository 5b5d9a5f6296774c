"""LoRA pairs by their names: PEFT, kohya and diffusers call the two halves differently."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pyspectra._arrays import Allocate, HostArray, Loader
from pyspectra.weights.kinds import LORA_EMBEDDING_KEY
from pyspectra.weights.skip import Skip

__all__ = ["Flattened", "LoraPair", "flat_shape", "lora_pairs"]

Shape = tuple[int, ...]

# PEFT: one pair per adapted module, with the adapter's name in between unless a saved file left
# it out. Embeddings hold bare parameters instead of modules, hence no ".weight". kohya and those
# who followed say "down" and "up", and keep alpha beside the halves.
_NAMINGS: Final = (
    (
        re.compile(
            r"(?:(?P<module>.+)\.)?lora_(?P<half>[AB])(?:\.(?P<adapter>[^.]+))?\.weight", re.DOTALL
        ),
        "A",
        "B",
    ),
    (LORA_EMBEDDING_KEY, "A", "B"),
    (
        re.compile(r"(?:(?P<module>.+)\.)?lora_(?P<half>down|up)(?P<adapter>)?\.weight", re.DOTALL),
        "down",
        "up",
    ),
    # diffusers, before it wrote the names of PEFT.
    (
        re.compile(
            r"(?P<module>.+?)(?:[._]lora|\.lora_linear_layer)\.(?P<half>down|up)(?P<adapter>)?"
            r"\.weight",
            re.DOTALL,
        ),
        "down",
        "up",
    ),
)
# The namings that have a place for alpha.
_WITH_ALPHA: Final = (2, 3)


@dataclass(frozen=True)
class LoraPair:
    """The two halves of a low-rank update ``B @ A`` of one module.

    Attributes
    ----------
    module : str
        Name of the module that the update belongs to, in the source.
    name : str
        Name of the derived layer: ``MODULE[lora BA]``, with the adapter's name inside the brackets
        if the module has several.
    key_a, key_b : str
        Keys of A, ``(r, in)``, and of B, ``(out, r)``.
    shape_a, shape_b : (int, int)
        Their shapes.
    key_alpha : str or None
        Where the naming (kohya's) has a place for alpha, the key that it would have.
    has_core : bool
        Whether a third tensor lies between the two (``lora_mid``), so that their product is not
        the update.
    """

    module: str
    name: str
    key_a: str
    key_b: str
    shape_a: Shape
    shape_b: Shape
    key_alpha: str | None = None
    has_core: bool = False

    @property
    def rank(self) -> int:
        """Rows of A; columns of B too, if they fit."""
        return self.shape_a[0]

    @property
    def problem(self) -> Skip | None:
        """Why A and B cannot be multiplied, or None."""
        if self.has_core:
            return Skip("lora_core", {"pair": self.name})
        if self.rank == self.shape_b[1]:
            return None
        detail = {"pair": self.name, "rank_a": self.rank, "rank_b": self.shape_b[1]}
        return Skip("lora_misfit", detail)


def flat_shape(shape: Shape) -> Shape:
    """Return the shape of a half as a matrix: the kernel of a convolution belongs to its inputs.

    A of a convolution is ``(r, in, *k)``, and B ``(out, r, 1, ...)``, so that ``B @ A`` is the
    update ``(out, in * prod(k))``.
    """
    return shape[0], math.prod(shape[1:])


@dataclass(frozen=True)
class Flattened(Loader):
    """Loader of a half as a matrix.

    Attributes
    ----------
    half : callable
        Reads it as it is stored.
    """

    half: Callable[[], HostArray] | Loader

    def load(self, allocate: Allocate | None = None) -> HostArray:
        """Read it."""
        array = self.half.load(allocate) if isinstance(self.half, Loader) else self.half()
        return HostArray(array.data.reshape(flat_shape(array.shape)), array.dtype)


def lora_pairs(shapes: Mapping[str, Shape]) -> tuple[LoraPair, ...]:
    """Find the LoRA pairs of a source by their names.

    Parameters
    ----------
    shapes : Mapping
        The keys of all tensors that can be analysed, with their shapes.

    Returns
    -------
    tuple of LoraPair
        Halves that both are there: ``X.lora_A.weight`` and ``X.lora_B.weight``,
        ``X.lora_A.ADAPTER.weight`` and its like, ``X.lora_embedding_A`` and its like (PEFT);
        ``X.lora_down.weight`` and ``X.lora_up.weight`` (kohya); ``X.lora.down.weight`` and
        ``X_lora.down.weight`` with their like (diffusers). Those of convolutions go by their
        `flat_shape`.
    """
    halves: dict[tuple[str, int, str | None], dict[str, str]] = {}
    for key, shape in shapes.items():
        for naming, (pattern, half_a, half_b) in enumerate(_NAMINGS):
            match = pattern.fullmatch(key)
            if match is not None and len(shape) >= 2:
                half = {half_a: "A", half_b: "B"}[match["half"]]
                owner = (match["module"] or "", naming, match["adapter"])
                halves.setdefault(owner, {})[half] = key
    complete = {owner: found for owner, found in halves.items() if len(found) == 2}
    adapters = Counter(module for module, _, _ in complete)
    pairs = []
    for (module, naming, adapter), found in complete.items():
        which = f" {adapter or 'default'}" if adapters[module] > 1 else ""
        key_a, key_b = found["A"], found["B"]
        name = f"{module}[lora BA{which}]"
        key_alpha = None
        if naming in _WITH_ALPHA:
            key_alpha = f"{module}.alpha" if module else "alpha"
        shape_a, shape_b = shapes[key_a], shapes[key_b]
        core = f"{module}.lora_mid.weight" in shapes
        pairs.append(LoraPair(module, name, key_a, key_b, shape_a, shape_b, key_alpha, core))
    return tuple(pairs)
