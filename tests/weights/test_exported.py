""".pt2 archives of torch.export, and the way from what is not read."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from container_checks import FILES, check_container, check_truncated
from weights_checks import reasons

from pyspectra.errors import FormatError
from pyspectra.weights import open_weights
from pyspectra.weights.formats import suffixes
from pyspectra.weights.formats.ways import way_of

SMALL = FILES / "small.pt2"
LIST = "small/data/weights/model_weights_config.json"


def test_the_golden_file(tmp_path: Path) -> None:
    with np.load(FILES / "small.pt2.npz") as arrays:
        expected = {k.removesuffix(".weight"): arrays[k] for k in arrays}
    source = check_container(SMALL, expected, tmp_path)
    assert source.format == "export"
    assert reasons(source)["steps"] == "not a weight: a buffer"
    assert {"0.bias", "1.bias", "2.bias"} <= set(reasons(source))


def changed(path: Path, change: Callable[[Any], Any]) -> Path:
    with zipfile.ZipFile(SMALL) as given, zipfile.ZipFile(path, "w") as out:
        for name in given.namelist():
            raw = given.read(name)
            if name == LIST:
                content = json.loads(raw)
                made = change(content["config"]["1.weight"])
                raw = json.dumps(content if made is None else made).encode()
            out.writestr(name, raw)
    return path


def meta(**fields: Any) -> Callable[[Any], None]:
    return lambda entry: entry["tensor_meta"].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (meta(sizes=[{"as_int": 1 << 40}, {"as_int": 2}]), "does not fit"),
        (meta(sizes=[-1, 2]), "no counts"),
        (meta(sizes=[1] * 40), "no counts"),
        (meta(strides=[1]), "axes and 1 strides"),
        (meta(storage_offset=1 << 20), "does not fit"),
        (lambda entry: entry.update(path_name="../../other"), "is missing"),
        (lambda entry: [1], "not a valid .pt2"),
        (lambda entry: {"config": {"a": 3}}, "not a valid .pt2"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        open_weights(changed(tmp_path / "m.pt2", change))


def test_what_is_listed(tmp_path: Path) -> None:
    for change, reason in (
        (meta(dtype=77), "dtype type 77: not supported"),
        (meta(dtype=3, strides=[1, 1]), "integer dtype"),
        (lambda entry: entry.update(use_pickle=True), "cannot be read"),
    ):
        found = reasons(open_weights(changed(tmp_path / "m.pt2", change)))
        assert found["1"].startswith(reason)


def test_broken_archives_and_older_ones(tmp_path: Path) -> None:
    size = SMALL.stat().st_size
    check_truncated(SMALL, tmp_path, [0, 4, 100, size // 2, size - 5])
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("serialized_state_dict.pt", b"")
    with pytest.raises(FormatError, match=r"older torch.*torch\.export\.load"):
        open_weights(tmp_path / "old.pt2")


# --- the way from what is not read --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.ckpt-5.index", "TensorFlow"),
        ("model.ckpt.data-00000-of-00001", "TensorFlow"),
        ("frozen.pb", r"SavedModel.*tf2onnx"),
        ("m.tflite", "TensorFlow Lite"),
        ("m.mar", r"unzip it, and pass the \.pt"),
        ("m.mlmodel", "Core ML"),
        ("m.engine", "TensorRT.*ONNX"),
        ("m.pte", "ExecuTorch"),
        ("m.xml", "OpenVINO"),
        ("ggml-model-q4_0.bin.ggml", "convert it to GGUF"),
        ("m.pkl", "could run code"),
    ],
)
def test_files_that_are_not_read_name_the_way(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FormatError, match=rf"which is not read\. Hint: |{words}") as caught:
        open_weights(tmp_path / name)
    assert caught.match(words)
    assert not any(way_of(Path(f"m{suffix}")) for suffix in suffixes())


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["checkpoint", "m.ckpt-1.index", "m.ckpt-1.data-00000-of-00001"], "TensorFlow"),
        (["saved_model.pb", "variables/variables.index"], "SavedModel"),
        (["_METADATA", "manifest.ocdbt", "d/1"], "orbax.*StandardCheckpointer"),
        (["default/_METADATA", "default/manifest.ocdbt"], "orbax"),
    ],
)
def test_folders_that_are_not_read_name_the_way(
    tmp_path: Path, files: list[str], words: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FormatError, match=words):
        open_weights(tmp_path)
    shutil.rmtree(tmp_path / "d", ignore_errors=True)


def test_torchscript_names_the_way(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/constants.pkl", b"")
    with pytest.raises(FormatError, match=r"TorchScript.*state_dict\(\)"):
        open_weights(tmp_path / "m.pt")
