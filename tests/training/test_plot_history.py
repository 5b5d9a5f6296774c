"""The plot of a history, and the same read out in words."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from pyspectra.errors import ArgumentValueError
from pyspectra.training import History
from pyspectra.training.curve_pairs import curve_pairs
from pyspectra.training.plot import plot_history
from pyspectra.training.reading_out import read_out

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def overfitting(epochs: int = 20, post: bool = False) -> History:
    """Return a run whose validation is best at epoch 8, in batches of 10 an epoch."""
    history = History(steps_per_epoch=10)
    for step in range(1, 10 * epochs + 1):
        epoch = step / 10
        train = 0.2 + 2 * math.exp(-epoch / 3)
        history.log(step=step, n=8, mse=train**2, mae=0.8 * train, lr=1e-3 / step)
        if step % 10 == 0:
            val = 0.4 + 1.6 * math.exp(-epoch / 3) + 0.05 * max(0.0, epoch - 8)
            history.log(split="val", n=100, mse=val**2, mae=0.8 * val, accuracy=1 - val / 4)
            if post:
                history.log(split="train", kind="post", n=80, mse=train**2)
    return history


def lines_of(ax: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in ax.get_lines()}


def test_metrics_of_one_unit_share_axes_and_nothing_is_shown() -> None:
    axes = plot_history(overfitting(), ["rmse", "mae", "accuracy"])
    assert axes.shape == (2,)
    top, bottom = axes
    assert top.get_ylabel() == "rmse, mae"
    assert {"train rmse", "val rmse", "train mae", "val mae"} <= set(lines_of(top))
    assert "train accuracy" not in lines_of(bottom)
    assert "val accuracy" in lines_of(bottom)
    assert all(ax.get_legend() is not None for ax in axes)
    assert len(top.figure.axes) == 3  # the learning rate has a strip of its own
    top.figure.canvas.draw()


def test_a_running_mean_is_in_the_middle_of_its_epoch_and_an_evaluation_at_its_end() -> None:
    lines = lines_of(plot_history(overfitting(), "rmse"))
    assert lines["train rmse"].get_xdata()[:3].tolist() == [0.5, 1.5, 2.5]
    assert lines["val rmse"].get_xdata()[:3].tolist() == [1, 2, 3]
    assert lines["train rmse"].get_linestyle() == "-"
    assert lines["val rmse"].get_linestyle() == "--"
    assert lines["train rmse"].get_color() == lines["val rmse"].get_color()
    post = lines_of(plot_history(overfitting(post=True), "mse"))
    assert post["train mse"].get_xdata()[:3].tolist() == [1, 2, 3]
    steps = lines_of(plot_history(overfitting(), "rmse", x="step"))
    assert steps["train rmse"].get_xdata()[:2].tolist() == [5, 15]
    assert steps["val rmse"].get_xdata()[:2].tolist() == [10, 20]


def test_marks_are_the_best_value_the_early_stop_and_the_findings() -> None:
    history = overfitting()
    history.log_finding({"code": "too_$low", "severity": "warning", "step": 55, "message": "x"})
    ax = plot_history(history, "rmse")
    labels = list(lines_of(ax))
    assert any(label.startswith("best val rmse") for label in labels)
    best = next(line for label, line in lines_of(ax).items() if label.startswith("best"))
    assert best.get_xdata()[0] == 8
    assert "early stop: epoch 8" in labels
    assert [text.get_text() for text in ax.texts] == [r"too_\$low"]
    assert ax.texts[0].xy[0] == 5.5
    ax.figure.canvas.draw()
    plain = plot_history(history, "rmse", mark=())
    assert set(lines_of(plain)) == {"train rmse", "val rmse"}
    assert not plain.texts


def test_smoothing_shows_the_batches_behind_it_and_changes_nothing_stored() -> None:
    history = overfitting()
    before = history.to_jsonl()
    ax = plot_history(history, "mse", smooth=10)
    raw, smooth = ax.get_lines()[:2]
    assert len(raw.get_xdata()) == len(smooth.get_xdata()) == 200
    assert raw.get_alpha() < 1
    assert smooth.get_label() == "train mse, half-life 10 steps"
    assert smooth.get_ydata()[0] == raw.get_ydata()[0]
    assert history.to_jsonl() == before


def test_both_curves_lose_the_same_points_at_the_start() -> None:
    lines = lines_of(plot_history(overfitting(), "rmse", skip_first=3))
    assert lines["train rmse"].get_xdata()[0] == 3.5
    assert lines["val rmse"].get_xdata()[0] == 4
    raw = plot_history(overfitting(), "mse", skip_first=3, smooth=5).get_lines()[0]
    assert raw.get_xdata()[0] == 3.1


def test_axes_that_were_given_are_drawn_in_and_no_figure_is_made() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot()
    assert plot_history(overfitting(), ["rmse", "mae"], ax=ax) is ax
    assert figure.axes == [ax]
    with pytest.raises(ArgumentValueError, match="2 axes, one for each unit"):
        plot_history(overfitting(), ["rmse", "accuracy"], ax=ax)


def test_axes_are_logarithmic_where_values_span_decades() -> None:
    history = History()
    for epoch in range(1, 10):
        history.log(epoch=epoch, train_loss=10.0**-epoch, val_loss=2 * 10.0**-epoch)
    assert plot_history(history).get_yscale() == "log"
    assert plot_history(history, logy=False).get_yscale() == "linear"
    assert plot_history(overfitting(), "accuracy").get_yscale() == "linear"


def test_runs_with_more_evaluations_than_epochs_are_drawn_at_the_evaluations() -> None:
    history = History(steps_per_epoch=1000)
    for step in range(10, 510, 10):
        history.log(step=step, loss=1 / step)
        if step % 100 == 0:
            history.log(split="val", loss=2 / step)
    (pair,) = curve_pairs(history)
    assert pair.x.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert pair.train_x == pytest.approx([0.05, 0.15, 0.25, 0.35, 0.45])
    lines = lines_of(plot_history(history))
    assert lines["val loss"].get_ydata()[-1] == 2 / 500


def test_a_run_of_steps_alone_is_drawn_against_steps() -> None:
    history = History()
    for step in (1, 2, 3):
        history.log(step=step, train_loss=1.0, val_loss=2.0)
    ax = plot_history(history)
    assert ax.get_xlabel() == "step"
    assert lines_of(ax)["val loss"].get_xdata().tolist() == [1, 2, 3]


def test_values_that_are_not_finite_are_gaps() -> None:
    history = History()
    for epoch, loss in enumerate([1.0, math.nan, 0.5, math.inf], 1):
        history.log(epoch=epoch, train_loss=loss, val_loss=loss)
    ax = plot_history(history)
    ax.figure.canvas.draw()
    assert lines_of(ax)["val loss"].get_xdata().tolist() == [1, 3]
    assert read_out(history)


@pytest.mark.parametrize(
    "options",
    [{"metrics": "rmsee"}, {"x": "time"}, {"smooth": 0.0}, {"logy": "yes"}, {"skip_first": -1},
     {"mark": ("worst",)}, {"metrics": [3]}],
)  # fmt: skip
def test_arguments_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="plot_history: "):
        plot_history(overfitting(), **options)
    with pytest.raises(ValueError, match="metrics of epochs"):
        plot_history(History())


def test_pyplot_is_never_loaded() -> None:
    code = (
        "import sys\n"
        "from pyspectra.training import History, plot_history\n"
        "h = History(); h.log(epoch=1, loss=1.0); h.log(epoch=2, loss=0.5)\n"
        "plot_history(h).figure.savefig(__import__('io').BytesIO())\n"
        "print('matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "False"], done.stderr


# --- in words -----------------------------------------------------------------------------------


def told(history: History, metric: str) -> str:
    return "\n".join(read_out(history, [metric]))


def curves_of(train: Any, val: Any, name: str = "rmse") -> History:
    history = History()
    for epoch, (a, b) in enumerate(zip(train, val, strict=True), 1):
        history.log(epoch=epoch, **{f"train_{name}": a, f"val_{name}": b})
    return history


def test_divergence_is_told_with_the_epoch_to_keep() -> None:
    text = told(overfitting(), "rmse")
    assert "validation was best at epoch 8" in text
    assert (
        "the curves diverge (overfitting), and the weights of epoch 8 are the ones to keep" in text
    )
    assert "validation rises by" in text
    assert "flat" not in text


def test_a_healthy_gap_is_said_to_be_normal() -> None:
    x = np.arange(1, 21.0)
    text = told(curves_of(0.5 + np.exp(-x / 2), 0.6 + np.exp(-x / 2)), "rmse")
    assert "a gap by itself is normal" in text
    assert "diverge" not in text
    assert "training is flat since epoch" in text
    assert "within half a per cent an epoch" in text
    assert "its last value: it had not begun to get worse" in text


def test_a_fall_is_told_in_per_cent_and_a_share_in_points() -> None:
    x = np.arange(1, 11.0)
    text = told(curves_of(0.9**x, 2 * 0.9**x), "rmse")
    assert "training falls by 10 % an epoch over the last 5 epochs" in text
    text = told(curves_of(0.5 + 0.02 * x, 0.4 + 0.02 * x, "accuracy"), "accuracy")
    assert "training rises by 2 points an epoch" in text
    assert "validation is 10 points worse than training; a gap by itself is normal" in text


def test_a_crossing_is_explained() -> None:
    # Fast learning: by rows training is worse at first, by its middle it is not.
    x = np.arange(1, 13.0)
    train = np.exp(-(x - 0.5) / 2)
    val = np.exp(-x / 2) * (1 + 0.06 * x)
    text = told(curves_of(train, val), "rmse")
    assert "the values of one epoch cross" in text
    assert "the curves do not" in text
    real = told(curves_of([1.0, 0.8, 0.6, 0.4, 0.3], [0.7, 0.6, 0.55, 0.5, 0.5]), "rmse")
    assert "the curves cross at epoch" in real
    assert "no fault" in real
    better = told(curves_of([0.5, 0.5, 0.5], [0.9, 0.6, 0.4]), "rmse")
    assert "after that validation is the better one" in better


def test_noise_is_not_given_a_slope() -> None:
    noise = np.exp(np.random.default_rng(0).standard_normal(10))
    assert "without a slope that could be told from none" in told(curves_of(noise, noise), "rmse")


def test_a_run_that_comes_apart_is_no_overfitting() -> None:
    up = [1.0, 0.5, 0.4, 0.8, 1.5, 3.0]
    text = told(curves_of(up, np.array(up) + 0.1), "rmse")
    assert "a run that comes apart" in text


def test_metrics_without_a_direction_are_read_out_on_request_only() -> None:
    history = curves_of([1.0, 2, 3, 4], [1.0, 2, 3, 4], "temperature")
    assert read_out(history) == []
    assert "training rises" in told(history, "temperature")
