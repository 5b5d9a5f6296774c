"""The list of formats, what files hold several of, and what stands where a model should."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_safetensors import encode

from pyspectra.errors import ArgumentError, ArgumentTypeError, ArgumentValueError, FormatError
from pyspectra.training import average_checkpoints
from pyspectra.weights import open_weights
from pyspectra.weights.catalogue import Contents
from pyspectra.weights.formats import Format, formats, registry, suffixes

# --- the list -----------------------------------------------------------------------------------


def test_every_suffix_has_one_format() -> None:
    assert [f.name for f in formats()][:2] == ["safetensors", "torch"]  # the usual ones first
    assert {"npz", "npy"} < {f.name for f in formats()}
    assert len(set(suffixes())) == len(suffixes())
    assert suffixes()[0] == ".safetensors"


def test_a_new_format_is_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that names formats follows: files, folders, messages."""

    def read(path: Path) -> Contents:
        import a_package_that_nobody_has  # noqa: F401

        raise AssertionError

    new = Format("toy", (".toy",), read, extra="toys")
    everything = (*formats(), new)
    monkeypatch.setattr(registry, "formats", lambda: everything)
    (tmp_path / "m.toy").write_bytes(b"x")
    for given in (tmp_path / "m.toy", tmp_path):
        with pytest.raises(ImportError, match=r"reading m\.toy needs .*\[toys\]"):
            open_weights(given)
    (tmp_path / "m.puzzle").write_bytes(b"x")
    with pytest.raises(FormatError, match=r"no supported .*'\.puzzle'.*, \.toy and mod"):
        open_weights(tmp_path / "m.puzzle")


# --- .npy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">f4", "<f2", ">f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_its_own(tmp_path: Path, dtype: str, order: Any) -> None:
    values = np.random.default_rng(0).normal(size=(4, 7)).astype(dtype, order=order)
    np.save(tmp_path / "W.npy", values)
    source = open_weights(tmp_path / "W.npy")
    (layer,) = pickle.loads(pickle.dumps(source.layers))
    assert (source.format, layer.name, layer.shape) == ("npy", "W", (4, 7))
    loaded = layer.load()
    np.testing.assert_array_equal(loaded.data, values)
    assert loaded.data.dtype.isnative


def test_arrays_that_are_no_matrix(tmp_path: Path) -> None:
    cases: list[tuple[np.ndarray, str]] = [
        (np.ones((2, 3), np.int16), "integer dtype int16"),
        (np.ones((2, 3), complex), "complex dtype complex128"),
        (np.array([["a", "b"]]), "dtype str"),
        (np.ones(3), "1-D tensor: no spectrum"),
        (np.array(3.0), "scalar: no spectrum"),
        (np.ones((0, 3), order="F"), "empty tensor of shape (0, 3)"),
        (np.array([{}, None], object), "an object array: pickled objects are never loaded"),
    ]
    for array, reason in cases:
        np.save(tmp_path / "W.weight.npy", array)
        (skipped,) = open_weights(tmp_path / "W.weight.npy").skipped
        assert skipped.reason.startswith(reason)


def test_broken_arrays(tmp_path: Path) -> None:
    path = tmp_path / "W.npy"
    np.save(path, np.ones((3, 4)))
    raw = path.read_bytes()
    for end in range(0, len(raw), 7):
        path.write_bytes(raw[:end])
        with pytest.raises(FormatError, match=r"W\.npy"):
            open_weights(path)
    path.write_bytes(raw + b"x")
    with pytest.raises(FormatError, match="does not fit"):
        open_weights(path)
    path.write_bytes(raw)
    layer = open_weights(path).layers[0]
    os.utime(path, ns=(1, 1))
    with pytest.raises(FormatError, match="changed since it was opened"):
        layer.load()


# --- several models in one checkpoint -----------------------------------------------------------


def checkpoint() -> dict[str, Any]:
    return {
        "epoch": 3,
        "model": {"fc.weight": np.ones((2, 3), np.float32)},
        "model_ema": {"module": {"fc.weight": np.full((2, 3), 2, np.float32)}},
        "teacher": {"net.v1": {"fc.weight": np.full((2, 3), 3, np.float32)}},
        "optimizer": {"state": {0: {"exp_avg": np.ones((2, 3))}}, "param_groups": [{"lr": 1}]},
        "lr_scheduler": {"last": np.ones(2)},
    }


