"""The pictures: what is drawn is what the report says, and nothing global is touched."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyspectra as ps

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyspectra.report.comparison_data import ComparisonData
from pyspectra.report.data import ReportData
from pyspectra.report.plot import PLOTS, kinds_of, plot
from pyspectra.report.plot.axes import COLUMN
from pyspectra.report.plot.folder import safe_name
from pyspectra.report.plot.random import marchenko_pastur_density
from pyspectra.report.trajectory_data import TrajectoryData


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def report() -> ps.Report:
    weights = {f"block.{i}.fc.weight": random(40, 30, seed=i) for i in range(60)}
    weights["block.0.fc.weight"][0, 0] = np.nan
    weights["wte.weight"] = random(50, 30)
    weights["conv.weight"] = random(12, 10, 3, 3)
    return ps.analyze(weights, mp_fit=True, randomize=True, goodness=False)


@pytest.fixture(scope="module")
def both() -> ps.Comparison:
    a, b = ({f"block.{i}.fc.weight": tail(x, i) for i in range(4)} for x in (4.0, 2.2))
    return ps.compare(a, b, names=("early", "late"), goodness=False)


@pytest.fixture(scope="module")
def course() -> ps.Trajectory:
    run = [{f"h.{i}.fc.weight": t * tail(3.0, i) for i in range(8)} for t in (1.0, 3.0, 9.0)]
    run[1].pop("h.3.fc.weight")
    names = ["step-1", "step-10", "step-100"]
    return ps.compare(run, names=names, goodness=False, changes=False)


def tail(exponent: float, seed: int, N: int = 60, M: int = 40) -> np.ndarray:
    """A matrix whose singular values have a power-law tail."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((n, M)))[0] for n in (N, M))
    return (u * (1.0 + rng.pareto(2.0 * (exponent - 1.0), M))) @ v.T


def fitted(report: ps.Report) -> list[ps.LayerReport]:
    return [layer for layer in report.layers if layer.status is ps.Status.OK]


def legend(ax: Axes) -> str:
    found = ax.get_legend()
    assert found is not None
    return "\n".join(text.get_text() for text in found.get_texts())


@pytest.mark.parametrize("record", PLOTS, ids=lambda x: f"{x.of.__name__}-{x.kind}")
def test_every_kind_draws_in_a_column_and_where_told(
    record: Any, report: ps.Report, both: ps.Comparison, course: ps.Trajectory
) -> None:
    value = {ReportData: report, ComparisonData: both, TrajectoryData: course}[record.of]
    ax = value.plot(record.kind)
    assert isinstance(ax.figure, Figure)
    assert ax.figure.get_figwidth() == COLUMN[0]
    ax.figure.draw_without_rendering()
    width = ax.figure.get_window_extent().width
    assert ax.get_title()
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    told = [] if ax.get_legend() is None else ax.get_legend().get_texts()
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *told):
        box = text.get_window_extent()
        assert box.x0 >= 0.0
        assert box.x1 <= 1.01 * width, text.get_text()
    mine = Figure(figsize=(9.0, 5.0)).add_subplot()
    assert value.plot(record.kind, ax=mine) is mine
    assert mine.has_data()
    assert mine.title.get_fontsize() > ax.title.get_fontsize()


def test_every_kind_is_a_record_from_which_the_rest_derives(
    report: ps.Report, both: ps.Comparison
) -> None:
    guide = (Path(__file__).parent.parent.parent / "docs" / "plots.md").read_text()
    for record in PLOTS:
        assert record.help.endswith(".")
        assert f"| `{record.kind}` | {record.help} |" in guide
    for cls in (ps.Report, ps.Comparison, ps.Trajectory):
        documented = " ".join((cls.plot.__doc__ or "").split())
        for record in kinds_of(cls):
            assert f'``"{record.kind}"``: {record.help}' in documented
    with pytest.raises(ValueError, match="'alpha', 'shift', 'distance', 'esd'"):
        both.plot("depth")


