"""The page of a trajectory: what became of a model and of each layer, checkpoint by checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pyspectra._support.text import counted, printable
from pyspectra.report.comparison_words import LIMIT
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.html.chart import Line, line_chart
from pyspectra.report.html.curves import curve
from pyspectra.report.html.judgement import JUDGEMENTS, judgement
from pyspectra.report.html.layer_table import LONGEST
from pyspectra.report.html.live_table import (
    TableHead,
    TableRow,
    data_block,
    live_table,
    name_cell,
    plain_value,
    tools,
)
from pyspectra.report.html.page import clipped, details, page, section, text
from pyspectra.report.html.parts import SCRIPTS, STYLES, foot, heading, sheet, short_name
from pyspectra.report.html.signs import small_sign
from pyspectra.report.html.table import table
from pyspectra.report.html.words import told
from pyspectra.report.trajectory_data import LayerTrajectory, TrajectoryData
from pyspectra.report.trajectory_words import ENDS, sentences

__all__ = ["trajectory_page"]

LONGEST_SENTENCE = 1200
NAMES_SHOWN = 40
MOST_LINES = 200  # of layers, behind their mean
WIDTH = 470
# What is drawn besides alpha: means over all layers of a checkpoint.
FOLLOWED = {
    "log_norm": "mean log10 of the squared norm",
    "log_spectral_norm": "mean log10 of the spectral norm",
    "stable_rank": "mean stable rank",
}
SPARK_WIDTH, SPARK_HEIGHT = 90, 22
# What each layer is told of: name, head, help, classes, decimals.
COURSE = {
    "alpha_first": "Tail exponent in the first checkpoint that has the layer.",
    "alpha_last": "Tail exponent in the last checkpoint that has the layer.",
    "alpha_shift": "The last less the first.",
    "alpha_stderr": "Standard error of the last.",
    "log_norm_shift": "Change of log10 of the squared Frobenius norm, from first to last.",
    "stable_rank": "Stable rank in the last checkpoint that has the layer.",
}


def trajectory_page(found: TrajectoryData) -> str:
    """Return the page of a trajectory as HTML."""
    first, last = short_name(found.names[0]), short_name(found.names[-1])
    said = sentences(found)
    ends = said.index(ENDS)
    facts = [counted(len(found.reports), "checkpoint"), counted(len(found.layers), "layer")]
    checkpoints = [
        {name.replace("_", " "): value for name, value in entry.items()}
        for entry in found.summary()
    ]
    columns = {"name": "Name of the layer.", "kind": "Kind of layer.", **COURSE}
    body = [
        _verdict(said[:ends]),
        section("Overview", _charts(found)),
        section("In words", f'<div class="words">{_paragraphs(said[ends + 1 : -1])}</div>'),
        section("Checkpoints", table(checkpoints, label="Checkpoints")),
        section("Layers", _table(found)),
        *_missing(found),
        sheet(),
        foot(found.reports[0].options),
        data_block(columns, [_data(layer) for layer in found.layers], [first, last]),
    ]
    title = f"{first} to {last}"
    return page(
        f"{title} – pyspectra",
        body,
        heading=heading("Trajectory", title, [*facts, *(clipped(x) for x in found.notes)]),
        styles=STYLES,
        scripts=SCRIPTS,
    )


def _paragraphs(said: Sequence[str]) -> str:
    return "".join(f"<p>{text(clipped(sentence, LONGEST_SENTENCE))}</p>" for sentence in said)


def _verdict(said: Sequence[str]) -> str:
    """Return what was followed, and how alpha went."""
    return (
        '<section class="verdict" aria-label="What became of it">'
        f'<p class="lede">{text(clipped(said[0], LONGEST_SENTENCE))}</p>{_paragraphs(said[1:])}'
        f'<p class="soft">{text(LIMIT)}</p></section>'
    )


# --- pictures -----------------------------------------------------------------------------------


def _charts(found: TrajectoryData) -> str:
    steps = np.asarray(found.steps, dtype=np.float64)
    means = found.summary()

    def mean(name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([float(entry[name]) for entry in means])

    lines = [
        Line(clipped(layer.name, 60), steps, np.array(layer.alpha), 7, faint=True)
        for layer in found.layers[:MOST_LINES]
    ]
    lines.append(Line("mean over layers with a fit", steps, mean("alpha_fitted"), 1, dashed=True))
    if found.followed:
        lines.append(Line("mean over layers followed throughout", steps, mean("alpha"), 0))
    typical = (THRESHOLDS.alpha_low, THRESHOLDS.alpha_high)
    charts = line_chart(
        lines, x_name="step", y_name="tail exponent α", typical=typical, width=WIDTH
    )
    for key, name in FOLLOWED.items():
        line = Line(name, steps, mean(key), 0)
        charts += line_chart([line], x_name="step", y_name=name, legend=False, width=WIDTH)
    return f'<div class="pair">{charts}</div>'


def _spark(values: Sequence[float]) -> str:
    """Return the course of a number, without axes."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    low, high = (low, high) if high - low > 0.5 else (low - 0.25, high + 0.25)
    across = (SPARK_WIDTH - 6) / (len(values) - 1)
    points = [
        (3 + across * i, 3 + (SPARK_HEIGHT - 6) * (high - value) / (high - low))
        for i, value in enumerate(values)
        if math.isfinite(value)
    ]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    x, y = points[-1]
    return (
        f'<svg class="spark" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}" aria-hidden="true">'
        f'<path class="line s0" d="M{path}"/><circle class="f0" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>'
        "</svg>"
    )


