"""What quantisation does to each layer, as a table that chooses bits for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyspectra._support.arguments import as_integer, check_choice, check_number, shown
from pyspectra._support.text import counted, printable
from pyspectra.analysis.bit_choice import COSTS, LayerSensitivity, cheapest, within
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.report.columns import Column, Head, Look
from pyspectra.report.glyphs import ASCII, UNICODE
from pyspectra.report.layout import grid, line, skipped_lines
from pyspectra.report.outputs import RowOutputs, plain
from pyspectra.types import Value
from pyspectra.weights import SkippedLayer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["QuantizationSensitivity"]

JSON_SCHEMA = "pyspectra.quantization/1"
KEEP = "QuantizationSensitivity.keep"

Row = LayerSensitivity


def _number(value: Callable[[Row], float], digits: int, times: float = 1.0) -> Any:
    return lambda r, look: (look.number(times * value(r), digits), "")


def _alpha(row: Row, look: Look) -> tuple[str, str]:
    error = look.number(row.alpha_stderr, 2)
    return f"{look.number(row.alpha, 2)} {look.glyphs.plus_minus} {error}", ""


COLUMNS: tuple[Column[Row], ...] = (
    Column("name", lambda r: r.name, "Name of the layer.",
           head=Head("layer", lambda r, look: (printable(r.name), ""), right=False, spare=0,
                     elastic=True)),
    Column("key", lambda r: r.key, "Name of its parameter."),
    Column("kind", lambda r: r.kind, "Kind of layer."),
    Column("shape", lambda r: "x".join(map(str, r.shape)), "Shape of the tensor."),
    Column("parameters", lambda r: r.parameters, "Number of its weights."),
    Column("bits", lambda r: r.bits, "Bits of an integer.",
           head=Head("bits", lambda r, look: (str(r.bits), ""), spare=0)),
    Column("error", lambda r: r.error, "Norm of the error over the norm of the weights.",
           head=Head("error %", _number(lambda r: r.error, 2, 100.0), spare=0)),
    Column("spectrum_change", lambda r: r.spectrum_change,
           "Largest relative change among the largest tenth of the eigenvalues.",
           head=Head("top %", _number(lambda r: r.spectrum_change, 2, 100.0), spare=2)),
    Column("error_over_edge", lambda r: r.error_over_edge,
           "Largest singular value of the error over that of a random matrix of its norm.",
           head=Head("/ edge", _number(lambda r: r.error_over_edge, 2), spare=3)),
    Column("share_below_error", lambda r: r.share_below_error,
           "Share of the singular values below the largest of the error.",
           head=Head("below %", _number(lambda r: r.share_below_error, 0, 100.0), spare=3)),
    Column("alpha", lambda r: r.alpha, "Tail exponent before.",
           head=Head("alpha", _alpha, spare=1)),
    Column("alpha_stderr", lambda r: r.alpha_stderr, "Its standard error."),
    Column("alpha_after", lambda r: r.alpha_after, "Tail exponent after.",
           head=Head("after", _number(lambda r: r.alpha_after, 2), spare=1)),
    Column("alpha_moved", lambda r: r.alpha_moved,
           "Whether alpha changed by more than 1.96 standard errors."),
    Column("output_change", lambda r: r.output_change,
           "Norm of the change of the output over its norm.",
           head=Head("output %", _number(lambda r: r.output_change, 2, 100.0), spare=0)),
    Column("loss_change", lambda r: r.loss_change, "Change of the mean loss.",
           head=Head("loss", _number(lambda r: r.loss_change, 4), spare=0)),
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class QuantizationSensitivity(RowOutputs, Value):
    """What `pyspectra.quantization_sensitivity` returns: a row for each layer and number of bits.

    Attributes
    ----------
    layers : tuple of LayerSensitivity
        In the order of the model, more bits first.
    skipped : tuple of SkippedLayer
        The other tensors, each with its reason.
    source : str
        What was measured.
    grid : str
        What shares a scale, and whether it is symmetric.
    has_output, has_loss : bool
        Whether there were data, and a loss.
    read : tuple of str
        The files.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> rng = np.random.default_rng(0)
    >>> model = {f"{name}.weight": rng.standard_t(3, (60, 40)) for name in "abc"}
    >>> found = ps.quantization_sensitivity(model, bits=(8, 4))
    >>> found
    <QuantizationSensitivity of 3 layers at 8 and 4 bits (channel, symmetric)>
    >>> found.keep(4, budget=6.0)
    {'a.weight': 8, 'b.weight': 4, 'c.weight': 4}
    """

    layers: tuple[LayerSensitivity, ...]
    skipped: tuple[SkippedLayer, ...]
    source: str
    grid: str
    has_output: bool = False
    has_loss: bool = False
    read: tuple[str, ...] = field(default=(), compare=False)

    @property
    def bits(self) -> tuple[int, ...]:
        """The numbers of bits that were tried, the most first."""
        return tuple(sorted({row.bits for row in self.layers}, reverse=True))

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[LayerSensitivity]:
        return iter(self.layers)

    def __repr__(self) -> str:
        count = counted(len(self._by_layer()), "layer")
        words = " and ".join(map(str, self.bits))
        return f"<QuantizationSensitivity of {count} at {words} bits ({self.grid})>"

    @property
    def columns(self) -> dict[str, str]:
        """The columns in their order, each with what it is in one sentence."""
        return {column.name: column.help for column in self._columns()}

    @property
    def files(self) -> tuple[str, ...]:
        """What was read, which no output may be written over."""
        return self.read

    def _columns(self) -> list[Column[Row]]:
        absent = {"output_change": not self.has_output, "loss_change": not self.has_loss}
        return [column for column in COLUMNS if not absent.get(column.name, False)]

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict for each layer and number of bits."""
        return [{c.name: c.value(row) for c in self._columns()} for row in self.layers]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values; NaN and infinity become None."""
        found: dict[str, Any] = plain(
            {
                "schema": JSON_SCHEMA,
                "source": self.source,
                "grid": self.grid,
                "layers": self.rows(),
                "skipped": [
                    {"name": x.name, "shape": x.shape, "reason": x.reason} for x in self.skipped
                ],
            }
        )
        return found

    def print(self, console: Console | None = None) -> None:
        """Print the table.

        Parameters
        ----------
        console : rich.console.Console, optional
            The terminal or file to print to; standard output by default.
        """
        from rich.console import Console

        console = Console() if console is None else console
        glyphs = ASCII if console.options.ascii_only else UNICODE
        lines = [line((printable(self.source), "bold"), f"  {self.grid}", wrap=True)]
        if self.layers:
            heads = [c.head for c in self._columns() if c.head is not None]
            lines += grid(self.layers, heads, console.width, glyphs)
        lines += skipped_lines([x for x in self.skipped if x.failed], console.width, glyphs)
        for text in lines:
            console.print(text, highlight=False, no_wrap=text.no_wrap, overflow=text.overflow)

    # --- the choice of bits ---------------------------------------------------------------------

    def keep(
        self,
        bits: int | None = None,
        *,
        budget: float | None = None,
        limit: float | None = None,
        by: str | None = None,
    ) -> dict[str, int]:
        """Choose the layers that keep more bits than the rest.

        Parameters
        ----------
        bits : int, optional
            What a layer has that need not have more: one of the numbers that were tried, by default
            the least.
        budget : float
            Mean number of bits of all weights together that is not exceeded; or give `limit`.
        limit : float
            What no layer is to exceed in `by`: it has the fewest bits at which it does not, or the
            most that were tried.
        by : {"error", "spectrum_change", "alpha_change", "output_change", "loss_change"}, optional
            What counts; by default the change of the output, and the error where there are no data.

        Returns
        -------
        dict of str to int
            Name of the parameter -> bits, of every layer that was measured: as
            `pyspectra.quantize` takes them.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or range, not one of `budget` and `limit` is given,
            or `by` was not measured.

        Notes
        -----
        With a budget the squares of `by` (the changes of the loss themselves), added up over the
        layers, are as small as they can be within it. Squares, because errors of different layers
        add up as independent ones do, which is an assumption. Where `by` is NaN or more bits save
        nothing, a layer has `bits`. Scales do not count, nor does what was not measured.

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> rng = np.random.default_rng(0)
        >>> model = {"a.weight": rng.standard_t(3, (60, 40)), "b.weight": rng.random((60, 40))}
        >>> ps.quantization_sensitivity(model, (8, 4)).keep(4, budget=6.0)
        {'a.weight': 8, 'b.weight': 4}
        """
        by = self._quantity(by)
        least = self._least(bits)
        if (budget is None) == (limit is None):
            requirement = "be given, or 'limit', and not both"
            raise ArgumentValueError(KEEP, "budget", requirement, shown(budget))
        ladders = {
            key: [row for row in rows if row.bits >= least]
            for key, rows in self._by_layer().items()
        }
        if budget is None:
            limit = check_number(KEEP, "limit", limit, least=0.0)
            return {key: within(rows, by, limit) for key, rows in ladders.items()}
        budget = check_number(KEEP, "budget", budget, least=least)
        return cheapest(ladders, COSTS[by], budget) if ladders else {}

    def _quantity(self, by: str | None) -> str:
        if by is None:
            return "output_change" if self.has_output else "error"
        by = check_choice(KEEP, "by", by, tuple(COSTS))
        needed = {"output_change": "data", "loss_change": "loss"}.get(by)
        if (needed == "data" and not self.has_output) or (needed == "loss" and not self.has_loss):
            hint = f"give quantization_sensitivity {needed!r}"
            raise ArgumentValueError(KEEP, "by", "be what was measured", repr(by), hint)
        return by

    def _least(self, bits: int | None) -> int:
        if bits is None:
            return self.bits[-1] if self.layers else 0
        number = as_integer(bits)
        if number is None or number not in self.bits:
            requirement = f"be one of the bits that were tried, {', '.join(map(str, self.bits))}"
            kind = ArgumentTypeError if number is None else ArgumentValueError
            raise kind(KEEP, "bits", requirement, shown(bits))
        return number

    def _by_layer(self) -> dict[str, list[LayerSensitivity]]:
        """Return the rows of each layer by its parameter, the fewest bits first."""
        found: dict[str, list[LayerSensitivity]] = {}
        for row in reversed(self.layers):
            found.setdefault(row.key, []).append(row)
        return dict(reversed(found.items()))
