"""What would be analysed: the same layers as `analyze` takes, and no weight is read."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

import pyspectra as ps
from pyspectra.cli.main import main
from pyspectra.weights import Layer


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


WEIGHTS = {
    "h.0.attn.c_attn.weight": normal(20, 60),
    "h.0.mlp.c_fc.weight": normal(20, 80),
    "conv.weight": normal(12, 10, 3, 3),
    "tiny.weight": normal(4, 4),
    "packed.weight": normal(30, 30).astype(np.int8),
    "conv.bias": normal(12),
}


@pytest.mark.parametrize(
    "options", [{}, {"pool": False}, {"layers": "h.0"}, {"min_evals": 20}, {"max_evals": 30}]
)
def test_it_is_what_analyze_takes(options: dict[str, Any]) -> None:
    plan, report = ps.describe(WEIGHTS, **options), ps.analyze(WEIGHTS, **options)
    assert [layer.name for layer in plan] == list(dict.fromkeys(row.name for row in report))
    assert plan.skipped == report.skipped
    assert plan.coverage == report.coverage
    assert plan.summary()["n_rows"] == len(report)
    for row in report:
        layer = plan[row.name]
        assert (layer.N, layer.M, layer.rf) == (row.esd.N, row.esd.M, row.rf)
        assert layer.n_evals == len(row.esd.evals)
        assert (layer.kind, layer.shape, layer.dtype) == (row.kind, row.shape, row.dtype)
        assert layer.place == row.place


def test_no_weight_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "m.safetensors")
    monkeypatch.setattr(Layer, "load", lambda *_: pytest.fail("read"))
    plan = ps.describe(tmp_path / "m.safetensors")
    assert len(plan) == 6
    assert plan.files


def test_what_it_would_take_grows_as_it_should() -> None:
    one = ps.describe({"a.weight": normal(64, 32)})["a"]
    assert one.flops == pytest.approx(64 * 32**2 + 4 / 3 * 32**3)
    assert one.memory == 64 * 32 * 4 + 2 * 8 * 32**2
    conv = ps.describe({"a.weight": normal(64, 32, 3, 3)})["a"]
    assert conv.flops == pytest.approx(9 * one.flops)
    more = ps.describe({"a.weight": normal(64, 32)}, randomize=True)["a"]
    assert more.flops >= 2 * one.flops


def test_it_is_a_value_with_tables() -> None:
    plan = ps.describe(WEIGHTS)
    assert plan == ps.describe(WEIGHTS)
    assert plan != ps.describe({"a.weight": normal(9, 9)})
    assert (plan == np.zeros(3)) is False
    assert len(plan.to_pandas()) == len(plan) == 6
    assert plan.to_csv().splitlines()[0].split(",") == list(plan.columns)
    assert json.loads(plan.to_json())["schema"] == "pyspectra.description/1"
    assert plan["conv.weight"] is plan["conv"]
    with pytest.raises(KeyError, match="did you mean 'conv'"):
        plan["cnov"]


@pytest.mark.parametrize("width", [40, 80, 140])
def test_it_prints_in_any_width(width: int) -> None:
    many = {f"layers.{i}.mlp.up_proj.weight": normal(12, 9) for i in range(50)}
    for everything, rows in ((False, 12), (True, 50)):
        file = io.StringIO()
        plan = ps.describe({**WEIGHTS, **many} if everything else many)
        plan.print(Console(file=file, width=width), everything=everything)
        lines = file.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert sum("12x9 " in line for line in lines) == rows
    assert any("of the parameters in matrices" in line for line in lines) or width == 40


def test_the_command(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "m.safetensors"
    save_file(WEIGHTS, path)
    assert main(["describe", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "c_attn[q]" in out
    assert "1  bias: not a weight matrix  (conv.bias)" in out
    assert err == ""
    assert main(["describe", str(path), "--layers", "h.0.mlp", "--json", "-"]) == 0
    assert [x["role"] for x in json.loads(capsys.readouterr().out)["layers"]] == ["up"]
    assert main(["describe", str(path), "--layers", "nope"]) == 2
    assert "--layers must hold what the model has" in capsys.readouterr().err
    assert main(["describe", "no/such"]) == 2
    assert "MODEL: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"min_evals": 0}, {"layers": "nope"}, {"estimator": "magic"}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"describe|analyze"):
        ps.describe(WEIGHTS, **wrong)