def as_torch(value: Any) -> Any:
    torch = pytest.importorskip("torch")
    if isinstance(value, dict):
        return {k: as_torch(v) for k, v in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@pytest.fixture(params=["mapping", "zip", "old"])
def given(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[dict[str, Any]], Any]:
    def make(content: dict[str, Any]) -> Any:
        if request.param == "mapping":
            return content
        torch = pytest.importorskip("torch")
        new = request.param == "zip"
        torch.save(as_torch(content), tmp_path / "m.pt", _use_new_zipfile_serialization=new)
        return tmp_path / "m.pt"

    return make


def test_what_lies_beside_the_model_is_listed(given: Callable[[dict[str, Any]], Any]) -> None:
    source = open_weights(given(checkpoint()))
    assert [la.key for la in source] == ["fc.weight"]
    assert source.layers[0].load().data[0, 0] == 1
    assert {s.name: (s.skip.code, s.reason) for s in source.skipped} == {
        "model_ema": ("other_weights",
                      "other weights of the checkpoint: key='model_ema' chooses them"),
        "teacher": ("other_weights", "other weights of the checkpoint: key='teacher' chooses them"),
        "optimizer": ("training_state", "state of the training, not weights of the model"),
        "lr_scheduler": ("training_state", "state of the training, not weights of the model"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", 1),
        ("model_ema", 2),
        ("model_ema.module", 2),
        ("teacher", 3),
        ("teacher.net.v1", 3),
    ],
)
def test_key_chooses(given: Callable[[dict[str, Any]], Any], key: str, value: float) -> None:
    source = open_weights(given(checkpoint()), key=key)
    (layer,) = source.layers
    assert layer.key.endswith("fc.weight")
    assert (layer.load().data == value).all()


def test_a_key_that_is_not_there_says_what_is(given: Callable[[dict[str, Any]], Any]) -> None:
    source = given(checkpoint())
    for key in ("ema", "epoch", "model.fc.weight", "", "model_emma"):
        with pytest.raises(ArgumentValueError) as caught:
            open_weights(source, key=key)
        error = caught.value
        assert (error.function, error.argument, error.got) == ("open_weights", "key", repr(key))
        assert "'model', 'model_ema.module', 'teacher.net.v1'" in error.requirement
        if key == "model_emma":
            assert error.hint == "did you mean 'model_ema.module'?"
    with pytest.raises(ArgumentTypeError, match="must be the name of a part"):
        open_weights(source, key=3)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="holds the state of an optimizer"):
        open_weights(source, key="optimizer")


