"""The plot of a history; matplotlib loads on first use, and no figure is kept or shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyspectra._support.arguments import check_choice, check_count, check_number
from pyspectra._support.text import pictured
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, missing_dependency
from pyspectra.training import curves
from pyspectra.training.curve_pairs import CurvePair, curve_pairs
from pyspectra.training.recorded_run import RecordedRun
from pyspectra.training.series import smoothed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_history"]

Floats = NDArray[np.float64]

MARKS = ("best", "early_stop", "findings")

_COLOURS = {"error": "#b3261e", "warning": "#c77700", "info": "#5f6b7a"}

# Curves with fewer points show each of them.
_FEW = 40


def plot_history(
    history: RecordedRun,
    metrics: str | Sequence[str] | None = None,
    *,
    x: str = "epoch",
    ax: Any = None,
    smooth: float | None = None,
    logy: bool | str = "auto",
    skip_first: int = 0,
    mark: Sequence[str] = MARKS,
) -> Axes | NDArray[Any]:
    """Draw training against validation, and the learning rate below.

    Parameters
    ----------
    history : History
        The run.
    metrics : str or sequence of str, optional
        Names of metrics; all by default. Those of one unit, as RMSE and MAE, share axes.
    x : {"epoch", "step"}
        What is along the axis. A mean over an epoch is drawn at its middle, since the model changed
        meanwhile; an evaluation at its end.
    ax : matplotlib.axes.Axes or sequence of these, optional
        Where to draw, one for each unit; by default the axes of a new figure, which belongs to the
        caller (``ax.figure``).
    smooth : float, optional
        Draw the batches of training, faint, and their exponential moving average with this
        half-life in steps, instead of means of epochs. What is stored is never smoothed.
    logy : bool or "auto"
        Logarithmic axes; ``"auto"`` where values are positive and their range is more than 20-fold.
    skip_first : int
        Points to leave out at the start, of both curves alike.
    mark : sequence of str
        What to mark: the ``"best"`` validation value, ``"early_stop"`` where validation diverges
        after it, and ``"findings"`` of the doctor.

    Returns
    -------
    Axes or ndarray of Axes
        One for each unit; a single one as it is. ``ax.figure.savefig(path)`` writes it.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    TypeError, ValueError
        If there is no such metric, or an argument is of another kind or out of range.

    Examples
    --------
    >>> from pyspectra.training import History, plot_history
    >>> history = History()
    >>> for epoch in (1, 2, 3):
    ...     history.log(epoch=epoch, train_loss=1 / epoch, val_loss=1.1 / epoch)
    >>> ax = plot_history(history, "loss")
    >>> [line.get_label() for line in ax.get_lines()]
    ['train loss', 'val loss', 'best val loss: 0.3667']
    """
    name = "plot_history"
    if logy != "auto" and not isinstance(logy, bool):
        raise ArgumentTypeError(name, "logy", "be a bool or 'auto'", repr(logy))
    skip_first = check_count(name, "skip_first", skip_first, least=0)
    if smooth is not None:
        smooth = check_number(name, "smooth", smooth, above=0.0)
    marks = [check_choice(name, "mark", one, MARKS) for one in mark]
    names = [metrics] if isinstance(metrics, str) else metrics
    pairs = curve_pairs(history, names, x=x, function=name)
    if names is None:
        pairs = [pair for pair in pairs if np.isfinite(pair.train).any() or _has_val(pair)]
    panels = _panels(pairs)
    rates = _rates(history, pairs[0].x_name) if ax is None else None
    axes, strip = _axes(ax, len(panels), rates is not None)
    for own, panel in zip(axes, panels, strict=True):
        for number, pair in enumerate(panel):
            _draw_pair(own, pair, f"C{number}", history, smooth, skip_first)
        _finish(own, panel, logy)
        _draw_marks(own, panel, history, marks)
        own.legend(frameon=False, fontsize="small")
    if strip is not None and rates is not None:
        strip.plot(*rates, color="#777777", linewidth=1)
        strip.set_ylabel("lr", fontsize="small")
        strip.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
        strip.set_xlabel(pairs[0].x_name)
        strip.spines[["top", "right"]].set_visible(False)
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def _has_val(pair: CurvePair) -> bool:
    return bool(np.isfinite(pair.val).any())


def _panels(pairs: Sequence[CurvePair]) -> list[list[CurvePair]]:
    by_unit: dict[str, list[CurvePair]] = {}
    for pair in pairs:
        by_unit.setdefault(pair.kind.unit, []).append(pair)
    return list(by_unit.values())


def _axes(given: Any, n: int, with_strip: bool) -> tuple[list[Any], Any]:
    """Return axes for each panel, and those of the strip below if there is one."""
    if given is not None:
        axes = list(np.ravel(np.asarray(given, dtype=object)))
        if len(axes) != n:
            raise ArgumentValueError(
                "plot_history", "ax", f"be {n} axes, one for each unit", f"{len(axes)}",
                hint="name metrics of one unit, or give no axes",
            )  # fmt: skip
        return axes, None
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", "plot_history", extra="plot") from error
    heights = [4.0] * n + [0.9] * with_strip
    # Not pyplot's: that would keep every figure alive, and pick a backend for the whole process.
    figure = Figure(figsize=(7.5, sum(heights)), layout="constrained")
    grid = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    return list(grid[:n]), grid[n] if with_strip else None


def _rates(history: RecordedRun, x_name: str) -> tuple[Floats, Floats] | None:
    """Return the learning rate over the run, if it was logged and changed."""
    points = [(r[x_name], r["lr"]) for r in history.steps if "lr" in r and x_name in r]
    if len({rate for _, rate in points}) < 2:
        return None
    xs, rates = np.asarray(points, dtype=np.float64).T
    return xs, rates


# --- curves -------------------------------------------------------------------------------------


def _draw_pair(
    ax: Any, pair: CurvePair, colour: str, history: RecordedRun, smooth: float | None, skip: int
) -> None:
    name = pictured(pair.name)
    if smooth is not None:
        _draw_batches(ax, pair, colour, history, smooth, skip)
    elif np.isfinite(pair.train).any():
        places, values = pair.train_x[skip:], pair.train[skip:]
        ax.plot(places, values, "-", color=colour, label=f"train {name}", **_dots(values))
    if _has_val(pair):
        kept = np.isfinite(pair.val)
        kept[:skip] = False
        values = pair.val[kept]
        ax.plot(pair.x[kept], values, "--", color=colour, label=f"val {name}", **_dots(values))


def _dots(values: Floats) -> dict[str, Any]:
    few = len(values) <= _FEW
    return {"linewidth": 1.5, "marker": "." if few else None, "markersize": 5}


def _draw_batches(
    ax: Any, pair: CurvePair, colour: str, history: RecordedRun, smooth: float, skip: int
) -> None:
    rows = [
        r for r in history.steps
        if r["split"] == "train" and r.get("kind") is None
        and pair.name in r and "step" in r and pair.x_name in r
    ]  # fmt: skip
    start = pair.x[skip - 1] if 0 < skip <= len(pair.x) else -np.inf
    rows = [r for r in rows if r[pair.x_name] > start]
    if not rows:
        return
    places = np.array([r[pair.x_name] for r in rows], dtype=np.float64)
    steps = np.array([r["step"] for r in rows], dtype=np.float64)
    values = np.array([r[pair.name] for r in rows], dtype=np.float64)
    ax.plot(places, values, "-", color=colour, alpha=0.25, linewidth=0.7)
    label = f"train {pictured(pair.name)}, half-life {smooth:g} steps"
    ax.plot(places, smoothed(steps, values, smooth), "-", color=colour, linewidth=1.5, label=label)


def _finish(ax: Any, panel: Sequence[CurvePair], logy: bool | str) -> None:
    drawn = [np.concatenate([pair.train, pair.val]) for pair in panel]
    values = np.concatenate(drawn)
    values = values[np.isfinite(values)]
    wide = len(values) > 0 and values.min() > 0 and values.max() > 20 * values.min()
    if logy is True or (logy == "auto" and wide):
        ax.set_yscale("log")
    ax.set_ylabel(", ".join(pictured(pair.name) for pair in panel))
    if ax.get_subplotspec() is None or ax.get_subplotspec().is_last_row():
        ax.set_xlabel(panel[0].x_name)  # the axes of our own figure are above one another
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, linewidth=0.5)


# --- marks --------------------------------------------------------------------------------------


def _draw_marks(
    ax: Any, panel: Sequence[CurvePair], history: RecordedRun, marks: Sequence[str]
) -> None:
    stops: set[float] = set()
    for number, pair in enumerate(panel):
        better = pair.kind.better
        if better is None or np.isfinite(pair.val).sum() < 2:
            continue
        best = curves.best_index(pair.val, better)
        if "best" in marks:
            label = f"best val {pictured(pair.name)}: {pair.val[best]:.4g}"
            place = (pair.x[best], pair.val[best])
            ax.plot(*place, "o", color=f"C{number}", markersize=8, fillstyle="none", label=label)
        parting = curves.divergence(pair.x, pair.train, pair.val, better=better, val_se=pair.val_se)
        overfits = parting is not None and parting.n >= 3 and parting.train_improves
        if "early_stop" in marks and parting and overfits and parting.best_x not in stops:
            stops.add(parting.best_x)
            label = f"early stop: {pair.x_name} {parting.best_x:g}"
            ax.axvline(
                parting.best_x, color=f"C{number}", linestyle=":", linewidth=1.2, label=label
            )
    if "findings" in marks:
        _draw_findings(ax, history, panel[0].x_name)


def _draw_findings(ax: Any, history: RecordedRun, x_name: str) -> None:
    known = {r["step"]: r["epoch"] for r in history.steps if "step" in r and "epoch" in r}
    for finding in history.findings:
        place = finding.get("step") if x_name == "step" else _epoch(finding, known)
        if place is None:
            continue
        colour = _COLOURS.get(str(finding.get("severity")), _COLOURS["info"])
        ax.axvline(place, color=colour, linewidth=0.8, alpha=0.8)
        ax.annotate(
            pictured(str(finding.get("code"))), (place, 0.98), xycoords=("data", "axes fraction"),
            rotation=90, va="top", ha="right", fontsize="x-small", color=colour,
        )  # fmt: skip


def _epoch(finding: Mapping[str, Any], known: Mapping[int, float]) -> float | None:
    step = finding.get("step")
    if step is not None and step in known:
        return known[step]
    if finding.get("epoch") is not None:
        return float(finding["epoch"])
    later = [own for own in known if step is not None and own >= step]
    return known[min(later)] if later else None
