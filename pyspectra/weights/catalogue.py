"""From the tensors that a format lists to layers with ids and skipped tensors with reasons.

A format only says what it holds (:class:`TensorEntry`); which of it is a weight, in what order
they come and why something is skipped is decided here, the same for every format.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from pyspectra._arrays import FLOAT_DTYPES, HostArray, Loader
from pyspectra._support.dtypes import find
from pyspectra.weights.entries import Contents, TensorEntry
from pyspectra.weights.kernels import kernel_layout
from pyspectra.weights.kinds import (
    KINDS,
    LINEAR,
    UNKNOWN,
    Guess,
    guess_kind,
    is_bias_key,
    layer_name,
)
from pyspectra.weights.layer import Layer
from pyspectra.weights.lora import LoraProduct, LoraScale, lora_layer
from pyspectra.weights.lora_names import Flattened, flat_shape, lora_pairs
from pyspectra.weights.order import order_key
from pyspectra.weights.parts import part_layers
from pyspectra.weights.skip import Skip, SkippedLayer

__all__ = ["Contents", "TensorEntry", "catalogue"]


def catalogue(
    entries: Sequence[TensorEntry], lora_scale: LoraScale | None = None
) -> tuple[tuple[Layer, ...], tuple[SkippedLayer, ...]]:
    """Give ids to the weights and part them from everything else.

    Parameters
    ----------
    entries : sequence of TensorEntry
        All tensors of a source, in its order, which gives the positions.
    lora_scale : LoraScale, optional
        See `Contents`.

    Returns
    -------
    layers : tuple of Layer
        Floating-point weights of rank two or more, each followed by its parts. A LoRA pair is
        one layer, in the place of its A.
    skipped : tuple of SkippedLayer
        The rest, each with its reason.

    Notes
    -----
    Ids are 1-based over every weight, vectors and unreadable ones included, in the order of
    `pyspectra.weights.order`, which follows from the names alone. A weight under several names
    (tied) counts once, under the first: files keep one of them. A source in which nothing is named
    like a weight is a bag of arrays: there every floating-point tensor counts.
    """
    entries = _laid_out(entries)
    shapes = {entry.key: entry.shape for entry in entries}
    names = _Names(shapes)
    halves = _lora_halves(entries, lora_scale, names)
    ordered = _in_order(entries)
    numbers = _numbered(entries, ordered, halves)
    layers: list[Layer] = []
    skipped: list[SkippedLayer] = []
    first_name: dict[Hashable, str] = {}
    for entry in ordered:
        name = names.of(entry.key)
        half = halves.get(entry.key)
        if half is not None:
            skipped.append(entry.skipped(name, half.skip))
            if half.derive is not None:
                layers.append(half.derive(*numbers[entry.key]))
            continue
        skip = _reason_to_skip(entry, entry.key in numbers)
        if skip is None and entry.identity is not None:
            owner = first_name.setdefault(entry.identity, name)
            if owner != name:
                skip = Skip(entry.tie, {"same_as": owner})
        if skip is not None or entry.shape is None or entry.load is None:
            skipped.append(entry.skipped(name, skip or Skip("unreadable")))
            continue
        layer_id, position = numbers[entry.key]
        guess = _kind(entry, entry.shape)
        layer = Layer(
            name=name,
            kind=guess.name,
            shape=entry.shape,
            dtype=entry.dtype,
            layer_id=layer_id,
            key=entry.key,
            _loader=entry.load,
            axes=entry.axes,
            position=position,
            could_be=guess.others,
            stored_as=entry.stored_as,
            made_of=entry.made_of,
        )
        layers.append(layer)
        parts = part_layers(layer, entry.part_names, shapes)
        layers.extend(replace(part, name=names.derived(part.name)) for part in parts)
    return tuple(layers), tuple(skipped)


def _laid_out(entries: Sequence[TensorEntry]) -> list[TensorEntry]:
    """Say of every kernel what its axes mean, where its format does not."""
    shapes = {entry.key: entry.shape for entry in entries}
    found = []
    for entry in entries:
        layout = None
        if entry.kind is None and not entry.axes and entry.shape is not None:
            layout = kernel_layout(entry.key, entry.shape, shapes)
        found.append(entry if layout is None else entry.laid_out(layout))
    return found


class _Names:
    """The names of layers and skipped tensors, of which no two are the same."""

    def __init__(self, keys: Mapping[str, object]) -> None:
        self._keys = keys
        self._short = Counter(map(layer_name, keys))
        self._used = set(map(self.of, keys))

    def of(self, key: str) -> str:
        """Return the name of a tensor: its key without ``.weight``, unless that is another's."""
        name = layer_name(key)
        return key if name in self._keys or self._short[name] > 1 else name

    def derived(self, name: str) -> str:
        """Return the name of what is made of tensors, numbered if another layer has it."""
        free = name
        for i in itertools.count(2):
            if free not in self._used:
                break
            free = f"{name} {i}"
        self._used.add(free)
        return free


def _in_order(entries: Sequence[TensorEntry]) -> list[TensorEntry]:
    return sorted(entries, key=lambda entry: order_key(layer_name(entry.key)))