def test_the_legend_and_what_is_drawn_are_apart(report: ps.Report, both: ps.Comparison) -> None:
    for ax in (report.plot("esd"), report.plot("esd_linear"), report.plot("xmin"), both.plot()):
        ax.figure.draw_without_rendering()
        bottom = ax.get_legend().get_window_extent().y0
        tops = [bar.get_window_extent().y1 for group in ax.containers for bar in group.patches]
        upright = [x.get_window_extent().y1 for x in ax.lines if x.get_gid() == "pyspectra-upright"]
        assert upright
        assert max([*tops, *upright]) <= bottom + 1.0


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
    assert "20 eigenvalues, 19 further left" in legend(ax)
    assert ax.figure.canvas is not None


def test_esd_of_a_slice() -> None:
    report = ps.analyze({"conv.weight": random(12, 10, 2, 2)}, pool=False)
    assert "conv[0]" in plot(report, "esd", "conv").get_title()
    assert "[3]" in plot(report, "depth").get_xticklabels()[-1].get_text()


def points(ax: Axes) -> dict[tuple[float, float], float]:
    """The points with error bars: their places -> the length of the bar below."""
    drawn = {}
    for container in ax.containers:
        line, _, (bars,) = container
        for x, y, segment in zip(*line.get_data(), bars.get_segments(), strict=True):
            drawn[(float(x), float(y))] = y - segment[0][1]
    return drawn


def test_depth_has_each_alpha_with_its_error_at_its_block(report: ps.Report) -> None:
    ax = plot(report, "depth")
    drawn = points(ax)
    assert sorted(y for _, y in drawn) == sorted(row.alpha for row in fitted(report))
    starts = set()
    for row in fitted(report):
        ((x, half),) = [(x, half) for (x, y), half in drawn.items() if y == row.alpha]
        assert half == pytest.approx(row.fit.alpha_stderr)
        if row.block is not None:
            starts.add(x - row.block)
    assert len(starts) == 1
    for word in ("embedding", "conv", "no fit", "hollow"):
        assert word in legend(ax)
    assert ax.get_xlabel() == "block"


def test_depth_joins_a_role_and_leaves_random_layers_hollow() -> None:
    weights = {}
    for i in range(6):
        weights[f"h.{i}.attn.q.weight"] = tail(3.0, i)
        weights[f"h.{i}.mlp.up.weight"] = tail(5.0, i)
    weights["h.2.attn.q.weight"] = random(60, 40)
    report = ps.analyze(weights, goodness=False)
    ax = plot(report, "depth")
    lines = [line for line in ax.lines if len(line.get_xdata()) > 1 and line.get_linewidth() > 0]
    joined = {len(line.get_xdata()) for line in lines if line.get_linestyle() == "-"}
    assert joined == {5, 6}
    hollow = [x for x in ax.lines if x.get_markerfacecolor() == "white" and len(x.get_xdata())]
    assert [float(x) for line in hollow for x in line.get_xdata()] == [2.0]
    assert hollow[0].get_ydata()[0] == report["h.2.attn.q"].alpha


def test_one_huge_alpha_does_not_press_the_others() -> None:
    report = ps.analyze({f"h.{i}.fc.weight": tail(3.0, i) for i in range(12)}, goodness=False)
    rows = list(report.layers)
    rows[4] = replace(rows[4], fit=replace(rows[4].fit, alpha=40.0))
    ax = plot(replace(report, layers=tuple(rows)), "depth")
    assert "above: up to 40" in legend(ax)
    assert all(y < 40.0 for _, y in points(ax))
    assert ax.get_ylim()[1] < 20.0


