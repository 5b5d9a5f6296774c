"""What a difference of two models is called: unchanged, rounding only, noise, low rank, full."""

from __future__ import annotations

import math

import numpy as np
import pytest
from truth import cases

import pyspectra as ps
from pyspectra.weights.rounding import change_of, narrowest_type

Array = np.ndarray


def weights(seed: int = 0, layers: int = 6) -> dict[str, Array]:
    """Layers of the scales and shapes of a transformer; the rows of one differ in scale."""
    rng = np.random.default_rng(seed)
    out = {}
    for i in range(layers):
        shape = [(96, 64), (64, 96), (80, 80)][i % 3]
        out[f"block.{i}.weight"] = (rng.standard_normal(shape) / math.sqrt(shape[1])).astype("f4")
    out["block.0.weight"] *= np.exp(2 * rng.standard_normal((96, 1))).astype("f4")
    return out


def bf16(W: Array) -> Array:
    """Rounded to nearest, as float32."""
    bits = W.astype(np.float32).view(np.uint32).astype(np.uint64)
    return (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).astype(np.uint32).view(np.float32)


def cut(W: Array) -> Array:
    """Cut off after the digits of bfloat16."""
    return (W.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def verdict(tuned: dict[str, Array], base: dict[str, Array]) -> ps.Verdict:
    return ps.analyze(tuned, base_model=base).verdict


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("way", ["float32", "bfloat16", "cut", "half", "both"])
def test_a_round_trip_is_rounding_only(seed: int, way: str) -> None:
    base = weights(seed)
    if way == "half":
        tuned = {k: W.astype(np.float16) for k, W in base.items()}
    elif way == "bfloat16":
        torch = pytest.importorskip("torch")
        tuned = {k: torch.from_numpy(W).bfloat16() for k, W in base.items()}
    else:
        tuned = {k: (cut if way == "cut" else bf16)(W) for k, W in base.items()}
    if way == "both":  # one rounded, the other cut off
        base = {k: cut(W) for k, W in base.items()}
    found = verdict(tuned, base)
    assert found.label == "rounding only"
    assert (found.n_rounding, found.n_moved, found.n_failed) == (6, 0, 0)
    assert "by more than one spacing" in found.text


def test_untouched_layers_of_a_rounded_file_have_not_moved() -> None:
    base = weights(layers=27)
    tuned = {k: bf16(W) for k, W in base.items()}
    rng = np.random.default_rng(9)
    for i in (3, 10, 20):
        W = base[f"block.{i}.weight"]
        u, v = rng.standard_normal((W.shape[0], 2)), rng.standard_normal((2, W.shape[1]))
        step = 0.1 * np.linalg.norm(W) * (u @ v) / np.linalg.norm(u @ v)
        step += 0.1 * np.linalg.norm(W) * rng.standard_normal(W.shape) / math.sqrt(W.size)
        tuned[f"block.{i}.weight"] = bf16(W + step)
    report = ps.analyze(tuned, base_model=base)
    assert [layer.name for layer in report.layers] == ["block.3", "block.10", "block.20"]
    assert report.verdict.label == "full"
    assert report.verdict.n_rounding == 24
    assert "24 layers changed by rounding alone." in report.verdict.text
    for row in report.rows():
        assert row["change"] == pytest.approx(0.1 * math.sqrt(2), rel=0.1)
        assert row["change_rounding"] < 0.01
        assert row["change_kind"] == "full"


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", [1, 8])
def test_a_merged_lora_is_of_its_rank(stored: str, rank: int) -> None:
    base = weights(4)
    rng = np.random.default_rng(5)
    if stored == "bfloat16":
        base = {k: bf16(W) for k, W in base.items()}
    tuned = dict(base)
    for k in ("block.1.weight", "block.2.weight", "block.4.weight"):
        n, m = base[k].shape
        change = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, m)) * 0.02
        tuned[k] = base[k] + change.astype("f4")
        tuned[k] = bf16(tuned[k]) if stored == "bfloat16" else tuned[k]
    report = ps.analyze(tuned, base_model=base)
    assert report.verdict.label == "low rank", report.verdict.text
    assert {row["change_kind"] for row in report.rows()} == {f"low rank {rank}"}
    assert f"have rank {rank}, as LoRA makes them" in report.verdict.text
    assert report.verdict.n_unchanged == 3
    assert "3 layers did not change." in report.verdict.text


@pytest.mark.parametrize("size", [0.003, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_noise_is_noise(size: float, seed: int) -> None:
    base = weights(seed)
    rng = np.random.default_rng([seed, 1])
    noisy = {k: W + size * W.std() * rng.standard_normal(W.shape) for k, W in base.items()}
    found = verdict({k: W.astype("f4") for k, W in noisy.items()}, base)
    assert found.label == "noise"
    assert found.n_moved == 6


@pytest.mark.parametrize("name", ["digits_wide-0", "digits_wide-100", *cases.TICKETS])
def test_what_training_changed_is_full(name: str) -> None:
    run, _, seed = name.rpartition("-")
    report = ps.analyze(cases.state(name), base_model=cases.state(f"{run}_before-{seed}"))
    assert report.verdict.label == "full"
    said = {"", "no structure detected", "too small to tell", "no power law"}
    assert {layer.warning for layer in report} <= said
    assert "over-trained" not in report.verdict.text
    assert "alpha" not in report.verdict.text


def test_nothing_is_called_a_change_that_is_none() -> None:
    base = weights()
    assert verdict(base, base).label == "unchanged"
    base["block.0.weight"] = np.full((96, 64), np.nan, np.float32)
    assert verdict(weights(), base).label == "cannot be judged"


def test_a_base_of_zeros_has_no_relative_change() -> None:
    W = weights()["block.2.weight"]
    (layer,) = ps.analyze({"w.weight": W}, base_model={"w.weight": np.zeros_like(W)}).layers
    assert layer.change is not None
    assert layer.change.relative == math.inf
    assert not layer.change.only_rounding


def test_a_saved_report_keeps_the_change(tmp_path) -> None:  # type: ignore[no-untyped-def]
    base = weights()
    tuned = {k: (1.01 * W).astype("f4") for k, W in base.items()}
    report = ps.analyze(tuned, base_model=base)
    report.save(tmp_path / "r.npz")
    again = ps.Report.load(tmp_path / "r.npz")
    assert again == report
    assert again.verdict.text == report.verdict.text


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_type_that_counts_is_the_narrowest(dtype: str) -> None:
    W = weights()["block.2.weight"].astype(dtype)
    assert narrowest_type(W.astype(float), dtype) == "float32"
    assert narrowest_type(bf16(W).astype(float), dtype) == "bfloat16"
    assert narrowest_type(W.astype(np.float16).astype(float), dtype) == "float16"
    assert narrowest_type(W.astype(float), "bfloat16") == "bfloat16"


def test_the_spacing_follows_each_entry_down_to_the_least() -> None:
    W = np.array([[1.0 + 2.0**-10, 2.0**-10], [1e-6, 0.0]])  # the first is no bfloat16
    half = W.astype(np.float16).astype(float)
    assert half[1, 0] != W[1, 0]  # among the subnormal numbers of float16
    assert change_of(half, W, ("float16", "float64"), (2, 2)).only_rounding
    off = half.copy()
    off[0, 1] += 2.0**-19  # two spacings there, of which float16 has 2^-20
    assert not change_of(off, half, ("float16", "float16"), (2, 2)).only_rounding
    assert np.abs(off - half).max() < 2.0**-10  # a spacing of the largest entry
