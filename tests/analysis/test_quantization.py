"""Sensitivity to quantisation: each number by its definition, and the bits that follow."""

import copy
import io
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import integer_grid as ref
from rich.console import Console
from safetensors.numpy import save_file
from torch import nn

import pyspectra as ps
from pyspectra.analysis.bit_choice import LayerSensitivity
from pyspectra.analysis.quantization_result import QuantizationSensitivity

# Singular values of two routes, of matrices of some 40 rows.
RTOL = 1e-9
# A float32 output of a small network, twice.
OUTPUT_RTOL = 1e-5


def heavy(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "a.fc.weight": rng.standard_t(3, (60, 40)),
        "b.conv.weight": rng.standard_t(4, (30, 20, 2, 2)),
        "b.bias": rng.standard_normal(30),
        "embed.weight": rng.standard_normal((50, 30)),
    }


def spectra(W: np.ndarray) -> list[np.ndarray]:
    """Return the singular values of each matrix, the largest first."""
    if W.ndim == 2:
        return [np.linalg.svd(W, compute_uv=False)]
    places = itertools.product(*map(range, W.shape[2:]))
    return [np.linalg.svd(W[(slice(None), slice(None), *p)], compute_uv=False) for p in places]


@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
def test_numbers_of_weights_are_those_of_their_definitions(granularity: str) -> None:
    model = heavy()
    block = 16 if granularity == "block" else None
    ways: dict[str, Any] = {"granularity": granularity, "block": block}
    found = ps.quantization_sensitivity(model, (4, 8, 4), **ways)
    assert [(row.key, row.bits) for row in found] == [
        (key, bits) for key in ("a.fc.weight", "b.conv.weight") for bits in (8, 4)
    ]
    report = ps.analyze(model, goodness=False)
    for row in found:
        W = model[row.key]
        rounded = ref.quantised(W, row.bits, granularity, block=block or 128)
        before, after, noise = spectra(W), spectra(rounded), spectra(W - rounded)
        assert row.error == pytest.approx(np.linalg.norm(W - rounded) / np.linalg.norm(W), rel=RTOL)
        top = np.sort(np.concatenate(before) ** 2)[::-1]
        top = top[: math.ceil(len(top) / 10)]
        new = np.sort(np.concatenate(after) ** 2)[::-1][: len(top)]
        assert row.spectrum_change == pytest.approx(np.abs(new / top - 1).max(), rel=1e-6)
        N, M = max(W.shape[:2]), min(W.shape[:2])
        edges = [
            s[0] / (np.linalg.norm(s) / math.sqrt(N * M) * (math.sqrt(N) + math.sqrt(M)))
            for s in noise
        ]
        assert row.error_over_edge == pytest.approx(max(edges), rel=RTOL)
        below = [np.mean(s < e[0]) for s, e in zip(before, noise, strict=True)]
        assert row.share_below_error == pytest.approx(np.mean(below), rel=RTOL)
        own = report[row.name]
        assert (row.alpha, row.alpha_stderr) == (own.alpha, own.fit.alpha_stderr)
        again = ps.analyze({row.key: rounded}, goodness=False)[row.name]
        assert row.alpha_after == pytest.approx(again.alpha, rel=1e-6)
        assert row.alpha_change == row.alpha_after - row.alpha
        assert row.alpha_moved == (abs(row.alpha_change) > 1.96 * row.alpha_stderr)
        assert (row.shape, row.parameters) == (W.shape, W.size)
        assert math.isnan(row.output_change)
        assert math.isnan(row.loss_change)


def test_noise_is_at_the_edge_and_an_error_of_its_own_direction_beyond() -> None:
    rng = np.random.default_rng(0)
    W = rng.standard_normal((200, 100))
    shifted = np.round(W) + 0.35  # every weight is rounded the same way
    found = ps.quantization_sensitivity({"a.weight": W, "b.weight": shifted}, 3)
    a, b = found.layers
    assert 0.9 < a.error_over_edge < 1.1
    assert b.error_over_edge > 1.5
    assert a.share_below_error > 0.0