@pytest.mark.parametrize("layers", [1, 45, 300])
@pytest.mark.parametrize("name", ["part_{}_of_it_and_more_of_it", "model.layers.{}.fc"])
def test_depth_labels_do_not_overlap(layers: int, name: str) -> None:
    report = ps.analyze(
        {f"{name.format(i)}.weight": random(9, 9, seed=i) for i in range(layers)}, goodness=False
    )
    ax = plot(report, "depth")
    ax.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert 1 <= len(boxes) <= 45
    assert all(a.x1 <= b.x0 + 1 for a, b in pairwise(boxes))


def test_stacks_stand_one_behind_the_other() -> None:
    names = [
        f"{s}.block.{i}.layer.0.SelfAttention.q" for s in ("encoder", "decoder") for i in (0, 1)
    ]
    report = ps.analyze({f"{n}.weight": tail(3.0, i) for i, n in enumerate(names)}, goodness=False)
    ax = plot(report, "depth")
    assert sorted(x for x, _ in points(ax)) == [0.0, 1.0, 2.0, 3.0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "0", "1"]
    assert ax.get_xlabel().startswith("block: encoder")


def test_two_reports_share_axes_with_their_own_colours_and_all_limits() -> None:
    reports = [
        ps.analyze({f"a.{i}.weight": tail(x, i) for i in range(5)}, goodness=False)
        for x in (9.0, 2.0)
    ]
    ax = plot(reports[0], "alpha")
    first = ax.get_xlim()
    assert plot(reports[1], "alpha", ax=ax) is ax
    one, other = ax.containers
    assert one.patches[0].get_facecolor() != other.patches[0].get_facecolor()
    assert ax.get_xlim()[0] <= first[0]
    assert ax.get_xlim()[1] >= first[1]
    for container, each in zip(ax.containers, reports, strict=True):
        assert sum(bar.get_height() for bar in container.patches) == len(fitted(each))
    assert len(ax.get_legend().get_texts()) == 3  # two models and the band, once


def test_titles_name_the_end_of_a_path(report: ps.Report) -> None:
    path = "/home/somebody/models/a/very/long/path/runs/mine/model.safetensors"
    ax = plot(replace(report, source=path), "depth")
    assert ax.get_title().endswith("\nmine/model.safetensors")


def test_near_zero_eigenvalues_do_not_press_the_tail() -> None:
    W = np.zeros((60, 60))
    W[:40, :40] = tail(2.0, 0, 40, 40)
    W += 1e-5 * np.random.default_rng(0).standard_normal((60, 60))
    row = ps.analyze({"fc.weight": W}, goodness=False)
    ax = plot(row, "esd")
    low, high = np.log10(ax.get_xlim())
    share = (high - np.log10(row["fc"].fit.xmin)) / (high - low)
    assert share > 0.25
    left = int(np.sum(row["fc"].esd.evals < 10.0**low))
    assert left >= 20
    assert f"60 eigenvalues, {left} further left" in legend(ax)


def test_the_interval_of_alpha_is_drawn_around_the_law(report: ps.Report) -> None:
    layer = report["wte"]
    ax = plot(report, "esd", "wte")
    (fan,) = [c for c in ax.collections if c.get_label().startswith("95 %")]
    low, high = (layer.alpha + sign * 1.96 * layer.fit.alpha_stderr for sign in (-1, 1))
    assert f"{max(low, 1.0):.2f} to {high:.2f}" in fan.get_label()
    corners = fan.get_paths()[0].vertices
    x = corners[:, 0].max()
    share = layer.fit.n_tail / len(layer.esd.evals)
    for alpha in (low, high):
        y = share * (alpha - 1) / layer.fit.xmin * (x / layer.fit.xmin) ** -alpha
        assert np.abs(corners[corners[:, 0] == x][:, 1] / y - 1.0).min() < 1e-6


