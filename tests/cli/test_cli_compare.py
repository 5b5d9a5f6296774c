"""``pyspectra compare``: streams, files, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from pyspectra.cli.main import main

save_file = pytest.importorskip("safetensors.numpy").save_file

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str]:
    paths = []
    for k, name in enumerate(("one", "two")):
        rng = np.random.default_rng(k)
        turn = np.linalg.qr(rng.standard_normal((40, 40)))[0]
        weights = {
            f"block.{i}.weight": (
                rng.standard_normal((60, 40)) @ (rng.pareto(1.5, (40, 1)) * turn)
            ).astype("f4")
            for i in range(4)
        }
        path = tmp_path / f"{name}.safetensors"
        save_file(weights, path)
        paths.append(str(path))
    return paths[0], paths[1]


def test_table_and_sentences_on_stdout(models: tuple[str, str], capsys: Captured) -> None:
    assert main(["compare", *models, "--names", "old", "new"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[:3] == ["layer", "alpha", "A"]
    assert "block.3" in out
    assert "Their mean alpha is" in out
    assert "A: old" in out


def test_json_and_csv(models: tuple[str, str], tmp_path: Path, capsys: Captured) -> None:
    target = tmp_path / "c.json"
    assert main(["compare", *models, "--csv", "-", "--json", str(target), "-q"]) == 0
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert err == ""
    plain = json.loads(target.read_text())
    assert [row["name"] for row in rows] == [row["name"] for row in plain["layers"]]
    assert plain["equal_architecture"] is True


def test_options_of_the_analysis_are_obeyed(models: tuple[str, str], capsys: Captured) -> None:
    given = ["--layers", "block.1", "--estimator", "csn", "--json", "-", "-j", "1"]
    assert main(["compare", *models, *given]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["options"]["estimator"] == "csn"
    assert [row["name"] for row in plain["layers"]] == ["block.1"]


def test_what_is_refused(models: tuple[str, str], tmp_path: Path, capsys: Captured) -> None:
    one, two = models
    for given, said in (
        ([one, str(tmp_path / "none.pt")], "B: no such file"),
        ([one, two, "--csv", one], "would overwrite"),
        ([one, two, "--csv", "-", "--json", "-"], "cannot both write"),
        ([one, two, "--bootstrap", "x"], "--bootstrap must"),
    ):
        assert main(["compare", *given]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line, line
    assert main(["compare", one, two, "--names", "x"]) == 2


def test_several_checkpoints_and_a_folder(tmp_path: Path, capsys: Captured) -> None:
    rng = np.random.default_rng(0)
    W = rng.standard_normal((40, 30)) * rng.pareto(2.0, 30)
    for step in (2, 10, 1):
        save_file({"fc.weight": W * step}, tmp_path / f"step-{step}.safetensors")
    paths = sorted(map(str, tmp_path.iterdir()))  # as a shell has them: 1, 10, 2
    for given in (paths, [str(tmp_path)]):
        assert main(["compare", *given, "--json", "-", "--no-goodness", "--no-changes"]) == 0
        plain = json.loads(capsys.readouterr().out)
        assert plain["steps"] == [1.0, 2.0, 10.0]
        assert plain["ends"]["difference"] is None
    assert main(["compare", str(tmp_path), "--csv", paths[1]]) == 2
    assert "would overwrite" in capsys.readouterr().err
    assert main(["compare", paths[0]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "list of models or the folder" in line


@pytest.mark.parametrize(
    ("steps", "names", "expected"),
    [((10, 9, 8), None, (10, 9, 8)), ((10, 8, 9), ("x", "y", "z"), (10, 8, 9)),
     ((10, 8, 9), None, (8, 9, 10))],
)  # fmt: skip
def test_an_order_of_ones_own_stays_and_names_go_with_their_models(
    steps: tuple[int, ...],
    names: tuple[str, ...] | None,
    expected: tuple[int, ...],
    tmp_path: Path,
    capsys: Captured,
) -> None:
    W = np.random.default_rng(0).standard_normal((40, 30))
    for step in steps:
        save_file({"fc.weight": W * step}, tmp_path / f"step-{step}.safetensors")
    paths = [str(tmp_path / f"step-{step}.safetensors") for step in steps]
    named = ["--names", *names] if names else []
    assert main(["compare", *paths, *named, "--json", "-", "--no-goodness"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["names"] == list(names or [f"step-{step}.safetensors" for step in expected])
    norms = [np.log10(float(np.square(W * step).sum())) for step in expected]
    np.testing.assert_allclose([entry["log_norm"] for entry in plain["summary"]], norms)


def test_pictures_of_a_model_and_of_a_pair(
    models: tuple[str, str], tmp_path: Path, capsys: Captured
) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "a" / "b"
    given = ["--no-goodness", "--layers", "block.1"]
    assert main(["analyze", models[0], "--plot", str(folder), *given]) == 0
    assert "pictures to" in capsys.readouterr().err
    names = sorted(path.name for path in folder.iterdir())
    assert names[:2] == ["01-alpha.png", "02-depth.png"]
    assert names[2:] == [f"layer-001-block.1-{kind}.png" for kind in ("esd", "esd_linear", "xmin")]
    both = tmp_path / "both"
    assert main(["compare", *models, "--plot", str(both), *given, "-q"]) == 0
    assert "04-esd.png" not in {path.name for path in both.iterdir()}
    assert (both / "layer-001-block.1-esd.png").exists()
    assert capsys.readouterr().err == ""
    assert main(["analyze", models[0], "--plot", models[0]]) == 2
    assert "is a file, not a folder" in capsys.readouterr().err
