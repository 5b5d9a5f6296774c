"""Parts of fused weights, as layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_safetensors import encode
from weights_checks import by_name, nothing_is_read, reasons, values

from pyspectra.errors import FormatError
from pyspectra.weights import WeightSource, open_weights
from pyspectra.weights.matricize import matrix_shape

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def check_parts(source: WeightSource, whole: str, names: str, axis: int = 0) -> None:
    """The parts follow the whole, carry its id, and put together are the whole."""
    position = [layer.name for layer in source].index(whole)
    parent = source.layers[position]
    parts = source.layers[position + 1 : position + 1 + len(names)]
    assert [part.name for part in parts] == [f"{whole}[{name}]" for name in names]
    assert parent.part_of is None
    for part in parts:
        assert (part.kind, part.part_of) == ("linear", whole)
        assert (part.layer_id, part.key) == (parent.layer_id, parent.key)
        assert part.dtype == parent.dtype
        assert values(part).shape == part.shape
        assert matrix_shape(part)[2] == 1
    if parts:
        together = np.concatenate([values(part) for part in parts], axis)
        np.testing.assert_array_equal(together, values(parent))
    assert sum(layer.part_of == whole for layer in source) == len(names)


# --- fused attention ----------------------------------------------------------------------------


def test_in_projection_of_a_state_dict() -> None:
    weight = normal(9, 5)
    with nothing_is_read():
        source = open_weights(
            {"n.weight": np.ones(3), "att.in_proj_weight": weight, "fc.weight": normal(2, 3)}
        )
    check_parts(source, "att.in_proj_weight", "qkv")
    assert [layer.layer_id for layer in source] == [1, 1, 1, 1, 3]
    assert [layer.position for layer in source] == [2, 2, 2, 2, 3]
    key = by_name(source)["att.in_proj_weight[k]"]
    np.testing.assert_array_equal(values(key), weight[3:6])
    assert np.shares_memory(key.load().data, weight)


@pytest.mark.parametrize("name", ["c_attn", "Wqkv", "qkv"])
@pytest.mark.parametrize("axis", [0, 1])
def test_fused_linear_is_cut_along_its_larger_axis(name: str, axis: int) -> None:
    weight = normal(12, 4) if axis == 0 else normal(4, 12)
    source = open_weights({f"h.0.{name}.weight": weight})
    check_parts(source, f"h.0.{name}", "qkv", axis)
    part = by_name(source)[f"h.0.{name}[v]"]
    assert part.shape == (4, 4)
    np.testing.assert_array_equal(values(part), weight[8:] if axis == 0 else weight[:, 8:])
    assert np.shares_memory(part.load().data, weight)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("h.0.query_key_value.weight", (12, 4)),  # head by head: thirds would mean nothing
        ("h.0.c_attn.weight", (4, 8)),
        ("h.0.qkv.weight", (12, 5)),
        ("h.0.my_qkv.weight", (12, 4)),
        ("h.0.qkv.weight", (12, 4, 1)),
        ("h.0.c_attn.c_proj.weight", (12, 4)),
        ("a.in_proj_weight", (10, 4)),
    ],
)
def test_what_is_not_cut(key: str, shape: tuple[int, ...]) -> None:
    source = open_weights({key: np.ones(shape)})
    assert [layer.key for layer in source] == [key]


def test_multihead_attention_module() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.MultiheadAttention(6, 2)
    source = open_weights(module)
    check_parts(source, "in_proj_weight", "qkv")
    part = by_name(source)["in_proj_weight[v]"]
    np.testing.assert_array_equal(values(part), module.in_proj_weight.detach().double()[12:])
    assert part.load().data.ctypes.data == module.in_proj_weight[12:].data_ptr()
    separate = open_weights(torch.nn.MultiheadAttention(6, 2, kdim=4))
    assert all(layer.part_of is None for layer in separate)


def test_gpt2_conv1d_module() -> None:
    torch = pytest.importorskip("torch")

    class Conv1D(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.arange(48.0).reshape(4, 12))

    Conv1D.__module__ = "transformers.pytorch_utils"
    source = open_weights(torch.nn.ModuleDict({"c_attn": Conv1D(), "c_proj": Conv1D()}))
    assert source.layers[0].kind == "conv1d_gpt2"
    check_parts(source, "c_attn", "qkv", axis=1)
    assert by_name(source)["c_attn[k]"].load().data[0].tolist() == [4.0, 5.0, 6.0, 7.0]
    assert source.layers[-1].name == "c_proj"


def test_bfloat16_part() -> None:
    torch = pytest.importorskip("torch")
    weight = torch.arange(27.0).reshape(9, 3).bfloat16()
    part = by_name(open_weights({"in_proj_weight": weight}))["in_proj_weight[k]"]
    assert part.dtype == "bfloat16"
    assert values(part).tolist() == weight[3:6].double().tolist()


def test_a_shared_whole_has_its_parts_once() -> None:
    weight = normal(9, 3)
    source = open_weights({"a.in_proj_weight": weight, "b.in_proj_weight": weight})
    check_parts(source, "a.in_proj_weight", "qkv")
    assert reasons(source) == {"b.in_proj_weight": "shares its tensor with a.in_proj_weight"}


def test_part_of_a_changed_or_closed_source() -> None:
    source = open_weights({"in_proj_weight": normal(9, 3)})
    object.__setattr__(source.layers[0], "shape", (3, 9))
    with pytest.raises(FormatError, match="changed since the source was opened"):
        source.layers[1].load()
    source.close()
    with pytest.raises(FormatError, match="closed"):
        source.layers[2].load()


# --- recurrent cells ----------------------------------------------------------------------------

GATES = {"LSTM": "ifgo", "GRU": "rzn", "RNN": ""}


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("as_module", [True, False])
def test_gates(cell: str, as_module: bool) -> None:
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn, cell)(5, 3, num_layers=2, bidirectional=True)
    source = open_weights(module if as_module else module.state_dict())
    wholes = [layer for layer in source if layer.part_of is None]
    assert len(wholes) == 8
    for whole in wholes:
        assert whole.kind == "rnn"
        check_parts(source, whole.name, GATES[cell])
    for i, gate in enumerate(GATES[cell]):
        part = by_name(source)[f"weight_ih_l0_reverse[{gate}]"]
        assert part.shape == (3, 5)
        expected = module.weight_ih_l0_reverse.detach().double()[3 * i : 3 * i + 3]
        np.testing.assert_array_equal(values(part), expected)


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("as_module", [True, False])
def test_gates_of_single_cells(cell: str, as_module: bool) -> None:
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn, f"{cell}Cell")(5, 3)
    source = open_weights(module if as_module else module.state_dict())
    check_parts(source, "weight_ih", GATES[cell])
    check_parts(source, "weight_hh", GATES[cell])


def test_the_order_of_the_gates_is_the_one_that_torch_computes_with() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(4, 3, bias=False).double()
    part = {name: values(layer) for name, layer in by_name(open_weights(module)).items()}
    x = torch.randn(1, 4, dtype=torch.float64)
    gate = {g: part[f"weight_ih_l0[{g}]"] @ x.numpy()[0] for g in "ifgo"}  # from a zero state

    def squash(a: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-a))

    cell = squash(gate["i"]) * np.tanh(gate["g"])
    expected = squash(gate["o"]) * np.tanh(cell)
    np.testing.assert_allclose(module(x)[0].detach().numpy()[0], expected, rtol=1e-12)

    gru = torch.nn.GRU(4, 3, bias=False).double()
    part = {name: values(layer) for name, layer in by_name(open_weights(gru)).items()}
    hidden = torch.randn(1, 3, dtype=torch.float64)
    old, new = hidden.numpy()[0], x.numpy()[0]
    r, z = (
        squash(part[f"weight_ih_l0[{g}]"] @ new + part[f"weight_hh_l0[{g}]"] @ old) for g in "rz"
    )
    n = np.tanh(part["weight_ih_l0[n]"] @ new + r * (part["weight_hh_l0[n]"] @ old))
    got = gru(x, hidden)[0].detach().numpy()[0]
    np.testing.assert_allclose(got, (1 - z) * n + z * old, rtol=1e-12)


def test_projected_lstm_is_known_by_its_projection() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(5, 8, proj_size=2)
    for source in map(open_weights, (module, module.state_dict())):
        check_parts(source, "weight_ih_l0", "ifgo")
        check_parts(source, "weight_hh_l0", "ifgo")
        check_parts(source, "weight_hr_l0", "")


@pytest.mark.parametrize(
    "shapes",
    [
        {"weight_ih_l0": (8, 5)},  # no companion
        {"weight_ih_l0": (8, 5), "weight_hh_l0_reverse": (8, 2)},  # another's companion
        {"weight_ih_l0": (9, 5), "weight_hh_l0": (8, 4)},  # companion of other rows
        {"weight_hh_l0": (10, 2)},  # five gates
        {"weight_hh_l0": (9, 2)},
        {"weight_hh_l0": (8, 2), "weight_hr_l0": (2, 3)},  # two and a half gates
    ],
)
def test_recurrent_names_that_tell_no_cell(shapes: dict[str, tuple[int, int]]) -> None:
    source = open_weights({key: np.ones(shape) for key, shape in shapes.items()})
    check_parts(source, next(iter(shapes)), "")


def test_parts_of_a_file_read_the_whole_only_when_asked(tmp_path: Path) -> None:
    weight = normal(12, 4).astype(np.float32)
    (tmp_path / "model.safetensors").write_bytes(encode({"attn.qkv.weight": ("F32", weight)}))
    with nothing_is_read():
        source = open_weights(tmp_path)
    check_parts(source, "attn.qkv", "qkv")
    part = source.layers[3].load()
    np.testing.assert_array_equal(part.data, weight[8:])
    assert part.data.base is not None  # a view of what was read


def test_rows_that_run_head_by_head_have_no_parts() -> None:
    W = np.ones((96, 32))
    for content in (
        {"stages.0.blocks.1.attn.qkv.weight": W, "stages.0.blocks.1.attn.attention_biases": W},
        {"stages.0.blocks.0.attn_block.attn.qkv.weight": W},
        {"stages.0.blocks.0.attn_grid.attn.qkv.weight": W},
    ):
        assert [layer.part_of for layer in open_weights(content)] == [None]
    assert len(open_weights({"stages.0.blocks.1.attn.qkv.weight": W})) == 4