def test_xmin_has_the_distance_of_the_fit_at_its_minimum(report: ps.Report) -> None:
    layer = report["wte"]
    ax = plot(report, "xmin", "wte")
    curve, chosen = (np.asarray(ax.lines[i].get_xydata()) for i in (0, 2))
    assert tuple(chosen[0]) == (layer.fit.xmin, layer.fit.D)
    assert np.nanmin(curve[:, 1]) == pytest.approx(layer.fit.D)
    assert curve[np.nanargmin(curve[:, 1]), 0] == layer.fit.xmin


def test_the_marchenko_pastur_law_is_that_of_the_fit(report: ps.Report) -> None:
    layer = report["wte"]
    mp = layer.mp
    assert mp is not None
    x = np.linspace(mp.lambda_minus, mp.lambda_plus, 20001)
    law = marchenko_pastur_density(mp, x)
    assert np.trapezoid(law, x) == pytest.approx(1.0, abs=1e-3)
    variance = (np.sqrt(mp.lambda_minus) + np.sqrt(mp.lambda_plus)) ** 2 / 4.0 / mp.N
    assert np.trapezoid(law * x, x) == pytest.approx(mp.N * variance, rel=1e-3)
    ax = plot(report, "mp", "wte")
    (drawn,) = [x for x in ax.lines if x.get_label() == "Marchenko-Pastur"]
    assert drawn.get_xdata()[-1] == pytest.approx(mp.lambda_plus)
    counted = sum(bar.get_height() for group in ax.containers for bar in group.patches)
    assert counted == len(layer.esd.evals)
    assert "0 spikes" not in legend(ax)


def test_spikes_and_traps_are_marked() -> None:
    W = random(80, 60).astype(np.float64)
    spiked, trapped = W.copy(), W.copy()
    spiked[:, 0] += 4.0  # a direction
    trapped[3, 7] = 60.0  # a single entry, which random order does not dissolve
    weights = {"spiked.weight": spiked, "trapped.weight": trapped}
    report = ps.analyze(weights, mp_fit=True, randomize=True, goodness=False)
    mp, randomized = report["spiked"].mp, report["trapped"].randomized
    assert mp is not None
    assert randomized is not None
    containers = plot(report, "mp", "spiked").containers
    (spikes,) = [c for c in containers if c.get_label() == "1 spike"]
    assert sum(bar.get_height() for bar in spikes.patches) == mp.n_spikes == 1
    ax = plot(report, "randomized", "trapped")
    (traps,) = [x for x in ax.lines if x.get_label() == "1 trap"]
    assert list(traps.get_xdata()) == [randomized.evals[-1]]
    (steps,) = [p for p in ax.patches if p.get_label() == "entries in random order"]
    assert sum(steps.get_data().values) == len(randomized.evals)


def test_what_was_not_measured_is_named_with_its_option() -> None:
    report = ps.analyze({"fc.weight": random(20, 20)}, goodness=False)
    for kind, option in (("mp", "mp_fit"), ("randomized", "randomize")):
        with pytest.raises(ValueError, match=f"analysed with {option}=True"):
            plot(report, kind)


def test_a_comparison_has_the_alphas_shifts_and_spectra_of_both(both: ps.Comparison) -> None:
    ax = both.plot("alpha")
    for container, alphas in zip(ax.containers, both.fitted_alphas, strict=True):
        assert sum(bar.get_height() for bar in container.patches) == len(alphas)
        assert f"mean α = {np.mean(alphas):.2f}" in legend(ax)
    ax = both.plot("shift")
    drawn = points(ax)
    for row in both.compared:
        half = drawn[(float(row.a.block or 0), row.alpha_shift)]
        assert half == pytest.approx(1.96 * row.alpha_shift_stderr)
    hollow = [x for x in ax.lines if x.get_markerfacecolor() == "white" and len(x.get_xdata())]
    unsure = [row for row in both.compared if row.change == "within its error"]
    assert sum(len(x.get_xdata()) for x in hollow) == len(unsure)
    ax = both.plot("esd", layer="block.2.fc")
    assert "block.2.fc" in ax.get_title()
    for side in (both["block.2.fc"].a, both["block.2.fc"].b):
        assert f"its tail: α = {side.alpha:.2f}" in legend(ax)
    with pytest.raises(ValueError, match="'layer' must be in both models, got 'x'"):
        both.plot("esd", layer="x")
    distances = both.plot("distance").containers[0][0].get_ydata()
    assert list(distances) == [row.distances["ks"] for row in both]


