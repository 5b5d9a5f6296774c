"""The table in a terminal: every width, every failure, no damage in a pipe."""

from __future__ import annotations

import functools
import io
import re
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

import pyspectra as ps
from pyspectra._support.text import printable, shorten
from pyspectra.report.shown import FEW, MANY, Shown, rows_shown
from pyspectra.report.table import render

ANSI = re.compile(r"\x1b\[")


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def state(layers: int) -> dict[str, np.ndarray]:
    return {
        f"model.layers.{i}.self_attn.query_projection.weight": random(24, 20, seed=i)
        for i in range(layers)
    }


@functools.cache
def of_state(layers: int) -> ps.Report:
    return ps.analyze(state(layers), goodness=False)


def show(report: ps.Report, width: int = 200, wanted: Shown | None = None, **console: Any) -> str:
    file = io.StringIO()
    render(report, Console(file=file, width=width, **console), wanted)
    return file.getvalue()


def row_of(text: str, layer_id: int) -> str:
    table = text[re.search(r"^[─-]{20,}$", text, re.MULTILINE).end() :]  # type: ignore[union-attr]
    return next(line for line in table.splitlines() if re.match(rf"\s*{layer_id} ", line))


@pytest.fixture(scope="module")
def report() -> ps.Report:
    weights = state(3)
    weights["model.layers.1.mlp.weight"] = random(24, 20)
    weights["model.layers.1.mlp.weight"][0, 0] = np.nan
    weights["conv.weight"] = random(12, 10, 3, 3)
    weights["tiny.weight"] = random(4, 4)
    weights["small.weight"] = random(5, 5)
    weights["conv.bias"] = random(12)
    return ps.analyze(weights)


def test_a_row_says_what_the_report_says(report: ps.Report) -> None:
    layer = report.layers[1]
    row = row_of(show(report), layer.layer_id)
    assert layer.name in row
    assert "linear" in row
    assert "24x20" in row
    assert f"{layer.alpha:.2f} ± {layer.fit.alpha_stderr:.2f}" in row
    assert f"{layer.fit.D:.3f}" in row
    assert f"{layer.n_tail}/20" in row
    assert f"{layer.metrics['log_norm']:.2f}" in row
    assert f"{layer.metrics['stable_rank']:.1f}" in row


def test_matrices_of_a_convolution_are_counted(report: ps.Report) -> None:
    conv = next(layer for layer in report.layers if layer.name == "conv")
    assert "9x 12x10" in row_of(show(report), conv.layer_id)


@pytest.mark.parametrize("width", [80, 200])
def test_a_failed_layer_is_a_dash_with_a_reason(report: ps.Report, width: int) -> None:
    failed = next(layer for layer in report.layers if layer.status is ps.Status.NOT_FINITE)
    text = show(report, width)
    row = row_of(text, failed.layer_id)
    assert " – " in row
    assert row.endswith("not finite")
    assert "nan" not in text
    assert "1 of 5 failed: 1 not finite" in text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 200])
@pytest.mark.parametrize("layers", [1, 300])
def test_no_line_is_wider_than_the_terminal(width: int, layers: int) -> None:
    report = of_state(layers)
    everything = Shown(everything=True)
    lines = show(report, width, everything, force_terminal=True, color_system=None).splitlines()
    assert max(map(cell_len, lines)) <= width
    rows = [line for line in lines if re.search(r"\d±\d|\d ± \d", line)]
    assert len(rows) == layers


def test_names_stay_apart_at_80_columns() -> None:
    report = ps.analyze(state(30))
    text = show(report, 80)
    for layer in report.layers:
        block = layer.name.split(".")[2]
        assert re.search(rf"…{block}…|\.{block}…|…{block}\.", row_of(text, layer.layer_id))


def test_plain_where_nobody_watches(report: ps.Report) -> None:
    text = show(report, 10_000)
    assert not ANSI.search(text)
    assert all(line == line.rstrip() for line in text.splitlines())
    assert report.verdict.text in text.splitlines()


def test_colour_only_where_wanted(report: ps.Report, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"force_terminal": True, "color_system": "standard"}
    coloured = re.compile(r"\x1b\[[\d;]*3[0-7]")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured.search(show(report, **options))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured.search(show(report, **options))


@pytest.mark.parametrize(("width", "word"), [(200, "light tail"), (60, "light")])
def test_a_warning_is_a_word(width: int, word: str) -> None:
    rng = np.random.default_rng(0)  # a narrow spectrum: a very steep tail
    turn = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    steep = (rng.standard_normal((4000, 40)) * np.linspace(1.0, 1.2, 40)) @ turn
    report = ps.analyze({"fc.weight": steep})
    assert report.layers[0].alpha > 6
    text = show(report, width)
    assert row_of(text, 1).endswith(word)
    assert "≥ 12.0" in text


