"""Folders of torch.distributed.checkpoint: a golden one of two processes, and hostile ones."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from container_checks import FILES, check_container, load_all
from weights_checks import by_name, reasons, values

from pyspectra.errors import FormatError
from pyspectra.weights import open_weights

torch = pytest.importorskip("torch")

SHARDED = FILES / "sharded"


def full() -> dict[str, np.ndarray]:
    with np.load(FILES / "sharded.npz") as arrays:
        return {key: arrays[key] for key in arrays}


def test_shards_of_two_processes_are_put_together(tmp_path: Path) -> None:
    expected = {k.removesuffix(".weight"): v for k, v in full().items() if v.ndim > 1}
    source = check_container(SHARDED, expected, tmp_path)
    assert source.format == "distributed"
    for name, layer in by_name(open_weights(SHARDED)).items():
        np.testing.assert_array_equal(values(layer), expected[name])
    assert {f.name for f in source.files} == {".metadata", "__0_0.distcp", "__1_0.distcp"}
    assert reasons(source)["optimizer"] == "state of the training, not weights of the model"
    assert reasons(source)["step"] == "not a tensor: bytes"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    shutil.copytree(SHARDED, tmp_path / "run" / "pytorch_model_fsdp_0")
    return tmp_path / "run" / "pytorch_model_fsdp_0"


def test_the_folder_that_a_trainer_puts_it_in(saved: Path) -> None:
    assert len(open_weights(saved.parent)) == 3
    assert len(open_weights(saved, key="model")) == 3
    with pytest.raises(FormatError, match="state of an optimizer"):
        open_weights(saved, key="optimizer")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_what_torch_saves_of_one_process(tmp_path: Path) -> None:
    from torch.distributed import checkpoint

    weights = {f"layers.{i}.weight": torch.randn(3 + i, 4) for i in range(3)}
    content = {
        "net": weights,
        "net_ema": {k: v + 1 for k, v in weights.items()},
        "count": torch.arange(6).reshape(2, 3),
        "history": [torch.ones(2, 2), 3],
    }
    checkpoint.save(content, checkpoint_id=tmp_path / "c", no_dist=True)
    source = open_weights(tmp_path / "c")
    assert [la.name for la in source] == [f"layers.{i}" for i in range(3)]
    for i, layer in enumerate(source):
        np.testing.assert_array_equal(values(layer), weights[f"layers.{i}.weight"].numpy())
    assert {"net_ema", "count", "history"} == set(reasons(source))
    second = open_weights(tmp_path / "c", key="net_ema").layers[0]
    np.testing.assert_array_equal(values(second), weights["layers.0.weight"].numpy() + 1)


# --- hostile folders ----------------------------------------------------------------------------


def change(folder: Path, how: Callable[[Any], None]) -> None:
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    how(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def stored(metadata: Any, name: str = "model.1.weight") -> Any:
    return next(v for k, v in metadata.storage_data.items() if k.fqn == name)


def chunk(metadata: Any, name: str = "model.1.weight") -> Any:
    return metadata.state_dict_metadata[name].chunks[0]


def shape(metadata: Any, size: tuple[int, ...]) -> None:
    metadata.state_dict_metadata["model.1.weight"].size = torch.Size(size)


def huge(metadata: Any) -> None:
    described = metadata.state_dict_metadata["model.1.weight"]
    described.size = torch.Size((1 << 20, 1 << 20))
    described.chunks[:] = described.chunks[:1]
    described.chunks[0].sizes = described.size


def overlapping(metadata: Any) -> None:
    first, second = metadata.state_dict_metadata["model.1.weight"].chunks
    first.sizes, second.sizes = torch.Size((9, 3)), torch.Size((9, 3))
    second.offsets = torch.Size((0, 1))
    for key, info in list(metadata.storage_data.items()):
        if key.fqn == "model.1.weight" and sum(key.offset) > 0:
            metadata.storage_data[type(key)(key.fqn, torch.Size((0, 1)), 1)] = info


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda m: setattr(stored(m), "relative_path", "../../secret"), "refused: it names"),
        (lambda m: setattr(stored(m), "relative_path", "/etc/passwd"), "refused: it names"),
        (lambda m: setattr(stored(m), "relative_path", 3), "refused: it names"),
        (lambda m: setattr(stored(m), "relative_path", "__9_0.distcp"), "of a process is missing"),
        (lambda m: setattr(stored(m), "offset", 1 << 40), "outside of __"),
        (lambda m: setattr(stored(m), "offset", -1), "outside of __"),
        (lambda m: setattr(stored(m), "length", 10), "does not fit in 10 bytes"),
        (lambda m: setattr(chunk(m), "offsets", torch.Size((1, 1))), "nothing is stored of"),
        (lambda m: setattr(chunk(m), "sizes", torch.Size((1,))), "is none of"),
        (lambda m: shape(m, (9, 7)), "do not make up the shape"),
        (lambda m: shape(m, (8, 6)), "is outside of the shape"),
        (lambda m: setattr(m.state_dict_metadata["model.1.weight"], "chunks", [3]), "incomplete"),
        (huge, "does not fit in"),
        (overlapping, "two of its pieces overlap"),
        (lambda m: setattr(m, "state_dict_metadata", None), "is not the metadata"),
        (lambda m: m.storage_data.clear(), "nothing is stored of"),
    ],
)
def test_forged_metadata(saved: Path, how: Callable[[Any], None], message: str) -> None:
    change(saved, how)
    with pytest.raises(FormatError, match=message):
        open_weights(saved)


def test_paths_of_names_may_be_missing(saved: Path) -> None:
    change(saved, lambda m: setattr(m, "planner_data", None))
    source = open_weights(saved)
    assert [la.key for la in source] == ["model.0.weight", "model.1.weight", "model.2.weight"]
    assert reasons(source)["optimizer"].startswith("state of the training")
    change(saved, lambda m: setattr(stored(m), "transform_descriptors", ["zstd"]))
    assert "compressed" in reasons(open_weights(saved))["model.1"]


class _Code:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def test_code_is_never_executed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved)
    (saved / ".metadata").write_bytes(pickle.dumps({"state_dict_metadata": _Code()}))
    with pytest.raises(FormatError, match=r"refused: it pickles a call of posix\.system"):
        open_weights(saved)
    assert not (saved / "executed").exists()
    for raw in (b"", b"nonsense", pickle.dumps(3)):
        (saved / ".metadata").write_bytes(raw)
        with pytest.raises(FormatError):
            open_weights(saved)
    (saved / ".metadata").unlink()
    with pytest.raises(FormatError, match=r"the file \.metadata is missing"):
        open_weights(saved)


def test_pieces_that_are_broken(saved: Path) -> None:
    raw = (saved / "__1_0.distcp").read_bytes()
    (saved / "__1_0.distcp").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(FormatError, match="is it truncated"):
        open_weights(saved)
    (saved / "__1_0.distcp").write_bytes(bytes(len(raw)))
    with pytest.raises(FormatError, match="is corrupt"):
        load_all(saved)


def test_a_piece_of_another_shape(saved: Path) -> None:
    def swap(metadata: Any) -> None:
        one, other = stored(metadata), stored(metadata, "model.0.weight")
        one.relative_path, one.offset, one.length = other.relative_path, other.offset, other.length

    change(saved, swap)
    layers = by_name(open_weights(saved))
    with pytest.raises(FormatError, match=r"a piece of tensor .* is float32"):
        layers["1"].load()