def test_a_key_where_there_is_no_choice(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    np.save(tmp_path / "W.npy", np.ones((2, 2)))
    (tmp_path / "model.safetensors").write_bytes(encode({"a.weight": ("F32", np.ones((2, 2)))}))
    for source in (
        {"a.weight": np.ones((2, 2))},
        tmp_path / "W.npy",
        tmp_path / "model.safetensors",
        tmp_path,
        torch.nn.Linear(2, 2),
        open_weights({"a.weight": np.ones((2, 2))}),
    ):
        with pytest.raises(ArgumentError, match=r"^open_weights: 'key' must be None for "):
            open_weights(source, key="model")


def test_key_goes_through_a_folder(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(as_torch(checkpoint()), tmp_path / "pytorch_model.bin")
    assert (open_weights(tmp_path, key="model_ema").layers[0].load().data == 2).all()


# --- what is no model ---------------------------------------------------------------------------


def test_the_state_of_an_optimizer_is_no_model(given: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(FormatError, match=r"the state of an optimizer .*'param_groups'") as e:
        open_weights(given(checkpoint()["optimizer"]))
    assert "Hint: pass the file of the model" in str(e.value)


def test_a_real_optimizer_and_a_real_run(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(FormatError, match="the state of an optimizer"):
        open_weights(tmp_path / "optimizer.pt")
    torch.save(
        {"gan": {"g": model.state_dict(), "opt_g": optimizer.state_dict()}}, tmp_path / "gan.pt"
    )
    source = open_weights(tmp_path / "gan.pt")
    assert [la.key for la in source] == ["gan.g.weight"]
    assert ("gan.opt_g", "training_state") in [(s.name, s.skip.code) for s in source.skipped]


# --- folders ------------------------------------------------------------------------------------


def weights(*names: str) -> bytes:
    return encode({f"{name}.weight": ("F32", np.ones((2, 3))) for name in names})


def test_a_run_lists_its_checkpoints(tmp_path: Path) -> None:
    for step in (500, 1000, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").write_bytes(weights("a"))
    (tmp_path / "runs").mkdir()
    (tmp_path / "training_args.bin").write_bytes(b"never read")
    with pytest.raises(FormatError) as caught:
        open_weights(tmp_path)
    listed = "a training run: checkpoint-20, checkpoint-500, checkpoint-1000. Hint: pass the path"
    assert listed in str(caught.value)
    # With the final model beside them, that is what is meant.
    (tmp_path / "model.safetensors").write_bytes(weights("final"))
    source = open_weights(tmp_path)
    assert [la.name for la in source] == ["final"]
    assert source.skipped == ()


def test_sub_folders_of_sentence_transformers_are_listed(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(weights("encoder"))
    files = {
        "1_Pooling": "config.json",
        "2_Dense": "model.safetensors",
        "3_Dense": "pytorch_model.bin",
        ".git": "model.safetensors",
    }
    for name, file in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(weights("linear"))
    source = open_weights(tmp_path)
    assert [la.name for la in source] == ["encoder"]
    assert [(s.name, s.skip.code) for s in source.skipped] == [
        ("2_Dense/model.safetensors", "folder"),
        ("3_Dense/pytorch_model.bin", "folder"),
    ]
    assert "pass the path of 2_Dense/ to analyse them" in source.skipped[0].reason
    assert [la.name for la in open_weights(tmp_path / "2_Dense")] == ["linear"]


def test_shards_without_an_index(tmp_path: Path) -> None:
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes(weights(f"layers.{2 - i}.fc"))
    source = open_weights(tmp_path)
    assert [la.name for la in source] == [f"layers.{i}.fc" for i in range(3)]
    (tmp_path / names[1]).unlink()
    with pytest.raises(FormatError, match="1 of 3 shards missing, the first of them number 2") as e:
        open_weights(tmp_path)
    assert f"the folder holds {names[0]}, {names[2]}" in str(e.value)
    assert [la.name for la in open_weights(tmp_path / names[0])] == ["layers.2.fc"]
    (tmp_path / names[1]).write_bytes(weights("layers.2.fc"))
    with pytest.raises(FormatError, match="is in two shards"):
        open_weights(tmp_path)
    (tmp_path / "model-00004-of-00003.safetensors").write_bytes(weights("x"))
    with pytest.raises(FormatError, match="whose numbers make no sense"):
        open_weights(tmp_path)
    (tmp_path / "model-00004-of-00003.safetensors").rename(tmp_path / "other-1-of-1.safetensors")
    with pytest.raises(FormatError, match="the shards of 2 models and no index"):
        open_weights(tmp_path)


def test_a_lone_shard_with_its_objects(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for i, content in enumerate(({"z.weight": torch.ones(2, 3)}, {"a.weight": torch.ones(3, 2)})):
        torch.save({**content, f"args{i}": argparse.Namespace()}, tmp_path / f"m-{i + 1}-of-2.bin")
    source = open_weights(tmp_path)
    assert sorted(la.name for la in source) == ["a", "z"]
    assert [s.reason for s in source.skipped] == ["not a tensor: argparse.Namespace"] * 2


def test_an_index_is_read_once_for_all(tmp_path: Path) -> None:
    (tmp_path / "m-1.safetensors").write_bytes(weights("a"))
    index = {"weight_map": {"a.weight": "m-1.safetensors", "b.weight": "m-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match=r"'b\.weight' is not in m-1\.safetensors"):
        open_weights(tmp_path)
    (tmp_path / "other.safetensors").write_bytes(weights("a"))
    given = [tmp_path / "model.safetensors.index.json", tmp_path / "other.safetensors"]
    with pytest.raises(FormatError, match="is not in m-1"):
        average_checkpoints(given, tmp_path / "out.pt")


def test_layers_of_files_are_not_in_memory(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"a.weight": np.ones((2, 3))})
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    (tmp_path / "a.safetensors").write_bytes(weights("a"))
    for suffix in (".npz", ".npy", ".safetensors"):
        (layer,) = open_weights(tmp_path / f"a{suffix}").layers
        assert not layer.in_memory
        assert pickle.loads(pickle.dumps(layer)).load().shape == (2, 3)