def test_the_histogram_counts_every_fit(report: ps.Report) -> None:
    lines = show(report).splitlines()
    bars = [line for line in lines if "│" in line]
    counts = [int(m[1]) for line in bars if (m := re.search(r"█\S* (\d+)$", line))]
    assert sum(counts) == 4
    for layer in report.layers:
        if layer.status is ps.Status.OK:
            low = np.floor(min(layer.alpha, 12.0) * 2) / 2
            start = "≥ 12.0" if low == 12.0 else f"{low:.1f}–"
            assert re.search(r"█", next(b for b in bars if b.lstrip().startswith(start)))
    marks = [lines.index(line) for line in lines if re.match(r"\s*[26] ──", line)]
    assert [lines[i].split()[0] for i in marks] == ["2", "6"]
    assert lines[marks[0] + 1].lstrip().startswith("2.0–2.5")
    assert lines[marks[1] + 1].lstrip().startswith("6.0–6.5")


def test_skipped_tensors_are_grouped(report: ps.Report) -> None:
    text = show(report)
    assert "skipped  3 tensors" in text
    assert re.search(r"2  fewer eigenvalues than min_evals = 8  \((tiny|small), ", text)
    assert "1  bias: not a weight matrix  (conv.bias)" in text


def test_summary_and_verdict() -> None:
    rng = np.random.default_rng(0)
    correlated = rng.standard_normal((60, 40)) @ rng.standard_normal((40, 40))
    report = ps.analyze({**state(2), "correlated.weight": correlated}, goodness=False)
    text = show(report)
    summary = report.summary()
    assert f"alpha {summary['alpha']:.4g}" in text
    assert f"log_norm {summary['log_norm']:.4g}" in text
    assert f"verdict  {report.verdict.label}" in text
    assert report.verdict.text.split(".")[0] in text


def test_all_layers_failed() -> None:
    report = ps.analyze({"fc.weight": np.full((20, 20), np.inf, np.float32)})
    text = show(report, 80)
    assert "verdict  cannot be judged" in text
    assert "1 of 1 failed: 1 not finite" in text
    assert "means" not in text
    assert "│" not in text


def test_no_layer_at_all() -> None:
    text = show(ps.analyze({"a.weight": random(4, 4), "b.weight": random(5, 5)}))
    assert "2  fewer eigenvalues than min_evals = 8  (a, b)" in text
    assert "0 layers" in text


def test_slices() -> None:
    report = ps.analyze({"conv.weight": random(12, 10, 2, 2)}, pool=False)
    text = show(report)
    assert "slice" in text
    rows = [line.split() for line in text.splitlines() if " conv2d " in line]
    assert [row[:2] for row in rows] == [["1", str(i)] for i in range(4)] or [
        row[:3] for row in rows
    ] == [["1", "conv", str(i)] for i in range(4)]
    assert "4x " not in text


def test_fix_fingers_shows_the_raw_alpha() -> None:
    report = ps.analyze(state(4), fix_fingers="clip_xmax")
    text = show(report)
    assert "raw alpha" in text
    for layer in report.layers:
        assert layer.raw_fit is not None
        assert f" {layer.raw_fit.alpha:.2f} " in row_of(text, layer.layer_id)


def test_detx_has_a_column() -> None:
    report = ps.analyze(state(1), detx=True)
    text = show(report)
    assert "detX" in text
    assert f" {report.layers[0].metrics['detX_num']}" in row_of(text, 1)


def test_ascii_where_the_encoding_wants_it(report: ps.Report) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    render(report, Console(file=file, width=80))
    file.flush()
    assert b"#" in raw.getvalue()


def test_a_name_cannot_command_the_terminal() -> None:
    report = ps.analyze({"a\x1b[31m\nb[bold].weight": random(20, 20)})
    text = show(report)
    assert "\x1b" not in text
    assert r"a\x1b[31m\nb[bold]" in row_of(text, 1)


def test_printable() -> None:
    assert printable("encoder.层.weight") == "encoder.层.weight"
    assert printable("a\x00b\t\u202e") == r"a\x00b\t\u202e"


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (36, "encoder.layer.3.attention.self.query"),
        (35, "…layer.3.attention.self.query"),
        (24, "…3.attention.self.query"),
        (22, "encoder…3…self.query"),
        (17, "…3…self.query"),
        (9, "…3…query"),
        (7, "…query"),
        (5, "en…ry"),
    ],
)
def test_shorten(width: int, expected: str) -> None:
    assert shorten("encoder.layer.3.attention.self.query", width) == expected


@pytest.mark.parametrize("name", ["x" * 40, "名前" * 20, "a.b.c" * 9, "0.1.2.3.4.5.6.7.8.9.10.11"])
@pytest.mark.parametrize("width", range(1, 45))
def test_shorten_fits(name: str, width: int) -> None:
    short = shorten(name, width)
    assert cell_len(short) <= width
    assert (short == name) == (cell_len(name) <= width)


# --- what is shown of a large model -------------------------------------------------------------


