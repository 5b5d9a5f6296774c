"""Findings are data: codes, thresholds, sentences; the verdict counts them."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.report import problems, verdicts
from pyspectra.report.findings import SEVERITIES, THRESHOLDS, Finding
from pyspectra.types import PowerLawFit
from pyspectra.weights.catalogue import Contents, TensorEntry


def fit(alpha: float = 3.0, p_value: float = math.nan) -> PowerLawFit:
    return PowerLawFit(
        alpha, 1.0, 9.0, 0.1, 0.2, alpha, 20, 40, 20, "ww", ps.Status.OK, p_value=p_value
    )


@pytest.mark.parametrize(
    ("alpha", "p_value", "random_p", "warning"),
    [
        (3.0, math.nan, 0.0, ""),
        (2.0, math.nan, 0.01, ""),
        (6.0, 0.11, math.nan, ""),
        (1.99, math.nan, 0.0, "heavy tail"),
        (6.01, 0.5, 0.0, "light tail"),
        (6.01, 0.1, 0.0, "no power law"),
        (1.5, 0.1, 0.011, "no structure detected"),
    ],
)
def test_the_first_problem_that_holds_is_the_warning(
    alpha: float, p_value: float, random_p: float, warning: str
) -> None:
    assert problems.layer_warning(fit(alpha, p_value), random_p, 32) == warning
    assert problems.layer_warning(fit(alpha, p_value), random_p, 31) == "too small to tell"
    assert problems.layer_warning(replace(fit(alpha), status=ps.Status.DEGENERATE), 1.0, 9) == ""


@pytest.mark.parametrize("estimator", ["hill(50)", "tpl", "tempbalance_median", "fix_finger"])
def test_bounds_of_one_estimator_are_not_another_ones(estimator: str) -> None:
    for alpha in (1.2, 9.0):
        other = replace(fit(alpha), estimator=estimator)
        assert problems.layer_warning(other, 0.0, 100) == ""
        assert problems.layer_warning(replace(other, estimator="csn(10)"), 0.0, 100)


def test_words_and_codes_are_unique_and_every_record_is_complete() -> None:
    for field in ("word", "short", "code"):
        values = [getattr(problem, field) for problem in problems.PROBLEMS]
        assert len(set(values)) == len(values)
    for problem in problems.PROBLEMS:
        assert problem.severity in SEVERITIES
        threshold = problem.threshold(THRESHOLDS)
        assert problem.one.format(threshold=threshold) != problem.many.format(threshold=threshold)


@pytest.fixture(scope="module")
def report() -> ps.Report:
    rng = np.random.default_rng(0)

    def fails() -> object:
        raise OSError("the disk is gone")

    factor = np.abs(rng.standard_t(2.0, (50, 1))).T ** 0.7
    turn = np.linalg.qr(rng.standard_normal((50, 50)))[0]
    steep = (rng.standard_normal((2000, 50)) * np.linspace(1.0, 1.2, 50)) @ turn
    arrays = {
        "noise": np.random.default_rng(5).standard_normal((60, 40)),
        "good": (rng.standard_normal((60, 50)) * factor) @ turn,
        "steep": steep,
        "bad": np.full((12, 9), np.nan),
        "flat": 2.0 * np.eye(16),
    }
    from pyspectra._arrays import HostArray

    entries = [
        TensorEntry(f"{n}.weight", W.shape, "float64", lambda W=W: HostArray(W, "float64"))
        for n, W in arrays.items()
    ]
    entries.append(TensorEntry("gone.weight", (20, 10), "float64", fails))
    return ps.analyze(ps.WeightSource("mine", Contents("made up", entries)))


def by_layer(report: ps.Report) -> dict[str | None, Finding]:
    return {finding.where: finding for finding in report.findings}


def test_each_finding_says_where_what_and_against_what(report: ps.Report) -> None:
    found = by_layer(report)
    assert len(found) == len(report.findings)
    assert {name: f.code for name, f in found.items() if name != "good"} == {
        "noise": "no_structure",
        "steep": "light_tail",
        "bad": "no_fit",
        "flat": "no_fit",
        "gone": "read_failed",
    }
    steep = found["steep"]
    assert (steep.severity, steep.threshold) == ("warning", 6.0)
    assert steep.value == report["steep"].alpha
    assert steep.message == (
        f"steep has a light tail (alpha > 6): alpha = {report['steep'].alpha:.3g}, clearly."
    )
    noise = found["noise"]
    assert (noise.value, noise.threshold) == (report["noise"].metrics["random_p_value"], 0.01)
    assert (found["bad"].severity, found["flat"].severity) == ("error", "warning")
    assert found["bad"].message == "bad has no power-law fit: not finite."
    assert found["gone"].severity == "error"
    assert "the disk is gone" in found["gone"].message


def test_the_verdict_counts_findings(report: ps.Report) -> None:
    codes = [finding.code for finding in report.findings]
    assert report.verdict.n_no_structure == codes.count("no_structure")
    assert report.verdict.n_failed == codes.count("no_fit")
    assert report.verdict.n_light_tail == codes.count("light_tail")


def test_findings_are_in_the_json(report: ps.Report) -> None:
    rows = json.loads(report.to_json())["findings"]
    assert [row["code"] for row in rows] == [finding.code for finding in report.findings]
    assert all(row["message"] for row in rows)
    codes = {row["name"]: row["code"] for row in json.loads(report.to_json())["skipped"]}
    assert codes["gone"] == "read_failed"


def test_findings_are_frozen_and_compared_by_value() -> None:
    a, b = (
        Finding(code="x", severity="info", message="m", value=math.nan, evidence={"w": np.ones(3)})
        for _ in range(2)
    )
    assert a == b
    assert hash(a) == hash(b)
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.code = "y"  # type: ignore[misc]
    assert (a.where, a.step, a.epoch, a.advice) == (None, None, None, ())


def test_labels_have_words_and_colours() -> None:
    for label in verdicts.LABELS:
        assert label.word
        assert label.style
        assert label.sentence.endswith(".")
