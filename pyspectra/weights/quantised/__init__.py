"""Quantised weights: which tensors of a source make one, and what it is computed from them.

A scheme (GPTQ, AWQ, fp8 with scales, ...) is one record that says by what names its tensors are
found, checks that they fit, and gives the formula. To add a scheme, add its record to the list of a
module of this package. The tensors of a weight become one entry for the catalogue, under the name
that the weight has where it is not quantised, and are read and computed when its layer is loaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pyspectra._support.dtypes import find
from pyspectra.errors import PyspectraError
from pyspectra.weights.catalogue import TensorEntry
from pyspectra.weights.quantised import bitsandbytes, packed, scaled
from pyspectra.weights.quantised.scheme import (
    MAIN,
    Config,
    Dequantised,
    MisfitError,
    Module,
    Scheme,
    is_readable,
)
from pyspectra.weights.skip import Skip

__all__ = ["SCHEMES", "dequantised", "may_be_quantised"]

# Endings of weights that need not be quantised: of the others, a missing scale is worth a word.
_ORDINARY: Final = ("", ".weight")

SCHEMES: Final[tuple[Scheme, ...]] = (
    *bitsandbytes.SCHEMES,
    *packed.SCHEMES,
    *scaled.SCHEMES,
)
"""The schemes; where the tensors of a weight would do for several, the first that fits is taken."""


def may_be_quantised(entry: TensorEntry) -> bool:
    """Tell whether a tensor is a matrix of small numbers, so that the configuration matters."""
    dtype = find(entry.dtype)
    matrix = entry.shape is not None and len(entry.shape) > 1
    return matrix and dtype is not None and dtype.family in ("integer", "low_precision")


def dequantised(
    entries: Sequence[TensorEntry], config: Mapping[str, Any] | None = None
) -> list[TensorEntry]:
    """Put one entry in the place of the tensors of each quantised weight.

    Parameters
    ----------
    entries : sequence of TensorEntry
        What a format lists.
    config : Mapping, optional
        The configuration of the quantisation, as `Config` has it.

    Returns
    -------
    list of TensorEntry
        Tensors that are no part of a quantised weight are as they were. Those of one that cannot be
        computed say why.
    """
    joined = _Joined(entries, Config(config or {}))
    return list(joined)


def _may_serve(scheme: Scheme, keys: str) -> bool:
    """Tell whether any key, each with a line end behind it, ends as those of a scheme do.

    A source without quantised weights is then done with, whatever the number of its tensors.
    """
    endings: Iterable[str] = [scheme.suffix]
    if scheme.suffix in _ORDINARY:
        endings = itertools.chain.from_iterable(scheme.needed.values())
    return any(f"{ending}\n" in keys for ending in endings)


class _Joined:
    """The walk of `dequantised`."""

    def __init__(self, entries: Sequence[TensorEntry], config: Config) -> None:
        self._config = config
        self._by_key = {entry.key: entry for entry in entries}
        ends = "\n".join([*self._by_key, ""])
        self._schemes = [scheme for scheme in SCHEMES if _may_serve(scheme, ends)]
        self._made: dict[str, TensorEntry] = {}
        self._partner_of: dict[str, str] = {}
        for entry in entries:
            made = self._join(entry)
            if made is not None:
                self._made[entry.key] = made

    def __iter__(self) -> Iterator[TensorEntry]:
        computed = {key for made in self._made.values() for key in made.made_of}
        for key, entry in self._by_key.items():
            if key in self._made:
                yield self._made[key]
            elif key in computed:
                continue
            elif key in self._partner_of:
                skip = Skip("quantised_part", {"weight": self._partner_of[key]})
                yield replace(entry, problem=skip, load=None)
            else:
                yield self._unclaimed(entry)

    def _join(self, entry: TensorEntry) -> TensorEntry | None:
        """Return the entry of the weight whose main tensor this is; None if it is none."""
        refused: tuple[Scheme, Module, str] | None = None
        for scheme in self._schemes:
            module = self._module(scheme, entry)
            if module is None:
                continue
            try:
                return self._weight(scheme, module)
            except (MisfitError, PyspectraError) as error:
                if refused is None or scheme.name.lower() == self._config.method:
                    refused = scheme, module, str(error)
        if refused is None:
            return None
        scheme, module, problem = refused
        partners = (e.key for role, e in module.tensors.items() if role != MAIN)
        self._partner_of.update(dict.fromkeys(partners, entry.key))
        skip = Skip("quantised_misfit", {"scheme": scheme.name, "problem": problem})
        return replace(entry, problem=skip, load=None, per_element=scheme.packs)

    def _module(self, scheme: Scheme, entry: TensorEntry) -> Module | None:
        """Return the tensors of a weight by their roles, as far as they are found."""
        if not entry.key.endswith(scheme.suffix) or not is_readable(entry, MAIN):
            return None
        if entry.problem is not None:  # a copy, or no weight of the model
            return None
        if not scheme.recognises(entry):
            return None
        name = entry.key.removesuffix(scheme.suffix)
        tensors = {MAIN: entry}
        for role, names in (*scheme.needed.items(), *scheme.optional.items()):
            keys = (name + ending for ending in names)
            found = next((key for key in keys if key in self._by_key and key != entry.key), None)
            if found is not None:
                tensors[role] = self._by_key[found]
        if scheme.suffix in _ORDINARY and not tensors.keys() & scheme.needed.keys():
            return None  # a weight like any other
        return Module(name, tensors, self._config)

    def _weight(self, scheme: Scheme, module: Module) -> TensorEntry:
        missing = [names[0] for role, names in scheme.needed.items() if role not in module.tensors]
        if missing:
            raise MisfitError(f"{module.name}{missing[0]} is missing")
        for role, entry in module.tensors.items():
            if not is_readable(entry, role):
                raise MisfitError(f"{entry.key} is empty or cannot be read")
        key = module.name + scheme.weight
        main = module.tensors[MAIN]
        if key != main.key and key in self._by_key:
            raise MisfitError(f"{key} is in the source as well")
        weight = scheme.weight_of(module)
        read = {role: module.tensors[role] for role in weight.roles}
        return replace(
            main,
            key=key,
            shape=weight.shape,
            dtype="float32",
            load=Dequantised(read, weight.formula),
            raw=None,
            problem=None,
            identity=None if main.identity is None else ("quantised", main.identity),
            stored_as=weight.stored_as,
            is_weight=True,
            made_of=tuple(entry.key for entry in module.tensors.values()),
        )

    def _unclaimed(self, entry: TensorEntry) -> TensorEntry:
        """Say of what a method packs that is not read that it is packed, and by what."""
        told = self._config.method and may_be_quantised(entry)
        if not told or entry.problem is not None or min(entry.shape or (0,)) == 1:
            return entry
        return replace(entry, problem=Skip("quantised_unread", {"method": self._config.method}))
