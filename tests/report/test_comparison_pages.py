"""Pages of comparisons and trajectories: whole, closed, and true to what they show."""

from __future__ import annotations

import re

import numpy as np
import pytest
from report.test_html_parts import EVIL
from report.test_report_page import data_of, whole

import pyspectra as ps
from pyspectra._support.text import printable
from pyspectra.cli.main import main
from pyspectra.report.html.comparison_page import change_of

RNG = np.random.default_rng(5)
DIRECTIONS = np.geomspace(1.0, 12.0, 40)


def weights(scale=1.0):
    made = {f"layers.{i}.q_proj.weight": RNG.standard_normal((60, 40)) * DIRECTIONS
            for i in range(4)}  # fmt: skip
    made["layers.0.q_proj.weight"] = RNG.standard_normal((60, 40))
    made[f"{EVIL}.weight"] = scale * RNG.standard_t(2.0, size=(60, 40))
    made["broken.weight"] = np.full((60, 40), np.nan)
    return made


@pytest.fixture(scope="module")
def comparison():
    second = weights(3.0)
    second["extra.weight"] = RNG.standard_normal((60, 40))
    return ps.compare(weights(), second, names=(EVIL, "new"))


@pytest.fixture(scope="module")
def trajectory():
    run = [weights(scale) for scale in (1.0, 2.0, 4.0)]
    del run[0]["layers.3.q_proj.weight"]
    return ps.compare(run, names=["step-1", f"step-10 {EVIL}", "step-100"])


def test_a_comparison_has_both_models(comparison):
    made = comparison.to_html()
    parser = whole(made)
    shown = parser.text[: parser.text.index('{"columns"')]
    for words in (printable(EVIL), "new", comparison.a.verdict.label.capitalize(),
                  "Layers that only one has", "1 only in new", "extra", "In words"):  # fmt: skip
        assert words in shown
    for sentence in comparison.text.split(". "):
        start = sentence.removeprefix("No ranking: ")[1:40]
        assert start in shown
    for row in comparison:
        if np.isfinite(row.alpha_shift):
            assert f"{row.alpha_shift:+.2f}".replace("-", "−") in shown
    assert "\x1b" not in made


def test_a_compared_layer_opens_with_both_spectra(comparison):
    data = data_of(comparison.to_html())
    assert [name for name, _ in data["columns"]] == list(comparison.columns)
    assert data["series"] == [printable(EVIL), "new"]
    for row, layer in zip(comparison, data["layers"], strict=True):
        assert layer["k"] == row.change == change_of(row).word
        for report, curve in zip((row.a, row.b), layer["s"], strict=True):
            if report.esd.status is ps.Status.OK:
                assert curve["n"] == len(report.esd.evals)
            else:
                assert curve is None


def test_a_comparison_without_a_fit_has_a_page():
    found = ps.compare({"a.weight": np.zeros((40, 30))}, {"a.weight": np.zeros((40, 30))})
    assert "No layer has an alpha to draw." in whole(found.to_html()).text


def test_a_trajectory_has_each_checkpoint(trajectory):
    made = trajectory.to_html()
    parser = whole(made)
    shown = parser.text[: parser.text.index('{"columns"')]
    for words in ("step-1 to step-100", "step-10 <script>", "Checkpoints", "tail exponent",
                  "1 layer missing in some checkpoints"):  # fmt: skip
        assert words in shown
    assert "The last against the first" not in shown
    data = data_of(made)
    assert len(data["layers"]) == len(trajectory.layers)
    names = [name for name, _ in data["columns"]]
    for layer, written in zip(trajectory.layers, data["layers"], strict=True):
        values = dict(zip(names, written["v"], strict=True))
        if np.isfinite(layer.alpha).all():
            shift = layer.alpha[-1] - layer.alpha[0]
            assert values["alpha_shift"] == pytest.approx(shift, rel=1e-3, abs=1e-4)
    assert len(re.findall(r'class="spark"', made)) >= 4


def test_one_checkpoint_that_has_a_layer_is_enough():
    run = [{"fc.weight": RNG.random((60, 40))} for _ in range(3)]
    run[1]["once.weight"] = RNG.random((60, 40))
    data = data_of(ps.compare(run).to_html())
    assert data["layers"][1]["s"][1] is None


def test_the_command_writes_the_pages(tmp_path, capsys):
    files = []
    for i in range(3):
        files.append(str(tmp_path / f"step-{i}.npz"))
        np.savez(files[-1], **{"fc.weight": RNG.random((60, 40))})
    target = tmp_path / "page.html"
    for given, kind in ((files[:2], "Comparison"), (files, "Trajectory")):
        assert main(["compare", *given, "--html", str(target), "--quiet"]) == 0
        assert f'<p class="eyebrow">{kind}</p>' in target.read_text(encoding="utf-8")
    assert main(["compare", *files[:2], "--html", files[0]]) == 2


def test_a_page_never_replaces_a_model(tmp_path):
    files = [tmp_path / name for name in ("a.npz", "b.npz")]
    for file in files:
        np.savez(file, **{"fc.weight": RNG.random((60, 40))})
    found = ps.compare(*files)
    with pytest.raises(ValueError, match="path"):
        found.save_html(files[1])
    found.save_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == found.to_html()
