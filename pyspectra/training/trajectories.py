"""Spectra of layers over time: as a history keeps them, and as rules read them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pyspectra.training.rules.facts import LayerSpectrum, Trajectories
from pyspectra.types import FloatArray

__all__ = ["as_records", "last_alphas", "spectra_of", "trajectories"]

EMBEDDING = "embedding"


def as_records(rows: Iterable[LayerSpectrum]) -> list[dict[str, Any]]:
    """Return rows as a history keeps them: the step stands beside them."""
    records = [dataclasses.asdict(row) for row in rows]
    for record in records:
        del record["step"]
    return records


def spectra_of(lines: Iterable[Mapping[str, Any]]) -> list[LayerSpectrum]:
    """Return what a history recorded (`History.spectra`), without the rows of other programs."""
    names = {field.name for field in dataclasses.fields(LayerSpectrum)} - {"step"}
    needed = names - {"random_p_value", "n_traps", "trap_strength", "kind"}
    out = []
    for line in lines:
        for row in line["layers"]:
            if needed <= row.keys():
                values: dict[str, Any] = {name: row[name] for name in names & row.keys()}
                known: dict[str, Any] = {n: math.nan if v is None else v for n, v in values.items()}
                out.append(LayerSpectrum(step=int(line["step"]), **known))
    return out


def trajectories(spectra: Iterable[LayerSpectrum], warmup: int = 10) -> Trajectories:
    """Sort spectra by layer and step; first, last and embedding layers are the outer ones."""
    layers: dict[str, list[LayerSpectrum]] = {}
    for row in sorted(spectra, key=lambda r: r.step):
        layers.setdefault(row.name, []).append(row)
    return Trajectories(layers, outer_layers(layers), warmup)


def outer_layers(layers: Mapping[str, Sequence[LayerSpectrum]]) -> frozenset[str]:
    """Return the names of layers on which alone no judgement is made."""
    names = list(layers)
    ends = {names[0], names[-1]} if len(names) > 2 else set()
    return frozenset(ends | {name for name, rows in layers.items() if rows[-1].kind == EMBEDDING})


def last_alphas(lines: Iterable[Mapping[str, Any]]) -> FloatArray | None:
    """Return the last tail exponent of each layer.

    Parameters
    ----------
    lines : iterable of mapping
        `History.spectra`.

    Returns
    -------
    ndarray of float64, or None
        None if no layer has an alpha.
    """
    last = {row.get("name"): row.get("alpha") for line in lines for row in line["layers"]}
    known = [alpha for alpha in last.values() if alpha is not None]
    return np.array(known, dtype=np.float64) if known else None
