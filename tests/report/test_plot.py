"""The pictures: what is drawn is what the report says, and nothing global is touched."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import pyspectra as ps

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyspectra.report.plot import PLOTS, plot


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def report() -> ps.Report:
    weights = {f"block.{i}.fc.weight": random(40, 30, seed=i) for i in range(60)}
    weights["block.0.fc.weight"][0, 0] = np.nan
    weights["wte.weight"] = random(50, 30)
    weights["conv.weight"] = random(12, 10, 3, 3)
    return ps.analyze(weights)


def fitted(report: ps.Report) -> list[ps.LayerReport]:
    return [layer for layer in report.layers if layer.status is ps.Status.OK]


def legend(ax: Axes) -> str:
    found = ax.get_legend()
    assert found is not None
    return "\n".join(text.get_text() for text in found.get_texts())


@pytest.mark.parametrize("kind", ["alpha", "esd", "depth"])
def test_every_kind_can_be_saved(report: ps.Report, kind: str, tmp_path: Path) -> None:
    ax = plot(report, kind)
    assert isinstance(ax.figure, Figure)
    ax.figure.savefig(tmp_path / "a.png")
    ax.figure.savefig(tmp_path / "a.svg")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert ax.get_title()
    assert ax.get_xlabel()
    assert ax.get_ylabel()


@pytest.mark.parametrize("kind", ["alpha", "esd", "depth"])
def test_draws_where_told(report: ps.Report, kind: str) -> None:
    mine = Figure().add_subplot()
    assert plot(report, kind, ax=mine) is mine
    assert mine.has_data()


def test_every_kind_is_a_record_with_its_help(report: ps.Report) -> None:
    for record in PLOTS:
        assert record.help.endswith(".")
        assert f'``"{record.kind}"``' in (ps.Report.plot.__doc__ or "")
        assert plot(report, record.kind).has_data()


def test_alpha_counts_every_fit(report: ps.Report) -> None:
    ax = plot(report)
    bars = [p for container in ax.containers for p in container.patches]
    assert sum(bar.get_height() for bar in bars) == len(fitted(report)) == 61
    assert "1 without a fit left out" in ax.get_title()
    assert "2 ≤ α ≤ 6" in legend(ax)
    assert "mean" not in legend(ax)  # of random layers there is none
    assert ax.get_xlim()[0] <= 2.0 <= 6.0 <= ax.get_xlim()[1]


def test_esd_has_the_law_of_the_fit(report: ps.Report) -> None:
    layer = fitted(report)[0]
    ax = plot(report, "esd")
    assert layer.name in ax.get_title()
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    x, y = (np.asarray(values) for values in ax.lines[0].get_data())
    slope = np.diff(np.log(y)) / np.diff(np.log(x))
    np.testing.assert_allclose(slope, -layer.fit.alpha, rtol=1e-6)
    assert x[0] == pytest.approx(layer.fit.xmin)
    assert x[-1] == pytest.approx(layer.fit.xmax)
    assert f"α = {layer.alpha:.2f}" in legend(ax)


@pytest.mark.parametrize("name", ["wte", "conv", "block.7.fc"])
def test_esd_shows_every_eigenvalue_at_its_density(report: ps.Report, name: str) -> None:
    ax = plot(report, "esd", name)
    bars = [p for container in ax.containers for p in container.patches]
    mass = sum(bar.get_height() * bar.get_width() for bar in bars)
    assert mass == pytest.approx(1.0, abs=1e-9)
    layer = next(layer for layer in report.layers if layer.name == name)
    tail = [b for b in bars if b.get_x() >= layer.fit.xmin * (1 - 1e-12)]
    share = sum(b.get_height() * b.get_width() for b in tail)
    assert share == pytest.approx(layer.n_tail / len(layer.esd.evals))


def test_esd_by_id_is_esd_by_name(report: ps.Report) -> None:
    layer = report.layers[5]
    assert plot(report, "esd", layer.layer_id).get_title() == (
        plot(report, "esd", layer.name).get_title()
    )


def test_esd_without_a_fit_and_with_zeros() -> None:
    W = np.zeros((20, 20))
    W[0, 0] = 2.0
    report = ps.analyze({"fc.weight": W})
    ax = plot(report, "esd", "fc")
    assert "no fit" in ax.get_title()
    assert "19 eigenvalues" in ax.get_title()
    assert ax.figure.canvas is not None


def test_esd_of_a_slice() -> None:
    report = ps.analyze({"conv.weight": random(12, 10, 2, 2)}, pool=False)
    assert "slice 0" in plot(report, "esd", "conv").get_title()
    assert "[3]" in plot(report, "depth").get_xticklabels()[-1].get_text()


def test_depth_has_each_alpha_with_its_error(report: ps.Report) -> None:
    ax = plot(report, "depth")
    rows = report.layers
    drawn = {}
    for container in ax.containers:
        x, y = container[0].get_data()
        drawn |= dict(zip(map(int, x), y, strict=True))
        for i, segment in zip(x, container[2][0].get_segments(), strict=True):
            half = (segment[1][1] - segment[0][1]) / 2
            assert half == pytest.approx(rows[int(i)].fit.alpha_stderr)
    assert drawn == {i: row.alpha for i, row in enumerate(rows) if row.status is ps.Status.OK}
    for kind in ("linear", "embedding", "conv2d", "no fit"):
        assert kind in legend(ax)


@pytest.mark.parametrize("layers", [1, 45, 46, 300])
def test_depth_labels_do_not_overlap(layers: int) -> None:
    report = ps.analyze(
        {f"model.layers.{i}.fc.weight": random(9, 9, seed=i) for i in range(layers)}
    )
    ax = plot(report, "depth")
    ax.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert 1 <= len(boxes) <= 45
    assert all(a.x1 <= b.x0 + 1 for a, b in pairwise(boxes))


def test_a_dollar_in_a_name_is_a_dollar(tmp_path: Path) -> None:
    report = ps.analyze({"a$b_{$.weight": random(20, 20)})
    for kind in ("esd", "depth", "alpha"):
        ax = plot(report, kind)
        ax.figure.savefig(tmp_path / "a.png")
    assert r"a\$b_{\$" in plot(report, "esd").get_title()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("esdd",), ValueError, "'kind' must be one of"),
        (("alpha", 3), ValueError, "'layer' must come with kind 'esd', got kind 'alpha'"),
        (("esd", "nope"), ValueError, "got 'nope'.*Hint"),
        (("esd", 10_000), ValueError, "got 10000"),
        (("esd", 2.5), TypeError, "an id or a name"),
        (("esd", "block.0.fc"), ValueError, "must have a spectrum, got .* not_finite"),
    ],
)
def test_errors(report: ps.Report, arguments: tuple, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        plot(report, *arguments)


@pytest.mark.parametrize("kind", ["alpha", "esd", "depth"])
def test_nothing_fitted(kind: str) -> None:
    report = ps.analyze({"fc.weight": np.full((20, 20), np.nan)})
    with pytest.raises(ValueError, match="'report' must have a"):
        plot(report, kind)


def test_no_global_state() -> None:
    code = (
        "import io, sys, numpy as np, pyspectra as ps\n"
        "from pyspectra.report.plot import plot\n"
        "assert 'matplotlib' not in sys.modules\n"
        "report = ps.analyze({'a.weight': np.random.default_rng(0).standard_normal((20, 20))})\n"
        "for kind in ('alpha', 'esd', 'depth'): plot(report, kind).figure.savefig(io.BytesIO())\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_missing_matplotlib(report: ps.Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ps.MissingDependencyError, match=r"pyspectra-nn\[plot\]"):
        plot(report)


def law(ax: Axes) -> np.ndarray:
    """Density of the drawn law at its points."""
    (line,) = [line for line in ax.lines if line.get_label().startswith("fit:")]
    return np.asarray(line.get_xydata())


def test_the_law_with_a_cut_off_is_drawn_with_it() -> None:
    model = ps.analyze({"w.weight": random(200, 120)}, estimator="tpl")
    fit = model.layers[0].fit
    assert fit.Lambda > 0.0
    points = law(plot(model, "esd"))
    expected = points[:, 0] ** -fit.alpha * np.exp(-fit.Lambda * points[:, 0])
    ratio = points[:, 1] / expected
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)


def test_the_fit_of_sub_matrices_is_not_drawn_over_the_whole() -> None:
    ax = plot(ps.analyze({"w.weight": random(200, 120)}, estimator="farms(50, 3, 1)"), "esd")
    assert not ax.lines
    assert "fit of its sub-matrices: α = " in ax.get_title()


def test_what_was_left_out_is_not_coloured_as_tail() -> None:
    model = ps.analyze({"w.weight": random(200, 120)}, drop_largest=20)
    fit = model.layers[0].fit
    ax = plot(model, "esd")
    assert f"tail: {fit.n_tail} with" in legend(ax)
    bars = next(c for c in ax.containers if c.get_label().startswith("tail:"))
    assert max(bar.get_x() for bar in bars) <= fit.xmax
    assert ax.get_xlim()[1] > fit.xmax * 1.2