@pytest.fixture(scope="module")
def large() -> ps.Report:
    """A model of more layers than are listed, one of them broken."""
    weights = {
        f"model.layers.{i}.{name}.weight": random(24, 20, seed=i)
        for i in range(24)
        for name in ("self_attn.q_proj", "mlp.up_proj")
    }
    weights["model.layers.7.mlp.up_proj.weight"][0, 0] = np.nan
    return ps.analyze(weights, goodness=False)


def table_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(r"\s*\d+ .*24x20", line)]


def test_the_verdict_comes_first_and_once_more_at_the_end(large: ps.Report) -> None:
    lines = show(large, 80).splitlines()
    told = [i for i, line in enumerate(lines) if line.startswith("verdict  ")]
    assert len(told) == 2
    assert told[0] < 5
    assert told[1] == len(lines) - 1
    assert lines[-1].startswith(f"verdict  {large.verdict.label} · ")
    assert len(lines) < 80
    small = show(ps.analyze(state(1))).splitlines()
    assert sum(line.startswith("verdict  ") for line in small) == 1 + (len(small) > 24)


def test_a_large_model_shows_what_to_look_at_first(large: ps.Report) -> None:
    text = show(large, 100)
    rows = table_rows(text)
    assert len(rows) == FEW
    assert rows[0].endswith("not finite")
    assert f"{FEW} of 48 layers, those to look at first; 1 stand" in text
    assert len(table_rows(show(large, 100, Shown(everything=True)))) == 48
    assert len(table_rows(show(large, 100, Shown(top=3)))) == 3
    assert MANY < 48


def test_rows_sort_by_any_column(large: ps.Report) -> None:
    alphas = sorted(row.alpha for row in large if row.alpha == row.alpha)
    rows, words = rows_shown(large, Shown(sort="alpha", top=5))
    assert [row.alpha for row in rows] == alphas[:5]
    assert words == "5 of 48 layers, the first by alpha"
    rows, words = rows_shown(large, Shown(sort="alpha", reverse=True, everything=True))
    assert [row.alpha for row in rows[:-1]] == alphas[::-1]
    assert rows[-1].status is ps.Status.NOT_FINITE
    assert words == ""
    rows, _ = rows_shown(large, Shown(sort="name", everything=True))
    assert [row.name for row in rows] == sorted(row.name for row in large)
    rows, _ = rows_shown(large, Shown(sort="block", everything=True))
    assert [row.block for row in rows] == sorted(row.block for row in large)


@pytest.mark.parametrize("width", [40, 80, 140])
@pytest.mark.parametrize("by", ["role", "block"])
def test_groups_in_the_place_of_layers(large: ps.Report, by: str, width: int) -> None:
    lines = show(large, width, Shown(by=by)).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert any(re.match(r"up +24 ", line) for line in lines) == (by == "role")
    assert any(re.match(r"\S*7 +2 ", line) for line in lines) == (by == "block")
    assert not table_rows("\n".join(lines))


@pytest.mark.parametrize(
    "wrong", [{"sort": "alpa"}, {"top": 0}, {"by": "colour"}, {"everything": 1}, {"reverse": 2}]
)
def test_what_makes_no_sense_is_refused(large: ps.Report, wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=f"'{next(iter(wrong))}'"):
        large.print(**wrong)
    with pytest.raises((ValueError, TypeError), match=f"'{next(iter(wrong))}'"):
        large.to_markdown(**wrong)


@pytest.mark.parametrize("width", [60, 70, 80, 90, 100, 120])
def test_names_differ_where_layers_do(width: int) -> None:
    names = [
        f"encoder.layer.{i}.{name}"
        for i in range(3)
        for name in ("attention.output.dense", "output.dense", "attention.self.query")
    ]
    report = ps.analyze({f"{name}.weight": random(24, 20) for name in names}, goodness=False)
    shown = [line.split()[1] for line in table_rows(show(report, width))]
    assert len(set(shown)) == len(names)


# --- Markdown -----------------------------------------------------------------------------------


def test_markdown(large: ps.Report, tmp_path: Any) -> None:
    text = large.to_markdown(tmp_path / "r.md", top=4)
    assert (tmp_path / "r.md").read_text(encoding="utf-8") == text
    lines = text.splitlines()
    assert lines[0] == "## state dict"
    assert f"**{large.verdict.label}**: " in text
    assert large.coverage.words in text
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 4
    assert len({line.count("|") for line in table}) == 1
    assert "`model.layers.7.mlp.up_proj`" in table[2]
    groups = [line for line in large.to_markdown(by="role").splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0] for line in groups[2:]] == ["| `q`", "| `up`"]


def test_a_name_cannot_command_markdown() -> None:
    report = ps.analyze({"a|b<img src=x>`c`\n# h.weight": random(40, 36)})
    text = report.to_markdown()
    assert r"a\|b\<img src=x\>\`c\`\\n\# h" in text
    assert all(line.count(" | ") == text.splitlines()[6].count(" | ")
               for line in text.splitlines() if line.startswith("| "))  # fmt: skip
