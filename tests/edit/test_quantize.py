"""Quantisation: each weight at the nearest point of the grid of its scale, and nothing else."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from golden import integer_grid as golden
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import integer_grid as ref
from torch import nn

import pyspectra as ps

# A float32 scale of others: one part in 2^24 of the weight, a few roundings.
FLOAT32_RTOL = 5e-7
# The order of a quotient and a product in float64.
ORDER_RTOL = 1e-14


def state(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "fc.weight": rng.standard_normal((20, 30)).astype(np.float32),
        "fc.bias": rng.standard_normal(20).astype(np.float32),
        "conv.weight": rng.standard_normal((6, 5, 3, 3)),
        "half.weight": rng.standard_normal((12, 10)).astype(np.float16),
        "embed.weight": rng.standard_normal((40, 8)).astype(np.float32),
    }


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("granularity", "block"), [("tensor", None), ("channel", None), ("block", 7), ("block", None)]
)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_are_those_of_the_reference(
    bits: int, granularity: str, block: int | None, symmetric: bool
) -> None:
    model = state()
    before = copy.deepcopy(model)
    out = ps.quantize(model, bits, granularity=granularity, block=block, symmetric=symmetric)
    for key, value in before.items():
        assert np.array_equal(model[key], value)
        assert out[key].dtype == value.dtype
        assert not np.shares_memory(out[key], model[key])
        if key in ("fc.bias", "embed.weight"):
            assert np.array_equal(out[key], value)
            continue
        wanted = ref.quantised(
            value.astype(float), bits, granularity, block=block or 128, symmetric=symmetric
        )
        # A last place of the stored type, where the order of operations is another.
        rtol = {np.float64: ORDER_RTOL, np.float32: 1.2e-7, np.float16: 1e-3}[value.dtype.type]
        assert out[key] == pytest.approx(wanted.astype(value.dtype), rel=rtol, abs=1e-15)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("mapping", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
def test_torchao_rounds_alike(bits: int, mapping: str, granularity: str) -> None:
    with np.load(golden.PATH) as stored:
        W, wanted = stored["W"], stored[f"{mapping} {granularity} {bits}"]
    block = golden.BLOCK if granularity == "block" else None
    out = ps.quantize(
        {"fc.weight": W}, bits, granularity=granularity, block=block,
        symmetric=mapping == "symmetric",
    )["fc.weight"]  # fmt: skip
    assert out == pytest.approx(wanted, rel=FLOAT32_RTOL)


def test_torch_rounds_alike() -> None:
    W = torch.from_numpy(state()["fc.weight"])
    for axis_scale, bits in ((W.abs().amax(1), 8), (W.abs().amax(1), 4)):
        most = 2 ** (bits - 1) - 1
        zeros = torch.zeros(len(W), dtype=torch.int32)
        wanted = torch.fake_quantize_per_channel_affine(W, axis_scale / most, zeros, 0, -most, most)
        out = ps.quantize({"fc.weight": W}, bits)["fc.weight"]
        assert out.numpy() == pytest.approx(wanted.numpy(), rel=FLOAT32_RTOL)


@given(
    hnp.arrays(np.float64, (3, 8), elements=st.floats(-1e300, 1e300, allow_subnormal=True)),
    st.integers(2, 8),
    st.sampled_from(["tensor", "channel", "block"]),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_what_holds_of_any_weights(
    W: np.ndarray, bits: int, granularity: str, symmetric: bool
) -> None:
    ways: dict[str, Any] = {"granularity": granularity, "symmetric": symmetric}
    if granularity == "block":
        ways["block"] = 3
    Q = ps.quantize({"w.weight": W}, bits, **ways)["w.weight"]
    assert np.isfinite(Q).all()
    assert (Q[W == 0] == 0).all()
    lines = {"tensor": [W.ravel()], "channel": list(W)}.get(
        granularity, [row[i : i + 3] for row in W for i in (0, 3, 6)]
    )
    rounded = {"tensor": [Q.ravel()], "channel": list(Q)}.get(
        granularity, [row[i : i + 3] for row in Q for i in (0, 3, 6)]
    )
    for w, q in zip(lines, rounded, strict=True):
        unit = np.abs(w).max() or 1.0
        assert len(np.unique(q)) <= 2**bits - symmetric
        low, high = min(w.min() / unit, 0.0), max(w.max() / unit, 0.0)
        step = 1 / (2 ** (bits - 1) - 1) if symmetric else (high - low) / (2**bits - 1)
        # Where both ends reach beyond the integers, an asymmetric end is clipped by half a step.
        reach = (0.5 if symmetric else 1.0) * step + 1e-12
        assert np.abs(w / unit - q / unit).max() <= reach
        if symmetric:
            assert np.abs(q).max() == np.abs(w).max()
    if np.abs(W).max() > 1e-290 or not W.any():  # quotients of subnormal numbers have few digits
        again = ps.quantize({"w.weight": Q}, bits, **ways)["w.weight"]
        assert again == pytest.approx(Q, rel=1e-9, abs=1e-12 * np.abs(Q).max())


def test_each_kind_has_the_channels_of_its_outputs() -> None:
    rng = np.random.default_rng(0)
    linear = rng.standard_normal((6, 8)) * np.logspace(0, 3, 6)[:, None]
    wanted = ref.quantised(linear, 3, "channel")
    conv = rng.standard_normal((6, 8, 2)) * np.logspace(0, 3, 6)[:, None, None]
    module = nn.ModuleDict(
        {
            "linear": nn.Linear(8, 6, bias=False),
            "up": nn.ConvTranspose1d(8, 6, 2, bias=False),
            "embed": nn.Embedding(6, 8),
        }
    ).double()
    with torch.no_grad():
        module["linear"].weight.copy_(torch.from_numpy(linear))
        module["embed"].weight.copy_(torch.from_numpy(linear))
        module["up"].weight.copy_(torch.from_numpy(conv.transpose(1, 0, 2).copy()))
    out = ps.quantize(module, 3, layers=["linear", "up", "embed"])
    assert out["linear.weight"].numpy() == pytest.approx(wanted, rel=ORDER_RTOL)
    assert out["embed.weight"].numpy() == pytest.approx(wanted, rel=ORDER_RTOL)
    wanted = ref.quantised(conv, 3, "channel").transpose(1, 0, 2)
    assert out["up.weight"].numpy() == pytest.approx(wanted, rel=ORDER_RTOL)
    experts = rng.standard_normal((3, 70, 80)) * np.array([1, 10, 100])[:, None, None]
    out = ps.quantize({"mlp.experts.down_proj": experts}, 4)["mlp.experts.down_proj"]
    for W, rounded in zip(experts, out, strict=True):
        assert rounded == pytest.approx(ref.quantised(W, 4, "channel"), rel=ORDER_RTOL)


def test_bits_of_each_layer_and_names() -> None:
    model = state()
    out = ps.quantize(model, {"fc.weight": 2, "conv": 3, "embed": 4})
    for key, bits in {"fc.weight": 2, "conv.weight": 3, "embed.weight": 4}.items():
        wanted = ps.quantize(model, bits, layers=key)
        assert np.array_equal(out[key], wanted[key])
        assert len(np.unique(out[key][0])) <= 2**bits - 1
    assert np.array_equal(out["half.weight"], model["half.weight"])


def test_tied_and_narrow_weights_of_a_module() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(16, 24, bias=False), "b": nn.Linear(16, 24, bias=False)})
    model["b"].weight = model["a"].weight
    model = model.to(torch.bfloat16)
    before = model["a"].weight.detach().clone()
    out = ps.quantize(model, 4)
    assert out["a.weight"].data_ptr() == out["b.weight"].data_ptr() != before.data_ptr()
    assert out["a.weight"].dtype == torch.bfloat16
    assert torch.equal(model["a"].weight, before)
    wanted = torch.from_numpy(ref.quantised(before.double().numpy(), 4, "channel"))
    assert torch.equal(out["a.weight"], wanted.to(torch.bfloat16))
    assert ps.quantize(model, 4, inplace=True) is model
    assert torch.equal(model["b"].weight, out["a.weight"])


def test_what_is_not_finite_stays() -> None:
    broken = np.full((10, 10), np.nan)
    out = ps.quantize({"a.weight": broken, "b.weight": np.zeros((4, 4))}, 4)
    assert np.isnan(out["a.weight"]).all()
    assert not out["b.weight"].any()


@pytest.mark.parametrize(
    ("bits", "options", "message"),
    [
        (1, {}, "'bits' must be an integer from 2 to 8, got 1"),
        (4.0, {}, "'bits' must be an integer from 2 to 8"),
        ({"fc": 9}, {}, "'bits' must be an integer from 2 to 8, got 9"),
        ({3: 4}, {}, "'bits' must hold numbers by name, got 3"),
        ({"fd": 4}, {}, "'bits' must name layers of the model, got 'fd'"),
        (4, {"granularity": "row"}, "'granularity' must be one of"),
        (4, {"block": 8}, "'block' must be None unless granularity='block', got 8"),
        (4, {"granularity": "block", "block": 0}, "'block' must be a positive integer"),
        (4, {"symmetric": "yes"}, "'symmetric' must be a bool"),
    ],
)
def test_arguments_are_checked(bits: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"quantize: {message}"):
        ps.quantize(state(), bits, **options)


@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_longer_than_a_channel_are_channels(symmetric: bool) -> None:
    whole = ps.quantize(state(), 4, symmetric=symmetric)
    longer = ps.quantize(state(), 4, granularity="block", block=10**30, symmetric=symmetric)
    assert all(np.array_equal(longer[key], value) for key, value in whole.items())
