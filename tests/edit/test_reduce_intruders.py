"""Reduction of intruder dimensions, against its definition and against PEFT."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import real_models
import safetensors.torch as st
import torch
import trained_lora

import pyspectra as ps
from pyspectra.spectra import intruders as module

rng = np.random.default_rng(0)
W = rng.standard_normal((60, 40))
B, A = rng.standard_normal((60, 3)), rng.standard_normal((3, 40))
BASE = {
    "fc.weight": W,
    "other.weight": rng.standard_normal((30, 20)),
    "conv.weight": np.ones((3, 3, 2, 2)),
}
ADAPTER = {"fc.lora_A.weight": A, "fc.lora_B.weight": B}


def reduced(before: Any, after: Any, factor: float, k: int = 10, epsilon: float = 0.5) -> Any:
    """The definition, by whole decompositions."""
    known = np.linalg.svd(before, full_matrices=False)[0]
    U, s, Vt = np.linalg.svd(after, full_matrices=False)
    found = np.flatnonzero(np.abs(U[:, :k].T @ known).max(axis=1) < epsilon)
    return after + (factor - 1.0) * (U[:, found] * s[found]) @ Vt[found]


def truncated(X: Any, rank: int) -> Any:
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    return (U[:, :rank] * s[:rank]) @ Vt[:rank]


@pytest.mark.parametrize("large", [module.LARGE, 32])
@pytest.mark.parametrize("factor", [0.0, 0.3, 0.75])
def test_of_a_tuned_model(monkeypatch: pytest.MonkeyPatch, factor: float, large: int) -> None:
    monkeypatch.setattr(module, "LARGE", large)
    tuned = {**BASE, "fc.weight": W + B @ A}
    before = copy.deepcopy(tuned)
    out = ps.reduce_intruders(BASE, tuned, factor=factor)
    expected = reduced(W, W + B @ A, factor)
    np.testing.assert_allclose(out["fc.weight"], expected, atol=1e-7 * np.abs(W).max())
    assert np.abs(expected - tuned["fc.weight"]).max() > 0.1
    for key, value in before.items():
        assert np.array_equal(tuned[key], value)
        assert key == "fc.weight" or np.array_equal(out[key], value)
        assert not np.shares_memory(out[key], tuned[key])
    assert ps.reduce_intruders(BASE, tuned, factor=factor, inplace=True) is tuned
    assert np.array_equal(tuned["fc.weight"], out["fc.weight"])


def test_of_an_adapter_it_is_the_best_of_its_rank() -> None:
    out = ps.reduce_intruders(BASE, ADAPTER, factor=0.25)
    new_A, new_B = out["fc.lora_A.weight"], out["fc.lora_B.weight"]
    assert new_A.shape == A.shape
    assert new_B.shape == B.shape
    expected = truncated(reduced(W, W + B @ A, 0.25) - W, 3)
    np.testing.assert_allclose(new_B @ new_A, expected, atol=1e-6)
    lengths = np.linalg.norm(new_B, axis=0), np.linalg.norm(new_A, axis=1)
    np.testing.assert_allclose(*lengths)  # the two halves share the singular values
    assert np.all(np.diff(lengths[0]) <= 0)


def test_layers_that_are_stored_with_their_inputs_first() -> None:
    """What leads in the tuned weight is a direction of the base on one of its sides only."""
    known = np.linalg.svd(W)[0][:, 0]
    new = rng.standard_normal(40)
    update = 40.0 * np.outer(known, new / np.linalg.norm(new))
    base, tuned = {"embed_tokens.weight": W}, {"embed_tokens.weight": W + update}
    out = ps.reduce_intruders(base, tuned, factor=0.5)["embed_tokens.weight"]
    np.testing.assert_allclose(out.T, reduced(W.T, (W + update).T, 0.5), atol=1e-7)
    assert np.array_equal(reduced(W, W + update, 0.5), W + update)
    linear = ps.reduce_intruders({"fc.weight": W}, {"fc.weight": W + update}, factor=0.5)
    assert np.array_equal(linear["fc.weight"], W + update)


def test_without_intruders_everything_stays_bit_by_bit() -> None:
    small = {"fc.lora_A.weight": 1e-3 * A, "fc.lora_B.weight": B}
    for tuned in (small, {**BASE, "fc.weight": W + 1e-3}, BASE):
        out = ps.reduce_intruders(BASE, tuned, factor=0.0)
        for key, value in tuned.items():
            assert np.array_equal(out[key], value)


def test_what_is_refused() -> None:
    for factor in (1.0, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"reduce_intruders: 'factor' must be in \[0, 1\)"):
            ps.reduce_intruders(BASE, ADAPTER, factor=factor)
    with pytest.raises(ValueError, match="'top_k' must be a positive integer"):
        ps.reduce_intruders(BASE, ADAPTER, top_k=0)
    with pytest.raises(ValueError, match="'tuned' must share a layer with 'base'"):
        ps.reduce_intruders(BASE, {"x.weight": W})
    with pytest.raises(TypeError, match="reduce_intruders: 'tuned' must be a torch module"):
        ps.reduce_intruders(BASE, 3)
    with pytest.raises(TypeError, match="reduce_intruders: 'base' must be a torch module"):
        ps.reduce_intruders(3, BASE)
    with pytest.raises(FileNotFoundError, match="reduce_intruders: 'base' must exist"):
        ps.reduce_intruders("not.there.pt", BASE)


# --- a LoRA that was trained ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> Any:
    return trained_lora.minilm_with_lora()


def products(state: Any, adapter: str) -> dict[str, np.ndarray]:
    """B @ A of every layer, by the name of its module."""
    ends = f".lora_A.{adapter}.weight", f".lora_B.{adapter}.weight"
    return {
        key.removesuffix(ends[0]): (
            state[key.removesuffix(ends[0]) + ends[1]].double() @ state[key].double()
        ).numpy()
        for key in state
        if key.endswith(ends[0])
    }


def test_equal_to_peft_on_every_layer(trained: Any) -> None:
    from peft.tuners.lora.intruders import reduce_intruder_dimension

    theirs = copy.deepcopy(trained)
    reduce_intruder_dimension(theirs, mitigation_lambda=0.3, logging_sink=None)
    expected = products(theirs.state_dict(), "intruder_reduced")
    state = trained.state_dict()
    before = {key: value.clone() for key, value in state.items()}
    out = ps.reduce_intruders(trained, trained, factor=0.3)
    found, old = products(out, "default"), products(before, "default")
    assert found.keys() == expected.keys()
    assert len(found) == 12
    for name, product in expected.items():
        size = np.linalg.norm(product)
        # PEFT decomposes in float32. In float64 it agrees to 1e-6.
        assert np.linalg.norm(found[name] - product) < 1e-4 * size
        assert np.linalg.norm(old[name] - product) > 1e-2 * size
    for key, value in before.items():
        assert torch.equal(state[key], value)
        assert ".lora_" in key or torch.equal(out[key], value)


def test_an_adapter_in_files(trained: Any, tmp_path: Any) -> None:
    import peft
    import transformers

    trained.save_pretrained(tmp_path / "adapter")
    done = ps.reduce_intruders(
        real_models.minilm_dir(), tmp_path / "adapter", factor=0.5, out=tmp_path / "calm"
    )
    assert len(done.tensors) == 24
    names = {p.name for p in (tmp_path / "adapter").iterdir() if p.suffix != ".md"}
    assert {p.name for p in (tmp_path / "calm").iterdir()} == names
    expected = products(ps.reduce_intruders(trained, trained, factor=0.5), "default")
    base = transformers.AutoModel.from_pretrained(real_models.minilm_dir(), local_files_only=True)
    with warnings.catch_warnings():  # one library calls what the other has deprecated
        warnings.simplefilter("ignore", FutureWarning)
        loaded = peft.PeftModel.from_pretrained(base, tmp_path / "calm").state_dict()
    for name, product in products(loaded, "default").items():
        np.testing.assert_allclose(product, expected[name], atol=1e-5 * np.abs(product).max())
    with pytest.raises(ValueError, match=r"'out' must be .* which is one of the inputs"):
        ps.reduce_intruders(
            tmp_path / "adapter" / "adapter_model.safetensors", tmp_path / "calm",
            out=tmp_path / "adapter" / "adapter_model.safetensors", overwrite=True,
        )  # fmt: skip


def test_a_tuned_model_in_files(tmp_path: Any) -> None:
    tensors = {key: torch.from_numpy(value).float() for key, value in BASE.items()}
    tuned = {**tensors, "fc.weight": torch.from_numpy(W + B @ A).bfloat16()}
    st.save_file(tensors, tmp_path / "base.safetensors")
    st.save_file(tuned, tmp_path / "tuned.safetensors")
    done = ps.reduce_intruders(
        tmp_path / "base.safetensors",
        tmp_path / "tuned.safetensors",
        out=tmp_path / "new.safetensors",
    )
    assert [t.key for t in done.tensors] == ["fc.weight"]
    written = st.load_file(tmp_path / "new.safetensors")
    for key, value in ps.reduce_intruders(tensors, tuned).items():
        assert torch.equal(written[key], value)
        assert written[key].dtype == tuned[key].dtype
