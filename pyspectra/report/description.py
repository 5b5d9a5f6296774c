"""What `pyspectra.describe` returns: what would be analysed, and its view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspectra.report.plan_data import PlanData

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Description"]


@dataclass(frozen=True, eq=False, repr=False)
class Description(PlanData):
    """What `pyspectra.analyze` would analyse, as `pyspectra.describe` tells.

    Attributes
    ----------
    layers : tuple of PlannedLayer
    skipped : tuple of SkippedLayer
        Every tensor that would not be analysed, each with its reason.
    source, format : str
        What it is about, and how it is stored.
    read : tuple of str
        The files.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> plan = ps.describe({"fc.weight": np.ones((64, 48))})
    >>> plan
    <Description of state dict: 1 layer, 3,072 parameters, 0 skipped>
    >>> plan.summary()["parameters"]
    3072
    """

    def print(self, console: Console | None = None, *, everything: bool = False) -> None:
        """Print what would be analysed, and what it would take.

        Parameters
        ----------
        console : rich.console.Console, optional
            The terminal or file to print to; standard output by default.
        everything : bool
            Every layer. More than 40 are not listed by default.
        """
        from rich.console import Console

        from pyspectra.report.plan_table import render

        render(self, Console() if console is None else console, everything)
