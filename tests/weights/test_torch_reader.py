"""The reader of torch checkpoints against torch, and against pickles that mean harm."""

from __future__ import annotations

import argparse
import copyreg
import datetime
import decimal
import enum
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyspectra._arrays import as_host
from pyspectra._support.dtypes import DTYPES
from pyspectra.errors import FormatError
from pyspectra.weights import open_weights
from pyspectra.weights.formats import pickle_budget, torch_checkpoint
from pyspectra.weights.formats.pickle_values import Foreign, PickleError
from pyspectra.weights.formats.pickles import read_pickle
from pyspectra.weights.formats.stored import StoredTensor

torch = pytest.importorskip("torch")

# Every layout that torch writes: the archive by default, with other protocols; the old one.
LAYOUTS = [
    {},
    {"pickle_protocol": 4},
    {"pickle_protocol": 5},
    {"_use_new_zipfile_serialization": False},
]


def tensors() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=generator)
    state: dict[str, Any] = {
        "whole": base,
        "same": base,
        "transposed": base.T,
        "slice": base[1:4, ::3],
        "column": base[:, 5],
        "row": base[2],
        "permuted": torch.randn(3, 4, 5, generator=generator).permute(2, 0, 1),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": torch.randn(3, 1).expand(3, 4),
        "singleton": torch.as_strided(torch.randn(4), (1, 4), (7, 1)),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "offset_empty": base[6:],
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
        "buffer": torch.nn.Buffer(torch.randn(2, 3)),
    }
    with_state = torch.nn.Parameter(torch.randn(2, 3))
    with_state.note = "kept by torch"
    state["parameter_with_state"] = with_state
    for dtype in DTYPES:
        known = getattr(torch, dtype.name, None)
        if dtype.is_copied:
            state[dtype.name] = torch.arange(12).reshape(3, 4).to(known)
            state[f"{dtype.name}.T"] = torch.arange(12).reshape(3, 4).to(known).T
    return state


def raw_bytes(tensor: Any) -> bytes:
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_view_and_type_as_torch_reads_it(tmp_path: Path, layout: dict[str, Any]) -> None:
    path = tmp_path / "model.pt"
    state = tensors()
    if not layout.get("_use_new_zipfile_serialization", True):
        # torch does not write these into the old layout, or cannot read them back.
        state = {k: v for k, v in state.items() if not k.startswith(("uint16", "uint32", "uint64"))}
    torch.save(state, path, **layout)
    # torch's own restricted reader knows the older protocols alone.
    expected = torch.load(path, weights_only="pickle_protocol" not in layout)
    found = torch_checkpoint.stored(path)
    assert list(found) == list(expected)
    for key, want in expected.items():
        got = found[key]
        assert isinstance(got, StoredTensor)
        assert got.shape == tuple(want.shape)
        assert f"torch.{got.dtype}" == str(want.dtype)
        assert (got.strides is None) == (want.is_contiguous() or want.numel() == 0)
        with got.open() as read:
            assert read(0, want.numel() * want.element_size()).tobytes() == raw_bytes(want)
        if got.type.is_float:
            host = as_host(got, function="test", argument=key)
            assert np.array_equal(host.to_float64(), want.double().detach().numpy())
            assert host.data.strides == np.empty(0).strides or host.shape == want.shape
    # Views of the same memory are told as torch tells them, by address, shape and strides.
    identity = {k: f.info.identity for k, f in found.items()}
    assert identity["whole"] == identity["same"] != identity["transposed"]
    assert identity["empty"] is None


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, about what it is going to drop
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_dense_tensor_is_listed_with_its_problem(tmp_path: Path, zipped: bool) -> None:
    dense = torch.eye(3)
    state = {
        "fine.weight": dense,
        "coo.weight": dense.to_sparse(),
        "csr.weight": dense.to_sparse_csr(),
        "quantised.weight": torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8),
        "channels.weight": torch.quantize_per_channel(
            dense, torch.ones(3), torch.zeros(3, dtype=torch.long), 0, torch.quint8
        ),
        "meta.weight": torch.empty(2, 3, device="meta"),
        "complex.weight": torch.ones(2, 2, dtype=torch.complex64).conj(),
        "tagged.weight": dense.as_subclass(Tagged),
        "lazy.weight": torch.nn.parameter.UninitializedParameter(),
        "half.weight": torch.view_as_complex(torch.ones(3, 3, 2)).conj().imag,
        "int.weight": torch.ones(2, 2, dtype=torch.int32),
    }
    path = tmp_path / "model.pt"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with open_weights(path) as source:
        assert [layer.name for layer in source] == ["fine"]
        skipped = {s.name: (s.shape, s.reason) for s in source.skipped}
    assert skipped == {
        "coo": ((3, 3), "a sparse tensor (layout sparse_coo)"),
        "csr": ((3, 3), "a sparse tensor (layout sparse_csr)"),
        "quantised": ((3, 3), "a quantised tensor (qint8)"),
        "channels": ((3, 3), "a quantised tensor (quint8)"),
        "meta": ((2, 3), "a tensor without data (meta device)"),
        "complex": ((2, 2), "complex dtype complex64: not supported"),
        "tagged": ((3, 3), "a tensor of subclass Tagged"),
        "lazy": (None, "an uninitialised lazy parameter"),
        "half": ((3, 3), "a tensor that is yet to be negated (a view of a complex one)"),
        "int": ((2, 2), "integer dtype int32: quantised weights are not dequantised"),
    }


