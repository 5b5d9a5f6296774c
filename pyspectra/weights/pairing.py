"""Which layer of one model is which of another: the one rule of every comparison.

Layers are the same if their names are, by any of the names of a tied weight. Names that wrappers
add (``torch.compile``, ``DataParallel``, PEFT) do not count. Where one model is a part of the
other, its layers go by what follows a prefix, if one prefix fits better than any other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from pyspectra.types import FloatArray
from pyspectra.weights.layer import Layer
from pyspectra.weights.lora import joint_cores, lora_product
from pyspectra.weights.names import unwrapped_name
from pyspectra.weights.source import WeightSource
from pyspectra.weights.ties import other_names

__all__ = ["Note", "Pairing", "arrays_to_compare", "pair_layers", "shapes_to_compare"]

# What models of text and pictures put before the names of the part that is a language model.
_TOWER: Final = re.compile(r"(?<=\.)(?:language_model|text_model|llm)\.")

_NOTES: Final = {
    "wrapper": "names of {model!r} are compared without {text!r}",
    "prefix": "names of {model!r} are compared without their prefix {text!r}",
    "ambiguous": "names of {model!r} fit with several prefixes ({text}), and none was left out",
    "collision": (
        "names of {model!r} fit without their prefix {text!r}, which stays: two would become one"
    ),
}


@dataclass(frozen=True)
class Note:
    """Something that was done to names so that they agree.

    Attributes
    ----------
    code : str
        ``"wrapper"`` (the name of a wrapper was left out), ``"prefix"`` (a prefix was),
        ``"ambiguous"`` (several prefixes would fit, and none was) or ``"collision"`` (one would,
        and was not: two names would become one).
    side : int
        0 for the first model, 1 for the second.
    text : str
        What was left out, or could have been.
    """

    code: str
    side: int
    text: str

    def words(self, *models: str) -> str:
        """Return it as a sentence in which the two models go by the names given."""
        return _NOTES[self.code].format(model=models[self.side], text=self.text)


@dataclass(frozen=True)
class Pairing:
    """The layers that two models share.

    Attributes
    ----------
    pairs : tuple of (Layer, Layer)
        A layer of the first model with one of the second, in the order of the first; a tied weight
        goes by the name that paired it. Their shapes may differ.
    only_in_a, only_in_b : tuple of Layer
        The layers without a partner.
    notes : tuple of Note
        What was done to names so that they agree.
    """

    pairs: tuple[tuple[Layer, Layer], ...]
    only_in_a: tuple[Layer, ...]
    only_in_b: tuple[Layer, ...]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class _Named:
    """A layer under one of its names; `owner` is the one that it is listed by."""

    layer: Layer
    owner: str

    @property
    def is_own(self) -> bool:
        return self.layer.name == self.owner


_Names = dict[str, _Named]


def pair_layers(a: WeightSource, b: WeightSource) -> Pairing:
    """Pair the layers of two models.

    Parameters
    ----------
    a, b : WeightSource
        The models.

    Returns
    -------
    Pairing
        Every layer of either model is in a pair, or listed as without one.

    Notes
    -----
    A tie that both have is one weight. One that was made or undone in between is not: the shared
    tensor then pairs with each of its partners.
    """
    first, notes = _unwrapped(_by_name(a), 0)
    second, more = _unwrapped(_by_name(b), 1)
    first, tower_a = _without_tower(first, second, 0)
    second, tower_b = _without_tower(second, first, 1)
    first, prefix_a = _without_prefix(first, second, 0)
    second, prefix_b = _without_prefix(second, first, 1)
    notes += [*more, *tower_a, *tower_b, *prefix_a, *prefix_b]
    found = [
        (one, second[name])
        for name, one in first.items()
        if name in second and (one.is_own or second[name].is_own)
    ]
    found.sort(key=lambda pair: pair[0].layer.layer_id)
    paired_a, paired_b = {x.owner for x, _ in found}, {y.owner for _, y in found}
    # A tie that both have under other names than the listed ones.
    for name, one in first.items():
        other = second.get(name)
        if other is not None and one.owner not in paired_a and other.owner not in paired_b:
            found.append((one, other))
            paired_a.add(one.owner)
            paired_b.add(other.owner)
    return Pairing(
        tuple((one.layer, other.layer) for one, other in found),
        tuple(layer for layer in a.layers if layer.name not in paired_a),
        tuple(layer for layer in b.layers if layer.name not in paired_b),
        tuple(notes),
    )


def _by_name(source: WeightSource) -> _Names:
    """All layers by all names that they go by; parts of a tied weight have as many."""
    names = {layer.name: _Named(layer, layer.name) for layer in source.layers}
    for name, layer in other_names(source.layers, source.skipped):
        names.setdefault(name, _Named(replace(layer, name=name), layer.name))
    return names


def _unwrapped(names: _Names, side: int) -> tuple[_Names, list[Note]]:
    """Leave out what wrappers add, unless two names would become one."""
    notes: dict[str, Note] = {}
    found: _Names = {}
    for name, one in names.items():
        plain, removed = unwrapped_name(name)
        notes.update((text, Note("wrapper", side, text)) for text in removed)
        found[plain] = one
    return (found, list(notes.values())) if len(found) == len(names) else (names, [])


def _fits(name: str, one: _Named, others: Mapping[str, _Named]) -> bool:
    return name in others and others[name].layer.shape == one.layer.shape


def _without_tower(
    names: _Names, others: Mapping[str, _Named], side: int
) -> tuple[_Names, list[Note]]:
    """Leave out ``language_model`` inside of names, if more of them are then those of `others`."""
    found = {_TOWER.sub("", name, count=1): one for name, one in names.items()}
    now = sum(_fits(name, one, others) for name, one in names.items())
    then = sum(_fits(name, one, others) for name, one in found.items())
    if then <= now or len(found) < len(names):
        return names, []
    removed = {match[0] for name in names if (match := _TOWER.search(name)) is not None}
    return found, [Note("wrapper", side, text) for text in sorted(removed)]


def _without_prefix(
    names: _Names, others: Mapping[str, _Named], side: int
) -> tuple[_Names, list[Note]]:
    """Leave out the one prefix that makes more names those of `others` than there are now."""
    counts: Counter[str] = Counter()
    for name, one in names.items():
        for dot in re.finditer(r"\.", name):
            counts[name[: dot.end()]] += _fits(name[dot.end() :], one, others)
    most = max(counts.values(), default=0)
    if most <= sum(_fits(name, one, others) for name, one in names.items()):
        return names, []
    best = sorted(prefix for prefix, count in counts.items() if count == most)
    if len(best) > 1:
        return names, [Note("ambiguous", side, ", ".join(map(repr, best)))]
    found = {name.removeprefix(best[0]): one for name, one in names.items()}
    if len(found) < len(names):
        return names, [Note("collision", side, best[0])]
    return found, [Note("prefix", side, best[0])]


def shapes_to_compare(a: Layer, b: Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what must be equal for a difference: of two LoRA pairs, the shapes of the updates."""
    one, other = lora_product(a), lora_product(b)
    return (a.shape, b.shape) if one is None or other is None else (one.shape, other.shape)


def arrays_to_compare(a: Layer, b: Layer) -> tuple[FloatArray, FloatArray]:
    """Read two layers of one shape, so that norms of their difference and products make sense.

    Parameters
    ----------
    a, b : Layer
        Their `shapes_to_compare` are equal.

    Returns
    -------
    ndarray, ndarray
        float64, in memory of their own: the weights; of two LoRA pairs, their cores in one basis.
    """
    one, other = lora_product(a), lora_product(b)
    if one is None or other is None:
        return a.load().to_float64(), b.load().to_float64()
    return joint_cores(one, other)
