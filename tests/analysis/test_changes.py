"""What a difference of two models is called: unchanged, rounding only, noise, low rank, full."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from truth import cases

import pyspectra as ps
from pyspectra.weights.grid import grid_steps
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


def integers(W: Array, bits: int, axis: int | None, even: bool) -> Array:
    """Round to integers times a scale, of the whole, of each row or of each column."""
    low, high = W.min(axis=axis, keepdims=True), W.max(axis=axis, keepdims=True)
    if even:
        high = np.maximum(high, -low)
        low = -high
    step = (high - low) / (2**bits - 2)
    return ((np.round((W - low) / step) - (2 ** (bits - 1) - 1)) * step + (high + low) / 2).astype(
        "f4"
    )


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("even", [True, False])
def test_integers_times_a_scale_are_rounding(bits: int, axis: int | None, even: bool) -> None:
    base = weights(bits)
    found = verdict({k: integers(W, bits, axis, even) for k, W in base.items()}, base)
    assert found.label == "rounding only", found.text
    assert "integers times a scale" in found.text


def test_groups_of_a_row_have_scales_of_their_own() -> None:
    W = np.random.default_rng(0).standard_normal((60, 256)).astype("f4")
    rounded = integers(W.reshape(-1, 64), 4, 1, even=True).reshape(W.shape)
    assert verdict({"w.weight": rounded}, {"w.weight": W}).label == "rounding only"
    rounded[7, 9] += 0.4 * np.ptp(W[7, :64]) / 14  # from one side of the middle to the other
    assert verdict({"w.weight": rounded}, {"w.weight": W}).label != "rounding only"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shape", [(32, 16), (64, 64), (40, 400)])
def test_numbers_that_are_no_integers_lie_on_no_grid(seed: int, shape: tuple[int, int]) -> None:
    W = np.random.default_rng(seed).standard_normal(shape)
    assert grid_steps(W) is None
    assert grid_steps(bf16(W.astype("f4")).astype(float)) is None


def test_a_lora_that_was_merged_and_rounded_to_8_bits_keeps_its_rank() -> None:
    base = weights(1)
    rng = np.random.default_rng(5)
    tuned = {}
    for k, W in base.items():
        n, m = W.shape
        change = rng.standard_normal((n, 4)) @ rng.standard_normal((4, m))
        change *= 0.5 * np.linalg.norm(W) / np.linalg.norm(change)
        tuned[k] = integers((W + change).astype("f4"), 8, 1, even=True)
    report = ps.analyze(tuned, base_model=base)
    assert report.verdict.label == "low rank", report.verdict.text
    assert {row["change_rank"] for row in report.rows()} == {4}


@pytest.mark.parametrize("stored", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", ["digits_wide-0", "digits_wide-100", *cases.TICKETS])
def test_rounding_makes_no_low_rank_of_a_full_change(name: str, stored: str) -> None:
    """What sinks below the rounding one direction after the other ends without a gap."""
    run, _, seed = name.rpartition("-")
    before, after = cases.state(f"{run}_before-{seed}"), cases.state(name)
    for share in (0.02, 0.05, 0.2):
        tuned = {k: (W + share * (after[k] - W)).astype("f4") for k, W in before.items()}
        kept = {k: bf16(W) if stored == "bfloat16" else integers(W, 8, 1, even=True)
                for k, W in tuned.items()}  # fmt: skip
        found = verdict(kept, before)
        assert found.label != "low rank", (share, found.text)


def test_a_trained_head_on_a_frozen_body_is_what_changed(tmp_path: Path) -> None:
    base = weights()
    rng = np.random.default_rng(0)
    base["head.weight"] = rng.standard_normal((3, 64)).astype("f4")
    tuned = base | {"head.weight": base["head.weight"] * 1.1}
    found = verdict(tuned, base)
    assert found.label == "cannot be judged"
    assert "only layers with fewer eigenvalues than 'min_evals' changed" in found.text
    assert "head 0.1." in found.text
    assert (found.n_moved, found.n_unchanged) == (1, 6)
    report = ps.analyze(tuned, base_model=base)
    assert "changed by 0.1 of its norm" in report.skipped[-1].reason
    wide = rng.standard_normal((48, 64)).astype("f4")
    learned = (wide + np.outer(rng.standard_normal(48), rng.standard_normal(64))
               + 0.3 * rng.standard_normal((48, 64))).astype("f4")  # fmt: skip
    report = ps.analyze(tuned | {"top.weight": learned}, base_model=base | {"top.weight": wide})
    assert report.verdict.label == "full"
    assert "1 layer with fewer eigenvalues than 'min_evals' changed, too: head 0.1." in (
        report.verdict.text
    )
    half = {k: bf16(W) for k, W in base.items()}
    assert verdict(half, base).label == "rounding only"
    broken = base | {"head.weight": np.full((3, 64), np.nan, np.float32)}
    report = ps.analyze(broken, base_model=base)
    report.save(tmp_path / "report.npz")
    assert ps.Report.load(tmp_path / "report.npz") == report
    assert report.verdict.n_moved == 0


def test_a_file_of_lora_updates_tells_their_ranks() -> None:
    rng = np.random.default_rng(0)
    halves = {}
    for i, rank in enumerate((4, 4, 16)):
        halves[f"block.{i}.lora_A.weight"] = rng.standard_normal((rank, 64)).astype("f4")
        halves[f"block.{i}.lora_B.weight"] = rng.standard_normal((80, rank)).astype("f4")
    report = ps.analyze(halves, min_evals=1)
    assert report.verdict.label == "low rank"
    assert report.verdict.text.startswith("Low rank: 3 LoRA updates of ranks 4 to 16.")
    assert [row["matrix_rank"] for row in report.rows()] == [4, 4, 16]
    small = ps.analyze(halves)
    assert small.verdict.label == "low rank"
    assert "3 LoRA updates of ranks 4 to 16." in small.verdict.text
    assert [s.reason for s in small.skipped if s.skip.code == "small_update"] == 2 * [
        "a LoRA update of rank 4: fewer eigenvalues than min_evals = 8"
    ]
    both = ps.analyze(halves | cases.TRAINED["digits_wide-0"](), min_evals=1).verdict
    assert both.label == "typical"
    assert "3 LoRA updates of ranks 4 to 16." in both.text


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
