"""flax's .msgpack: a golden file, and hostile ones; nested .npz files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from container_checks import FILES, check_container, check_truncated
from weights_checks import by_name, reasons, values

from pyspectra.errors import FormatError
from pyspectra.weights import open_weights

msgpack = pytest.importorskip("msgpack")
SMALL = FILES / "small.msgpack"


def array(code: int, data: bytes) -> Any:
    assert code == 1
    shape, dtype, raw = msgpack.unpackb(data)
    if dtype == "bfloat16":
        bits = np.frombuffer(raw, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
    return np.frombuffer(raw, dtype).reshape(shape)


def stored() -> dict[str, Any]:
    found: dict[str, Any] = msgpack.unpackb(SMALL.read_bytes(), ext_hook=array)
    return found


def test_the_golden_file(tmp_path: Path) -> None:
    content = stored()
    p = content["params"]
    expected = {
        "embed": p["embed"]["embedding"],
        **{f"attention.{n}": p["attention"][n]["kernel"].reshape(8, 6)
           for n in ("query", "key", "value")},
        "attention.out": p["attention"]["out"]["kernel"].reshape(6, 8),
        "conv": p["conv"]["kernel"].transpose(2, 1, 0),
        "image": p["image"]["kernel"].transpose(3, 2, 0, 1),
        "Dense_0": p["Dense_0"]["kernel"], "Dense_1": p["Dense_1"]["kernel"],
        **{f"OptimizedLSTMCell_0.{gate}": p["OptimizedLSTMCell_0"][gate]["kernel"]
           for gate in ("ii", "if", "ig", "io", "hi", "hf", "hg", "ho")},
    }  # fmt: skip
    source = check_container(SMALL, expected, tmp_path)
    assert source.format == "flax"
    why = reasons(source)
    assert why["opt_state"] == "state of the training, not weights of the model"
    assert why["batch_stats"].endswith("key='batch_stats' chooses them")
    assert why["attention.query.bias"] == "bias: not a weight matrix"
    assert by_name(source)["Dense_0"].dtype == "bfloat16"
    assert open_weights(SMALL, key="batch_stats").format == "flax"


def test_nested_names_of_npz(tmp_path: Path) -> None:
    flat: dict[str, Any] = {}

    def flatten(inside: dict[str, Any], prefix: str) -> None:
        for name, value in inside.items():
            if isinstance(value, dict):
                flatten(value, f"{prefix}{name}/")
            else:
                flat[f"{prefix}{name}"] = value

    flatten(stored()["params"], "")
    np.savez(tmp_path / "m.npz", **flat)
    names = {la.name.replace("/", ".") for la in open_weights(tmp_path / "m.npz")}
    assert names == {la.name for la in open_weights(SMALL)}


def pack(shape: Any, dtype: Any, raw: bytes) -> Any:
    return msgpack.ExtType(1, msgpack.packb([shape, dtype, raw]))


def save(path: Path, content: Any) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else msgpack.packb(content))
    return path


def test_values_of_every_kind_are_passed_by(tmp_path: Path) -> None:
    W = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = {
        "a": {"kernel": pack([2, 3], "float32", W.tobytes())},
        "b": [1, "x" * 300, b"y" * 300, None],
        "numbers": [0, 127, 128, 70_000, 1 << 40, -1, -200, -70_000, -(1 << 40), 1.5, True],
        "f": {str(i): i for i in range(20)}, "l": list(range(70_000)), "s": "x" * 70_000,
        "scalar": msgpack.ExtType(3, b"12345678"), "complex": msgpack.ExtType(2, b"123"),
        "odd": pack([2], "float128", bytes(32)), "int": pack([1, 2], "int8", b"ab"),
    }  # fmt: skip
    source = open_weights(save(tmp_path / "m.msgpack", content))
    (layer,) = source
    np.testing.assert_array_equal(values(layer), W)
    assert {"odd", "int"} <= set(reasons(source))


def test_arrays_in_parts(tmp_path: Path) -> None:
    W = np.arange(6, dtype=np.float32)
    parts = {"0": pack([4], "float32", W[:4].tobytes()), "1": pack([2], "float32", W[4:].tobytes())}
    whole = {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 3}, "chunks": parts}
    (layer,) = open_weights(save(tmp_path / "m.msgpack", {"a": {"kernel": whole}}))
    np.testing.assert_array_equal(values(layer), W.reshape(2, 3))
    for broken in ({"shape": {"0": 9}}, {"shape": 3}, {"chunks": {}}, {"chunks": {"0": 1}}):
        with pytest.raises(FormatError, match="an array"):
            open_weights(save(tmp_path / "m.msgpack", {"kernel": {**whole, **broken}}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": pack([1 << 40, 4], "float32", bytes(4))}, "does not fit in its 4 bytes"),
        ({"a": pack([-1], "float32", bytes(4))}, "without shape"),
        ({"a": pack("ab", "float32", bytes(4))}, "without shape"),
        ({"a": pack([1], 3, bytes(4))}, "without shape"),
        ({"a": pack([1], "float32", 4)}, "without shape"),  # type: ignore[arg-type]
        ({"a": pack([1] * 40, "float32", bytes(4))}, "without shape"),
        ({"a": msgpack.ExtType(1, b"\x01\x02")}, "length is wrong"),
        (b"\x81\xa1a", "truncated"),
        (b"\x81\xa1a\x01\x02", "1 bytes follow"),
        (b"\xdf\xff\xff\xff\xff", "truncated"),
        (b"\xdd\xff\xff\xff\xff", "truncated"),
        (b"\x81\xc1", "unknown type 0xc1"),
        (b"\x81\xa1a\xc9" + struct.pack(">I", 1 << 31) + b"\x01", "truncated"),
        (b"\x91" * 500 + b"\x01", "deeper"),
        (b"\x82\xa1a\x01\xa1a\x01", "two values go by the name 'a'"),
        (b"\x81\x90\x01", "a name that is no text"),
        (b"\x93\x01\x02\x03", "it holds no names"),
        (b"\x81\xa1\xff\x01", "not a valid flax"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        open_weights(save(tmp_path / "m.msgpack", content))


def test_truncated_files(tmp_path: Path) -> None:
    size = SMALL.stat().st_size
    check_truncated(SMALL, tmp_path, [0, 1, 40, size // 2, size - 1])
