"""What would be analysed of a model, as one value: layers, shapes, and what it would take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pyspectra._support.cached import cached_property
from pyspectra._support.dtypes import find
from pyspectra._support.text import counted, did_you_mean, printable
from pyspectra.report.columns import Column, Head
from pyspectra.report.coverage import Coverage, coverage_of
from pyspectra.report.outputs import TableOutputs, plain
from pyspectra.types import Value
from pyspectra.weights import SkippedLayer
from pyspectra.weights.precision import StoredAs
from pyspectra.weights.roles import Place, place_of

__all__ = ["PLAN_COLUMNS", "PlanData", "PlannedLayer"]

JSON_SCHEMA = "pyspectra.description/1"
_BYTES_OF_A_GRAM = 8
# As many bytes of Gram matrices may wait to be solved together (see `pyspectra.analyze`).
_WAITING = 64 << 20


@dataclass(frozen=True, eq=False)
class PlannedLayer(Value):
    """One layer that would be analysed.

    Attributes
    ----------
    layer_id, name, key, kind, shape, dtype, part_of, stored_as
        As in `pyspectra.weights.Layer`.
    N, M, rf : int
        Longer and shorter side of its matrices, and their number.
    n_evals, n_rows : int
        Eigenvalues of a row of the report, and its rows.
    gram_elements : int
        Entries of all Gram matrices that would be solved, those of permutations included.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> (layer,) = ps.describe({"h.0.attn.c_proj.weight": np.ones((64, 48))})
    >>> layer.parameters, layer.role, layer.flops
    (3072, 'o', 294912.0)
    """

    layer_id: int
    name: str
    key: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    part_of: str | None
    N: int
    M: int
    rf: int
    n_evals: int
    n_rows: int
    gram_elements: int
    stored_as: StoredAs | None = None

    @property
    def parameters(self) -> int:
        """Number of its parameters."""
        return math.prod(self.shape)

    @property
    def place(self) -> Place:
        """Where it stands in the model, and what it does there, as far as its name tells."""
        return place_of(self.name, self.kind)

    @property
    def failure(self) -> str:
        """Why it has no spectrum: empty, since nothing has been tried."""
        return ""

    @property
    def flops(self) -> float:
        """Operations of the spectra: ``N M^2`` for each Gram matrix, ``4/3 M^3`` to solve it."""
        return self.gram_elements / self.M**2 * (self.N * self.M**2 + 4 * self.M**3 / 3)

    @property
    def memory(self) -> int:
        """Bytes: the tensor as it is loaded, its Gram matrices and a workspace of their size."""
        dtype = find(self.dtype)
        bits = 64 if dtype is None else dtype.bits
        return int(self.parameters * bits // 8) + 2 * _BYTES_OF_A_GRAM * self.gram_elements


Row = PlannedLayer

PLAN_COLUMNS: tuple[Column[Row], ...] = (
    Column("layer_id", lambda r: r.layer_id, "Number of the layer in the model.",
           head=Head("id", lambda r, look: (str(r.layer_id), "dim"), spare=0)),
    Column("name", lambda r: r.name, "Name of the layer.",
           head=Head("layer", lambda r, look: (printable(r.name), ""), right=False, spare=0,
                     elastic=True)),
    Column("part_of", lambda r: r.part_of, "Name of the layer that this is a part of."),
    Column("kind", lambda r: r.kind, "Kind of layer.",
           head=Head("kind", lambda r, look: (r.kind, "dim"), right=False, spare=2)),
    Column("stack", lambda r: r.place.stack,
           "Beginning of its name, up to the number of its block."),
    Column("block", lambda r: r.place.block, "Number of its block in the stack.",
           head=Head("block", lambda r, look: (
               look.glyphs.dash if r.place.block is None else str(r.place.block), ""), spare=3)),
    Column("role", lambda r: r.place.role, "What it does, told from its name.",
           head=Head("role", lambda r, look: (r.place.role or look.glyphs.dash, ""), right=False,
                     spare=3)),
    Column("shape", lambda r: "x".join(map(str, r.shape)), "Shape of the tensor."),
    Column("dtype", lambda r: r.dtype, "Type of its elements.",
           head=Head("type", lambda r, look: (r.dtype, "dim"), right=False, spare=1)),
    Column("N", lambda r: r.N, "Longer side of a matrix.",
           head=Head("N x M", lambda r, look: (
               f"{r.rf}x {r.N}x{r.M}" if r.rf > 1 else f"{r.N}x{r.M}", ""), spare=0)),
    Column("M", lambda r: r.M, "Shorter side of a matrix."),
    Column("rf", lambda r: r.rf, "Number of its matrices."),
    Column("n_evals", lambda r: r.n_evals, "Number of eigenvalues of a row."),
    Column("n_rows", lambda r: r.n_rows, "Number of its rows in the report."),
    Column("parameters", lambda r: r.parameters, "Number of its parameters.",
           head=Head("parameters", lambda r, look: (f"{r.parameters:,}", ""), "params", spare=0)),
    Column("flops", lambda r: r.flops, "Operations that its spectra take."),
    Column("memory", lambda r: r.memory, "Bytes that its spectra take."),
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class PlanData(TableOutputs, Value):
    """The values of a description; its view is made from them.

    Attributes
    ----------
    layers : tuple of PlannedLayer
    skipped : tuple of SkippedLayer
        Every tensor that would not be analysed, each with its reason.
    source, format : str
        What it is about, and how it is stored.
    read : tuple of str
        The files.
    """

    layers: tuple[PlannedLayer, ...]
    skipped: tuple[SkippedLayer, ...]
    source: str
    format: str
    read: tuple[str, ...] = field(default=(), compare=False)

    __array_ufunc__ = None  # beside an array it is one thing

    def __len__(self) -> int:
        return len(self.layers)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[PlannedLayer]:
        return iter(self.layers)

    def __reversed__(self) -> Iterator[PlannedLayer]:
        return reversed(self.layers)

    def __getitem__(self, name: str) -> PlannedLayer:
        """Return the layer of that name."""
        for layer in self.layers:
            if name in (layer.name, layer.key):
                return layer
        hint = did_you_mean(name, [layer.name for layer in self.layers])
        raise KeyError(f"no layer {name!r} would be analysed" + (f"; {hint}" if hint else ""))

    @cached_property
    def wholes(self) -> tuple[PlannedLayer, ...]:
        """The layers without the parts of others: nothing counts twice."""
        names = {layer.name for layer in self.layers}
        return tuple(layer for layer in self.layers if layer.part_of not in names)

    @cached_property
    def coverage(self) -> Coverage:
        """How many of the parameters in matrices would be analysed, and why others would not."""
        return coverage_of(self.wholes, self.skipped)

    @property
    def columns(self) -> dict[str, str]:
        """The columns in their order, each with what it is in one sentence."""
        return {column.name: column.help for column in PLAN_COLUMNS}

    @property
    def files(self) -> tuple[str, ...]:
        """What was read, which no output may be written over."""
        return self.read

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict for each layer."""
        return [{column.name: column.value(row) for column in PLAN_COLUMNS} for row in self.layers]

    def summary(self) -> dict[str, Any]:
        """Return numbers of layers, rows, kinds and parameters, and what the spectra would take.

        Notes
        -----
        ``flops`` are operations of Gram matrices and eigenvalues; fits and their replicates come on
        top. ``memory`` is the most bytes that one layer takes, and 64 MiB for those that wait.
        """
        grams = sum(layer.gram_elements for layer in self.layers) * _BYTES_OF_A_GRAM
        most = max((layer.memory for layer in self.layers), default=0)
        return {
            "n_layers": len(self.layers),
            "n_rows": sum(layer.n_rows for layer in self.layers),
            "n_skipped": len(self.skipped),
            "kinds": dict(Counter(layer.kind for layer in self.layers)),
            "parameters": sum(layer.parameters for layer in self.wholes),
            "flops": sum(layer.flops for layer in self.layers),
            "memory": most + min(grams, _WAITING),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        found: dict[str, Any] = plain(
            {
                "schema": JSON_SCHEMA,
                "source": self.source,
                "format": self.format,
                "coverage": {**vars(self.coverage), "share": self.coverage.share},
                "summary": self.summary(),
                "layers": self.rows(),
                "skipped": [
                    {"name": s.name, "shape": s.shape, "code": s.skip.code, "reason": s.reason}
                    for s in self.skipped
                ],
            }
        )
        return found

    def __repr__(self) -> str:
        return (
            f"<Description of {self.source}: {counted(len(self.layers), 'layer')}, "
            f"{self.summary()['parameters']:,} parameters, {len(self.skipped)} skipped>"
        )
