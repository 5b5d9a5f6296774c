"""Edits of files: equal to those in memory, bit by bit; whole or not at all; the input stays."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch as st
import torch

import pyspectra as ps
from pyspectra.edit.files import writing
from pyspectra.edit.files.rounding import within_range
from pyspectra.edit.memory import write

EDITS: dict[str, Callable[..., Any]] = {
    "prune": lambda model, **where: ps.prune(model, 0.4, **where),
    "prune all together": lambda model, **where: ps.prune(model, 0.4, scope="global", **where),
    "prune some": lambda model, **where: ps.prune(model, {"fc": 0.5, "half": 0.2}, **where),
    "smooth": lambda model, **where: ps.svd_smoothing(model, 0.3, **where),
    "remove traps": ps.remove_traps,
    "quantise": lambda model, **where: ps.quantize(model, 4, **where),
}
FORMS = (
    "m.safetensors", "m.pt", "folder", "shards", "torch folder", "torch shards", "index"
)  # fmt: skip


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    fc = torch.randn(24, 18)
    fc[3, 4] = 60.0
    tied = torch.randn(12, 10, dtype=torch.float64)
    return {
        "fc.weight": fc,
        "fc.bias": torch.randn(24),
        "conv.weight": torch.randn(9, 8, 2, 2),
        "half.weight": (torch.randn(16, 12) * 3.0).bfloat16(),
        "embed.weight": torch.randn(20, 8).half(),
        "zero.weight": torch.zeros(8, 8),
        "nan.weight": torch.full((8, 8), torch.nan),
        "steps": torch.arange(5),
        "tied.head.weight": tied,
        "tied.body.weight": tied,
    }


def is_torch(form: str) -> bool:
    return form == "m.pt" or form.startswith("torch")


def save(folder: Path, form: str) -> Path:
    """Write the state, without ties where a format has none; return what is to be opened."""
    tensors = state()
    if not is_torch(form):
        tensors["tied.body.weight"] = tensors["tied.body.weight"].clone()
    folder.mkdir()
    suffix = "bin" if is_torch(form) else "safetensors"

    def write(part: dict[str, torch.Tensor], name: str) -> None:
        if is_torch(form):
            torch.save(part, folder / name)
        else:
            st.save_file(part, folder / name, {"format": "pt", "note": "kept"})

    if form.startswith("m."):
        write(tensors, form)
        return folder / form
    (folder / "config.json").write_text('{"model_type": "none"}')
    (folder / "tokenizer.json").write_text("{}")
    if form.endswith("folder"):
        write(tensors, {"bin": "pytorch_model.bin"}.get(suffix, "model.safetensors"))
        return folder
    names = [f"w-{i:05}-of-00002.{suffix}" for i in (1, 2)]
    parts = [dict(list(tensors.items())[:5]), dict(list(tensors.items())[5:])]
    for name, part in zip(names, parts, strict=True):
        write(part, name)
    index = {
        "metadata": {"total_size": sum(x.nbytes for x in tensors.values())},
        "weight_map": {k: name for name, part in zip(names, parts, strict=True) for k in part},
    }
    index_file = folder / f"w.{suffix}.index.json"
    index_file.write_text(json.dumps(index))
    return index_file if form == "index" else folder


def load(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors by the libraries of the formats."""
    if path.name.endswith(".index.json"):
        path = path.parent
    if not path.is_dir():
        if path.suffix == ".safetensors":
            return st.load_file(path)
        return dict(torch.load(path, weights_only=True))
    found: dict[str, torch.Tensor] = {}
    for file in sorted(path.iterdir()):
        if file.suffix in (".safetensors", ".bin"):
            part = load(file)
            index = next(path.glob("*.index.json"), None)
            if index is not None:
                weight_map = json.loads(index.read_text())["weight_map"]
                assert {k for k, name in weight_map.items() if name == file.name} == set(part)
            found |= part
    return found


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    same_type = a.dtype == b.dtype and a.shape == b.shape
    return same_type and torch.equal(
        a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8)
    )


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CHUNK", 50)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("form", FORMS)
def test_files_are_edited_as_models_in_memory_are(tmp_path: Path, form: str, name: str) -> None:
    edit, path = EDITS[name], save(tmp_path / "model", form)
    before = digests(tmp_path)
    out = tmp_path / ("out" + (path.suffix if form.startswith("m.") else ""))
    done = edit(path, out=out)
    assert digests(tmp_path).items() >= before.items()
    read, written = load(path), load(out)
    expected = edit(read)
    assert written.keys() == read.keys()
    for key, value in expected.items():
        assert same_bits(written[key], value), key
    changed = {k for k, x in expected.items() if not same_bits(x, read[k])}
    assert changed
    assert done.path == str(out)
    counts = {t.key: t for t in done.tensors}
    # A tied weight is one: it goes by the name that it is listed by.
    assert {k for k in changed if k in counts} | {"tied.head.weight"} >= changed
    for key, tensor in counts.items():
        assert tensor.n_changed == int((expected[key] != read[key]).sum())
        assert tensor.n_zeros == int((expected[key] == 0).sum())
        assert tensor.shape == tuple(read[key].shape)
        assert tensor.size == read[key].numel()
    if out.is_dir():
        names = {p.name for p in (path if path.is_dir() else path.parent).iterdir()}
        assert {p.name for p in out.iterdir()} >= {n for n in names if "index" in n or "w-" in n}
        assert form == "index" or {p.name for p in out.iterdir()} == names
    if is_torch(form):
        assert written["tied.head.weight"].data_ptr() == written["tied.body.weight"].data_ptr()
    for file in [out] if out.is_file() else out.glob("*.safetensors"):
        if file.suffix == ".safetensors":
            with safetensors.safe_open(file, "pt") as opened:
                assert opened.metadata() == {"format": "pt", "note": "kept"}


