"""Columns are records: each way out of a report shows the same list, and a record is enough."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import pyspectra as ps
from pyspectra.metrics import METRICS
from pyspectra.report import columns, data, heads, options, weightwatcher
from pyspectra.report.columns import Column, Head, number

OPTIONS: list[dict[str, Any]] = [
    {},
    {"pool": False},
    {option.name: True for option in options.records() if option.of_metrics},
    {"bootstrap": 5},
    {"goodness": False},
    {"fix_fingers": "clip_xmax"},
    {"estimator": "tpl"},
    {"base_model": {"conv.weight": np.ones((12, 10, 2, 2)), "fc.weight": np.eye(30, 20)}},
]


def model() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.standard_t(3, (12, 10, 2, 2)),
        "fc.weight": rng.standard_t(3, (30, 20)),
    }


@pytest.mark.parametrize("dialect", ["pyspectra", "weightwatcher"])
@pytest.mark.parametrize("asked", OPTIONS)
def test_every_way_out_has_the_columns_of_the_list(dialect: str, asked: dict[str, Any]) -> None:
    report = ps.analyze(model(), **asked)
    names = list(report.columns(dialect))
    assert len(set(names)) == len(names)
    assert [list(row) for row in report.rows(dialect)] == [names] * len(report.rows(dialect))
    assert next(csv.reader(io.StringIO(report.to_csv(dialect=dialect)))) == names
    if dialect == "pyspectra":
        assert [list(row) for row in report.to_dict()["layers"]] == [names] * len(report)


@pytest.mark.parametrize("known", [columns.COLUMNS, weightwatcher.COLUMNS])
def test_every_column_says_what_it_is(known: tuple[Column[Any], ...]) -> None:
    for column in known:
        assert column.help.endswith("."), column.name
        assert column.group.words


def test_every_metric_is_a_column() -> None:
    names = [column.name for column in columns.COLUMNS]
    assert set(METRICS) <= set(names)
    assert set(columns.METRIC_HEADS) <= set(METRICS)


def test_some_option_asks_for_every_column() -> None:
    for dialect, known in (
        ("pyspectra", columns.COLUMNS),
        ("weightwatcher", weightwatcher.COLUMNS),
    ):
        found: set[str] = set()
        for asked in OPTIONS:
            found |= set(ps.analyze(model(), **asked).columns(dialect))
        assert found == {column.name for column in known}


def printed(report: ps.Report, width: int) -> str:
    file = io.StringIO()
    report.print(Console(file=file, width=width))
    return file.getvalue()


def test_a_record_is_all_that_a_new_column_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counterpart of "column of the report" in the list of what adding a thing may touch."""
    new = Column(
        "fit_share",
        lambda r: r.fit.n_tail / len(r.esd.evals),
        "Share of the eigenvalues in the tail.",
        head=Head("share", number(lambda r: r.fit.n_tail / len(r.esd.evals), 3)),
    )
    for module in (columns, heads):
        monkeypatch.setattr(module, "COLUMNS", (*columns.COLUMNS, new))
    report = ps.analyze(model())
    share = report.layers[0].fit.n_tail / 40
    assert report.rows()[0]["fit_share"] == share
    assert report.to_dict()["layers"][0]["fit_share"] == share
    assert report.columns()["fit_share"] == new.help
    assert "fit_share" in report.to_csv().splitlines()[0]
    text = printed(report, 200)
    assert " share " in text
    assert f" {share:.3f} " in text
    assert " share " not in printed(report, 60)  # it makes room for the others


def test_the_warning_comes_last_whatever_is_asked_for() -> None:
    for asked in OPTIONS:
        text = printed(ps.analyze(model(), **asked), 300)
        head = next(line for line in text.splitlines() if line.lstrip().startswith("id"))
        assert head.endswith("warning")