# --- layers -------------------------------------------------------------------------------------


def _course(layer: LayerTrajectory) -> dict[str, float]:
    alphas = [value for value in layer.alpha if math.isfinite(value)] or [math.nan]
    shifts = [value for value in layer.shifts("log_norm") if math.isfinite(value)] or [math.nan]
    ranks = [v for v in layer.values("stable_rank") if math.isfinite(v)] or [math.nan]
    errors = [v for v in layer.alpha_stderr if math.isfinite(v)] or [math.nan]
    values = (alphas[0], alphas[-1], alphas[-1] - alphas[0], errors[-1], shifts[-1], ranks[-1])
    return dict(zip(COURSE, values, strict=True))


def _last(layer: LayerTrajectory) -> int:
    return max(place for place, row in enumerate(layer.rows) if row is not None)


def _table(found: TrajectoryData) -> str:
    heads = [
        TableHead("name", "layer", "Name of the layer.", "left name"),
        TableHead("kind", "kind", "Kind of layer.", "spare2 left"),
        TableHead("alpha_first", "first α", COURSE["alpha_first"], "spare1"),
        TableHead("alpha_last", "last α", COURSE["alpha_last"]),
        TableHead("alpha_shift", "shift", COURSE["alpha_shift"]),
        TableHead("alpha_last", "course of α", "Alpha from checkpoint to checkpoint.", "left"),
        TableHead("log_norm_shift", "shift of log10 norm", COURSE["log_norm_shift"], "spare3"),
        TableHead("stable_rank", "stable rank", COURSE["stable_rank"], "spare3"),
    ]
    rows = []
    for layer in found.layers:
        last = layer.rows[_last(layer)]
        assert last is not None
        course, kind = _course(layer), judgement(last)
        error = course["alpha_stderr"]
        cells = [
            name_cell(printable(layer.name)),
            text(last.kind),
            _number(course["alpha_first"]),
            small_sign(kind)
            + _number(course["alpha_last"])
            + (f" ± {error:.2f}" if math.isfinite(error) else ""),
            _number(course["alpha_shift"], "+"),
            _spark(layer.alpha),
            _number(course["log_norm_shift"], "+"),
            _number(course["stable_rank"]),
        ]
        rows.append(TableRow(kind, layer.name, cells))
    return tools(rows, JUDGEMENTS) + live_table(heads, rows, "Layers")


def _number(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.2f").replace("-", "−") if math.isfinite(value) else "–"


def _data(layer: LayerTrajectory) -> dict[str, object]:
    place = _last(layer)
    first, last = layer.first, layer.rows[place]
    assert last is not None
    several = last is not first
    alphas = ", ".join(_number(value) for value in layer.alpha)
    words = [f"Alpha from checkpoint to checkpoint: {alphas}."]
    words += ["In the first:", *told(first), "In the last:"] if several else []
    course = _course(layer)
    return {
        "t": clipped(printable(layer.name), LONGEST),
        "k": judgement(last).word,
        "w": [printable(sentence) for sentence in (*words, *told(last))],
        "v": [clipped(printable(layer.name)), last.kind, *map(plain_value, course.values())],
        "s": [curve(first), curve(last) if several else None],
    }


def _missing(found: TrajectoryData) -> list[str]:
    if not found.missing:
        return []
    listed = "".join(
        f"<p>{text(clipped(name))}: not in {text(clipped(', '.join(names), 300))}</p>"
        for name, names in list(found.missing.items())[:NAMES_SHOWN]
    )
    title = f"{counted(len(found.missing), 'layer')} missing in some checkpoints"
    return [section("Missing", details(title, listed))]