@pytest.mark.parametrize("form", ["m.safetensors", "m.pt", "shards", "torch shards"])
def test_an_interrupt_leaves_nothing(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "model", form)
    before = digests(tmp_path)
    seen: list[str] = []

    def interrupted(self: Any, tensor: Any) -> Iterator[Any]:
        seen.append(tensor.key)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return raw_chunks(self, tensor)

    raw_chunks = writing._Writer.raw_chunks
    monkeypatch.setattr(writing._Writer, "raw_chunks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ps.prune(path, 0.5, out=tmp_path / ("out" + (path.suffix if "m." in form else "")))
    assert len(seen) == 7
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert digests(tmp_path) == before


def test_an_output_that_exists_stays_unless_it_may_go(tmp_path: Path) -> None:
    path = save(tmp_path / "model", "m.safetensors")
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"prune: 'out' must be .*which exists.*overwrite=True"):
        ps.prune(path, 0.5, out=out)
    assert out.read_bytes() == b"precious"
    ps.prune(path, 0.5, out=out, overwrite=True)
    assert load(out).keys() == state().keys()
    for target in (path, tmp_path / "link.safetensors"):
        if target != path:
            target.symlink_to(path)
        with pytest.raises(ValueError, match="which is one of the inputs"):
            ps.prune(path, 0.5, out=target, overwrite=True)
    folder = save(tmp_path / "folder", "shards")
    with pytest.raises(ValueError, match="which is one of the inputs"):
        ps.remove_traps(folder, out=folder)
    shard = folder / "w-00001-of-00002.safetensors"
    with pytest.raises(ValueError, match="which is one of the inputs"):
        ps.svd_smoothing(folder, 0.5, out=shard, overwrite=True)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({}, "'out' must be given for a model in files, got None"),
        ({"out": "x.pt", "inplace": True}, "'inplace' must be False for a model in files"),
        ({"out": ""}, "'out' must not be empty"),
        ({"out": "m.safetensor"}, "'out' must be a file or a new folder"),
        ({"out": "x.pt", "progress": "no"}, "'progress' must be"),
    ],
)
def test_where_files_can_go(tmp_path: Path, where: dict[str, Any], words: str) -> None:
    path = save(tmp_path / "model", "m.safetensors")
    if where.get("out"):
        where = {**where, "out": tmp_path / where["out"]}
    with pytest.raises(ValueError, match=f"svd_smoothing: {words}"):
        ps.svd_smoothing(path, **where)