def test_files_are_read_and_what_cannot_be_measured_is_told(tmp_path: Path) -> None:
    model = {key: W.astype(np.float32) for key, W in heavy().items()}
    model["c.weight"] = np.full((20, 20), np.nan, np.float32)
    save_file(model, tmp_path / "model.safetensors")
    found = ps.quantization_sensitivity(tmp_path / "model.safetensors", 4)
    same = ps.quantization_sensitivity(model, 4)
    assert found.layers == same.layers
    assert [row.name for row in found] == ["a.fc", "b.conv"]
    (lost,) = (x for x in found.skipped if x.failed)
    assert (lost.name, lost.reason) == ("c", "holds NaN or infinity: it has no nearest integers")
    with pytest.raises(ValueError, match="'path' must not be a file that was read"):
        found.to_csv(tmp_path / "model.safetensors")
    with ps.open_weights(tmp_path / "model.safetensors") as source:
        (tmp_path / "model.safetensors").write_bytes(b"")
        gone = ps.quantization_sensitivity(source, 4)
    assert len(gone) == 0
    assert len([x for x in gone.skipped if x.failed]) == 3
    assert gone.keep(budget=5) == {}


def test_small_zero_and_huge_layers_have_what_they_can() -> None:
    found = ps.quantization_sensitivity(
        {
            "zero.weight": np.zeros((20, 10)),
            "small.weight": np.array([[1.0, 0.4], [0.0, 2.0]]),
            "huge.weight": np.random.default_rng(0).standard_normal((20, 10)) * 1e200,
        },
        4,
    )
    rows = {row.name: row for row in found}
    zero, small, huge = rows["zero"], rows["small"], rows["huge"]
    assert zero.error == 0.0
    assert math.isnan(zero.spectrum_change)
    assert small.error > 0.0
    assert 0.05 < huge.error < 0.2
    assert math.isnan(huge.alpha_after)


# --- output -------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)
    )


def squared(output: Any, batch: Any) -> Any:
    return (output - batch[1]).square().mean()


def test_output_and_loss_are_those_with_one_layer_rounded() -> None:
    net = network().train()
    torch.manual_seed(1)
    batches = [(torch.randn(20, 6), torch.randn(20, 3)), (torch.randn(8, 6), torch.randn(8, 3))]
    before = copy.deepcopy(net.state_dict())
    found = ps.quantization_sensitivity(net, (8, 3), data=iter(batches), loss=squared)
    assert net.training
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())
    assert found.has_output
    assert found.has_loss
    net.eval()
    with torch.no_grad():
        whole = [net(x) for x, _ in batches]
        for row in found:
            rounded = copy.deepcopy(net)
            rounded.load_state_dict(ps.quantize(net, {row.key: row.bits}))
            outputs = [rounded(x) for x, _ in batches]
            change = sum(float((a - b).square().sum()) for a, b in zip(whole, outputs, strict=True))
            total = sum(float(a.square().sum()) for a in whole)
            assert row.output_change == pytest.approx(math.sqrt(change / total), rel=OUTPUT_RTOL)
            losses = [
                float(squared(a, batch) - squared(b, batch))
                for a, b, batch in zip(outputs, whole, batches, strict=True)
            ]
            assert row.loss_change == pytest.approx(np.mean(losses), rel=1e-3, abs=1e-6)


