"""Several checkpoints: each layer by its name in the first, what is missing, order and words."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.weights.run_folder import in_natural_order, steps_of


def tail(exponent: float, seed: int, N: int = 60, M: int = 40) -> np.ndarray:
    """A matrix whose singular values have a power-law tail."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((n, M)))[0] for n in (N, M))
    return (u * (1.0 + rng.pareto(2.0 * (exponent - 1.0), M))) @ v.T


def checkpoint(exponent: float, layers: int = 4) -> dict[str, np.ndarray]:
    return {f"block.{i}.weight": tail(exponent, i) for i in range(layers)}


@pytest.fixture(scope="module")
def course() -> ps.Trajectory:
    run = [checkpoint(exponent) for exponent in (4.0, 3.0, 2.2)]
    del run[1]["block.3.weight"]
    run[2] = {f"module.{name}": W for name, W in run[2].items()}
    run[2]["module.late.weight"] = tail(3.0, 9)
    names = ["step-5", "step-50", "step-500"]
    return ps.compare(run, names=names, goodness=False)


def test_layers_are_followed_by_their_names_in_the_first(course: ps.Trajectory) -> None:
    assert [layer.name for layer in course] == [*(f"block.{i}" for i in range(4)), "module.late"]
    assert course.missing == {"block.3": ("step-50",), "module.late": ("step-5", "step-50")}
    assert course["module.block.1"] is course["block.1"]
    for place, report in enumerate(course.reports):
        row = course["block.0"].rows[place]
        assert row is not None
        assert row in report.layers
        assert course["block.0"].alpha[place] == row.alpha
    assert math.isnan(course["block.3"].alpha[1])
    assert course.steps == (5.0, 50.0, 500.0)
    with pytest.raises(KeyError, match="nope"):
        course["nope"]


def test_the_summary_is_one_of_the_same_layers(course: ps.Trajectory) -> None:
    entries = course.summary()
    assert [entry["n_followed"] for entry in entries] == [3, 3, 3]
    for place, entry in enumerate(entries):
        expected = np.mean([course[f"block.{i}"].alpha[place] for i in range(3)])
        assert entry["alpha"] == pytest.approx(expected)
    assert entries[0]["alpha"] > entries[1]["alpha"] > entries[2]["alpha"]
    assert [entry["n_layers"] for entry in entries] == [4, 3, 5]


def test_words_say_the_course_the_ends_and_what_is_missing(course: ps.Trajectory) -> None:
    assert "3 checkpoints, from step-5 to step-500: 3 of 5 layers" in course.text
    assert "it is lowest in step-500" in course.text
    assert "highest in step-5 (" in course.text
    assert "module.late (not in step-5, step-50)" in course.text
    assert course.ends.summary()["alpha_shift_high"] < 0.0
    assert course.text.endswith("only a test set is.")


def test_views_agree(course: ps.Trajectory, tmp_path: Path) -> None:
    plain = json.loads(course.to_json(tmp_path / "t.json"))
    assert json.loads((tmp_path / "t.json").read_text()) == plain == course.to_dict()
    assert plain["schema"] == "pyspectra.trajectory/1"
    rows = list(csv.DictReader(io.StringIO(course.to_csv())))
    assert len(rows) == 4 + 3 + 5 == len(plain["layers"])
    assert {row["checkpoint"] for row in rows} == set(course.names)
    assert list(rows[0]) == list(course.columns)
    pandas = pytest.importorskip("pandas")
    assert isinstance(course.to_pandas(), pandas.DataFrame)
    from rich.console import Console

    console = Console(record=True, width=80, file=io.StringIO())
    course.print(console)
    text = console.export_text()
    assert "step-50 " in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for step, exponent in ((2, 4.0), (10, 2.2), (1, 4.5)):
        np.savez(tmp_path / f"step-{step}.npz", **checkpoint(exponent, 1))
    (tmp_path / "notes.txt").write_text("no checkpoint")
    course = ps.compare(tmp_path, goodness=False)
    assert course.names == ("step-1.npz", "step-2.npz", "step-10.npz")
    assert course.steps == (1.0, 2.0, 10.0)
    assert len(course.files) == 3
    with pytest.raises(ValueError, match="not be a file that was read"):
        course.to_csv(tmp_path / "step-2.npz")
    two = ps.compare(tmp_path / "step-1.npz", tmp_path / "step-2.npz", goodness=False)
    assert two.names == ("step-1.npz", "step-2.npz")


def test_order_and_steps_come_from_numbers_or_places() -> None:
    names = ["epoch=1-step=90.ckpt", "epoch=1-step=1000.ckpt", "epoch=0-step=45.ckpt"]
    assert in_natural_order(names) == [2, 0, 1]
    assert steps_of([names[i] for i in in_natural_order(names)]) == (45.0, 90.0, 1000.0)
    assert in_natural_order(["small.pt", "large.pt", "a.pt"]) == [0, 1, 2]
    assert steps_of(["small.pt", "large.pt"]) == (0.0, 1.0)
    assert steps_of(["step-3", "step-2"]) == (0.0, 1.0)


def test_arguments_are_refused_by_their_own_names(tmp_path: Path) -> None:
    a = checkpoint(3.0, 1)
    with pytest.raises(TypeError, match=r"^compare: 'b' must be a model where 'a' is one"):
        ps.compare(a)
    with pytest.raises(ValueError, match=r"^compare: 'a' must hold two or more models"):
        ps.compare([a])
    with pytest.raises(ValueError, match=r"^compare: 'a' must be one model where there is a 'b'"):
        ps.compare([a, a], a)
    with pytest.raises(ValueError, match=r"^compare: 'names' must be 3 strings"):
        ps.compare([a, a, a], names=["x", "y"])
    with pytest.raises(ValueError, match=r"^compare: 'changes' must be one of"):
        ps.compare(a, a, changes="often")
    with pytest.raises(ValueError, match=r"^compare: 'a\[2\]' must have a layer"):
        ps.compare([a, a, {"other.weight": tail(3.0, 1)}])
    with pytest.raises(ValueError, match="no numbered checkpoints"):
        ps.compare(tmp_path)
    np.savez(tmp_path / "step-1.npz", **a)
    with pytest.raises(ValueError, match=r"two or more numbered checkpoints, got .* holds one"):
        ps.compare(tmp_path)
    with pytest.raises(ValueError, match=r"^compare: 'a' must be a list of models or the folder"):
        ps.compare(tmp_path / "step-1.npz")


def test_checkpoints_that_could_not_be_read_are_said_to_tell_nothing() -> None:
    unread = {f"rest.{i}.weight": np.ones((60, 40), np.int8) for i in range(9)}
    whole, left_over = checkpoint(3.0, 1), checkpoint(2.2, 1) | unread
    names = ["step-1", "step-2"]
    course = ps.compare([whole, left_over], names=names, goodness=False)
    said = (
        "Cannot be judged: less than half of the parameters in matrices could be analysed in "
        "step-2 (10.0 % of the parameters in matrices). What is left over says nothing of the "
        "model."
    )
    assert course.text.startswith(said)
    assert course.to_dict()["text"].startswith(said)
    assert said in course.to_html()
    assert "Cannot be judged" not in ps.compare([whole, whole], names=names, goodness=False).text