def _numbered(
    entries: Sequence[TensorEntry],
    ordered: Sequence[TensorEntry],
    halves: Mapping[str, _Half],
) -> dict[str, tuple[int, int]]:
    """Give every weight its id and its position."""
    weights = [e.key for e in entries if e.counts]
    if not weights:
        weights = [e.key for e in entries if e.is_weight is None and e.dtype in FLOAT_DTYPES]
    positions = {key: i for i, key in enumerate(weights, start=1)}
    numbers: dict[str, tuple[int, int]] = {}
    seen: set[Hashable] = set()
    count = 0
    for entry in ordered:
        if entry.key not in positions:
            continue
        half = halves.get(entry.key)
        if half is not None:
            is_tie = half.skip.code == "lora_shared"
        else:
            is_tie = entry.identity is not None and entry.identity in seen
        count += not is_tie
        seen.add(entry.identity)
        numbers[entry.key] = count, positions[entry.key]
    return numbers


def _kind(entry: TensorEntry, shape: tuple[int, ...]) -> Guess:
    """Return what the source says, unless such a tensor cannot be of that kind."""
    if entry.kind == UNKNOWN or (entry.kind in KINDS and KINDS[entry.kind].rank == len(shape)):
        return Guess(entry.kind)
    return guess_kind(entry.key, shape)


@dataclass(frozen=True)
class _Half:
    """One tensor of a LoRA pair; from the id and position of A, `derive` makes the layer."""

    skip: Skip
    derive: Callable[[int, int], Layer] | None = None


def _lora_halves(
    entries: Sequence[TensorEntry], lora_scale: LoraScale | None, names: _Names
) -> dict[str, _Half]:
    usable: dict[str, Layer] = {}
    identity: dict[str, Hashable | None] = {}
    for e in entries:
        if "lora" not in e.key or e.shape is None or e.load is None:
            continue
        if _reason_to_skip(e, True) is None:
            usable[e.key] = _plain_layer(e, flat_shape(e.shape), Flattened(e.load))
            identity[e.key] = e.identity
    alphas = {
        e.key: _plain_layer(e, e.shape, e.load)
        for e in entries
        if e.shape in ((), (1,)) and e.load is not None
    }
    halves: dict[str, _Half] = {}
    first_name: dict[Hashable, str] = {}
    for found in lora_pairs({key: half.shape for key, half in usable.items()}):
        pair = replace(found, name=names.derived(found.name))
        skip = pair.problem
        derive = None
        if skip is None:
            scale = 1.0 if lora_scale is None else lora_scale(pair.module, pair.rank)
            alpha = alphas.get(pair.key_alpha) if pair.key_alpha else None
            both = (identity[pair.key_a], identity[pair.key_b])
            # A shared module is listed under all its names. Halves alone may well be shared, and
            # make another product with each partner.
            owner = (
                None if None in both else first_name.setdefault((*both, scale, alpha), pair.name)
            )
            if owner is None or owner == pair.name:
                skip = Skip("lora_half", {"pair": pair.name})
                product = LoraProduct(
                    usable[pair.key_a], usable[pair.key_b], scale, alpha, lora_scale
                )
                derive = functools.partial(lora_layer, pair, product)
                if alpha is not None:
                    halves[alpha.key] = _Half(Skip("lora_alpha", {"pair": pair.name}))
            else:
                skip = Skip("lora_shared", {"pair": pair.name, "same_as": owner})
        halves[pair.key_a] = _Half(skip, derive)
        halves[pair.key_b] = _Half(skip)
    return halves


def _plain_layer(
    entry: TensorEntry, shape: tuple[int, ...], load: Callable[[], HostArray] | Loader
) -> Layer:
    """Return a layer that is never listed, and only checks what it loads."""
    return Layer(layer_name(entry.key), LINEAR.name, shape, entry.dtype, 0, entry.key, load)


def _reason_to_skip(entry: TensorEntry, is_weight: bool) -> Skip | None:
    of_dtype = _dtype_skip(entry.dtype)
    if not is_weight:
        if entry.problem is not None and entry.problem.code == "factor":
            return entry.problem
        return _skip_by_name(entry, of_dtype) or entry.problem or Skip("name")
    if entry.problem is not None:
        return entry.problem
    if of_dtype is not None:
        return of_dtype
    shape = entry.shape
    if shape is None:
        return Skip("shape_unknown")
    if len(shape) < 2:
        return Skip("vector" if shape else "scalar")
    if math.prod(shape) == 0:
        return Skip("empty", {"shape": shape})
    if _kind(entry, shape).name == UNKNOWN:
        return Skip("no_rule", {"rank": len(shape)})
    if len(shape) > 2 and sum(n > 1 for n in shape) < 2:
        return Skip("one_axis", {"shape": shape})
    return None


def _skip_by_name(entry: TensorEntry, of_dtype: Skip | None) -> Skip | None:
    key = entry.key
    if is_bias_key(key):
        return Skip("bias")
    last = key.rpartition(".")[2]
    if of_dtype is not None and last == "qweight":
        return entry.problem or of_dtype
    if ".parametrizations." in f".{key}" or last in ("weight_g", "weight_v", "weight_orig"):
        return Skip("parametrized")
    return None


def _dtype_skip(spelling: str) -> Skip | None:
    dtype = find(spelling)
    if dtype is not None and dtype.is_float:
        return None
    return Skip("dtype" if dtype is None else dtype.family, {"dtype": spelling})