def test_types_without_a_storage_class(tmp_path: Path) -> None:
    state = {
        "f8.weight": torch.ones(2, 2).to(torch.float8_e4m3fn),
        "u16.weight": torch.ones(2, 2, dtype=torch.uint16),
    }
    torch.save(state, tmp_path / "model.pt")
    reasons = {s.name: s.reason for s in open_weights(tmp_path / "model.pt").skipped}
    assert reasons["f8"].startswith("low-precision dtype float8_e4m3fn")
    assert reasons["u16"].startswith("integer dtype uint16")


def test_a_sharded_tensor_is_listed(tmp_path: Path) -> None:
    found = pickled("torch._tensor _rebuild_from_type_v2", [
        name("torch._utils _rebuild_wrapper_subclass"), name("torch.distributed.tensor DTensor"),
        tuple_of([name("torch.distributed.tensor DTensor"), name("torch float32"),
                  b"K\x04K\x05\x86", b"K\x05K\x01\x86", b"K\x00", b"N", b"N", b"\x89"]), b"N",
    ])  # fmt: skip
    path = archive(tmp_path, b"}X\x08\x00\x00\x00a.weight" + found + b"s.")
    (skipped,) = open_weights(path).skipped
    assert (skipped.shape, skipped.reason) == ((4, 5), "a DTensor (sharded over processes)")


# --- objects beside the tensors -----------------------------------------------------------------


class Tagged(torch.Tensor):
    pass


class Colour(enum.Enum):
    RED = 1


class Settings:
    class Inner(enum.Enum):
        ON = 1

    def __init__(self) -> None:
        self.rate = 3e-4


