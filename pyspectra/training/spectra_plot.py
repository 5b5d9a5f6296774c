"""The plot of spectra over a run; matplotlib loads on first use, and no figure is kept or shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyspectra._support.arguments import check_choice
from pyspectra._support.text import pictured
from pyspectra.errors import ArgumentValueError, missing_dependency
from pyspectra.report.findings import THRESHOLDS
from pyspectra.training.recorded_run import RecordedRun
from pyspectra.training.rules.facts import LayerSpectrum
from pyspectra.training.trajectories import spectra_of, trajectories

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_spectra"]

LABELS = {
    "alpha": "alpha",
    "stable_rank": "stable rank",
    "spectral_norm": "spectral norm",
    "random_p_value": "p-value of no structure",
    "trap_strength": "strongest trap",
}
"""What can be drawn, and how it is called."""

LOGARITHMIC = ("stable_rank", "spectral_norm", "random_p_value", "trap_strength")

# Below this a p-value says no more, and zero has no logarithm.
LEAST = 1e-30

# More layers have no names in a legend; their colour says how deep they are.
MOST_NAMES = 10


def plot_spectra(
    history: RecordedRun,
    quantities: str | Sequence[str] = ("alpha", "stable_rank", "spectral_norm"),
    *,
    layers: Sequence[str] | None = None,
    ax: Any = None,
) -> Axes | NDArray[Any]:
    """Draw what became of the spectra of layers during a run, a curve for each layer.

    Parameters
    ----------
    history : History
        A run that was watched with ``spectra_every`` or ``spectra_budget``.
    quantities : str or sequence of str
        ``"alpha"``, with its interval where few layers are drawn, ``"stable_rank"``,
        ``"spectral_norm"``, ``"random_p_value"``, ``"trap_strength"``; each gets axes of its own.
    layers : sequence of str, optional
        Their names; all by default.
    ax : matplotlib.axes.Axes or sequence of these, optional
        Where to draw; by default the axes of a new figure, which belongs to the caller.

    Returns
    -------
    Axes or ndarray of Axes
        One for each quantity; a single one as it is.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    ValueError
        If there are no spectra, no such layer or quantity, or another number of axes.

    Examples
    --------
    >>> from pyspectra.training import History, plot_spectra
    >>> history = History()
    >>> row = {"name": "fc", "N": 64, "M": 64, "alpha": 4.0, "alpha_low": 3.6, "alpha_high": 4.4,
    ...        "n_tail": 30, "n_evals": 64, "stable_rank": 16.0, "spectral_norm": 2.0}
    >>> for step in (0, 100, 200):
    ...     history.log_spectra(step, [{**row, "alpha": 4.0 - step / 200}])
    >>> axes = plot_spectra(history)
    >>> [ax.get_ylabel() for ax in axes]
    ['alpha', 'stable rank', 'spectral norm']
    """
    names = [quantities] if isinstance(quantities, str) else list(quantities)
    names = [check_choice("plot_spectra", "quantities", n, tuple(LABELS)) for n in names]
    rows = _chosen(history, layers)
    axes = _axes(ax, len(names))
    colours = _colours(len(rows))
    for own, name in zip(axes, names, strict=True):
        for (layer, curve), colour in zip(rows.items(), colours, strict=True):
            _draw(own, name, layer, curve, colour, alone=len(rows) <= MOST_NAMES)
        _finish(own, name)
    axes[-1].set_xlabel("step")
    if len(rows) <= MOST_NAMES:
        axes[0].legend(frameon=False, fontsize="small")
    else:
        _depth(axes[0], list(rows))
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def _chosen(
    history: RecordedRun, layers: Sequence[str] | None
) -> Mapping[str, Sequence[LayerSpectrum]]:
    known = trajectories(spectra_of(history.spectra)).layers
    if not known:
        raise ArgumentValueError(
            "plot_spectra", "history", "hold spectra", "a history without them",
            hint="Watch(..., spectra_every=500) measures them",
        )  # fmt: skip
    for name in layers or ():
        check_choice("plot_spectra", "layers", name, tuple(known))
    return {name: rows for name, rows in known.items() if layers is None or name in layers}


def _axes(given: Any, n: int) -> list[Any]:
    if given is not None:
        axes = list(np.ravel(np.asarray(given, dtype=object)))
        if len(axes) != n:
            raise ArgumentValueError(
                "plot_spectra", "ax", f"be {n} axes, one for each quantity", f"{len(axes)}"
            )
        return axes
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", "plot_spectra", extra="plot") from error
    figure = Figure(figsize=(7.5, 2.6 * n + 0.4), layout="constrained")
    return list(figure.subplots(n, 1, sharex=True, squeeze=False)[:, 0])


def _colours(n: int) -> list[Any]:
    if n <= MOST_NAMES:
        return [f"C{k}" for k in range(n)]
    import matplotlib

    return [matplotlib.colormaps["viridis"](k / (n - 1)) for k in range(n)]


def _draw(
    ax: Any, name: str, layer: str, rows: Sequence[LayerSpectrum], colour: Any, *, alone: bool
) -> None:
    steps = np.array([row.step for row in rows])
    values = np.array([getattr(row, name) for row in rows], dtype=np.float64)
    if name in LOGARITHMIC:
        values = np.maximum(values, LEAST)
    label = pictured(layer)
    ax.plot(steps, values, ".-", color=colour, linewidth=1.2, markersize=4, label=label)
    if name == "alpha" and alone:
        low = np.array([row.alpha_low for row in rows])
        high = np.array([row.alpha_high for row in rows])
        ax.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)


def _finish(ax: Any, name: str) -> None:
    ax.set_ylabel(LABELS[name])
    if name in LOGARITHMIC:
        ax.set_yscale("log")
    if name == "alpha":
        ax.axhspan(THRESHOLDS.alpha_low, THRESHOLDS.alpha_high, color="#2e7d32", alpha=0.07)
    if name == "random_p_value":
        ax.axhline(THRESHOLDS.random_level, color="#777777", linewidth=0.8, linestyle=":")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, linewidth=0.5)


def _depth(ax: Any, names: Sequence[str]) -> None:
    ax.set_title(
        f"{len(names)} layers, from {pictured(names[0])} (dark) to {pictured(names[-1])} (light)",
        fontsize="small",
        loc="left",
    )
