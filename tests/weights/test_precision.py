"""From how many bits a layer came is told wherever the layer is; what is skipped can be counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import pyspectra as ps
from pyspectra._arrays import HostArray
from pyspectra.weights import Skip, SkippedLayer
from pyspectra.weights.catalogue import Contents, TensorEntry
from pyspectra.weights.precision import StoredAs
from pyspectra.weights.source import WeightSource

STORED = StoredAs(4, "GPTQ, groups of 128")


def source() -> WeightSource:
    rng = np.random.default_rng(0)
    W = rng.standard_t(3, (150, 50)).astype(np.float32)
    entries = [
        TensorEntry("attn.qkv.weight", W.shape, "float32", lambda: HostArray(W, "float32"),
                    stored_as=STORED),
        TensorEntry("fc.weight", W.shape, "float32", lambda: HostArray(W[::-1], "float32")),
    ]  # fmt: skip
    return WeightSource("model", Contents("state_dict", entries))


def test_a_layer_and_its_parts_tell_from_how_many_bits_they_came(tmp_path: Path) -> None:
    report = ps.analyze(source())
    assert [row.stored_as for row in report] == [STORED] * 4 + [None]
    assert [row["bits"] for row in report.rows()] == [4] * 4 + [32]
    assert [row["stored_as"] for row in report.rows()] == [STORED.words] * 4 + [""]
    assert report.verdict.text.count("dequantised from 4 bits") == 1
    report.save(tmp_path / "report")
    assert ps.Report.load(tmp_path / "report") == report


def test_the_terminal_has_the_column_where_it_says_something() -> None:
    def head(report: ps.Report) -> list[str]:
        console = Console(width=200)
        with console.capture() as capture:
            report.print(console)
        return next(line for line in capture.get().splitlines() if line.startswith("id ")).split()

    report = ps.analyze(source())
    assert "bits" in head(report)
    assert "bits" not in head(ps.analyze({"fc.weight": np.random.default_rng(0).random((60, 40))}))


@pytest.mark.parametrize(
    ("name", "shape", "code", "dtype", "per_element", "expected"),
    [
        ("fc.bias", (9, 8), "bias", "float32", 1, (72, False)),
        ("pos_embed", (1, 9, 8), "name", "float32", 1, (72, True)),
        ("cls_token", (1, 1, 8), "name", "float32", 1, (8, False)),
        ("position_index", (9, 8), "name", "int64", 1, (72, False)),
        ("norm.weight", (9,), "vector", "float32", 1, (9, False)),
        ("fc.qweight", (9, 8), "integer", "int32", 8, (576, True)),
        ("fc.weight", (288, 1), "integer", "uint8", 2, (576, True)),
        ("fc.weight", (9, 8), "low_precision", "F8_E4M3", 1, (72, True)),
        ("lm_head", (9, 8), "shared", "float32", 1, (72, False)),
        ("ema", None, "other_weights", None, 1, (None, False)),
        ("fc.weight", (9, 8), "read_failed", "float32", 1, (72, True)),
    ],
)
def test_what_is_skipped_can_be_counted(
    name: str,
    shape: tuple[int, ...] | None,
    code: str,
    dtype: str | None,
    per_element: int,
    expected: tuple[int | None, bool],
) -> None:
    skipped = SkippedLayer(name, shape, Skip(code), dtype, per_element)
    assert (skipped.parameters, skipped.is_matrix) == expected


def test_parts_are_not_counted_beside_their_whole() -> None:
    report = ps.analyze(source(), layers="fc")
    assert [(s.name, s.is_matrix) for s in report.skipped] == [
        ("attn.qkv", True),
        ("attn.qkv[q]", False),
        ("attn.qkv[k]", False),
        ("attn.qkv[v]", False),
    ]