class Attributes(dict[str, Any]):
    pass


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_harmless_objects_are_named_and_the_tensors_read(
    tmp_path: Path, layout: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dask, where a test has imported it, pickles exceptions in a way of its own.
    monkeypatch.delitem(copyreg.dispatch_table, ValueError, raising=False)
    module = __name__
    objects = {
        "args": (argparse.Namespace(lr=1), "argparse.Namespace"),
        "path": (pathlib.PurePosixPath("/a/b"), ".PurePosixPath"),
        "scalar": (np.float64(3.5), "numpy.float64"),
        "count": (np.int32(3), "numpy.int32"),
        "array": (np.ones(3), "numpy.ndarray"),
        "dtype": (np.dtype("f4"), "numpy.dtype"),
        "colour": (Colour.RED, f"{module}.Colour"),
        "inner": (Settings.Inner.ON, f"{module}.Settings.Inner"),
        "settings": (Settings(), f"{module}.Settings"),
        "attributes": (Attributes(a=1), f"{module}.Attributes"),
        "when": (datetime.datetime(2024, 1, 1), "datetime.datetime"),
        "cost": (decimal.Decimal("1.5"), "decimal.Decimal"),
        "device": (torch.device("cpu"), "torch.device"),
        "type": (torch.float32, "torch.float32"),
        "class": (argparse.Namespace, "argparse.Namespace"),
        "complex": (1 + 2j, "builtins.complex"),
        "error": (ValueError("x"), "builtins.ValueError"),
    }
    path = tmp_path / "model.ckpt"
    weights = {"fc.weight": torch.ones(2, 3)}
    torch.save({**weights, **{k: v for k, (v, _) in objects.items()}}, path, **layout)
    source = open_weights(path)
    assert [la.name for la in source] == ["fc"]
    assert source.layers[0].load().data.tolist() == [[1.0] * 3] * 2
    for skipped in source.skipped:
        reason, wanted = skipped.reason, objects[skipped.name][1]
        assert reason.startswith("not a tensor: ")
        assert reason.endswith(wanted), (skipped.name, reason)
    # Beside a wrapped model too.
    torch.save({"state_dict": weights, "epoch": 3, "args": objects["args"][0]}, path, **layout)
    source = open_weights(path)
    assert [(s.name, s.reason) for s in source.skipped] == [
        ("args", "not a tensor: argparse.Namespace")
    ]


def test_plain_values_are_read_as_they_are(tmp_path: Path) -> None:
    values = {
        "numbers": [0, 255, 65535, -1, 2**40, -(2**40), 10**40, 1.5, True, False, None],
        "text": ["a", "é", "x" * 300, ""],
        "bytes": [b"abc", bytearray(b"d"), b"e" * 300],
        "nested": {"a": ({"b": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]},)},
        "sets": [{1, 2}, frozenset({3}), set()],
        "ordered": OrderedDict([("a", 1), ("b", 2)]),
        "default": defaultdict(list, {"a": [1]}),
        "size": torch.Size([2, 3]),
        1: "an integer key", None: "none", (1, "a"): "a tuple",
    }  # fmt: skip
    for layout in LAYOUTS:
        torch.save(values, tmp_path / "model.pt", **layout)
        assert torch_checkpoint.stored(tmp_path / "model.pt") == values


def test_the_versions_of_modules_are_kept(tmp_path: Path) -> None:
    state = torch.nn.BatchNorm1d(2).state_dict()
    torch.save(state, tmp_path / "model.pt")
    found = torch_checkpoint.stored(tmp_path / "model.pt")
    assert vars(found) == {"_metadata": state._metadata}


