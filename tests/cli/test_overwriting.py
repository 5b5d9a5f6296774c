"""No result is written over a file that was read, by whatever path or link it goes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.cli import output
from pyspectra.cli.main import main
from pyspectra.errors import ArgumentValueError

save_file = pytest.importorskip("safetensors.numpy").save_file

Captured = pytest.CaptureFixture[str]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def one_file(folder: Path) -> list[Path]:
    save_file({"fc.weight": random(24, 20)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    return [folder / name for name in ("model.safetensors", "config.json", "tokenizer.json")]


def shards(folder: Path) -> list[Path]:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    save_file({"a.weight": random(24, 20)}, folder / names[0])
    save_file({"b.weight": random(24, 20, seed=1)}, folder / names[1])
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": names[0], "b.weight": names[1]}}))
    return [*(folder / name for name in names), index]


def adapter(folder: Path) -> list[Path]:
    key = "base_model.model.q.lora_{}.weight"
    halves = {key.format("A"): random(9, 24), key.format("B"): random(20, 9)}
    save_file(halves, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": 2}))
    return [folder / "adapter_model.safetensors", folder / "adapter_config.json"]


def old_shards(folder: Path) -> list[Path]:
    """Without an index."""
    found = shards(folder)
    found.pop().unlink()
    return found


Make = Callable[[Path], list[Path]]
MODELS = [one_file, shards, adapter, old_shards]


def symbolic(path: Path, folder: Path) -> Path:
    (folder / "symbolic").symlink_to(path)
    return folder / "symbolic"


def hard(path: Path, folder: Path) -> Path:
    os.link(path, folder / "hard")
    return folder / "hard"


def itself(path: Path, folder: Path) -> Path:
    return path


def by_detour(path: Path, folder: Path) -> Path:
    (folder / "detour").symlink_to(path.parent)
    return folder / "detour" / ".." / path.parent.name / path.name


ROUTES = [itself, symbolic, hard, by_detour]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("make", MODELS)
def test_no_file_of_a_model(
    tmp_path: Path, capsys: Captured, make: Make, route: Callable[[Path, Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = tmp_path / "model"
    folder.mkdir()
    files = make(folder)
    other = tmp_path / "other.safetensors"
    save_file({"a.weight": random(24, 20, seed=2), "fc.weight": random(24, 20, seed=2)}, other)
    before = {file: file.read_bytes() for file in files}
    report = ps.analyze(folder)
    monkeypatch.setattr(ps, "analyze", lambda *_, **__: pytest.fail("the analysis ran before"))
    for i, file in enumerate(files):
        links = tmp_path / str(i)
        links.mkdir()
        target = str(route(file, links))
        asked = [["analyze", str(folder)], ["analyze", str(other), "--base-model", str(folder)]]
        for arguments in asked:
            for option in ("--csv", "--json"):
                assert main([*arguments, option, target]) == 2
                error = capsys.readouterr().err
                assert "would overwrite the model" in error
                assert option in error
        for write in (report.to_csv, report.to_json, report.save):
            with pytest.raises(ArgumentValueError, match="must not be a file that was read") as e:
                write(target)
            assert e.value.function == f"Report.{write.__name__}"
        assert file.read_bytes() == before[file]


def test_results_of_earlier_runs_may_lie_beside_the_model(tmp_path: Path) -> None:
    one_file(tmp_path)
    for _ in range(2):
        target = ["--csv", str(tmp_path / "layers.csv"), "--json", str(tmp_path / "report.json")]
        assert main(["analyze", str(tmp_path), "-q", *target]) == 0
        ps.analyze(tmp_path).save(tmp_path / "report.npz")
    assert ps.Report.load(tmp_path / "report.npz") == ps.analyze(tmp_path)


def test_a_link_that_is_made_during_the_analysis(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = one_file(tmp_path)[0]
    before = file.read_bytes()
    target = tmp_path / "layers.csv"
    analyze = ps.analyze

    def slowly(*arguments: object, **options: object) -> ps.Report:
        target.symlink_to(file)
        return analyze(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ps, "analyze", slowly)
    assert main(["analyze", str(tmp_path), "--csv", str(target)]) == 2
    assert "would overwrite the model" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_files_are_those_that_were_read(tmp_path: Path) -> None:
    found = shards(tmp_path)
    assert set(ps.open_weights(tmp_path).files) == set(found)
    assert set(ps.open_weights(found[-1]).files) == set(found)
    assert ps.open_weights(found[0]).files == (found[0],)
    assert ps.open_weights({"a.weight": random(3, 2)}).files == ()


def test_standard_output_is_no_file() -> None:
    output.check_not_read("--csv", "-", ["-"])


def test_averages_do_not_replace_what_they_are_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspectra.edit.files import writing
    from pyspectra.training import average_checkpoints

    paths = []
    for i in range(2):
        (tmp_path / f"step-{i}").mkdir()
        paths.append(tmp_path / f"step-{i}")
        shards(paths[-1])
    shard = paths[0] / "model-00002-of-00002.safetensors"
    before = shard.read_bytes()
    os.link(shard, tmp_path / "mean.safetensors")
    with pytest.raises(ArgumentValueError, match="one of the inputs"):
        average_checkpoints(paths, tmp_path / "mean.safetensors", overwrite=True)

    # A link that comes while it is computed.
    target = tmp_path / "late.safetensors"
    write = writing._Writer.write_safetensors

    def slowly(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        target.symlink_to(shard)

    monkeypatch.setattr(writing._Writer, "write_safetensors", slowly)
    with pytest.raises(ArgumentValueError, match="one of the inputs"):
        average_checkpoints(paths, target, overwrite=True)
    assert shard.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("link", [None, "hard", "soft"])
def test_a_comparison_takes_neither_models_file(
    tmp_path: Path, side: str, link: str | None
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        one_file(tmp_path / name)
    file = target = tmp_path / side / "model.safetensors"
    before = file.read_bytes()
    if link is not None:
        target = tmp_path / "table.csv"
        (os.link if link == "hard" else os.symlink)(file, target)
    found = ps.compare(tmp_path / "a", tmp_path / "b")
    for write in (found.to_csv, found.to_json):
        with pytest.raises(ArgumentValueError, match="not be a file that was read"):
            write(target)
    for option in ("--csv", "--json"):
        assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), option, str(target)]) == 2
    assert file.read_bytes() == before
