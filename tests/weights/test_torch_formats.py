"""torch checkpoints, state dicts and npz archives; no pickled code is executed."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyspectra.errors import FormatError
from pyspectra.weights import open_weights


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_state_dict_of_numpy_arrays() -> None:
    state = OrderedDict(
        [
            ("tok_embeddings.weight", np.ones((5, 3), np.float32)),
            ("norm.weight", np.ones(3)),
            ("h.fc.weight", np.ones((3, 4), np.float16)),
            ("h.fc.bias", np.ones(4)),
            ("conv.weight", np.ones((4, 3, 2, 2))),
            ("moe.experts.up_proj", np.ones((2, 3, 4))),
            ("moe.experts.up_proj_bias", np.ones((2, 4))),
            ("att.in_proj_weight", np.ones((9, 3))),
            ("rnn.weight_ih_l0_reverse", np.ones((8, 3))),
            ("step", 7),
        ]
    )
    source = open_weights(state)
    assert source.name == "state dict"
    assert [(la.name, la.kind, la.layer_id) for la in source] == [
        ("tok_embeddings", "embedding", 1),
        ("att.in_proj_weight", "attention_in_proj", 2),
        ("att.in_proj_weight[q]", "linear", 2),
        ("att.in_proj_weight[k]", "linear", 2),
        ("att.in_proj_weight[v]", "linear", 2),
        ("conv", "conv2d", 3),
        ("h.fc", "linear", 4),
        ("rnn.weight_ih_l0_reverse", "rnn", 5),
        ("moe.experts.up_proj", "expert_stack", 6),
    ]
    positions = {layer.name: layer.position for layer in source}
    assert positions["h.fc"] == 3  # in the dict's own order
    assert positions["rnn.weight_ih_l0_reverse"] == 7
    fc = next(layer for layer in source if layer.name == "h.fc")
    assert fc.load().data is not None
    assert np.shares_memory(fc.load().data, state["h.fc.weight"])
    assert {s.name: s.reason for s in source.skipped} == {
        "norm": "1-D tensor: no spectrum",
        "h.fc.bias": "bias: not a weight matrix",
        "moe.experts.up_proj_bias": "bias: not a weight matrix",
        "step": "not a tensor: int",
    }


def test_without_weight_keys_every_float_counts() -> None:
    source = open_weights({"W1": np.ones((2, 3)), "v": np.ones(2), "i": np.ones((2, 2), int)})
    assert [(la.name, la.layer_id, la.position) for la in source] == [("W1", 2, 1)]
    assert {s.name for s in source.skipped} == {"v", "i"}


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_wrappers_are_looked_through(wrapper: str) -> None:
    inner = {"module.fc.weight": np.ones((2, 3))}
    source = open_weights({"epoch": 3, wrapper: inner, "optimizer": {"state": {0: np.ones(2)}}})
    assert [la.key for la in source] == ["module.fc.weight"]
    twice = open_weights({"model": {"state_dict": inner}})
    assert [la.key for la in twice] == ["module.fc.weight"]


def test_nested_models_get_dotted_names() -> None:
    source = open_weights(
        {
            "generator": {"fc.weight": np.ones((2, 3))},
            "critic": {"fc.weight": np.ones((3, 2))},
            "optimizer": {"exp_avg.weight": np.ones((3, 2))},
        }
    )
    assert [la.name for la in source] == ["critic.fc", "generator.fc"]
    assert [(s.name, s.skip.code) for s in source.skipped] == [("optimizer", "training_state")]


def test_tied_tensors_are_analysed_once() -> None:
    shared = np.ones((4, 3))
    source = open_weights({"wte.weight": shared, "head.weight": shared, "t.weight": shared.T})
    assert [(la.name, la.layer_id, la.position) for la in source] == [("wte", 1, 1), ("t", 2, 3)]
    assert [(s.name, s.reason) for s in source.skipped] == [("head", "shares its tensor with wte")]


def test_closed_source_raises() -> None:
    source = open_weights({"a.weight": np.ones((2, 2))})
    assert open_weights(source) is source
    source.close()
    with pytest.raises(FormatError, match="closed"):
        source.layers[0].load()


def test_reassigned_shape_is_noticed() -> None:
    array = np.ones((2, 6))
    source = open_weights({"a.weight": array})
    object.__setattr__(source.layers[0], "shape", (3, 4))
    with pytest.raises(FormatError, match="changed since the source was opened"):
        source.layers[0].load()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_torch_checkpoint_round_trip(tmp_path: Path, suffix: str, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    state = {
        "wte.weight": torch.randn(6, 3),
        "half.weight": torch.randn(4, 3).half().T,
        "brain.weight": torch.randn(4, 3).bfloat16(),
        "int.weight": torch.ones(2, 2, dtype=torch.int8),
    }
    if zipped:  # torch cannot read this type back from the old layout
        state["f8.weight"] = torch.ones(2, 2).to(torch.float8_e5m2)
    state["head.weight"] = state["wte.weight"]
    path = tmp_path / f"model{suffix}"
    torch.save({"state_dict": state, "epoch": 1}, path, _use_new_zipfile_serialization=zipped)
    with open_weights(path) as source:
        assert source.format == "torch"
        assert [la.name for la in source] == ["wte", "brain", "half"]
        for layer in source:
            expected = state[layer.key]
            assert layer.dtype == str(expected.dtype).removeprefix("torch.")
            np.testing.assert_array_equal(layer.load().to_float64(), expected.double().numpy())
        reasons = {s.name: s.reason for s in source.skipped}
    assert reasons["head"] == "shares its tensor with wte"
    assert reasons["int"].startswith("integer dtype int8")
    if zipped:
        assert reasons["f8"].startswith("low-precision dtype float8_e5m2")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_plain_pickle_is_never_executed(tmp_path: Path, protocol: int) -> None:
    pytest.importorskip("torch")
    target = tmp_path / "executed"
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps({"a.weight": Payload(target)}, protocol=protocol))
    with pytest.raises(FormatError, match="never executed"):
        open_weights(path)
    assert not target.exists()
    pickle.loads(path.read_bytes())  # the payload does work
    assert target.exists()


def test_zip_checkpoint_with_code_is_never_executed(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    target = tmp_path / "executed"
    path = tmp_path / "model.pt"
    torch.save({"a.weight": torch.ones(2, 2), "x": Payload(target)}, path)
    with pytest.raises(FormatError, match=r"never executed.*convert it to safetensors"):
        open_weights(path)
    assert not target.exists()


def test_whole_module_and_torchscript_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(FormatError, match="state_dict"):
        open_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"")
        archive.writestr("model/constants.pkl", b"")
    with pytest.raises(FormatError, match="TorchScript"):
        open_weights(path)


def test_tensor_alone_is_not_a_model(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.ones(2, 2), tmp_path / "model.pt")
    with pytest.raises(FormatError, match="holds an object of type Tensor, not a state dict"):
        open_weights(tmp_path / "model.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_checkpoints(tmp_path: Path, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    state = {"a.weight": torch.ones(20, 20)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        with pytest.raises(FormatError, match=r"model\.pt"):
            open_weights(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02", b"PK\x03\x04", b"\0" * 600])
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"model\.pt"):
        open_weights(path)


def test_npz_round_trip_and_laziness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {
        "b.weight": np.asfortranarray(np.random.default_rng(0).normal(size=(4, 3))),
        "a.weight": np.arange(6, dtype=">f4").reshape(2, 3),
        "i.weight": np.ones((2, 2), np.int32),
    }
    path = tmp_path / "model.npz"
    np.savez_compressed(path, **arrays)
    reads: list[None] = []
    original = np.lib.format.read_array

    def counting(*args: Any, **kwargs: Any) -> Any:
        reads.append(None)
        return original(*args, **kwargs)

    monkeypatch.setattr(np.lib.format, "read_array", counting)
    source = open_weights(path)
    assert [(la.name, la.layer_id, la.position) for la in source] == [("a", 1, 2), ("b", 2, 1)]
    assert reads == []
    for layer in source:
        np.testing.assert_array_equal(layer.load().to_float64(), arrays[layer.key])
    assert len(reads) == 2
    assert source.skipped[0].reason.startswith("integer dtype int32")


def test_npz_with_objects_is_never_unpickled(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    path = tmp_path / "model.npz"
    np.savez(path, **{"a.weight": np.array([Payload(target)], object)})
    source = open_weights(path)
    assert len(source) == 0
    assert "pickled objects are never loaded" in source.skipped[0].reason
    assert not target.exists()


def test_npz_with_a_forged_shape(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"shape": (2**40, 2**20), "fortran_order": False, "descr": "<f8"}
    )
    path = tmp_path / "model.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", buffer.getvalue())
    with pytest.raises(FormatError, match="does not fit"):
        open_weights(path)


@pytest.mark.parametrize("seed", range(60))
def test_corrupt_npz_is_refused_or_loads(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "model.npz"
    np.savez_compressed(path, a=np.arange(12.0).reshape(3, 4), b=np.ones((2, 2), np.float32))
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for _ in range(3):
        content[rng.integers(len(content))] = rng.integers(256)
    path.write_bytes(content)
    try:
        for layer in open_weights(path):
            assert layer.load().shape == layer.shape
    except FormatError:
        pass


def test_paths_that_are_no_source(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'model_or_path' must exist"):
        open_weights(tmp_path / "nothing.safetensors")
    (tmp_path / "m.txt").write_bytes(b"x")
    with pytest.raises(FormatError, match=r"suffix '\.txt'.*Supported are \.safetensors"):
        open_weights(tmp_path / "m.txt")
    with pytest.raises(TypeError, match="got an object of type int"):
        open_weights(3)
    with pytest.raises(ValueError, match="'model_or_path' must be a path, got"):
        open_weights("a\0b.safetensors")
