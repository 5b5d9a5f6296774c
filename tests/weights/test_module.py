"""Live modules: kinds by layer type, parametrized and shared weights, no side effects."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from weights_checks import reasons

from pyspectra.errors import FormatError
from pyspectra.weights import open_weights

torch = pytest.importorskip("torch")
nn = torch.nn


def kind_of(module: Any) -> str:
    return open_weights(nn.Sequential(module)).layers[0].kind


def test_kinds_by_layer_type() -> None:
    expected = {
        "linear": nn.Linear(3, 4),
        "embedding": nn.Embedding(5, 3),
        "conv1d": nn.Conv1d(2, 3, 3),
        "conv2d": nn.Conv2d(2, 3, 3),
        "conv3d": nn.Conv3d(2, 3, 3),
        "conv2d_grouped": nn.Conv2d(4, 4, 3, groups=2),
        "conv_transpose1d": nn.ConvTranspose1d(2, 3, 3),
        "conv_transpose2d": nn.ConvTranspose2d(2, 3, 3),
        "rnn": nn.LSTM(3, 4),
        "attention_in_proj": nn.MultiheadAttention(4, 2),
    }
    assert {kind_of(module) for module in expected.values()} == set(expected)
    for kind, module in expected.items():
        assert kind_of(module) == kind
    assert kind_of(nn.Conv2d(4, 4, 3, groups=4)) == "conv2d"
    assert kind_of(nn.GRUCell(3, 4)) == "rnn"


def test_hugging_face_conv1d_is_told_by_its_module() -> None:
    class Conv1D(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 4))

    assert kind_of(Conv1D()) == "linear"
    Conv1D.__module__ = "transformers.pytorch_utils"
    assert kind_of(Conv1D()) == "conv1d_gpt2"


def test_layers_ids_and_reasons() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Bilinear(4, 4, 2), nn.Linear(4, 2))
    source = open_weights(model)
    assert source.name == "Sequential"
    assert source.format == "torch_module"
    assert [(la.name, la.layer_id, la.key) for la in source] == [
        ("0", 1, "0.weight"),
        ("3", 4, "3.weight"),
    ]
    why = reasons(source)
    assert why["1"] == "1-D tensor: no spectrum"
    assert why["2"].startswith("no rule to turn a 3-D tensor")
    assert why["0.bias"] == "bias: not a weight matrix"
    assert why["1.running_mean"] == "not a weight: a buffer"
    np.testing.assert_array_equal(
        source.layers[0].load().to_float64(), model[0].weight.detach().double().numpy()
    )


def test_load_sees_the_current_values() -> None:
    model = nn.Linear(3, 2, bias=False)
    layer = open_weights(model).layers[0]
    with torch.no_grad():
        model.weight.fill_(7.0)
    assert layer.load().data.tolist() == [[7.0] * 3] * 2
    model.weight = nn.Parameter(torch.ones(5, 5))
    with pytest.raises(FormatError, match="changed since the source was opened"):
        layer.load()


def test_tied_parameters_and_shared_modules() -> None:
    model = nn.ModuleDict({"wte": nn.Embedding(6, 3), "head": nn.Linear(3, 6, bias=False)})
    model["head"].weight = model["wte"].weight
    model["again"] = model["head"]
    assert [la.name for la in open_weights(model)] == ["wte"]
    expected = {"head": "shares its tensor with wte", "again": "shares its tensor with wte"}
    assert reasons(open_weights(model)) == expected
    assert reasons(open_weights(model.state_dict())) == expected


def test_parametrized_weight_is_the_effective_one() -> None:
    parametrizations = pytest.importorskip("torch.nn.utils.parametrizations")
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4, bias=False)))
    source = open_weights(model)
    assert [(la.name, la.shape) for la in source] == [("0", (4, 3))]
    with torch.no_grad():
        model[0].parametrizations.weight.original0.mul_(3)
    np.testing.assert_allclose(
        source.layers[0].load().to_float64(), model[0].weight.detach().double().numpy()
    )
    assert list(reasons(source).values()) == ["a factor from which 0 is computed"] * 2


def test_looking_does_not_advance_spectral_normalisation() -> None:
    parametrizations = pytest.importorskip("torch.nn.utils.parametrizations")
    model = parametrizations.spectral_norm(nn.Linear(6, 5))
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    open_weights(model).layers[0].load()
    assert model.training
    assert all(m.training for m in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_computed_weight_does_not_depend_on_the_callers_autocast() -> None:
    linear = nn.utils.parametrizations.orthogonal(nn.Linear(24, 16))
    layer = open_weights(nn.Sequential(linear)).layers[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = layer.load()
        assert torch.is_autocast_enabled("cpu")
    np.testing.assert_array_equal(within.data, layer.load().data)


def test_pruned_weight_has_its_mask_applied() -> None:
    prune = pytest.importorskip("torch.nn.utils.prune")
    model = prune.l1_unstructured(nn.Linear(6, 5), "weight", amount=0.5)
    source = open_weights(model)
    assert len(source) == 1
    assert np.count_nonzero(source.layers[0].load().data) == 15
    with torch.no_grad():
        model.weight_orig.fill_(2.0)  # the plain attribute is stale until the next forward
    assert source.layers[0].load().to_float64().sum() == 30.0


def test_unusable_parameters_are_listed() -> None:
    model = nn.ModuleDict({"meta": nn.Linear(2, 2, device="meta"), "lazy": nn.LazyLinear(3)})
    why = reasons(open_weights(model))
    assert "meta device" in why["meta"]
    assert "uninitialised" in why["lazy"]


def test_module_without_named_weights() -> None:
    class Bag(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.W = nn.Parameter(torch.ones(3, 4))
            self.v = nn.Parameter(torch.ones(3))

    source = open_weights(Bag())
    assert [(la.name, la.kind) for la in source] == [("W", "linear")]


def test_bfloat16_module_shares_memory() -> None:
    model = nn.Linear(3, 4, bias=False).bfloat16()
    array = open_weights(model).layers[0].load()
    assert array.dtype == "bfloat16"
    assert array.data.ctypes.data == model.weight.data_ptr()


def test_two_threads_that_read_leave_the_modes_as_they_were() -> None:
    began, second_began = threading.Event(), threading.Event()
    readers: list[threading.Thread] = []

    class Twice(nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            if readers and threading.current_thread() is readers[0]:
                began.set()
                second_began.wait(0.5)
            elif readers:
                second_began.set()
                readers[0].join(5)
            return 2 * x

    linear = nn.Linear(3, 4)
    torch.nn.utils.parametrize.register_parametrization(linear, "weight", Twice())
    layer = open_weights(nn.Sequential(linear)).layers[0]
    readers += [threading.Thread(target=layer.load) for _ in range(2)]
    readers[0].start()
    assert began.wait(5)
    readers[1].start()
    for reader in readers:
        reader.join()
    assert all(m.training for m in linear.modules())
