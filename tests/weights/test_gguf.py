"""GGUF files: a golden one, blocks by the letter of their format, and hostile ones."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from container_checks import FILES, check_container, check_truncated, wholes
from weights_checks import by_name, reasons, values

from pyspectra.errors import FormatError
from pyspectra.weights import open_weights

gguf = pytest.importorskip("gguf")
SMALL = FILES / "small.gguf"


def tensors() -> dict[str, Any]:
    return {t.name: t for t in gguf.GGUFReader(SMALL).tensors}


def test_the_golden_file(tmp_path: Path) -> None:
    expected = {}
    for name, tensor in tensors().items():
        if len(tensor.shape) > 1 and name != "counts":
            array = np.array(tensor.data)
            if array.dtype != np.float64:
                array = gguf.quants.dequantize(array, tensor.tensor_type)
            if array.ndim == 3:  # a matrix for each expert
                array = array.transpose(1, 2, 0)
            expected[name.removesuffix(".weight")] = array
    source = check_container(SMALL, expected, tmp_path)
    assert source.format == "gguf"
    assert len(wholes(source)) + len(source.skipped) == len(tensors())
    assert reasons(source)["blk.0.attn_q.bias"] == "bias: not a weight matrix"
    notes = {n: la.stored_as for n, la in by_name(source).items()}
    assert {n: (s.bits, s.words) for n, s in notes.items() if s is not None} == {
        "blk.0.attn_q": (8, "GGUF Q8_0, blocks of 32"),
        "blk.0.attn_k": (4, "GGUF Q4_0, blocks of 32"),
        "blk.0.attn_v": (5, "GGUF Q5_1, blocks of 32"),
        "blk.0.ffn_up": (4, "GGUF MXFP4, blocks of 32"),
        "blk.0.ffn_down": (1.58, "GGUF TQ2_0, blocks of 256"),
        "blk.0.ffn_gate_exps": (8, "GGUF Q8_0, blocks of 32"),
        "output": (6, "GGUF Q6_K, blocks of 256"),
    }


def test_blocks_by_the_letter() -> None:
    """Q8_0: a half-precision scale, 32 bytes. Q4_0: a scale, 16 bytes of two numbers less 8."""
    layers, raw = by_name(open_weights(SMALL)), tensors()
    eight = np.array(raw["blk.0.attn_q.weight"].data).reshape(24, 2, 34)
    scale = eight[..., :2].copy().view(np.float16).astype(np.float64)
    expected = (scale * eight[..., 2:].view(np.int8)).reshape(24, 64)
    np.testing.assert_allclose(values(layers["blk.0.attn_q"]), expected, rtol=1e-6)
    four = np.array(raw["blk.0.attn_k.weight"].data).reshape(24, 2, 18)
    scale = four[..., :2].copy().view(np.float16).astype(np.float64)
    numbers = np.concatenate([four[..., 2:] & 15, four[..., 2:] >> 4], -1).astype(np.int64) - 8
    expected = (scale * numbers).reshape(24, 64)
    np.testing.assert_allclose(values(layers["blk.0.attn_k"]), expected, rtol=1e-6)


def test_rows_are_unpacked_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspectra.weights.formats import gguf as module

    whole = values(by_name(open_weights(SMALL))["blk.0.ffn_down"])
    monkeypatch.setattr(module, "_CHUNK_BYTES", 200)
    np.testing.assert_array_equal(values(by_name(open_weights(SMALL))["blk.0.ffn_down"]), whole)


# --- files made by hand -------------------------------------------------------------------------


def text(word: str) -> bytes:
    return struct.pack("<Q", len(word)) + word.encode()


def tensor(name: str, dims: tuple[int, ...], kind: int, offset: int) -> bytes:
    head = text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
    return head + struct.pack("<IQ", kind, offset)


def file(path: Path, infos: list[bytes], data: int, pairs: bytes = b"", n_pairs: int = 0,
         version: int = 3, counts: int | None = None) -> Path:  # fmt: skip
    count = len(infos) if counts is None else counts
    head = b"GGUF" + struct.pack("<IQQ", version, count, n_pairs) + pairs + b"".join(infos)
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(data))
    return path


def test_every_kind_of_value_is_passed_by(tmp_path: Path) -> None:
    numbers = b"".join(
        text(f"v{kind}") + struct.pack("<I", kind) + bytes(size)
        for kind, size in ((0, 1), (1, 1), (2, 2), (3, 2), (5, 4), (6, 4), (7, 1), (10, 8), (12, 8))
    )
    lists = (
        text("list") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc")
        + text("nested") + struct.pack("<IIQIQ", 9, 9, 1, 5, 3) + bytes(12)
    )  # fmt: skip
    align = text("general.alignment") + struct.pack("<II", 4, 32)
    path = file(tmp_path / "m.gguf", [tensor("a.weight", (4, 3), 0, 0)], 48,
                numbers + lists + align, 12)  # fmt: skip
    (layer,) = open_weights(path)
    assert (layer.name, layer.shape) == ("a", (3, 4))
    for version in (2, 3):
        assert len(open_weights(file(path, [tensor("a", (4, 3), 0, 0)], 48, version=version))) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(b"GGML" + bytes(40)), "does not begin with 'GGUF'"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: file(p, [], 0, version=1), "version 1 is not supported"),
        (lambda p: file(p, [], 0, version=3 << 24), "big-endian"),
        (lambda p: file(p, [], 0, counts=1 << 60), "more than any model has"),
        (lambda p: file(p, [tensor("a", (4, 3), 0, 0)], 40), "lies outside of the data"),
        (lambda p: file(p, [tensor("a", (1 << 40, 1 << 40), 0, 0)], 40), "lies outside"),
        (lambda p: file(p, [tensor("a", (4,) * 9, 0, 0)], 40), "has 9 axes"),
        (lambda p: file(p, [tensor("a", (4, 3), 99, 0)], 48), "type 99"),
        (lambda p: file(p, [tensor("a", (33, 3), 2, 0)], 480), "no whole blocks of 32"),
        (lambda p: file(p, [tensor("a", (4, 3), 0, 0)] * 2, 48), "two tensors go by the name"),
        (
            lambda p: file(p, [tensor("a", (4, 3), 0, 0), tensor("b", (4, 3), 0, 16)], 96),
            "overlaps",
        ),
        (lambda p: file(p, [text("a" * 5000)], 0), "a name of 5000 bytes"),
        (lambda p: file(p, [], 0, text("k") + struct.pack("<I", 77), 1), "unknown type 77"),
        (
            lambda p: file(p, [], 0, text("k") + struct.pack("<IIQ", 9, 8, 1 << 60), 1),
            "more values than any model has",
        ),
        (
            lambda p: file(p, [], 0, text("k") + struct.pack("<IIQ", 9, 0, 1 << 60), 1),
            "truncated",
        ),
        (
            lambda p: file(p, [], 0, text("general.alignment") + struct.pack("<II", 4, 0), 1),
            "an alignment of 0 bytes",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "m.gguf")
    with pytest.raises(FormatError, match=message):
        open_weights(tmp_path / "m.gguf")


def test_a_type_that_nobody_unpacks_is_listed(tmp_path: Path) -> None:
    path = file(tmp_path / "m.gguf", [tensor("a.weight", (256, 2), 15, 0)], 2 * 292)  # Q8_K
    assert reasons(open_weights(path)) == {"a": "dtype Q8_K: not supported"}


def test_truncated_files(tmp_path: Path) -> None:
    size = SMALL.stat().st_size
    check_truncated(SMALL, tmp_path, [1, 4, 23, 300, 900, size // 2, size - 33])


def test_shards_are_one_model(tmp_path: Path) -> None:
    for i in (1, 2):
        file(tmp_path / f"m-0000{i}-of-00002.gguf", [tensor(f"blk.{i}.w.weight", (4, 3), 0, 0)], 48)
    assert [la.name for la in open_weights(tmp_path)] == ["blk.1.w", "blk.2.w"]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pyspectra.weights.formats import gguf as module

    module._block_type.cache_clear()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"reading small\.gguf needs .*\[gguf\]"):
        open_weights(SMALL)
    path = file(tmp_path / "m.gguf", [tensor("a.weight", (4, 3), 0, 0)], 48)
    assert len(open_weights(path)) == 1  # nothing quantised, nothing needed
