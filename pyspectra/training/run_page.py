"""The page of a run: findings, what the curves say, curves, spectra, settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyspectra.report.findings import SEVERITIES, THRESHOLDS, Finding
from pyspectra.report.html.chart import Line, Mark, line_chart
from pyspectra.report.html.page import badge, details, facts, page, section, text
from pyspectra.report.html.table import table
from pyspectra.training import curves
from pyspectra.training.curve_pairs import CurvePair, curve_pairs
from pyspectra.training.reading_out import read_out
from pyspectra.training.recorded_run import RecordedRun
from pyspectra.training.series import smoothed
from pyspectra.training.trajectories import spectra_of, trajectories

__all__ = ["run_page"]

QUANTITIES = {
    "alpha": ("alpha, the exponent of the tail", False),
    "stable_rank": ("stable rank", True),
    "spectral_norm": ("spectral norm", True),
}
MOST_BANDS = 4
MOST_MARKS = 12
MOST_ROWS = 200


def run_page(
    history: RecordedRun, findings: Sequence[Finding], *, n_steps: int, n_epochs: int, name: str
) -> str:
    """Return the page of a run as HTML.

    Parameters
    ----------
    history : History
    findings : sequence of Finding
        Causes first.
    n_steps, n_epochs : int
    name : str
        Name of the run.
    """
    header = history.header
    versions: dict[str, Any] = header.get("versions") or {}
    body = [
        facts(
            ("steps", n_steps or None), ("epochs", n_epochs or None),
            ("started", header.get("started")), ("seed", header.get("seed")),
            ("run", header.get("run")),
            *((package, version) for package, version in versions.items()),
        ),
        _findings(findings),
        *_curves(history, findings),
        *_spectra(history),
        *_settings(history),
    ]  # fmt: skip
    return page(f"Training run: {name}", body)


# --- findings -----------------------------------------------------------------------------------


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return section("Findings", f"<p>{badge('Nothing was found.', 'good')}</p>")
    return section("Findings", *(_finding(x) for x in findings))


def _finding(x: Finding) -> str:
    places = [("step", x.step), ("epoch", x.epoch), ("in", x.where)]
    at = ", ".join(f"{word} {value}" for word, value in places if value is not None)
    advice = "".join(f"<li>{text(a)}</li>" for a in x.advice)
    kind = _kind(x)
    return (
        f'<div class="finding {kind}"><h3>{badge(x.severity, kind)}{text(x.code)} '
        f'<span class="soft">{text(at)}</span></h3><p>{text(x.message)}</p>'
        + (f"<ol>{advice}</ol>" if advice else "")
        + "</div>"
    )


def _kind(x: Finding) -> str:
    return x.severity if x.severity in SEVERITIES else "info"


# --- curves -------------------------------------------------------------------------------------


def _curves(history: RecordedRun, findings: Sequence[Finding]) -> list[str]:
    if not (history.epochs or history.evaluations):
        steps = _steps_chart(history)
        return [section("Curves", steps)] if steps else []
    pairs = [p for p in curve_pairs(history) if np.isfinite(np.r_[p.train, p.val]).any()]
    told = "".join(f"<p>{text(line)}</p>" for line in read_out(history))
    panels: dict[str, list[CurvePair]] = {}
    for pair in pairs:
        panels.setdefault(pair.kind.unit, []).append(pair)
    marks = _marks(history, findings, pairs[0].x_name) if pairs else []
    charts = [_panel(panel, marks) for panel in panels.values()]
    rows = history.epochs or history.evaluations
    shown = table(rows[-MOST_ROWS:], caption=_caption(len(rows)))
    return [
        section("What the curves say", told),
        section("Curves", *charts, _rates(history), _steps_chart(history)),
        section("Epochs", details(f"{len(rows)} rows", shown)),
    ]


def _caption(n: int) -> str:
    return f"the last {MOST_ROWS} of {n}" if n > MOST_ROWS else ""


def _panel(panel: Sequence[CurvePair], marks: Sequence[Mark]) -> str:
    lines = []
    for colour, pair in enumerate(panel):
        if np.isfinite(pair.train).any():
            lines.append(Line(f"train {pair.name}", pair.train_x, pair.train, colour))
        if np.isfinite(pair.val).any():
            better = pair.kind.better
            best = None if better is None else curves.best_index(pair.val, better)
            lines.append(Line(f"val {pair.name}", pair.x, pair.val, colour, dashed=True, best=best))
    values = np.concatenate([line.y for line in lines])
    values = values[np.isfinite(values)]
    log = bool(values.min() > 0 and values.max() > 20 * values.min())
    names = ", ".join(pair.name for pair in panel)
    return line_chart(lines, x_name=panel[0].x_name, y_name=names, log=log, marks=marks)


def _marks(history: RecordedRun, findings: Sequence[Finding], x_name: str) -> list[Mark]:
    known = {r["step"]: r["epoch"] for r in history.steps if "step" in r and "epoch" in r}
    found = []
    for x in findings[:MOST_MARKS]:
        place: float | None = x.step
        if x_name == "epoch":
            place = known.get(x.step) if x.step in known else x.epoch
        if place is not None:
            found.append(Mark(float(place), x.code, _kind(x)))
    return found


def _rates(history: RecordedRun) -> str:
    points = [(r["step"], r["lr"]) for r in history.steps if "lr" in r and "step" in r]
    if len({rate for _, rate in points}) < 2:
        return ""
    x, y = np.asarray(points, dtype=np.float64).T
    return line_chart(
        [Line("lr", x, y, 7)], x_name="step", y_name="learning rate", height=140, legend=False
    )


def _steps_chart(history: RecordedRun) -> str:
    """Return the losses of single batches, faint, and their moving average."""
    points = [
        (r["step"], r["loss"])
        for r in history.steps
        if r["split"] == "train" and r.get("kind") is None and "loss" in r and "step" in r
    ]
    if len(points) < 2:
        return ""
    x, y = np.asarray(points, dtype=np.float64).T
    half_life = max(1.0, 0.02 * float(x[-1] - x[0]))
    mean = smoothed(x, y, half_life)
    finite = y[np.isfinite(y)]
    log = bool(len(finite) and finite.min() > 0 and finite.max() > 20 * finite.min())
    lines = [
        Line("batches", x, y, 0, faint=True),
        Line(f"moving average, half-life {half_life:.3g} steps", x, mean, 0),
    ]
    return line_chart(lines, x_name="step", y_name="loss of the batches of training", log=log)


# --- spectra ------------------------------------------------------------------------------------


def _spectra(history: RecordedRun) -> list[str]:
    layers = trajectories(spectra_of(history.spectra)).layers
    if not layers:
        return []
    charts = []
    for name, (label, log) in QUANTITIES.items():
        lines = []
        for colour, (layer, rows) in enumerate(layers.items()):
            values = np.array([getattr(row, name) for row in rows], dtype=np.float64)
            line = Line(layer, np.array([float(row.step) for row in rows]), values, colour)
            if name == "alpha" and len(layers) <= MOST_BANDS:
                low = np.array([row.alpha_low for row in rows])
                high = np.array([row.alpha_high for row in rows])
                line = Line(layer, line.x, line.y, colour, low=low, high=high)
            lines.append(line)
        typical = (THRESHOLDS.alpha_low, THRESHOLDS.alpha_high) if name == "alpha" else None
        charts.append(line_chart(lines, x_name="step", y_name=label, log=log, typical=typical))
    changes = [_change(layer, rows[0], rows[-1]) for layer, rows in layers.items()]
    return [section("Spectra", *charts, table(changes, caption="first and last measurement"))]


def _change(layer: str, first: Any, last: Any) -> dict[str, Any]:
    return {
        "layer": layer,
        "shape": f"{last.N}x{last.M}",
        "steps": f"{first.step} to {last.step}",
        "alpha, first": first.alpha,
        "alpha, last": last.alpha,
        "±": 0.5 * (last.alpha_high - last.alpha_low),
        "stable rank, first": first.stable_rank,
        "stable rank, last": last.stable_rank,
        "spectral norm, first": first.spectral_norm,
        "spectral norm, last": last.spectral_norm,
        "p, no structure": last.random_p_value,
    }


def _settings(history: RecordedRun) -> list[str]:
    config = history.header.get("config")
    if not config:
        return []
    shown = json.dumps(config, indent=2, ensure_ascii=False)
    return [section("Settings", details("configuration", f"<pre>{text_block(shown)}</pre>"))]


def text_block(lines: str) -> str:
    """Return text of several lines as it may stand in a page."""
    return "\n".join(text(line) for line in lines.split("\n"))
