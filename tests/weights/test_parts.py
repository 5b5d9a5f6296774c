"""Derived layers: parts of fused weights, and the products of LoRA pairs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_safetensors import encode

from pyspectra._arrays import HostArray
from pyspectra.errors import FormatError
from pyspectra.weights import Layer, WeightSource, open_weights
from pyspectra.weights.lora import LoraScale, lora_core
from pyspectra.weights.matricize import matricize, matrix_shape

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def by_name(source: WeightSource) -> dict[str, Layer]:
    found = {layer.name: layer for layer in source}
    assert len(found) == len(source)
    return found


def values(layer: Layer) -> np.ndarray:
    return layer.load().to_float64()


def reasons(source: WeightSource) -> dict[str, str]:
    return {s.name: s.reason for s in source.skipped}


def sigma(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.svd(matrix, compute_uv=False)


@contextmanager
def nothing_is_read() -> Iterator[None]:
    def fail(self: HostArray) -> None:
        raise AssertionError("elements were read")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostArray, "__post_init__", fail)  # whatever reads makes one of these
        yield


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


def test_projected_lstm_is_cut_only_where_the_cell_is_known() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(5, 8, proj_size=2)
    source = open_weights(module)
    check_parts(source, "weight_ih_l0", "ifgo")
    check_parts(source, "weight_hh_l0", "ifgo")
    check_parts(source, "weight_hr_l0", "")
    assert all(layer.part_of is None for layer in open_weights(module.state_dict()))


@pytest.mark.parametrize(
    "shapes",
    [
        {"weight_ih_l0": (8, 5)},  # no companion
        {"weight_ih_l0": (8, 5), "weight_hh_l0_reverse": (8, 2)},  # another's companion
        {"weight_ih_l0": (9, 5), "weight_hh_l0": (8, 4)},  # companion of other rows
        {"weight_hh_l0": (10, 2)},  # five gates
        {"weight_hh_l0": (9, 2)},
        {"weight_hh_l0": (8, 2), "weight_hr_l0": (2, 2)},
    ],
)
def test_recurrent_names_that_tell_no_cell(shapes: dict[str, tuple[int, int]]) -> None:
    source = open_weights({key: np.ones(shape) for key, shape in shapes.items()})
    check_parts(source, next(iter(shapes)), "")


# --- LoRA ---------------------------------------------------------------------------------------

Q = "base_model.model.layers.0.q_proj"


def check_core(layer: Layer, full: np.ndarray) -> None:
    assert (layer.kind, layer.dtype, layer.part_of) == ("lora", "float64", None)
    core = layer.load()
    assert core.shape == layer.shape
    expected = sigma(full)
    got = sigma(core.data)
    np.testing.assert_allclose(got, expected[: len(got)], rtol=0, atol=1e-12 * expected[0])
    np.testing.assert_allclose(expected[len(got) :], 0, atol=1e-12 * expected[0])
    slices = matricize(layer, core).slices
    assert len(slices) == 1
    assert np.shares_memory(slices[0].data, core.data)


@pytest.mark.parametrize("adapter", ["", ".default", ".my-adapter"])
def test_lora_pair_of_a_state_dict(adapter: str) -> None:
    a, b = normal(4, 30), normal(20, 4)
    with nothing_is_read():
        source = open_weights(
            {
                "a.first.weight": normal(3, 3),
                f"{Q}.lora_A{adapter}.weight": a,
                f"{Q}.lora_B{adapter}.weight": b,
                "z.last.weight": normal(3, 3),
            }
        )
    assert [(la.name, la.layer_id) for la in source] == [
        ("a.first", 1),
        (f"{Q}[lora BA]", 2),
        ("z.last", 4),
    ]
    layer = source.layers[1]
    assert layer.shape == (4, 4)
    assert layer.key == f"{Q}.lora_A{adapter}.weight"
    assert matrix_shape(layer) == (4, 4, 1)
    check_core(layer, b @ a)
    half = f"half of the LoRA pair {Q}[lora BA]"
    assert reasons(source) == {f"{Q}.lora_A{adapter}": half, f"{Q}.lora_B{adapter}": half}


def test_a_rank_above_a_side_of_the_update() -> None:
    a, b = normal(6, 5), normal(3, 6)
    layer = open_weights({"x.lora_A.weight": a, "x.lora_B.weight": b}).layers[0]
    assert layer.shape == (3, 5)
    check_core(layer, b @ a)


def test_several_adapters_and_the_top_level() -> None:
    state = {
        f"{prefix}lora_{half}.{adapter}.weight": normal(4, 2) if half == "B" else normal(2, 5)
        for prefix in ("", "m.")
        for adapter in (("one", "two") if prefix else ("one",))
        for half in "AB"
    }
    source = open_weights(state)
    assert list(by_name(source)) == ["[lora BA]", "m[lora BA one]", "m[lora BA two]"]
    check_core(source.layers[2], state["m.lora_B.two.weight"] @ state["m.lora_A.two.weight"])


def test_lora_of_an_embedding() -> None:
    a, b = normal(3, 50), normal(7, 3)
    source = open_weights({"wte.lora_embedding_A": a, "wte.lora_embedding_B": b})
    assert list(by_name(source)) == ["wte[lora BA]"]
    check_core(source.layers[0], b @ a)
    named = open_weights({"wte.lora_embedding_A.x": a, "wte.lora_embedding_B.x": b})
    check_core(by_name(named)["wte[lora BA]"], b @ a)


def test_lone_halves_and_convolutions_stay_layers() -> None:
    source = open_weights(
        {
            "x.lora_A.weight": normal(2, 5),
            "y.lora_B.one.weight": normal(5, 2),
            "y.lora_A.two.weight": normal(2, 5),
            "c.lora_A.weight": normal(2, 5, 3, 3),
            "c.lora_B.weight": normal(4, 2, 1, 1),
            "i.lora_A.weight": np.ones((2, 5), np.int8),
            "i.lora_B.weight": normal(5, 2),
        }
    )
    assert [(la.name, la.kind) for la in source] == [
        ("c.lora_A", "conv2d"),
        ("c.lora_B", "conv2d"),
        ("i.lora_B", "linear"),
        ("x.lora_A", "linear"),
        ("y.lora_A.two", "linear"),
        ("y.lora_B.one", "linear"),
    ]
    assert "integer dtype" in reasons(source)["i.lora_A"]


def test_halves_that_do_not_fit() -> None:
    source = open_weights({"x.lora_A.weight": normal(2, 5), "x.lora_B.weight": normal(5, 3)})
    assert not source.layers
    why = "halves of the LoRA pair x[lora BA] do not fit: A has rank 2, B has rank 3"
    assert reasons(source) == {"x.lora_A": why, "x.lora_B": why}


def test_shared_halves_make_products_and_a_shared_pair_makes_one() -> None:
    a, b, c = normal(2, 5), normal(4, 2), normal(4, 2)
    source = open_weights(
        {
            "x.lora_A.weight": a,
            "x.lora_B.weight": b,
            "y.lora_A.weight": a,
            "y.lora_B.weight": c,
            "z.lora_A.weight": a,
            "z.lora_B.weight": b,
        }
    )
    assert [(la.name, la.layer_id) for la in source] == [("x[lora BA]", 1), ("y[lora BA]", 3)]
    check_core(source.layers[1], c @ a)
    assert reasons(source)["z.lora_A"].endswith("which shares its tensors with x[lora BA]")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("which", ["A", "B"])
def test_a_half_that_is_not_finite_shows_in_the_core(bad: float, which: str) -> None:
    a, b = normal(2, 5), normal(4, 2)
    (a if which == "A" else b)[0, 0] = bad
    layer = open_weights({"x.lora_A.weight": a, "x.lora_B.weight": b}).layers[0]
    assert np.isnan(layer.load().data).all()


def test_core_of_low_precision_and_of_zeros() -> None:
    a, b = normal(2, 5).astype(np.float16), normal(4, 2).astype(np.float16)
    core = lora_core(HostArray(a, "float16"), HostArray(b, "float16"), 3.0)
    full = 3.0 * b.astype(np.float64) @ a.astype(np.float64)
    np.testing.assert_allclose(sigma(core.data), sigma(full)[:2], rtol=1e-12)
    zero = lora_core(HostArray(a, "float16"), HostArray(0 * b, "float16"), 3.0)
    assert not zero.data.any()  # B starts as zeros: an untrained adapter


def test_peft_like_module() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    wrapped = nn.ModuleDict(
        {
            "base_layer": nn.Linear(6, 5, bias=False),
            "lora_A": nn.ModuleDict({"default": nn.Linear(6, 2, bias=False)}),
            "lora_B": nn.ModuleDict({"default": nn.Linear(2, 5, bias=False)}),
        }
    )
    source = open_weights(nn.ModuleDict({"q": wrapped}))
    assert [(la.name, la.layer_id) for la in source] == [("q.base_layer", 1), ("q[lora BA]", 2)]
    full = wrapped["lora_B"]["default"].weight @ wrapped["lora_A"]["default"].weight
    core = source.layers[1].load()
    np.testing.assert_allclose(
        sigma(core.data), sigma(full.detach().double().numpy())[:2], rtol=1e-5
    )
    with torch.no_grad():
        wrapped["lora_B"]["default"].weight.mul_(2)  # read when asked for, not before
    np.testing.assert_allclose(source.layers[1].load().data, 2 * core.data, rtol=1e-12, atol=1e-300)


# --- adapter folders ----------------------------------------------------------------------------


def write_adapter(folder: Path, config: Any, names: tuple[str, ...] = (Q,)) -> dict[str, Any]:
    state = {}
    for name in names:
        state[f"{name}.lora_A.weight"] = normal(4, 30)
        state[f"{name}.lora_B.weight"] = normal(20, 4)
    tensors = {key: ("F64", value) for key, value in state.items()}
    (folder / "adapter_model.safetensors").write_bytes(encode(tensors))
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (folder / "adapter_config.json").write_text(text)
    return state


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 32, "r": 4}, 8.0),
        ({"lora_alpha": 2.5, "use_rslora": False, "alpha_pattern": {}, "rank_pattern": {}}, 0.625),
        ({"lora_alpha": 6, "use_rslora": True}, 3.0),
        ({"lora_alpha": 32, "alpha_pattern": {"k_proj": 4, "q_proj": 12}}, 3.0),
        ({"lora_alpha": 32, "alpha_pattern": {"proj": 4}}, 8.0),  # not after a dot
        ({"lora_alpha": 32, "r": 8, "rank_pattern": {"q_proj": 4}}, 8.0),
        ({"peft_type": "LORA", "use_rslora": None, "alpha_pattern": None}, 1.0),
        (None, 1.0),
    ],
)
def test_scale_of_an_adapter_folder(tmp_path: Path, config: Any, scale: float) -> None:
    state = write_adapter(tmp_path, config)
    with nothing_is_read():
        source = open_weights(tmp_path)
    assert source.format == "safetensors"
    assert [(la.name, la.layer_id) for la in source] == [(f"{Q}[lora BA]", 1)]
    full = state[f"{Q}.lora_B.weight"] @ state[f"{Q}.lora_A.weight"]
    check_core(source.layers[0], scale * full)
    assert sigma(source.layers[0].load().data)[0] == pytest.approx(scale * sigma(full)[0])
    alone = open_weights(tmp_path / "adapter_model.safetensors")
    check_core(alone.layers[0], full)


def test_adapter_beside_other_files(tmp_path: Path) -> None:
    state = write_adapter(tmp_path, {"lora_alpha": 8})
    (tmp_path / "extra.safetensors").write_bytes(encode({"a.weight": ("F32", np.ones((2, 2)))}))
    full = state[f"{Q}.lora_B.weight"] @ state[f"{Q}.lora_A.weight"]
    check_core(open_weights(tmp_path).layers[0], 2 * full)


def test_torch_adapter(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    a, b = normal(4, 9), normal(8, 4)
    state = {"x.lora_A.weight": torch.from_numpy(a), "x.lora_B.weight": torch.from_numpy(b)}
    torch.save(state, tmp_path / "adapter_model.bin")
    torch.save({}, tmp_path / "other.bin")
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 8}')
    with open_weights(tmp_path) as source:
        check_core(source.layers[0], 2 * b @ a)


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "[]",
        "3",
        "[" * 100_000,
        '{"lora_alpha": NaN}',
        '{"lora_alpha": 1e999}',
        '{"lora_alpha": 1' + "0" * 400 + "}",
        '{"lora_alpha": 1' + "0" * 9000 + "}",
        {"lora_alpha": "16"},
        {"lora_alpha": True},
        {"lora_alpha": None},
        {"lora_alpha": 8, "use_rslora": 1},
        {"lora_alpha": 8, "alpha_pattern": ["q_proj"]},
        {"lora_alpha": 8, "alpha_pattern": {"q_proj": "8"}},
        {"lora_alpha": 8, "alpha_pattern": {"(q_proj": 8}},
        {"lora_alpha": 8, "alpha_pattern": {"(a+)+": 8}},
        {"lora_alpha": 8, "alpha_pattern": {".*.*.*": 8}},
        {"lora_alpha": 8, "alpha_pattern": {"(a|a)" * 30: 8}},
        {"lora_alpha": 8, "alpha_pattern": {"a" * 1001: 8}},
    ],
)
def test_broken_adapter_configuration(tmp_path: Path, config: Any) -> None:
    write_adapter(tmp_path, config)
    with pytest.raises(FormatError, match=r"adapter_config\.json: .*(adapter conf|alpha_pattern)"):
        open_weights(tmp_path)
    assert len(open_weights(tmp_path / "adapter_model.safetensors")) == 1


def test_configuration_is_of_no_concern_without_lora(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(encode({"a.weight": ("F32", np.ones((2, 3)))}))
    (tmp_path / "adapter_config.json").write_text("broken")
    assert len(open_weights(tmp_path)) == 1


@pytest.mark.parametrize(
    ("pattern", "module", "matches"),
    [
        ("q_proj", "base_model.model.h.0.q_proj", True),
        ("q_proj", "q_proj", True),
        ("q_proj", "h.0.my_q_proj", False),
        ("q_proj", "h.q_proj.fc", False),
        ("h.0.q_proj", "base_model.model.gpt.h.0.q_proj", True),
        ("^h.0.q_proj", "base_model.model.h.0.q_proj", True),
        ("^h.0.q_proj", "base_model.model.gpt.h.0.q_proj", False),
        (r"h\.\d+\.(q|k)_proj", "h.12.k_proj", True),
        (r"h\.[0-9]+\.q_proj$", "h.12.q_proj", True),
        (".*attn.*", "h.1.attn.k_proj", True),
    ],
)
def test_alpha_pattern(tmp_path: Path, pattern: str, module: str, matches: bool) -> None:
    config = {"lora_alpha": 4, "alpha_pattern": {pattern: 8}}
    state = write_adapter(tmp_path, config, (module,))
    full = state[f"{module}.lora_B.weight"] @ state[f"{module}.lora_A.weight"]
    check_core(open_weights(tmp_path).layers[0], (2 if matches else 1) * full)


def test_first_pattern_that_matches_wins() -> None:
    scale = LoraScale(1.0, True, {"k_proj": 2.0, "h.0.q_proj": 3.0, "q_proj": 4.0})
    assert scale("base_model.model.h.0.q_proj", 9) == 1.0
    assert scale("base_model.model.h.1.q_proj", 4) == 2.0
    assert scale("h.1.v_proj", 2) == pytest.approx(1 / math.sqrt(2))


def test_parts_of_a_file_read_the_whole_only_when_asked(tmp_path: Path) -> None:
    weight = normal(12, 4).astype(np.float32)
    (tmp_path / "model.safetensors").write_bytes(encode({"attn.qkv.weight": ("F32", weight)}))
    with nothing_is_read():
        source = open_weights(tmp_path)
    check_parts(source, "attn.qkv", "qkv")
    part = source.layers[3].load()
    np.testing.assert_array_equal(part.data, weight[8:])
    assert part.data.base is not None  # a view of what was read
