"""The safetensors reader: round trips, laziness, and every way a header can lie."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyspectra.errors import FormatError
from pyspectra.weights import open_weights
from pyspectra.weights.formats.stored import StoredTensor

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1", "F8_E4M3": "u1"}


def encode(tensors: dict[str, tuple[str, np.ndarray]]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, array) in tensors.items():
        raw = array.astype(TYPES[dtype]).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        data += raw
    return pack(json.dumps(header), data)


def pack(header: str, data: bytes = b"") -> bytes:
    raw = header.encode()
    return struct.pack("<Q", len(raw)) + raw + data


def write(folder: Path, content: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return path


def small() -> bytes:
    rng = np.random.default_rng(0)
    return encode(
        {
            "a.weight": ("F32", rng.normal(size=(3, 4))),
            "b.weight": ("F16", rng.normal(size=(2, 5))),
            "b.bias": ("F32", rng.normal(size=5)),
        }
    )


def test_round_trip_of_every_loadable_type(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    arrays = {t: rng.integers(-100, 100, (6, 3)) for t in ("F64", "F32", "F16")}
    bits = np.array([[0x3F80, 0xC000], [0x4000, 0x3F00]])
    content = {f"{t}.weight": (t, a) for t, a in arrays.items()} | {"BF16.weight": ("BF16", bits)}
    source = open_weights(write(tmp_path, encode(content)))
    assert source.format == "safetensors"
    loaded = {layer.name: layer.load() for layer in source}
    for t, a in arrays.items():
        np.testing.assert_array_equal(loaded[t].to_float64(), a)
    assert loaded["BF16"].dtype == "bfloat16"
    assert loaded["BF16"].to_float64().tolist() == [[1.0, -2.0], [2.0, 0.5]]


def test_reads_what_the_reference_implementation_writes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("safetensors.torch")
    tensors = {
        f"l{i}.weight": torch.randn(5, 4 + i).to(dtype)
        for i, dtype in enumerate((torch.float64, torch.float32, torch.float16, torch.bfloat16))
    }
    path = tmp_path / "m.safetensors"
    reference.save_file(tensors, path, metadata={"format": "pt"})
    source = open_weights(path)
    assert len(source) == 4
    for layer in source:
        expected = tensors[layer.key]
        assert str(expected.dtype) == f"torch.{layer.dtype}"
        np.testing.assert_array_equal(layer.load().to_float64(), expected.double().numpy())


def test_skips_have_reasons(tmp_path: Path) -> None:
    content = encode(
        {
            "q.weight": ("I8", np.ones((2, 2))),
            "f.weight": ("F8_E4M3", np.ones((2, 2))),
            "n.weight": ("F32", np.ones(4)),
            "s.weight": ("F32", np.ones(())),
            "e.weight": ("F32", np.ones((0, 3))),
            "l.bias": ("F32", np.ones(4)),
            "l.weight": ("F32", np.ones((4, 2))),
            "pos": ("F32", np.ones((4, 2))),
        }
    )
    source = open_weights(write(tmp_path, content))
    reasons = {s.name: s.reason for s in source.skipped}
    assert reasons["q"] == "integer dtype I8: quantised weights are not dequantised"
    assert reasons["f"].startswith("low-precision dtype F8_E4M3")
    assert reasons["n"] == "1-D tensor: no spectrum"
    assert reasons["s"] == "scalar: no spectrum"
    assert reasons["e"].startswith("empty tensor")
    assert reasons["l.bias"] == "bias: not a weight matrix"
    assert reasons["pos"].startswith("not a weight: ")
    assert [layer.name for layer in source] == ["l"]
    assert len(reasons) == 7


def test_natural_order_and_ids_count_vectors(tmp_path: Path) -> None:
    names = [f"h.{i}.{part}.weight" for i in (10, 9, 2, 0) for part in ("norm", "fc")]
    content = {n: ("F32", np.ones(2 if "norm" in n else (2, 2))) for n in names}
    content["h.0.fc.bias"] = ("F32", np.ones(2))
    source = open_weights(write(tmp_path, encode(content)))
    ids = {layer.name: layer.layer_id for layer in source}
    assert ids == {"h.0.fc": 2, "h.2.fc": 4, "h.9.fc": 6, "h.10.fc": 8}


def test_opening_reads_no_elements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {f"l.{i}.weight": ("F32", np.full((8, 8), i)) for i in range(1000)}
    path = write(tmp_path, encode(content))
    loaded: list[str] = []
    original = StoredTensor.load

    def counting(self: StoredTensor, allocate: Any = None) -> Any:
        loaded.append(self.name)
        return original(self, allocate)

    monkeypatch.setattr(StoredTensor, "load", counting)
    source = open_weights(path)
    assert len(source) == 1000
    assert loaded == []
    assert source.layers[567].load().data[0, 0] == 567
    assert loaded == ["l.567.weight"]


def test_only_the_bytes_of_the_tensor_are_needed(tmp_path: Path) -> None:
    content = bytearray(small())
    path = write(tmp_path, bytes(content))
    layer = open_weights(path).layers[1]
    array = layer.load()
    assert array.data.base is None or isinstance(array.data.base, np.ndarray)
    array.data[:] = 0  # fresh memory: writing it leaves the file alone
    assert path.read_bytes() == bytes(content)


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, small())
    layer = open_weights(path).layers[0]
    path.write_bytes(small()[:-1])
    with pytest.raises(FormatError, match="changed since it was opened"):
        layer.load()
    path.unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        layer.load()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = small()
    for end in range(len(content)):
        with pytest.raises(FormatError, match=r"model\.safetensors"):
            open_weights(write(tmp_path, content[:end]))


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"just some notes about a model", "text file"),
        (struct.pack("<Q", 2**63) + b"{}", "exceeds the file"),
        (struct.pack("<Q", 2**64 - 1), "exceeds the file"),
        (pack("[]"), "not a JSON object"),
        (pack('{"a": '), "not a valid safetensors file"),
        (pack('{"a":' * 100_000), "not"),
        (pack('{"a": {}, "a": {}}'), "duplicate key 'a'"),
        (pack('{"a": {"dtype": "F32", "dtype": "F16"}}'), "duplicate key 'dtype'"),
        (pack('{"\\ud800": 1}'), "surrogates"),
        (pack('{"__metadata__": {"x": 1}}'), "__metadata__"),
        (pack('{"__metadata__": {"x": "\\ud800"}}'), "surrogates not allowed"),
        (pack('{"a": 3}'), "must have dtype"),
        (pack(json.dumps({"a": entry(dtype="F31")}), bytes(8)), "unknown dtype"),
        (pack(json.dumps({"a": entry(dtype=["F32"])}), bytes(8)), "unknown dtype"),
        (pack(json.dumps({"a": entry(shape=[-2])}), bytes(8)), "invalid shape"),
        (pack(json.dumps({"a": entry(shape=[2.0])}), bytes(8)), "invalid shape"),
        (pack(json.dumps({"a": entry(shape=[2, True])}), bytes(8)), "invalid shape"),
        (pack(json.dumps({"a": entry(shape=[2**62, 2**62])}), bytes(8)), "does not fit"),
        (pack('{"a": {"shape": [1' + "0" * 5000 + "]}}"), "not a valid"),
        (pack(json.dumps({"a": entry(offsets=[8, 0])}), bytes(8)), "outside"),
        (pack(json.dumps({"a": entry(offsets=[0])}), bytes(8)), "invalid data_offsets"),
        (pack(json.dumps({"a": entry()}), bytes(7)), "outside"),
        (pack(json.dumps({"a": entry()}), bytes(9)), "1 bytes follow"),
        (pack(json.dumps({"a": entry(offsets=[1, 9])}), bytes(9)), "unused"),
        (pack(json.dumps({"a": entry(), "b": entry()}), bytes(8)), "overlaps"),
        (pack(json.dumps({"a": entry(), "b": entry(offsets=[4, 12])}), bytes(12)), "overlaps"),
    ],
)
def test_hostile_headers(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        open_weights(write(tmp_path, content))
    assert words in str(caught.value)
    assert "model.safetensors" in str(caught.value)


def test_names_with_thousands_of_digits_sort(tmp_path: Path) -> None:
    content = {f"l.{d * 6000}.weight": ("F32", np.ones((2, 2))) for d in "31"}
    source = open_weights(write(tmp_path, encode(content)))
    assert [layer.key[2] for layer in source] == ["1", "3"]


@pytest.mark.parametrize("seed", range(200))
def test_random_corruption_is_refused_or_loads(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    content = bytearray(small())
    for _ in range(rng.randint(1, 4)):
        # Mostly the header: that is where a wrong byte has consequences.
        limit = len(content) if rng.random() < 0.2 else 300
        content[rng.randrange(min(limit, len(content)))] = rng.randrange(256)
    try:
        source = open_weights(write(tmp_path, bytes(content)))
        for layer in source:
            assert layer.load().shape == layer.shape
    except FormatError:
        pass


def test_elements_go_where_the_reader_of_a_device_wants_them(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(3, 4)
    layer = open_weights(write(tmp_path, encode({"a.weight": ("F32", values)}))).layers[0]
    given: list[Any] = []

    def allocator(shape: tuple[int, ...], dtype: Any) -> Any:
        given.append(np.empty(shape, dtype))
        return given[-1]

    loaded = layer.load(allocator)
    assert np.shares_memory(loaded.data, given[0])
    assert np.array_equal(given[0], values)
    assert not np.shares_memory(layer.load().data, given[0])
    assert len(given) == 1