def test_layers_are_addresses(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a.weight": torch.arange(6.0).reshape(2, 3), "b.weight": torch.ones(3, 2).T}, path)
    source = open_weights(path)
    copies = pickle.loads(pickle.dumps(source.layers))
    assert len(pickle.dumps(source.layers)) < 2000
    assert [c.load().data.tolist() for c in copies] == [x.load().data.tolist() for x in source]
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    for layer in source:
        with pytest.raises(FormatError, match="changed since it was opened"):
            layer.load()
    path.write_bytes(raw)
    with pytest.raises(FormatError, match="changed since it was opened"):
        copies[0].load()


def test_torch_is_not_needed(tmp_path: Path) -> None:
    for i, layout in enumerate(LAYOUTS):
        torch.save({"a.weight": torch.ones(3, 2)}, tmp_path / f"{i}.pt", **layout)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pyspectra.weights import open_weights\n"
        "for i in range(4): print(open_weights(f'{i}.pt').layers[0].load().data.sum())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert out.split() == ["6.0"] * 4


@pytest.mark.parametrize("zipped", [True, False])
def test_the_other_byte_order(tmp_path: Path, zipped: bool) -> None:
    little, big = tmp_path / "little.pt", tmp_path / "big.pt"
    values = torch.arange(6.0).reshape(2, 3)
    torch.save({"a.weight": values, "b.weight": values.T}, little,
               _use_new_zipfile_serialization=zipped)  # fmt: skip
    raw = little.read_bytes()
    data = values.numpy().tobytes()
    assert data in raw
    raw = raw.replace(data, values.numpy().astype(">f4").tobytes())
    if zipped:
        with zipfile.ZipFile(little) as old, zipfile.ZipFile(big, "w") as new:
            for entry in old.infolist():
                content = old.read(entry)
                if entry.filename.endswith("byteorder"):
                    content = b"big"
                if content == data:
                    content = values.numpy().astype(">f4").tobytes()
                new.writestr(entry.filename, content)
    else:
        raw = raw.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
        count = struct.pack("<q", 6)
        big.write_bytes(raw.replace(count + b"\0", struct.pack(">q", 6) + b"\0"))
    for found in torch_checkpoint.stored(big).values():
        want = values.numpy() if found.strides is None else values.numpy().T
        assert np.array_equal(found.load().data, want)
        with found.open() as read:
            assert read(0, 24).tobytes() == want.tobytes()


# --- pickles that mean harm ---------------------------------------------------------------------


def name(path: str) -> bytes:
    return b"c" + path.replace(" ", "\n").encode() + b"\n"


def tuple_of(parts: list[bytes]) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def pickled(function: str, arguments: list[bytes]) -> bytes:
    return name(function) + tuple_of(arguments) + b"R"


def archive(folder: Path, program: bytes, storages: dict[str, bytes] | None = None) -> Path:
    path = folder / "model.pt"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("model/data.pkl", b"\x80\x02" + program)
        made.writestr("model/version", b"3\n")
        for key, content in (storages or {"0": b"\0" * 4}).items():
            made.writestr(f"model/data/{key}", content)
    return path


def number(x: int) -> bytes:
    return b"\x8a\x10" + x.to_bytes(16, "little", signed=True)


def tensor(
    shape: tuple[int, ...], strides: tuple[int, ...], first: int = 0, count: int = 1
) -> bytes:
    storage = tuple_of([b"X\x07\0\0\0storage", name("torch FloatStorage"), b"X\x01\0\0\x000",
                        b"X\x03\0\0\0cpu", number(count)]) + b"Q"  # fmt: skip
    sizes, steps = (tuple_of([number(n) for n in t]) for t in (shape, strides))
    hooks = name("collections OrderedDict") + b")R"
    parts = [storage, number(first), sizes, steps, b"\x89", hooks]
    return pickled("torch._utils _rebuild_tensor_v2", parts)


def state(value: bytes) -> bytes:
    return b"}X\x08\0\0\0a.weight" + value + b"s."


def test_the_forged_archive_is_read_where_it_is_honest(tmp_path: Path) -> None:
    path = archive(tmp_path, state(tensor((2, 1), (1, 1), count=2)), {"0": b"\0\0\x80?\0\0\0@"})
    assert open_weights(path).layers[0].load().data.tolist() == [[1.0], [2.0]]
    assert torch.load(path, weights_only=True)["a.weight"].tolist() == [[1.0], [2.0]]


def test_a_few_bytes_that_claim_to_be_a_huge_tensor(tmp_path: Path) -> None:
    path = archive(tmp_path, state(tensor((10**11, 8), (0, 0))))
    source = open_weights(path)
    assert len(source) == 0
    (skipped,) = source.skipped
    assert skipped.reason == ("a tensor of 800000000000 elements that repeats 1 stored ones")


@pytest.mark.parametrize(
    ("program", "storages", "message"),
    [
        (tensor((2, 2), (2, 1)), None, "outside of its storage"),
        (tensor((1, 1), (1, 1), first=1), None, "outside of its storage"),
        (tensor((1,), (1,), count=2), None, "has 4 bytes instead of 8"),
        (tensor((-1, 1), (1, 1)), None, "no counts"),
        (tensor((2, 1), (-1, 1)), None, "no counts"),
        (tensor((2**63, 1), (0, 1)), None, "no counts"),
        (tensor((1,) * 40, (1,) * 40), None, "40 axes"),
        (tensor((1, 1), (1,)), None, "2 axes and 1 strides"),
        (tensor((1, 1), (1, 1)), {"1": b"\0" * 4}, "storage model/data/0 is missing"),
        (
            pickled("torch._utils _rebuild_tensor_v2", [b"N", b"K\0", b")", b")", b"N", b"N"]),
            None,
            "without a storage",
        ),
        (pickled("torch._utils _rebuild_tensor_v2", [b"N"]), None, "invalid arguments"),
        (pickled("torch._utils _rebuild_qtensor", [b"N"] * 6), None, "invalid arguments"),
        (pickled("torch._utils _rebuild_sparse_tensor", [b"N"] * 2), None, "invalid arguments"),
        (pickled("collections OrderedDict", [b"K\x01"]), None, "no list of pairs"),
        (b"X\x01\0\0\0a)R", None, "object of type str is called"),
        (b"h\x05", None, "nothing has been remembered"),
        (b"\x8b\xff\xff\xff\x7f", None, "integer of"),
        (b"X\xff\xff\xff\xff", None, "truncated"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", None, "truncated"),
        (b"t", None, "lacks its mark"),
        (b"\xff", None, "instruction 0xff"),
    ],
)
def test_broken_programs(
    tmp_path: Path, program: bytes, storages: dict[str, bytes] | None, message: str
) -> None:
    path = archive(tmp_path, state(program), storages)
    with pytest.raises(FormatError, match=r"model\.pt: the checkpoint is corrupt") as caught:
        open_weights(path)
    assert message in str(caught.value)


def test_bombs_are_refused_and_leave_the_process_alive(tmp_path: Path) -> None:
    """Each of these kills or starves a process that unpickles it with Python's own machine."""
    deep = b")" + b"\x85" * 1_000_000
    programs = {
        "a nested key": b"}" + deep + b"K\x01s.",
        "a nested element of a set": b"\x8f(" + deep + b"\x90.",
        "a memo with one great index": b"}r\xff\xff\xff\x7f.",
        "deep alone": deep + b".",
        "deep lists": b"]" * 1_000_000 + b"a" * 999_999 + b".",
        "a list in itself": b"]q\0h\0a.",
        "a dict in itself": b"}q\0X\x01\0\0\0ah\0s.",
        "a wrapper in itself": b"}q\0X\x05\0\0\0modelh\0s.",
        "doubling": b"]q\0" + b"".join(
            b"](h%c" % i + b"h%c" % i + b"eq%c" % (i + 1) for i in range(100)
        ) + b".",
    }  # fmt: skip
    for i, program in enumerate(programs.values()):
        (tmp_path / str(i)).mkdir()
        archive(tmp_path / str(i), program)
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))\n"
        "from pyspectra.weights import open_weights\n"
        "from pyspectra.errors import FormatError\n"
        "for i in range(int(sys.argv[1])):\n"
        "    try:\n"
        "        source = open_weights(f'{i}/model.pt')\n"
        "        assert len(source) == 0\n"
        "    except FormatError:\n"
        "        pass\n"
        "print('alive')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(len(programs))],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.stdout == "alive\n", (done.returncode, done.stderr[-2000:])


