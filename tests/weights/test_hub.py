"""Names of the hub are read from the local cache, and what is not there says how to get it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import pyspectra as ps

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hf" / "hub"


def download(cache: Path, name: str, commit: str = COMMIT, *, ref: bool = True) -> Path:
    """Lay a model out as the hub's tools do: blobs, links to them, a reference to the commit."""
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    blob = folder / "blobs" / "aa11"
    save_file({"fc.weight": np.random.default_rng(0).standard_normal((40, 30))}, blob)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(blob)
    if ref:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
    return snapshot


@pytest.mark.parametrize("name", ["org/model", "gpt2"])
def test_a_name_is_read_from_the_cache(cache: Path, name: str) -> None:
    download(cache, name)
    report = ps.analyze(name)
    assert (report.source, [row.name for row in report]) == (name, ["fc"])


def test_the_reference_says_which_revision(cache: Path) -> None:
    download(cache, "org/model", "a" * 40, ref=False)
    assert len(ps.open_weights("org/model")) == 1  # the only one
    wanted = download(cache, "org/model", "b" * 40)
    assert all(wanted in file.parents for file in ps.open_weights("org/model").files)
    (cache / "models--org--model" / "refs" / "main").write_text("../../../elsewhere")
    with pytest.raises(FileNotFoundError):
        ps.open_weights("org/model")


@pytest.mark.parametrize(
    ("variable", "below"), [("HF_HUB_CACHE", ""), ("XDG_CACHE_HOME", "huggingface/hub")]
)
def test_the_cache_may_lie_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, below: str
) -> None:
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv(variable, str(tmp_path / "other"))
    download(tmp_path / "other" / below, "org/model")
    assert len(ps.open_weights("org/model")) == 1


def test_a_folder_of_that_name_comes_first(cache: Path, tmp_path: Path) -> None:
    download(cache, "org/model")
    (tmp_path / "org" / "model").mkdir(parents=True)
    save_file({"up.weight": np.ones((9, 8))}, tmp_path / "org" / "model" / "model.safetensors")
    assert [layer.name for layer in ps.open_weights("org/model")] == ["up"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("org/model", "`hf download org/model`"),
        ("https://huggingface.co/org/model", "`hf download org/model`"),
        ("hf://org/model", "`hf download org/model`"),
        (
            "https://huggingface.co/org/model/resolve/main/a/model.safetensors?download=true",
            "`hf download org/model a/model.safetensors`",
        ),
        ("https://example.org/model.safetensors", "`curl -LO URL`"),
        ("s3://bucket/model.safetensors", "nothing is downloaded"),
        ("runs/model.safetensors", "paths are relative to"),
        ("modle.safetensors", "did you mean 'model.safetensors'?"),
    ],
)
def test_what_is_missing_says_how_to_get_it(tmp_path: Path, source: str, words: str) -> None:
    save_file({"up.weight": np.ones((9, 8))}, tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError) as caught:
        ps.analyze(source)
    assert words in str(caught.value)
    assert ("hf download" in str(caught.value)) == ("hf download" in words)
    assert source in str(caught.value)
