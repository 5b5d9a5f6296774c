"""A report as an object: rows and columns by name, selections, groups, an order, equality."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.report.attention import by_attention, distance_in_errors, stands_out
from pyspectra.report.groups import GROUP_COLUMNS, GROUPINGS, OTHER


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def heavy(power: float, shape: tuple[int, int] = (120, 60)) -> np.ndarray:
    left, _ = np.linalg.qr(normal(shape[0], shape[1], seed=3))
    right, _ = np.linalg.qr(normal(shape[1], shape[1], seed=4))
    sizes = np.arange(1, shape[1] + 1.0) ** -power
    return (left * sizes) @ right


NAMES = ("q_proj", "k_proj")


@pytest.fixture(scope="module")
def report() -> ps.Report:
    weights = {
        f"layers.{i}.self_attn.{name}.weight": normal(40, 36, seed=i)
        for i in range(3)
        for name in NAMES
    }
    weights |= {
        "layers.0.mlp.down_proj.weight": heavy(1.5),
        "layers.1.mlp.down_proj.weight": heavy(0.2),
        "layers.2.mlp.down_proj.weight": np.full((40, 36), np.nan, np.float32),
        "head.weight": normal(12, 10),
        "head.bias": normal(12),
    }
    return ps.analyze(weights, randomize=True)


# --- rows and columns ---------------------------------------------------------------------------


def test_a_report_is_a_sequence_of_rows_with_names(report: ps.Report) -> None:
    assert len(report) == len(report.layers) == len(list(report)) == 10
    assert list(reversed(report)) == list(report)[::-1]
    assert report["head"] is report.layer("head") is report["head.weight"]
    assert "head" in report
    assert "alpha" not in report


def test_a_column_is_an_array_in_the_order_of_the_rows(report: ps.Report) -> None:
    alpha = report["alpha"]
    assert alpha.dtype == np.float64
    np.testing.assert_array_equal(alpha, [row.alpha for row in report])
    assert report["M"].dtype == np.int64
    assert report["kind"] == ["linear"] * 10
    assert report.column("block")[0] in (0, None)  # a list: the head has no block
    for name in report.columns():
        assert len(report.column(name)) == len(report)


def test_neither_a_layer_nor_a_column(report: ps.Report) -> None:
    with pytest.raises(KeyError, match="no_such"):
        report["no_such"]
    with pytest.raises(ArgumentValueError, match="did you mean 'alpha'"):
        report.column("alpa")


def test_a_layer_that_is_called_like_a_column_is_told_apart() -> None:
    report = ps.analyze({"alpha.weight": normal(40, 36), "Q.weight": normal(40, 36, seed=1)})
    for name in ("alpha", "Q"):
        with pytest.raises(KeyError, match=r"\.layer\(.*\.column\("):
            report[name]
        assert report.layer(name).name == name
        assert len(report.column(name)) == 2


# --- selections ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        ({"layers": "layers.1"}, 3),
        ({"layers": "*.q_proj"}, 3),
        ({"layers": ["head", "layers.0.*"]}, 4),
        ({"layers": "head.weight"}, 1),
        ({"regex": r"layers\.[02]\..*_proj$"}, 6),
        ({"regex": re.compile("HEAD", re.IGNORECASE)}, 1),
        ({"kind": "lin*"}, 10),
        ({"role": "q"}, 3),
        ({"role": ["q", "down"], "block": 1}, 2),
        ({"block": range(1, 3)}, 6),
        ({"keep": lambda row: row.esd.M < 20}, 1),
        ({"layers": "layers.0", "role": "head"}, 0),
    ],
)
def test_a_selection(report: ps.Report, chosen: dict[str, Any], count: int) -> None:
    found = report.select(**chosen)
    assert type(found) is ps.Report
    assert len(found) == count
    assert [row for row in report if row.name in found] == list(found)
    assert len(found.skipped) == len(report.skipped) + len(report) - count
    assert len(report) == 10


def test_ids_select_as_they_do_in_analyze(report: ps.Report) -> None:
    assert [row.layer_id for row in report.select([2, 4])] == [2, 4]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"layers": "nothing"}, "hold what the model has"),
        ({"role": "qq"}, "did you mean 'q'"),
        ({"kind": "conv2d"}, "there are linear"),
        ({"regex": "("}, "be a regular expression"),
    ],
)
def test_what_nothing_answers_to_is_refused(
    report: ps.Report, chosen: dict[str, Any], words: str
) -> None:
    with pytest.raises(ArgumentValueError, match=words):
        report.select(**chosen)


@pytest.mark.parametrize("chosen", [{"keep": 3}, {"block": "1"}, {"role": [1]}, {"layers": 2.5}])
def test_wrong_types_are_refused(report: ps.Report, chosen: dict[str, Any]) -> None:
    with pytest.raises(ArgumentTypeError):
        report.select(**chosen)


def test_a_selection_is_what_analyze_would_have_made() -> None:
    weights = {f"h.{i}.attn.c_attn.weight": normal(20, 60, seed=i) for i in range(3)}
    weights["bias"] = normal(3)
    names = ["h.1.attn.c_attn[q]", "h.2.attn.c_attn"]
    whole, part = ps.analyze(weights), ps.analyze(weights, layers=names)
    selected = whole.select(names)
    assert selected.differences(part) == ()
    assert selected == part
    assert selected.coverage.left_out > 0
    assert selected.verdict == part.verdict


def test_one_slice_of_a_convolution() -> None:
    report = ps.analyze({"conv.weight": normal(20, 16, 2, 2)}, pool=False)
    assert [row.label for row in report.select("conv[2]")] == ["conv[2]"]
    assert len(report.select("conv")) == 4


# --- groups -------------------------------------------------------------------------------------


def test_by_role(report: ps.Report) -> None:
    roles = report.by("role")
    assert {name: len(part) for name, part in roles.items()} == {
        "q": 3, "k": 3, "down": 3, "head": 1,
    }  # fmt: skip
    rows = {row["group"]: row for row in roles.rows()}
    assert list(rows["down"]) == list(GROUP_COLUMNS)
    assert (rows["down"]["n_layers"], rows["down"]["n_failed"]) == (3, 1)
    assert rows["q"]["n_unjudged"] == 3
    assert math.isnan(rows["q"]["alpha"])
    assert "down: 3" in repr(roles)


def test_by_block_tells_stacks_apart() -> None:
    weights = {f"{side}.block.0.layer.0.SelfAttention.q.weight": normal(30, 20)
               for side in ("encoder", "decoder")}  # fmt: skip
    report = ps.analyze({**weights, "other.weight": normal(30, 20)})
    assert set(report.by("block")) == {"encoder.block.0", "decoder.block.0", OTHER}


@pytest.mark.parametrize("what", GROUPINGS)
def test_every_row_is_in_one_group(report: ps.Report, what: str) -> None:
    groups = report.by(what)
    assert sum(map(len, groups.values())) == len(report)
    assert len(groups.to_pandas()) == len(groups)


def test_no_such_grouping(report: ps.Report) -> None:
    with pytest.raises(ArgumentValueError, match="what"):
        report.by("colour")


# --- the order in which to look -----------------------------------------------------------------


def test_what_is_certain_comes_before_what_is_likely(report: ps.Report) -> None:
    words = [row.warning or str(row.status) for row in report.worst(10)]
    assert words[0] == "not_finite"
    assert words[1:7] == ["no structure detected"] * 6
    assert words[-1] == "too small to tell"
    assert report.worst(1)[0].name == "layers.2.mlp.down_proj"
    assert len(report.worst(100)) == 10


def test_tails_are_ordered_by_standard_errors() -> None:
    report = ps.analyze({f"{i}.weight": heavy(p) for i, p in enumerate((0.9, 1.6, 1.2))})
    rows = [row for row in report if row.warning == "heavy tail"]
    assert len(rows) >= 2
    ordered = by_attention(rows)
    distances = [distance_in_errors(row) for row in ordered]
    assert distances == sorted(distances, reverse=True)
    assert min(distances) > 0
    sure = replace(rows[0], fit=replace(rows[0].fit, alpha_stderr=0.0))
    assert distance_in_errors(sure) == math.inf
    assert by_attention([*rows, sure])[0] is sure


def test_small_layers_do_not_stand_out(report: ps.Report) -> None:
    assert not stands_out(report.layer("head"))
    assert stands_out(report.layer("layers.2.mlp.down_proj"))


@pytest.mark.parametrize("n", [0, -1])
def test_worst_needs_a_number(report: ps.Report, n: int) -> None:
    with pytest.raises(ArgumentValueError, match="'n'"):
        report.worst(n)


# --- equality -----------------------------------------------------------------------------------


def test_reports_compare_without_raising(report: ps.Report, tmp_path: Path) -> None:
    report.save(tmp_path / "r.npz")
    loaded = ps.Report.load(tmp_path / "r.npz")
    assert loaded == report
    assert report.differences(loaded) == ()
    assert loaded["head"].esd.evals.tolist() == report["head"].esd.evals.tolist()
    for other in (None, 3, "text", [], np.zeros(3)):
        assert (report == other) is False
        assert (other == report) is False


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: replace(r, source="x"), "source: 'state dict' and 'x'"),
        (lambda r: replace(r, layers=r.layers[1:]), "only in the first"),
        (lambda r: replace(r, layers=r.layers[::-1]), "in another order"),
        (lambda r: replace(r, notes=("new",)), "notes: 0 entries and 1"),
    ],
)
def test_what_is_different_is_said(
    report: ps.Report, change: Callable[[ps.Report], ps.Report], told: str
) -> None:
    other = change(report)
    assert report != other
    assert any(told in sentence for sentence in report.differences(other))


def test_numbers_that_differ_are_counted(report: ps.Report) -> None:
    row = report.layers[0]
    evals = row.esd.evals.copy()
    evals[2] += 0.5
    changed = replace(row, esd=replace(row.esd, evals=evals))
    other = replace(report, layers=(changed, *report.layers[1:]))
    (told,) = report.differences(other)
    assert told == (f"layer {row.label!r}, esd.evals: 1 of 36 entries differ, by at most 0.5")


def test_only_reports_are_compared_in_words(report: ps.Report) -> None:
    with pytest.raises(ArgumentTypeError, match="be a report"):
        report.differences(3)  # type: ignore[arg-type]