def test_a_trajectory_has_every_layer_and_the_mean_of_the_same(course: ps.Trajectory) -> None:
    ax = course.plot("alpha")
    *layers, mean = (x for x in ax.lines if len(x.get_xdata()) == 3)
    assert len(layers) == 8
    for line, layer in zip(layers, course.layers, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), layer.alpha)
    whole = [layer.alpha for layer in course.layers if layer.is_whole]
    np.testing.assert_allclose(mean.get_ydata(), np.mean(whole, axis=0))
    assert tuple(mean.get_xdata()) == course.steps
    assert ax.get_xscale() == "log"
    lines = [x for x in course.plot("norm").lines if len(x.get_xdata()) == 3]
    np.testing.assert_allclose(lines[0].get_ydata(), [0.0, np.log10(3.0), np.log10(9.0)])


def test_distances_have_a_picture_and_a_short_repr() -> None:
    a = {f"h.{i}.fc.weight": tail(3.0, i) for i in range(50)}
    far = ps.distances(a, {name: 2.0 * W for name, W in a.items()})
    assert len(repr(far)) < 80
    line = far.plot().containers[0][0]
    np.testing.assert_allclose(line.get_ydata(), [x.distance for x in far.layers])


def test_a_folder_gets_every_picture_and_one_bad_one_loses_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["b/../../x.weight", "h.10.fc.weight", "h.9.fc.weight", "bad.weight", "zero.weight"]
    weights = {name: random(12, 10, seed=i) for i, name in enumerate(names)}
    weights["bad.weight"][0, 0] = np.nan
    weights["zero.weight"][:] = 0.0
    report = ps.analyze(weights, goodness=False)
    read = tmp_path / "01-alpha.png"
    read.write_bytes(b"weights")
    report = replace(report, files=(str(read),))
    kept = Figure.savefig

    def broken(figure: Figure, *args: Any, **keywords: Any) -> None:
        if "h.9.fc" in figure.axes[0].get_title():
            raise RuntimeError("no ink")
        kept(figure, *args, **keywords)

    monkeypatch.setattr(Figure, "savefig", broken)
    saved = report.save_plots(tmp_path)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert sorted([*(path.name for path in saved.paths), read.name]) == found
    assert list(saved.paths) == sorted(saved.paths)
    assert read.read_bytes() == b"weights"
    reasons = dict(saved.failed)
    assert "file of the model" in reasons.pop("01-alpha")
    assert set(reasons.values()) == {"no ink"}
    assert len(reasons) == 3
    assert found[1] == "02-depth.png"
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in found)
    assert any("x-esd" in name for name in found)
    assert not any("bad" in name or "zero" in name for name in found)
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in saved.paths)


def test_names_of_layers_are_safe_as_names_of_files() -> None:
    assert safe_name("../../etc/passwd") == "etc_passwd"
    assert safe_name("conv[3]") == "conv_3"
    assert safe_name("..") == "unnamed"
    long = safe_name("x." * 200 + "end")
    assert long.endswith("x.end")
    assert len(long) <= 80


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
        (("alpha", 3), ValueError, "'layer' must come with kind 'esd' or .*, got kind 'alpha'"),
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
    assert f"tail: {fit.n_tail} from" in legend(ax)
    bars = next(c for c in ax.containers if c.get_label().startswith("tail:"))
    assert max(bar.get_x() for bar in bars) <= fit.xmax
    assert ax.get_xlim()[1] > fit.xmax * 1.2
