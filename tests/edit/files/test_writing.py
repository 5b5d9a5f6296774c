"""Models are written anew in the form that they have: a file, a folder, shards with an index."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch as st
import torch

from pyspectra.edit.files import check_target, open_checkpoint, write_checkpoint, writing
from pyspectra.errors import FormatError


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CHUNK", 4)


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(5, 3),
        "a.steps": torch.arange(7),
        "b.weight": torch.randn(4, 3).bfloat16(),
        "b.nan": torch.tensor([float("nan"), -0.0]).half(),
    }


def save(path: Path, form: str) -> Path:
    """Write the state in a form, and return what is to be opened."""
    tensors = state()
    halves = [dict(list(tensors.items())[:2]), dict(list(tensors.items())[2:])]
    if form in ("model.safetensors", "model.pt"):
        path = path / form
    (st.save_file if form.endswith("safetensors") else torch.save)(
        tensors, path
    ) if path.suffix else None
    if path.suffix:
        return path
    (path / "config.json").write_text('{"hidden_size": 3}')
    (path / "optimizer.pt").write_bytes(b"not a part of the model")
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text("{}")
    if form == "folder":
        st.save_file(tensors, path / "model.safetensors", {"format": "pt", "note": "x"})
    elif form == "torch folder":
        torch.save(tensors, path / "pytorch_model.bin")
    else:
        suffix, stem = ("bin", "pytorch_model") if "torch" in form else ("safetensors", "model")
        names = [f"{stem}-{i}-of-00002.{suffix}" for i in ("00001", "00002")]
        for name, half in zip(names, halves, strict=True):
            (torch.save if suffix == "bin" else st.save_file)(half, path / name)
        weight_map = {k: n for n, half in zip(names, halves, strict=True) for k in half}
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (path / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return path


FORMS = ("model.safetensors", "model.pt", "folder", "torch folder", "shards", "torch shards")


def load(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        return st.load_file(file)
    return dict(torch.load(file, weights_only=True))


def double(tensor: Any) -> Any:
    return [2.0 * tensor.read()] if tensor.key == "b.weight" else None


@pytest.mark.parametrize("form", FORMS)
def test_the_new_model_has_the_form_of_the_old_one(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    given = save(source, form)
    out = tmp_path / ("out" + given.suffix)
    model = open_checkpoint(given)
    done: list[str] = []
    write_checkpoint(check_target("f", out, [given], False), model, double, advance=done.append)
    assert sorted(done) == sorted(state())
    pairs = [(given, out)]
    if given.is_dir():
        left_out = {source / "optimizer.pt"}
        old = {p.relative_to(source) for p in source.rglob("*") if p not in left_out}
        assert old == {p.relative_to(out) for p in out.rglob("*")}
        for name in old:
            if name.suffix == ".json":
                assert (out / name).read_bytes() == (source / name).read_bytes()
        pairs = [(source / n, out / n) for n in old if n.suffix in (".safetensors", ".bin")]
    for before, after in pairs:
        a, b = load(before), load(after)
        assert set(a) == set(b)
        for key, value in a.items():
            assert b[key].dtype == value.dtype
            expected = 2 * value if key == "b.weight" else value
            bits = (expected, b[key])
            assert torch.equal(*(x.view(torch.uint8) for x in bits)), key
    if form == "folder":
        assert open_checkpoint(out).metadata == {"format": "pt", "note": "x"}


def test_shards_become_one_file_where_one_is_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    model = open_checkpoint(save(source, "shards"))
    write_checkpoint(check_target("f", tmp_path / "one.pt", [], False), model, lambda t: None)
    assert set(load(tmp_path / "one.pt")) == set(state())
    write_checkpoint(
        check_target("f", tmp_path / "out", [], False), model, lambda t: None, one_file=True
    )
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "model.safetensors", "config.json", "1_Pooling",
    }  # fmt: skip
    assert set(load(tmp_path / "out" / "model.safetensors")) == set(state())


def test_what_shares_memory_shares_it_in_the_new_file(tmp_path: Path) -> None:
    W = torch.randn(3, 4)
    torch.save({"in": W, "out": W, "other": W.clone()}, tmp_path / "a.pt")
    asked = []

    def values(tensor: Any) -> Any:
        asked.append(tensor.key)
        return iter(np.array_split(tensor.read() + 1.0, 2))

    write_checkpoint(
        check_target("f", tmp_path / "b.pt", [], False), open_checkpoint(tmp_path / "a.pt"), values
    )
    got = load(tmp_path / "b.pt")
    assert got["in"].data_ptr() == got["out"].data_ptr() != got["other"].data_ptr()
    assert torch.equal(got["in"], W + 1)
    assert asked == ["in", "other"]


@pytest.mark.parametrize("form", FORMS)
def test_what_goes_wrong_leaves_nothing(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    given = save(source, form)
    model = open_checkpoint(given)

    def fails(tensor: Any) -> Any:
        if tensor.key == "b.nan":
            raise KeyboardInterrupt
        return None

    target = check_target("f", tmp_path / ("out" + given.suffix), [given], False)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(target, model, fails)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_a_state_dict_with_more_than_tensors_stays_a_torch_file(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, 2), "version": 3}, tmp_path / "a.pt")
    model = open_checkpoint(tmp_path / "a.pt")
    with pytest.raises(FormatError, match="'version' is not a tensor"):
        write_checkpoint(
            check_target("f", tmp_path / "b.safetensors", [], False), model, lambda t: None
        )
    write_checkpoint(check_target("f", tmp_path / "b.pt", [], False), model, double)
    assert load(tmp_path / "b.pt")["version"] == 3
    with pytest.raises(ValueError, match=r"f: 'out' must be a file or a new folder, got .*inputs"):
        check_target("f", tmp_path / "a.pt", [tmp_path / "a.pt"], True)