def test_a_summary_is_records_too() -> None:
    rng = np.random.default_rng(0)
    correlated = rng.standard_normal((60, 40)) @ rng.standard_normal((40, 40))
    weights = {**model(), "correlated.weight": correlated}
    report = ps.analyze(weights, mp_fit=True, goodness=False)
    rows = report.rows()
    for name, value in report.summary().items():
        entry = next(e for e in columns.SUMMARY if e.name == name)
        assert entry.help
        if not name.startswith("n_"):
            unjudged = ("no structure detected", "too small to tell")
            judged = [r for r in rows if r["warning"] not in unjudged]
            counted = judged if "alpha" in name else rows
            assert value == pytest.approx(np.mean([row[name] for row in counted]))
    assert "mp_soft_rank" not in ps.analyze(model()).summary()


def test_dialects_are_checked_by_the_policy() -> None:
    report = ps.analyze(model())
    with pytest.raises(ValueError, match=r"Hint: did you mean 'weightwatcher'"):
        report.columns("weightwatchers")
    assert data.DIALECTS == ("pyspectra", "weightwatcher")


# --- rows by name, and equality -----------------------------------------------------------------


def test_rows_are_found_by_name_id_and_key() -> None:
    report = ps.analyze(model() | {"bad.weight": np.full((9, 9), np.nan)})
    assert len(report) == 3
    assert list(report) == list(report.layers)
    fc = report["fc"]
    assert fc is report.layer("fc") is report.layer(fc.layer_id) is report["fc.weight"]
    assert fc.key == "fc.weight"
    assert "fc" in report
    assert "nothing" not in report
    assert fc in report
    with pytest.raises(KeyError, match=r"must be in the report, got 'nothing'"):
        report["nothing"]
    with pytest.raises(ValueError, match=r"^Report: 'layer' must be in the report, got 99. Hint"):
        report.layer(99)
    with pytest.raises(TypeError, match=r"be an id or a name, got 1\.5"):
        report.layer(1.5)  # type: ignore[arg-type]


def test_slices_are_found_by_their_label() -> None:
    report = ps.analyze(model(), pool=False)
    assert report["conv[3]"].slice_id == 3
    assert report["conv"].slice_id == 0
    assert [layer.label for layer in report][:2] == ["conv[0]", "conv[1]"]


def test_an_empty_report_is_a_report() -> None:
    report = ps.analyze(model(), min_evals=1000)
    assert len(report) == 0
    assert report
    with pytest.raises(ValueError, match="must be in the report"):
        report.layer(1)


def test_values_are_compared_by_value() -> None:
    options: dict[str, Any] = {"randomize": True, "mp_fit": True, "vectors": True}
    weights = model() | {"bad.weight": np.full((9, 9), np.nan)}
    a, b = ps.analyze(weights, **options), ps.analyze(weights, **options)
    pairs = [(a, b), (a.verdict, b.verdict)]
    for x, y in zip(a, b, strict=True):
        pairs += [(x, y), (x.esd, y.esd), (x.fit, y.fit), (x.mp, y.mp)]
        pairs += [(x.randomized, y.randomized), (x.vectors, y.vectors)]
    for left, right in pairs:
        assert left == right
        assert hash(left) == hash(right)
        assert left != "something else"
    assert len({a, b}) == 1
    other = ps.analyze(weights, **options, seed=1)
    assert other != a
    assert other["fc"].esd == a["fc"].esd
    assert other["fc"] != a["fc"]
    moved = a["fc"].esd.evals.copy()
    moved[3] = np.nextafter(moved[3], 0.0)
    assert dataclasses.replace(a["fc"].esd, evals=moved) != a["fc"].esd


def test_fits_without_a_result_are_equal() -> None:
    """Their numbers are NaN, which says the same of both."""
    a, b = (ps.fit_powerlaw(np.array([2.0])) for _ in range(2))
    assert np.isnan(a.alpha)
    assert a == b
    assert hash(a) == hash(b)
    assert a != dataclasses.replace(a, n=3)
