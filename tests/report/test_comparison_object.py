"""A comparison as an object: rows and columns by name, and how much of both models was analysed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import pyspectra as ps
from pyspectra.cli.main import main


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


SOUND = {f"{i}.weight": normal(50, 40, seed=i) for i in range(3)}
PACKED = {**SOUND, "more.weight": np.ones((400, 400), np.int32)}


def test_rows_and_columns() -> None:
    found = ps.compare(SOUND, SOUND)
    assert found["1"] is found.layer("1") is found.layers[1]
    assert "1" in found
    assert "alpha_shift" not in found
    np.testing.assert_array_equal(found["alpha_shift"], np.zeros(3))
    assert found["name"] == ["0", "1", "2"]
    assert (found == np.zeros(3)) is False
    with pytest.raises(KeyError, match="nothing"):
        found["nothing"]
    with pytest.raises(ValueError, match="column"):
        found.column("nothing")


def test_a_layer_that_is_called_like_a_column_is_told_apart() -> None:
    found = ps.compare({"change.weight": normal(50, 40)}, {"change.weight": normal(50, 40)})
    with pytest.raises(KeyError, match=r"\.layer\(.*\.column\("):
        found["change"]
    assert found.layer("change").a.name == "change"
    assert len(found.column("change")) == 1


def test_a_comparison_says_how_much_was_analysed() -> None:
    whole = ps.compare(SOUND, SOUND)
    assert whole.text.startswith("All of the parameters in matrices were analysed in both.")
    part = ps.compare(SOUND, PACKED, names=("a", "b"))
    assert part.text.startswith(
        "In a all of the parameters in matrices were analysed, in b 3.6 % of the parameters"
    )
    assert part.ranking == (
        "No ranking: less than half of the parameters in matrices could be analysed in b."
    )
    assert [x["unread"] for x in part.to_dict()["coverages"]] == [0, 160_000]


def test_the_command_says_so_by_its_status(tmp_path: Path, capsys: Any) -> None:
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path, tensors in zip(paths, (SOUND, PACKED), strict=True):
        save_file(tensors, path)
    assert main(["compare", *map(str, paths)]) == 1
    assert "could be analysed: nothing can be said of it" in capsys.readouterr().err
    assert main(["compare", str(paths[0]), str(paths[0])]) == 0
