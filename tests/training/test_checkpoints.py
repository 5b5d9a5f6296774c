"""Averaging of checkpoints: numbers, formats, memory, and what is refused."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyspectra.training.averaging as averaging
from pyspectra.edit.files import SUFFIXES, open_checkpoint, writing
from pyspectra.edit.files.rounding import round_to
from pyspectra.errors import FormatError
from pyspectra.training import average_checkpoints
from pyspectra.weights import open_weights
from pyspectra.weights.run_folder import find_checkpoints

numpy_io = pytest.importorskip("safetensors.numpy")

MiB = 2**20


def tensors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "a.weight": rng.standard_normal((7, 5)).astype(np.float32),
        "a.bias": rng.standard_normal(5).astype(np.float16),
        "b": rng.standard_normal((3, 2, 2)),
        "scalar": np.array(seed + 0.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "steps": np.array(seed, np.int64),
        "flags": np.array([seed % 2 == 0, True]),
        "bytes": np.full(3, seed % 256, np.uint8),
    }


def mean(seeds: list[int], weights: list[float] | None = None) -> dict[str, np.ndarray]:
    all_of = [tensors(seed) for seed in seeds]
    result = {}
    for key, newest in all_of[-1].items():
        if newest.dtype.kind == "f":
            stack = np.stack([t[key].astype(np.float64) for t in all_of])
            w = np.ones(len(seeds)) if weights is None else np.asarray(weights)
            total = np.tensordot(w, stack, 1) if weights else stack.sum(0)
            result[key] = np.asarray(total / w.sum()).astype(newest.dtype)
        else:
            result[key] = newest
    return result


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(got) == set(expected)
    for key, value in expected.items():
        assert got[key].dtype == value.dtype
        assert got[key].shape == value.shape
        np.testing.assert_array_equal(got[key], value)


def save_run(folder: Path, seeds: list[int]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"step_{seed}.safetensors" for seed in seeds]
    for path, seed in zip(paths, seeds, strict=True):
        numpy_io.save_file(tensors(seed), path, metadata={"format": "pt", "step": str(seed)})
    return paths


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(averaging, "CHUNK", 4)
    monkeypatch.setattr(writing, "CHUNK", 4)


# --- numbers ------------------------------------------------------------------------------------


def test_the_mean_of_the_last_by_step(tmp_path: Path) -> None:
    save_run(tmp_path / "run", [1, 5, 100, 20, 9])
    done = average_checkpoints(tmp_path / "run", tmp_path / "out.safetensors", last=3)
    assert_same(numpy_io.load_file(tmp_path / "out.safetensors"), mean([9, 20, 100]))
    assert [Path(p).name for p in done.checkpoints] == [
        f"step_{i}.safetensors" for i in (9, 20, 100)
    ]
    assert (done.n_averaged, done.n_copied, done.not_finite) == (5, 3, ())
    assert done.weights == (1 / 3, 1 / 3, 1 / 3)


def test_eight_by_default(tmp_path: Path) -> None:
    save_run(tmp_path / "run", list(range(1, 12)))
    average_checkpoints(tmp_path / "run", tmp_path / "out.safetensors")
    assert_same(numpy_io.load_file(tmp_path / "out.safetensors"), mean(list(range(4, 12))))


def test_a_list_as_a_whole_and_weights(tmp_path: Path) -> None:
    paths = save_run(tmp_path / "run", [3, 4, 7])
    done = average_checkpoints(paths, tmp_path / "o.safetensors", weights=[1, 2, 5])
    got = numpy_io.load_file(tmp_path / "o.safetensors")
    expected = mean([3, 4, 7], [1, 2, 5])
    np.testing.assert_allclose(got.pop("b"), expected.pop("b"), rtol=1e-15)
    assert_same(got, expected)
    assert done.weights == (0.125, 0.25, 0.625)


def test_weight_zero_is_not_read(tmp_path: Path) -> None:
    paths = save_run(tmp_path / "run", [3, 4])
    bad = {k: np.full_like(v, np.nan) if v.dtype.kind == "f" else v for k, v in tensors(3).items()}
    numpy_io.save_file(bad, paths[0])
    done = average_checkpoints(paths, tmp_path / "o.safetensors", weights=[0, 9])
    assert_same(numpy_io.load_file(tmp_path / "o.safetensors"), tensors(4))
    assert done.not_finite == ()
    assert average_checkpoints(paths, tmp_path / "all.safetensors").not_finite == (
        "b", "a.weight", "scalar", "a.bias",
    )  # fmt: skip


def test_the_newest_goes_by_its_number_or_the_order(tmp_path: Path) -> None:
    paths = save_run(tmp_path / "run", [30, 4])
    average_checkpoints(paths, tmp_path / "o.safetensors")
    assert numpy_io.load_file(tmp_path / "o.safetensors")["steps"] == 30
    named = [tmp_path / "best.safetensors", tmp_path / "final.safetensors"]
    for old, new in zip(paths, named, strict=True):
        os.rename(old, new)
    average_checkpoints(named, tmp_path / "o.safetensors", overwrite=True)
    assert numpy_io.load_file(tmp_path / "o.safetensors")["steps"] == 4


def test_the_newest_does_not_go_by_a_loss_in_the_name(tmp_path: Path) -> None:
    losses = {1: "0.91", 2: "0.35", 10: "0.20"}
    for epoch, loss in losses.items():
        numpy_io.save_file(tensors(epoch), tmp_path / f"epoch={epoch}-loss={loss}.safetensors")
    done = average_checkpoints(tmp_path, tmp_path / "o.safetensors")
    assert numpy_io.load_file(tmp_path / "o.safetensors")["steps"] == 10
    average_checkpoints(done.checkpoints[::-1], tmp_path / "o.safetensors", overwrite=True)
    assert numpy_io.load_file(tmp_path / "o.safetensors")["steps"] == 10


def test_metadata_and_alignment(tmp_path: Path) -> None:
    paths = save_run(tmp_path / "run", [1, 2])
    average_checkpoints(paths, tmp_path / "o.safetensors")
    raw = (tmp_path / "o.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    assert header.pop("__metadata__") == {"format": "pt", "step": "2"}
    sizes = {"F64": 8, "I64": 8, "F32": 4, "F16": 2, "BOOL": 1, "U8": 1}
    assert all(e["data_offsets"][0] % sizes[e["dtype"]] == 0 for e in header.values())


def bf16_reference(x: float) -> int:
    """Nearest bfloat16 to a finite float64, ties to even, by exact arithmetic."""
    with np.errstate(over="ignore", under="ignore"):
        top = np.array(x, np.float32).view(np.uint32) >> 16
    exact = Fraction(x)
    best = None
    for pattern in range(max(0, (int(top) & 0x7FFF) - 2), (int(top) & 0x7FFF) + 3):
        bits = np.array(pattern << 16, np.uint32).view(np.float32)
        value = Fraction(float(bits)) if np.isfinite(bits) else Fraction(2) ** 128
        key = (abs(value - abs(exact)), pattern & 1)
        if pattern <= 0x7F80 and (best is None or key < best[0]):
            best = (key, pattern)
    assert best is not None
    return best[1] | (0x8000 if np.signbit(x) else 0)


def test_bfloat16_is_rounded_once() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(400) * 2.0 ** rng.integers(-140, 127, 400)
    # Just beside ties of bfloat16, closer than float32 can tell.
    ties = (1 + (2 * rng.integers(0, 127, 200) + 1) / 256) * (1 + rng.choice([-1, 1], 200) * 1e-14)
    edge = [0.0, -0.0, 3.3895e38, 3.4e38, 3.39e38, 1e-45, 4.6e-41, 1e300, -1e300, 2.0**-149]
    x = np.concatenate([values, ties, edge])
    assert round_to(x, "bfloat16").tolist() == [bf16_reference(v) for v in x.tolist()]


def test_bfloat16_equals_torch_where_float32_is_exact() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32)
    bits[:65536] = (bits[:65536] & 0xFFFF0000) | 0x8000  # ties
    x = bits.view(np.float32)
    x = x[~np.isnan(x)]
    expected = torch.from_numpy(x).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(round_to(x.astype(np.float64), "bfloat16"), expected)
    got = round_to(np.array([np.nan, -np.nan]), "bfloat16")
    assert ((got & 0x7FFF) > 0x7F80).all()


# --- torch --------------------------------------------------------------------------------------


def torch_state(seed: int) -> Any:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(6, 4, generator=generator)
    state = OrderedDict(
        {
            "embed.weight": shared,
            "head.weight": shared,
            "half": torch.randn(5, generator=generator).to(torch.bfloat16),
            "strided": torch.randn(3, 4, generator=generator).T,
            "empty": torch.zeros(0, 3),
            "num_batches_tracked": torch.tensor(seed),
            "mask": torch.tensor([True, seed > 1]),
            "_extra_state": {"version": seed},
        }
    )
    state._metadata = OrderedDict({"": {"version": seed}})  # type: ignore[attr-defined]
    return state


@pytest.mark.parametrize("old_layout", [False, True])
def test_torch_checkpoints(tmp_path: Path, old_layout: bool) -> None:
    torch = pytest.importorskip("torch")
    states = [torch_state(seed) for seed in (1, 2, 3)]
    for seed, state in enumerate(states, 1):
        wrapped = {"model": state, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}}
        torch.save(
            wrapped, tmp_path / f"step-{seed}.pt", _use_new_zipfile_serialization=not old_layout
        )
    done = average_checkpoints(tmp_path, tmp_path / "mean.pt")
    got = torch.load(tmp_path / "mean.pt", weights_only=True)
    assert list(got) == list(states[0])
    for key in ("embed.weight", "half", "strided", "empty"):
        expected = torch.stack([s[key].double() for s in states]).mean(0).to(states[0][key].dtype)
        assert got[key].dtype == expected.dtype
        assert torch.equal(got[key], expected)
    assert got["num_batches_tracked"] == 3
    assert got["mask"].tolist() == [True, True]
    assert got["_extra_state"] == {"version": 3}
    assert got._metadata == {"": {"version": 3}}
    assert got["embed.weight"].data_ptr() == got["head.weight"].data_ptr()
    assert (done.n_averaged, done.n_copied) == (5, 2)


def test_from_torch_to_safetensors_and_back(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    paths = []
    for seed in (1, 2):
        state = torch_state(seed)
        del state["_extra_state"]
        paths.append(tmp_path / f"s{seed}.pth")
        torch.save(state, paths[-1])
    average_checkpoints(paths, tmp_path / "o.safetensors")
    average_checkpoints(paths, tmp_path / "o.pt")
    os.link(tmp_path / "o.safetensors", tmp_path / "p.safetensors")
    shutil.copy(tmp_path / "o.safetensors", tmp_path / "q.safetensors")
    average_checkpoints([tmp_path / f"{n}.safetensors" for n in "oq"], tmp_path / "again.pt")
    with pytest.raises(ValueError, match="name each checkpoint once"):
        average_checkpoints([tmp_path / f"{n}.safetensors" for n in "op"], tmp_path / "no.pt")
    a, b = (torch.load(tmp_path / n, weights_only=True) for n in ("o.pt", "again.pt"))
    assert set(a) == set(b)
    assert all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


def test_torch_errors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    good, other = tmp_path / "good.pt", tmp_path / "other.pt"
    torch.save(torch_state(1), good)
    torch.save(torch_state(2), other)
    with pytest.raises(FormatError, match=r"'_extra_state' is not a tensor.*suffix \.pt"):
        average_checkpoints([good, other], tmp_path / "o.safetensors")
    for content, message in (
        ({"lr": 3}, "holds no state dict"),
        ([1], "holds an object of type list"),
        ({"w": torch.zeros(2), "opt": {"m": torch.zeros(2)}}, "'opt' holds tensors beside"),
        ({"w": torch.zeros(2, dtype=torch.complex64)}, "'w' has dtype complex64"),
        ({"w": torch.eye(2).to_sparse()}, "'w' is a sparse tensor"),
    ):
        torch.save(content, good)
        with pytest.raises(FormatError, match=message):
            average_checkpoints([good, other], tmp_path / "o.pt")
    for path in (good, other):
        torch.save({"w": torch.zeros(2, dtype=torch.int8)}, path)
    with pytest.raises(FormatError, match="no floating-point tensors"):
        average_checkpoints([good, other], tmp_path / "o.pt")
    good.write_bytes(other.read_bytes()[:500])
    with pytest.raises(FormatError, match="corrupt or truncated"):
        average_checkpoints([good, other], tmp_path / "o.pt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.pt", "other.pt"]


def test_what_lies_beside_the_tensors_is_copied_or_named(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    paths = [tmp_path / "a1.pt", tmp_path / "a2.pt"]
    shared = [1, 2]
    for i, path in enumerate(paths):
        extra = OrderedDict(
            a=[shared, shared], t=[torch.tensor([i, 3]), torch.ones(2, 2).T], s={1, "x"}, n=None
        )
        torch.save({"w": torch.full((2, 2), float(i)).T, "_extra_state": extra}, path)
    average_checkpoints(paths, tmp_path / "mean.pt")
    got = torch.load(tmp_path / "mean.pt", weights_only=False)
    assert (got["w"] == 0.5).all()
    extra = got["_extra_state"]
    assert type(extra) is OrderedDict
    assert extra["a"] == [shared, shared]
    assert extra["a"][0] is extra["a"][1]
    assert extra["t"][0].tolist() == [1, 3]
    assert extra["t"][1].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert extra["s"] == {1, "x"}
    deep: list[Any] = []
    for _ in range(60):
        deep = [deep]
    for value, message in (
        (argparse.Namespace(a=1), "'note' holds an object of class argparse.Namespace"),
        ([{"a": Fraction(1)}], "'note' holds an object of class fractions.Fraction"),
        (deep, "'note' is nested too deeply"),
        ([torch.eye(2).to_sparse()], "'note' holds a tensor that is a sparse tensor"),
    ):
        torch.save({"w": torch.ones(2), "note": value}, paths[0])
        with pytest.raises(FormatError, match=message):
            average_checkpoints(paths, tmp_path / "other.pt")
    assert not (tmp_path / "other.pt").exists()


def test_the_torch_output_needs_torch_and_the_inputs_do_not(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for i in (1, 2):
        torch.save({"w": torch.full((3, 2), float(i)).T}, tmp_path / f"s{i}.pt")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pyspectra.training import average_checkpoints\n"
        "average_checkpoints('.', 'mean.safetensors')\n"
        "try: average_checkpoints('.', 'mean.pt')\n"
        "except ImportError as error: print(error)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert out.startswith("writing a torch checkpoint needs torch")
    assert (numpy_io.load_file(tmp_path / "mean.safetensors")["w"] == 1.5).all()


# --- folders and shards -------------------------------------------------------------------------


def save_shards(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    keys = list(tensors(seed))
    weight_map = {}
    for i, part in enumerate((keys[::2], keys[1::2]), 1):
        name = f"model-0000{i}-of-00002.safetensors"
        numpy_io.save_file({k: tensors(seed)[k] for k in part}, folder / name)
        weight_map.update(dict.fromkeys(part, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_hugging_face_folders(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (500, 1000):
        save_shards(run / f"checkpoint-{step}", step)
    single = run / "checkpoint-1500"
    (single / "1_Pooling").mkdir(parents=True)
    (single / "global_step1500").mkdir()
    numpy_io.save_file(tensors(1500), single / "model.safetensors")
    for name in ("config.json", "vocab.txt", "trainer_state.json", "1_Pooling/config.json"):
        (single / name).write_text(name)
    for name in ("optimizer.pt", "training_args.bin", "global_step1500/states.pt"):
        (single / name).write_text(name)
    numpy_io.save_file(tensors(1), run / "model.safetensors")  # the final one has no number
    (run / "runs").mkdir()
    average_checkpoints(run, tmp_path / "out")
    files = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert files == ["1_Pooling/config.json", "config.json", "model.safetensors", "vocab.txt"]
    result = numpy_io.load_file(tmp_path / "out" / "model.safetensors")
    assert_same(result, {**mean([500, 1000, 1500])})
    average_checkpoints(run, tmp_path / "out.safetensors", last=2)
    assert_same(numpy_io.load_file(tmp_path / "out.safetensors"), mean([1000, 1500]))


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_shards_without_an_index(tmp_path: Path, kind: str) -> None:
    torch = pytest.importorskip("torch")
    run = tmp_path / "run"
    for step in (1, 2):
        folder = run / f"step_{step}"
        save_shards(folder, step)
        (folder / "model.safetensors.index.json").unlink()
        if kind == "torch":
            for path in folder.glob("*.safetensors"):
                state = {k: torch.from_numpy(v) for k, v in numpy_io.load_file(path).items()}
                torch.save(state, folder / f"pytorch_{path.stem}.bin")
                path.unlink()
            torch.save({}, folder / "optimizer.pt")
    average_checkpoints(run, tmp_path / "out.safetensors")
    assert_same(numpy_io.load_file(tmp_path / "out.safetensors"), mean([1, 2]))
    average_checkpoints([run / "step_1", run / "step_2"], tmp_path / "out")
    assert_same(numpy_io.load_file(tmp_path / "out" / "model.safetensors"), mean([1, 2]))


def test_folders_are_refused_as_in_analysis(tmp_path: Path) -> None:
    """One reader of folders: what it says does not depend on who asks."""

    def shard(i: int, of: int, key: str, stem: str = "model") -> None:
        name = f"{stem}-{i:05}-of-{of:05}.safetensors"
        numpy_io.save_file({key: np.ones((4, 3), np.float32)}, folder / name)

    for i in range(6):
        folder = tmp_path / str(i)
        folder.mkdir()
        shard(1, 2, "a.weight")
        if i == 1:
            shard(2, 2, "b.weight", "other")
        elif i == 2:
            shard(2, 2, "a.weight")
        elif i == 3:
            shard(4, 2, "b.weight")
        elif i == 4:
            numpy_io.save_file({"b.weight": np.ones((4, 3))}, folder / "b.safetensors")
        elif i == 5:
            index = {"weight_map": {"b.weight": "model-00001-of-00002.safetensors"}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(FormatError) as analysis:
            open_weights(folder)
        with pytest.raises(FormatError) as averaging:
            open_checkpoint(folder)
        assert str(averaging.value) == str(analysis.value)
        assert str(folder) in str(averaging.value)


def test_adapters_keep_their_name(tmp_path: Path) -> None:
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}").mkdir()
        path = tmp_path / f"checkpoint-{step}" / "adapter_model.safetensors"
        numpy_io.save_file({"w": np.full(2, step, np.float32)}, path)
    average_checkpoints(tmp_path, tmp_path / "out")
    got = numpy_io.load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert got["w"].tolist() == [1.5, 1.5]


def test_names_of_checkpoints(tmp_path: Path) -> None:
    names = ["epoch=2-step=9.ckpt", "epoch=10-step=40.ckpt", "epoch=2-step=10.ckpt"]
    for name in [*names, "optimizer_3.pt", ".hidden1.ckpt", "rng_state_0.pth", "log1.txt"]:
        (tmp_path / name).touch()
    assert [p.name for p in find_checkpoints(tmp_path, SUFFIXES)] == [names[0], names[2], names[1]]


# --- errors -------------------------------------------------------------------------------------


def test_mismatches_name_both_files_and_the_key(tmp_path: Path) -> None:
    (path,) = save_run(tmp_path / "run", [9])
    other = tmp_path / "run" / "step_3.safetensors"
    good = tensors(3)
    for change, message in (
        ({"b": None}, f"tensor 'b' is only in {path}."),
        ({"b": None, "flags": None}, f" (and 1 more) is only in {path}."),
        ({"extra": np.zeros(2)}, f"tensor 'extra' is only in {other}."),
        ({"b": np.zeros((2, 3, 2))}, "tensor 'b' has shape (2, 3, 2) instead of (3, 2, 2)."),
        ({"b": np.zeros((3, 2, 2), np.float32)}, "tensor 'b' has dtype F32 instead of F64."),
        ({"steps": np.zeros((), np.int32)}, "tensor 'steps' has dtype I32 instead of I64."),
    ):
        changed = {k: v for k, v in {**good, **change}.items() if v is not None}
        numpy_io.save_file(changed, other)
        with pytest.raises(FormatError) as caught:
            average_checkpoints(tmp_path / "run", tmp_path / "o.safetensors")
        assert str(caught.value).startswith(f"{other} does not match {path}: ")
        assert str(caught.value).endswith(message)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_bad_arguments(tmp_path: Path) -> None:
    paths = save_run(tmp_path / "run", [1, 2])
    run, out = tmp_path / "run", tmp_path / "o.safetensors"
    os.symlink(paths[0], tmp_path / "link.safetensors")
    os.link(paths[0], tmp_path / "hard.safetensors")
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").touch()
    single = tmp_path / "single"
    save_run(single, [1])
    calls: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
        (3, out, {}, TypeError, "'paths_or_dir' must be a folder or a sequence of paths"),
        ([3], out, {}, TypeError, "'paths_or_dir' must be a path, got an object of type int"),
        ([], out, {}, ValueError, "'paths_or_dir' must name checkpoints, got none"),
        ("", out, {}, ValueError, "'paths_or_dir' must not be empty, got ''"),
        (paths[0], out, {}, ValueError, "or several paths, got the one file"),
        (tmp_path / "no", out, {}, FileNotFoundError, "'paths_or_dir' must exist"),
        ([paths[0], run / ".." / "run" / "step_1.safetensors"], out, {}, ValueError, "twice"),
        (run, 3, {}, TypeError, "'out' must be a path"),
        (run, tmp_path / "no" / "o.pt", {}, ValueError, "but there is no folder"),
        (run, full, {}, ValueError, "which exists"),
        (run, paths[0], {}, ValueError, "is one of the inputs"),
        (run, paths[0], {"overwrite": True}, ValueError, "is one of the inputs"),
        (run, tmp_path / "link.safetensors", {}, ValueError, "is one of the inputs"),
        (run, tmp_path / "hard.safetensors", {}, ValueError, "is one of the inputs"),
        (run, tmp_path / "hard.safetensors", {"overwrite": True}, ValueError, "is one of the"),
        (run, run, {}, ValueError, "which exists"),
        (run, out, {"last": 0}, ValueError, "'last' must be an integer of at least 2, got 0"),
        (run, out, {"last": 2.0}, TypeError, "'last' must be an integer of at least 2, got 2.0"),
        (run, out, {"last": 1}, ValueError, "'last' must be an integer of at least 2, got 1"),
        ([paths[0]], out, {}, ValueError, "must name two checkpoints or more, got '"),
        (single, out, {}, ValueError, "which holds one (step_1.safetensors)"),
        (run, out, {"overwrite": "yes"}, TypeError, "'overwrite' must be a bool"),
        (run, out, {"weights": [1]}, ValueError, "each of the 2 checkpoints, got 1"),
        (run, out, {"weights": [1, -1]}, ValueError, "must be finite and not negative"),
        (run, out, {"weights": [1, np.nan]}, ValueError, "must be finite and not negative"),
        (run, out, {"weights": [0, 0]}, ValueError, "must not all be 0"),
        (
            run,
            out,
            {"weights": ["x", 1]},
            TypeError,
            "'weights' must be finite and not negative, got 'x'",
        ),
        (run, out, {"weights": 3}, TypeError, "must be a sequence of numbers"),
        (run, out, {"progress": "x"}, ValueError, "'progress' must be True, False or 'auto'"),
        (full, out, {}, FormatError, "holds no numbered checkpoints"),
        ([full, paths[0]], out, {}, FormatError, "no weights found"),
        ([full / "x", paths[0]], out, {}, FormatError, "not a checkpoint"),
    ]
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    for given, to, options, error, message in calls:
        with pytest.raises(error) as caught:
            average_checkpoints(given, to, **options)
        assert message in str(caught.value)
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before
    (run / "step_3.pt").touch()
    with pytest.raises(FormatError, match="holds 2 kinds of checkpoints"):
        average_checkpoints(run, out)


def test_broken_safetensors_leave_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    paths = save_run(tmp_path / "run", [1, 2])
    out = tmp_path / "o.safetensors"
    out.write_text("as before")
    whole = paths[1].read_bytes()
    for raw, message in (
        (b"", "is empty"),
        (whole[:-1], "truncated"),
        (whole + b"x", "follow the last tensor"),
        (whole.replace(b'"F16"', b'"F99"'), "unknown dtype"),
    ):
        paths[1].write_bytes(raw)
        with pytest.raises(FormatError, match=message):
            average_checkpoints(paths, out, overwrite=True)
    header = b'{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    paths[1].write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
    with pytest.raises(FormatError, match="'w' has dtype F8_E4M3, which cannot be averaged"):
        average_checkpoints(paths, out, overwrite=True)

    # A file that is replaced while it is averaged, and a disk that fills up.
    paths[1].write_bytes(whole)
    opened = averaging.Mean.values

    def replaced(self: Any, tensor: Any) -> Any:
        os.utime(paths[1], ns=(1, paths[1].stat().st_mtime_ns + 1_000_000_000))
        return opened(self, tensor)

    def full(self: Any, tensor: Any) -> Any:
        raise OSError(28, "No space left on device")

    for fault, error in ((replaced, FormatError), (full, OSError)):
        monkeypatch.setattr(averaging.Mean, "values", fault)
        for target in (out, tmp_path / "folder", tmp_path / "o.pt"):
            with pytest.raises(error):
                average_checkpoints(paths, target, overwrite=True)
    assert out.read_text() == "as before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.safetensors", "run"]


def test_the_output_is_replaced_through_links_and_stays_private(tmp_path: Path) -> None:
    paths = save_run(tmp_path / "run", [1, 2])
    real, link = tmp_path / "real.safetensors", tmp_path / "link.safetensors"
    real.touch(mode=0o600)
    link.symlink_to(real)
    with pytest.raises(ValueError, match=r"which exists\. Hint: overwrite=True"):
        average_checkpoints(paths, link)
    assert real.read_bytes() == b""
    average_checkpoints(paths, link, overwrite=True)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert_same(numpy_io.load_file(real), mean([1, 2]))


# --- memory -------------------------------------------------------------------------------------

SCRIPT = """
import resource, sys
from pyspectra.training import average_checkpoints
average_checkpoints(sys.argv[1:3], sys.argv[3] + "/warm.safetensors")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
average_checkpoints(sys.argv[4:], sys.argv[3] + "/out.safetensors")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024, "torch" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_peak_memory_is_below_one_tensor(tmp_path: Path) -> None:
    shape, tensor = (4096, 2048), 32 * MiB
    rng = np.random.default_rng(0)
    paths = []
    for step in range(3):
        paths.append(tmp_path / f"step_{step}.safetensors")
        numpy_io.save_file({f"w{i}": rng.random(shape, np.float32) for i in range(2)}, paths[-1])
    warm = [tmp_path / f"small{i}.safetensors" for i in range(2)]
    for small in warm:
        numpy_io.save_file({"w": np.ones((64, 64), np.float32)}, small)
    used, torch_loaded = subprocess.run(
        [sys.executable, "-c", SCRIPT, *warm, tmp_path, *paths],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    ).stdout.split()  # fmt: skip
    assert torch_loaded == "False"
    # The sum and one checkpoint's part of it, in float64, with temporaries: not a whole tensor.
    assert int(used) < tensor / 2


def test_unknown_suffixes_and_a_number_of_given_paths_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for i, path in enumerate(paths):
        numpy_io.save_file({"w": np.full(3, i, np.float32)}, path)
    with pytest.raises(ValueError, match="whose suffix is none of"):
        average_checkpoints(paths, tmp_path / "avg.xyz")
    with pytest.raises(ValueError, match="'last' must come with one folder"):
        average_checkpoints(paths, tmp_path / "avg.pt", last=2)
    average_checkpoints(paths, tmp_path / "model-1.5b")
    assert (tmp_path / "model-1.5b" / "model.safetensors").is_file()