def test_what_goes_with_a_model_in_memory() -> None:
    with pytest.raises(ValueError, match=r"prune: 'out' must be None for a model in memory.*Hint"):
        ps.prune(state(), 0.5, out="new.pt")
    with pytest.raises(ValueError, match="prune: 'overwrite' must come with out"):
        ps.prune(state(), 0.5, overwrite=True)
    with pytest.raises(TypeError, match="prune: 'overwrite' must be a bool"):
        ps.prune(state(), 0.5, overwrite=1)


def test_what_cannot_be_written_back_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", **{"fc.weight": np.ones((9, 8))})
    with pytest.raises(ValueError, match=r"must be of a format that is written, got .*m\.npz'"):
        ps.prune(tmp_path / "m.npz", 0.5, out=tmp_path / "out.safetensors")
    with pytest.raises(FileNotFoundError, match="prune: 'model' must exist"):
        ps.prune(tmp_path / "m.pt", 0.5, out=tmp_path / "out.pt")
    low = {"fc.weight": torch.ones(16, 16).to(torch.float8_e4m3fn), "a.weight": torch.ones(9, 9)}
    st.save_file(low, tmp_path / "low.safetensors")
    with pytest.raises(ps.FormatError, match=r"has dtype F8_E4M3, which cannot be edited"):
        ps.prune(tmp_path / "low.safetensors", 0.5, out=tmp_path / "out.safetensors")
    packed = {
        "fc.qweight": torch.zeros(2, 16, dtype=torch.int32),
        "fc.qzeros": torch.zeros(1, 2, dtype=torch.int32),
        "fc.scales": torch.ones(1, 16).half(),
        "fc.g_idx": torch.zeros(16, dtype=torch.int32),
        "a.weight": torch.randn(9, 9),
    }
    (tmp_path / "gptq").mkdir()
    st.save_file(packed, tmp_path / "gptq" / "model.safetensors")
    told = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": -1}}
    (tmp_path / "gptq" / "config.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"'model' must hold its weights as floats, got 'fc.weigh"):
        ps.prune(tmp_path / "gptq", 0.5, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    ps.prune(tmp_path / "gptq", 0.5, out=tmp_path / "out", layers="a")
    written = load(tmp_path / "out")
    assert torch.equal(written["fc.qweight"], packed["fc.qweight"])
    assert int((written["a.weight"] == 0).sum()) == 40


def test_a_real_model_is_loaded_after_it(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=20, max_position_embeddings=12,
    )  # fmt: skip
    model = transformers.BertForMaskedLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "model", max_shard_size="5KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    ps.prune(tmp_path / "model", 0.5, out=tmp_path / "pruned")
    pruned = transformers.BertForMaskedLM.from_pretrained(
        tmp_path / "pruned", local_files_only=True, dtype="auto"
    )
    weight = pruned.bert.encoder.layer[1].output.dense.weight
    assert weight.dtype == torch.bfloat16
    assert int((weight == 0).sum()) == weight.numel() // 2
    expected = ps.prune(model, 0.5)
    for key, value in pruned.state_dict().items():
        assert same_bits(value, expected[key]), key


# --- rounding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_values_beyond_the_range_become_the_largest_number(dtype: str) -> None:
    largest = torch.finfo(getattr(torch, dtype)).max
    values = np.array([np.inf, -np.inf, 1.7e308, largest, 1.0])
    assert within_range(values, dtype).tolist() == [
        largest, -largest, min(1.7e308, largest), largest, 1.0,
    ]  # fmt: skip
    assert np.isnan(within_range(np.array([np.nan]), dtype)).all()


@pytest.mark.parametrize(("dtype", "step"), [("bfloat16", 2.0**-8), ("float16", 2.0**-11)])
def test_weights_in_memory_are_rounded_once(dtype: str, step: float) -> None:
    W = torch.zeros(2, 3, dtype=getattr(torch, dtype))
    # Just above the middle of two numbers, which float32 in between would make the middle.
    write(W, np.full((2, 3), 1.0 + step + 2.0**-40))
    assert W.tolist() == [[1.0 + 2.0 * step] * 3] * 2