def test_programs_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pickle_budget.MAX_STEPS == 2**24
    assert pickle_budget.MAX_CONTAINERS == 2**21
    monkeypatch.setattr(pickle_budget, "MAX_STEPS", 1000)
    monkeypatch.setattr(pickle_budget, "MAX_CONTAINERS", 100)
    for program, message in (
        (b"(" + b"\x8f" * 101 + b"l.", "more than 100 containers"),
        (b"N0" * 500 + b"N.", "more than 1000 instructions"),
        (b"}" + b"(" + b"N" * 65 + b"tNs.", "a key of 65 parts"),
        (b"}X" + struct.pack("<I", 70_000) + b"a" * 70_000 + b"Ns.", "a key of 70000 characters"),
    ):
        with pytest.raises(PickleError, match=message):
            read_pickle(program, lambda *_: None, repr)


def test_names_that_multiply_are_refused(tmp_path: Path) -> None:
    """Mappings that hold one another a thousand times, eight deep."""
    program = b"}q\0"
    for level in range(8):
        program += b"}" + b"q" + bytes([level + 1]) + b"("
        for i in range(1000):
            key = b"%d" % i
            program += b"X" + struct.pack("<I", len(key)) + key + b"h" + bytes([level])
        program += b"u"
    path = archive(tmp_path, program + b".")
    with pytest.raises(FormatError, match="more names than any model has"):
        open_weights(path)


class Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_code_is_not_run_and_is_named(tmp_path: Path, layout: dict[str, Any]) -> None:
    target = tmp_path / "executed"
    path = tmp_path / "model.pt"
    payloads = [
        (Runs(os.mkdir, str(target)), "posix.mkdir"),
        (Runs(os.system, f"touch {target}"), "posix.system"),
        (Runs(eval, f"open({str(target)!r}, 'w')"), "builtins.eval"),
        (Runs(exec, f"open({str(target)!r}, 'w')"), "builtins.exec"),
        (Runs(open, str(target), "w"), "io.open"),
        (Runs(subprocess.Popen, ["touch", str(target)]), "subprocess.Popen"),
        (Runs(Path.touch, target), "Path.touch"),
        (Runs(__import__, "antigravity"), "builtins.__import__"),
        (Runs(torch.load, str(target)), "torch.serialization.load"),
        (Runs(torch.hub.load, "a", "b"), "torch.hub.load"),
        (Runs(pickle.loads, b"."), "pickle.loads"),
        (Runs(np.save, str(target), 3), "numpy.save"),
    ]
    for payload, word in payloads:
        for content in ({"a.weight": torch.ones(2, 2), "x": payload}, payload, [payload]):
            torch.save(content, path, **layout)
            with pytest.raises(FormatError, match="never executed") as caught:
                open_weights(path)
            assert word in str(caught.value)
            assert not target.exists()


def test_whole_modules_are_refused_by_their_class(tmp_path: Path) -> None:
    for layout in LAYOUTS:
        torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt", **layout)
        with pytest.raises(FormatError, match=r"type torch\.nn\.modules\.linear\.Linear, not a st"):
            open_weights(tmp_path / "model.pt")


@pytest.mark.parametrize("seed", range(150))
@pytest.mark.parametrize("zipped", [True, False])
def test_random_corruption_is_refused_or_loads(tmp_path: Path, seed: int, zipped: bool) -> None:
    path = tmp_path / "model.pt"
    content = {"a.weight": torch.ones(3, 4), "b.weight": torch.ones(4, 3).T, "x": Colour.RED}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    raw = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    start = raw.index(b"a.weight") - 20
    for _ in range(rng.integers(1, 5)):
        # Mostly the pickle: that is where a wrong byte has consequences.
        end = len(raw) if rng.random() < 0.3 else start + 400
        raw[rng.integers(start if end < len(raw) else 0, end)] = rng.integers(256)
    path.write_bytes(raw)
    try:
        for layer in open_weights(path):
            assert layer.load().shape == layer.shape
    except FormatError:
        pass


def test_compressed_storages_are_explained(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(30, 30)}, tmp_path / "stored.pt")
    path = tmp_path / "model.pt"
    with (
        zipfile.ZipFile(tmp_path / "stored.pt") as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(FormatError, match="is compressed, which torch"):
        open_weights(path)


def test_the_machine_by_itself() -> None:
    def call(function: Any, arguments: Any, is_class: bool, budget: Any) -> Any:
        return Foreign(function.path, str(is_class))

    for protocol in (2, 3, 4, 5):
        raw = pickle.dumps([Colour.RED, {"a": (1, 2.5, b"x")}], protocol)
        value, end = read_pickle(b"junk" + raw + b"more", call, repr, 4)
        assert end == 4 + len(raw)
        assert value[1] == {"a": (1, 2.5, b"x" if protocol > 2 else value[1]["a"][2])}
        assert value[0].name == f"{__name__}.Colour"
