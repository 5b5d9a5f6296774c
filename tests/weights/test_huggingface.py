"""Model folders: standard files, shards, and indices that lie."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_safetensors import encode

from pyspectra.errors import FormatError
from pyspectra.weights import open_weights

NAMES = [f"layers.{i}.{part}.weight" for i in range(12) for part in ("fc", "norm")]


def tensors() -> dict[str, tuple[str, np.ndarray]]:
    return {
        name: ("F32", np.full((3, 2) if "fc" in name else 2, i)) for i, name in enumerate(NAMES)
    }


def write_shards(folder: Path, count: int = 3) -> Path:
    folder.mkdir(exist_ok=True)
    content = tensors()
    weight_map = {}
    for shard in range(count):
        file = f"model-{shard + 1:05}-of-{count:05}.safetensors"
        # Dealt out like cards, so that shard order and name order disagree.
        part = {name: content[name] for name in NAMES[shard::count]}
        weight_map.update(dict.fromkeys(part, file))
        (folder / file).write_bytes(encode(part))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def summary(path: Path) -> list[tuple[str, int, float]]:
    return [(la.name, la.layer_id, float(la.load().data[0, 0])) for la in open_weights(path)]


def test_ids_agree_between_one_file_and_shards(tmp_path: Path) -> None:
    single = tmp_path / "single"
    single.mkdir()
    (single / "model.safetensors").write_bytes(encode(tensors()))
    index = write_shards(tmp_path / "sharded")
    expected = [(f"layers.{i}.fc", 2 * i + 2, 2.0 * i) for i in range(12)]
    assert summary(single) == expected
    assert summary(tmp_path / "sharded") == expected
    assert summary(index) == expected


def test_torch_shards_have_the_ids_of_one_file_and_their_own_positions(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    shards = {
        "pytorch_model-00001-of-00002.bin": {"z.weight": torch.ones(2, 3)},
        "pytorch_model-00002-of-00002.bin": {"a.weight": torch.zeros(3, 2)},
    }
    for file, content in shards.items():
        torch.save(content, tmp_path / file)
    weight_map = {key: file for file, content in shards.items() for key in content}
    index = {"weight_map": dict(sorted(weight_map.items()))}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with open_weights(tmp_path) as source:
        assert [(la.name, la.layer_id) for la in source] == [("a", 1), ("z", 2)]
        # WeightWatcher counts in the order of the state dict.
        assert [la.position for la in source] == [2, 1]
        assert source.layers[1].load().data.tolist() == [[1.0] * 3] * 2
    # A file is opened for each tensor: closing the source takes nothing away.
    assert source.layers[0].load().data.tolist() == [[0.0] * 2] * 3


def test_a_single_file_of_any_name_will_do(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(encode(tensors()))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "training_args.bin").write_bytes(b"never read")
    assert len(open_weights(str(tmp_path))) == 12


def test_empty_folder_tells_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FormatError) as caught:
        open_weights(tmp_path)
    for word in ("model.safetensors", "pytorch_model.bin.index.json", ".npz", "notes.txt"):
        assert word in str(caught.value)


def test_two_models_are_ambiguous(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(encode(tensors()))
    with pytest.raises(FormatError, match=r"holds 2 weights files.*a\.safetensors, b\.saf"):
        open_weights(tmp_path)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FormatError, match=r"1 of 3 shards missing: model-00002-of-00003\.saf"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    "shard",
    [
        "../evil.safetensors",
        "sub/../../evil.safetensors",
        "/evil.safetensors",
        "..\\evil",
        "C:evil.safetensors",
        "evil\0.safetensors",
        "",
        3,
    ],
)
def test_index_cannot_leave_its_folder(tmp_path: Path, shard: object) -> None:
    (tmp_path / "evil.safetensors").write_bytes(encode({"a.weight": ("F32", np.ones((2, 2)))}))
    folder = tmp_path / "model"
    folder.mkdir()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": shard}}))
    with pytest.raises(FormatError, match="refused: the index names"):
        open_weights(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": []}', "[" * 100_000])
def test_broken_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(FormatError, match="index"):
        open_weights(tmp_path)


def test_overlong_shard_name_is_missing(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "x" * 5000 + ".safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match="1 of 1 shards missing"):
        open_weights(tmp_path)


def test_index_and_shards_must_agree(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    content = json.loads(index.read_text())
    content["weight_map"]["ghost.weight"] = "model-00001-of-00003.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=r"'ghost\.weight' is not in model-00001"):
        open_weights(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "model-00002-of-00003.safetensors").write_bytes(encode(tensors()))
    with pytest.raises(FormatError, match="is in two shards"):
        open_weights(tmp_path)