class Named(nn.Module):
    """Takes keywords and returns a mapping, as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(6, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Any, shift: float = 0.0) -> dict[str, Any]:
        hidden = self.fc(x + shift)
        return {"hidden": (hidden,), "out": self.head(hidden), "count": torch.tensor(3)}


def test_batches_may_be_keywords_and_outputs_anything() -> None:
    net = Named()
    x = torch.randn(9, 6)
    found = ps.quantization_sensitivity(net, 4, data=[{"x": x, "shift": 1.0}])
    alone = ps.quantization_sensitivity(
        net, 4, data=[x], forward=lambda model, batch: model(batch, 1.0)["out"]
    )
    # The first layer changes both outputs, the last one its own.
    assert all(row.output_change > 0 for row in (*found, *alone))
    assert found.layers[1].output_change < alone.layers[1].output_change
    found = ps.quantization_sensitivity(net, 4, layers="head", data=[x])
    assert [row.name for row in found] == ["head"]


def test_a_model_stays_as_it_is_when_its_forward_fails() -> None:
    net = network().train()
    before = copy.deepcopy(net.state_dict())
    calls = []

    def forward(model: Any, batch: Any) -> Any:
        calls.append(batch)
        if len(calls) > 3:
            raise RuntimeError("no more")
        return model(batch)

    with pytest.raises(RuntimeError, match="no more"):
        ps.quantization_sensitivity(net, (8, 4), data=[torch.randn(4, 6)], forward=forward)
    assert net.training
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())


def test_tied_weights_are_rounded_together_and_bfloat16_is_measured() -> None:
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    net[1].weight = net[0].weight
    net = net.to(torch.bfloat16)
    x = torch.randn(5, 8, dtype=torch.bfloat16)
    before = net[0].weight.detach().clone()
    found = ps.quantization_sensitivity(net, 4, data=[x])
    assert len(found) == 1
    assert torch.equal(net[1].weight, before)
    rounded = ps.quantize(net, 4)
    wanted = copy.deepcopy(net)
    wanted.load_state_dict(rounded)
    with torch.no_grad():
        a, b = net(x).double(), wanted(x).double()
    assert found.layers[0].output_change == pytest.approx(float((a - b).norm() / a.norm()))


# --- choice of bits -----------------------------------------------------------------------------


def result(costs: dict[str, tuple[int, dict[int, float]]], **more: Any) -> QuantizationSensitivity:
    """Layers of so many weights, with an output change for each number of bits."""
    rows = [
        LayerSensitivity(
            name, f"{name}.weight", "linear", (size,), bits, error, 0.0, 1.0, 0.0, 3.0, 0.1, 3.1,
            output_change=error,
        )
        for name, (size, errors) in costs.items()
        for bits, error in errors.items()
    ]  # fmt: skip
    return QuantizationSensitivity(tuple(rows), (), "made", "channel", **more)


def test_a_budget_goes_where_it_saves_most() -> None:
    found = result(
        {
            "large": (100, {8: 0.01, 4: 0.5}),
            "small": (10, {8: 0.01, 4: 0.4}),
            "flat": (10, {8: 0.3, 4: 0.3}),
            "broken": (10, {8: math.nan, 4: math.nan}),
        }
    )
    assert found.bits == (8, 4)

    def kept(**how: Any) -> list[str]:
        return [key.split(".")[0] for key, bits in found.keep(4, **how).items() if bits == 8]

    assert [*found.keep(budget=4)] == [f"{x}.weight" for x in ("large", "small", "flat", "broken")]
    assert kept(budget=4.0) == []
    assert kept(budget=4 + 4 * 10 / 130) == ["small"]
    assert kept(budget=4 + 4 * 105 / 130) == ["large"]  # the small one has no room beside it
    assert kept(budget=4 + 4 * 110 / 130) == ["large", "small"]
    assert kept(budget=8) == ["large", "small"]
    assert kept(limit=0.35) == ["large", "small"]
    assert kept(limit=0.45) == ["large"]
    assert kept(limit=0.2) == ["large", "small", "flat"]
    assert set(found.keep(8, limit=0.0).values()) == {8}


def test_bits_climb_one_step_after_the_other() -> None:
    found = result(
        {
            "a": (10, {8: 0.0, 4: 0.1, 3: 0.5, 2: 1.0}),
            "b": (10, {8: 0.0, 4: 0.01, 3: 0.02, 2: 0.9}),
        },
        has_output=True,
    )
    assert found.keep(budget=2.5) == {"a.weight": 2, "b.weight": 3}
    assert found.keep(budget=3.0) == {"a.weight": 3, "b.weight": 3}
    assert found.keep(budget=3.5) == {"a.weight": 4, "b.weight": 3}
    assert found.keep(3, budget=3.5) == {"a.weight": 4, "b.weight": 3}
    assert found.keep(limit=0.1, by="error") == {"a.weight": 4, "b.weight": 3}
    assert found.keep(limit=0.05, by="alpha_change") == {"a.weight": 8, "b.weight": 8}


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_no_other_choice_within_the_budget_costs_less(data: st.DataObject) -> None:
    size, change = st.integers(1, 60), st.floats(0.0, 1.0)
    costs = {
        name: (data.draw(size), {bits: data.draw(change) for bits in (6, 4, 3)}) for name in "abcd"
    }
    budget = data.draw(st.floats(3.0, 6.0))
    plan = result(costs).keep(budget=budget, by="error")
    total = sum(n for n, _ in costs.values())

    def squares(bits: Any) -> float:
        return sum(costs[name][1][b] ** 2 for name, b in zip("abcd", bits, strict=True))

    def mean(bits: Any) -> float:
        return sum(costs[name][0] * b for name, b in zip("abcd", bits, strict=True)) / total

    assert mean(plan.values()) <= budget + 1e-6
    allowed = [w for w in itertools.product((3, 4, 6), repeat=4) if mean(w) <= budget]
    assert squares(plan.values()) <= min(map(squares, allowed)) + 1e-12


def test_sizes_that_share_no_unit_stay_within_the_budget() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(10**6, 10**8, 40)
    errors = rng.random(40)
    found = result(
        {
            str(i): (int(n), {8: 0.0, 4: float(e)})
            for i, (n, e) in enumerate(zip(sizes, errors, strict=True))
        }
    )
    plan = np.array([*found.keep(budget=6.0, by="error").values()])
    assert 5.9 < np.average(plan, weights=sizes) <= 6.0


def test_a_budget_beats_the_same_bits_for_all_on_a_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(24, 24) for _ in range(4)))
    with torch.no_grad():
        net[1].weight[:, 0] = 2.0  # it stretches all scales of this layer
    x = torch.randn(50, 24)
    found = ps.quantization_sensitivity(net, (2, 3, 4, 5, 6), data=[x])
    plan = found.keep(budget=3.0)
    sizes = {row.key: row.parameters for row in found}
    assert sum(plan[k] * n for k, n in sizes.items()) <= 3.0 * sum(sizes.values())

    def change(bits: Any) -> float:
        rounded = copy.deepcopy(net)
        rounded.load_state_dict(ps.quantize(net, bits))
        with torch.no_grad():
            return float((rounded(x) - net(x)).norm())

    assert change(plan) < change(3)
    assert change(found.keep(budget=3.0, by="error")) < change(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "'budget' must be given, or 'limit', and not both, got None"),
        ({"budget": 5, "limit": 1}, "'budget' must be given, or 'limit', and not both, got 5"),
        ({"budget": 3}, "'budget' must be finite and at least 4, got 3"),
        ({"limit": -1}, "'limit' must be finite and not negative"),
        ({"bits": 5, "budget": 6}, "'bits' must be one of the bits that were tried, 8, 4, got 5"),
        ({"bits": "4", "budget": 6}, "'bits' must be one of the bits that were tried, 8, 4"),
        ({"budget": 6, "by": "output_change"}, "'by' must be what was measured.*'data'"),
        ({"budget": 6, "by": "loss_change"}, "'by' must be what was measured.*'loss'"),
        ({"budget": 6, "by": "norm"}, "'by' must be one of"),
    ],
)
def test_choices_are_checked(arguments: dict[str, Any], message: str) -> None:
    found = result({"a": (10, {8: 0.1, 4: 0.5})})
    with pytest.raises((ValueError, TypeError), match=rf"QuantizationSensitivity\.keep: {message}"):
        found.keep(**arguments)


def test_torchao_takes_the_plan(tmp_path: Path) -> None:
    """As the guide shows it; what torchao stores is what we say it will."""
    why = "torchao is no part of the tests: its wheel is built for CUDA, and warns without"
    pytest.importorskip("torchao", reason=why)
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis
    from torchao.quantization.quant_primitives import MappingType

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.Linear(64, 32))
    with torch.no_grad():
        net[2].weight[:, 0] = 2.0
    plan = ps.quantization_sensitivity(net, data=[torch.randn(50, 64)]).keep(4, budget=6.0)
    ours = ps.quantize(net, plan)
    assert set(plan.values()) == {4, 8}
    for bits, dtype in ((8, torch.int8), (4, torch.int4)):
        config = IntxWeightOnlyConfig(
            weight_dtype=dtype,
            granularity=PerAxis(0),
            mapping_type=MappingType.SYMMETRIC_NO_CLIPPING_ERR,
        )

        def wanted(_: Any, name: str, bits: int = bits) -> bool:
            return plan.get(f"{name}.weight") == bits

        quantize_(net, config, filter_fn=wanted)
    torch.save(net.state_dict(), tmp_path / "quantised.pt")
    report = ps.analyze(tmp_path / "quantised.pt")
    assert {row.key: row.stored_as.bits for row in report if row.stored_as} == plan
    with ps.open_weights(tmp_path / "quantised.pt") as source:
        for layer in source.layers:
            step = ours[layer.key].abs().amax(1).numpy() / (2 ** (plan[layer.key] - 1) - 1)
            far = np.abs(layer.load().to_float64() - ours[layer.key].double().numpy())
            # Its range has one integer more, so that its scale may be smaller by as much.
            assert (far.max(1) <= 1.01 * step).all()


# --- outputs and arguments ----------------------------------------------------------------------


def test_ways_out(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    found = ps.quantization_sensitivity(heavy(), (8, 4))
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert [*frame.columns] == [*found.columns]
    assert "output_change" not in frame
    assert "output_change" in result({"a": (4, {8: 0.1})}, has_output=True).columns
    assert json.loads(found.to_json(tmp_path / "x.json")) == found.to_dict()
    assert found.to_csv().splitlines()[0] == ",".join(found.columns)
    assert found == copy.deepcopy(found)
    text = io.StringIO()
    found.print(Console(file=text, width=120))
    assert "a.fc" in text.getvalue()
    assert "output %" not in text.getvalue()
    assert f"{100 * found.layers[1].error:.2f}" in text.getvalue()
    assert repr(found).startswith("<QuantizationSensitivity of 2 layers at 8 and 4 bits (channel")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 9}, "'bits' must be an integer from 2 to 8, got 9"),
        ({"bits": ()}, r"'bits' must not be empty, got \(\)"),
        ({"bits": "48"}, "'bits' must be integers from 2 to 8"),
        ({"bits": 2.5}, "'bits' must be integers from 2 to 8"),
        ({"granularity": "row"}, "'granularity' must be one of"),
        ({"layers": "x"}, "'layers' must hold what the model has"),
        ({"layers": []}, "'layers' must not be empty"),
        ({"data": [1]}, "'model_or_path' must be a torch module where 'data' is given"),
        ({"loss": print}, "'loss' must be None without 'data'"),
        ({"forward": print}, "'forward' must be None without 'data'"),
        ({"progress": 3}, "'progress' must be True, False or 'auto'"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"quantization_sensitivity: {message}"):
        ps.quantization_sensitivity(heavy(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": []}, "'data' must hold at least one batch, got none"),
        ({"data": {"x": 1}}, "'data' must be an iterable of batches"),
        ({"data": [torch.ones(3, 6)], "loss": 3}, "'loss' must be a function or None"),
        ({"data": [torch.ones(3, 6)], "loss": lambda *_: "x"}, "'loss' must return a number"),
        (
            {"data": [torch.ones(3, 6)], "forward": lambda *_: None},
            "'forward' must return a floating-point tensor, or several, got none",
        ),
    ],
)
def test_data_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"quantization_sensitivity: {message}"):
        ps.quantization_sensitivity(network(), **arguments)


def test_a_model_of_embeddings_alone_is_measured_when_it_is_named() -> None:
    model = {"embed.weight": np.random.default_rng(0).standard_normal((50, 30))}
    with pytest.raises(ValueError, match="quantization_sensitivity: 'model_or_path' must hold"):
        ps.quantization_sensitivity(model)
    (row,) = ps.quantization_sensitivity(model, 4, layers="embed")
    wanted = ref.quantised(model["embed.weight"], 4, "channel")
    size = np.linalg.norm(model["embed.weight"])
    assert row.error == pytest.approx(np.linalg.norm(wanted - model["embed.weight"]) / size)
