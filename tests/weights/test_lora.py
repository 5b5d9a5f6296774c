"""LoRA pairs: their products, scales and names, and how two of them compare."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import distance as ref
from test_safetensors import encode
from weights_checks import by_name, nothing_is_read, reasons, sigma

import pyspectra as ps
from pyspectra._arrays import HostArray
from pyspectra.errors import FormatError
from pyspectra.weights import Layer, open_weights
from pyspectra.weights.lora import LoraScale, lora_core
from pyspectra.weights.matricize import matricize, matrix_shape

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


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


def test_lone_halves_stay_layers() -> None:
    source = open_weights(
        {
            "x.lora_A.weight": normal(2, 5),
            "y.lora_B.one.weight": normal(5, 2),
            "y.lora_A.two.weight": normal(2, 5),
            "i.lora_A.weight": np.ones((2, 5), np.int8),
            "i.lora_B.weight": normal(5, 2),
        }
    )
    assert [(la.name, la.kind) for la in source] == [
        ("i.lora_B", "linear"),
        ("x.lora_A", "linear"),
        ("y.lora_A.two", "linear"),
        ("y.lora_B.one", "linear"),
    ]
    assert "integer dtype" in reasons(source)["i.lora_A"]


@pytest.mark.parametrize(
    ("name_a", "name_b", "alpha"),
    [
        ("{}.lora_A.weight", "{}.lora_B.weight", None),
        ("{}.lora_down.weight", "{}.lora_up.weight", "{}.alpha"),  # kohya
        ("{}.lora.down.weight", "{}.lora.up.weight", "{}.alpha"),  # diffusers
        ("{}_lora.down.weight", "{}_lora.up.weight", None),
        ("{}.lora_linear_layer.down.weight", "{}.lora_linear_layer.up.weight", None),
    ],
)
@pytest.mark.parametrize("module", ["lora_unet_down_blocks_0_proj", "unet.mid_block.to_q"])
@pytest.mark.parametrize("kernel", [(), (1, 1), (3, 3)])
def test_dialects_and_convolutions(
    name_a: str, name_b: str, alpha: str | None, module: str, kernel: tuple[int, ...]
) -> None:
    a, b = normal(4, 9, *kernel), normal(12, 4, *(1 for _ in kernel))
    state = {name_a.format(module): a, name_b.format(module): b}
    if alpha is not None:
        state[alpha.format(module)] = np.array(2.0)
    (layer,) = open_weights(state)
    assert layer.name == f"{module}[lora BA]"
    update = b.reshape(12, 4) @ a.reshape(4, -1)
    check_core(pickle.loads(pickle.dumps(layer)), update * (0.5 if alpha else 1.0))


def test_a_tensor_between_the_halves_is_said() -> None:
    source = open_weights(
        {
            "c.lora_down.weight": normal(2, 5, 1, 1),
            "c.lora_mid.weight": normal(2, 2, 3, 3),
            "c.lora_up.weight": normal(4, 2, 1, 1),
            "fc.weight": normal(9, 8),
        }
    )
    assert "third tensor" in reasons(source)["c.lora_down"]
    assert {layer.name for layer in source} == {"fc", "c.lora_mid"}


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
        {"lora_alpha": 8, "alpha_pattern": {r"(a)\1": 8}},
        {"lora_alpha": 8, "alpha_pattern": {"(?=a)a": 8}},
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


# --- kohya --------------------------------------------------------------------------------------


def kohya(rank: int = 2, alpha: Any = None) -> dict[str, Any]:
    state = {
        "lora_unet_to_q.lora_down.weight": normal(rank, 30),
        "lora_unet_to_q.lora_up.weight": normal(20, rank),
    }
    return state if alpha is None else {**state, "lora_unet_to_q.alpha": alpha}


@pytest.mark.parametrize("alpha", [None, np.array(8.0), np.array([3.0], np.float16)])
def test_a_pair_that_is_called_down_and_up(alpha: Any) -> None:
    state = kohya(alpha=alpha)
    with nothing_is_read():
        source = open_weights(state)
    (layer,) = source.layers
    assert layer.name == "lora_unet_to_q[lora BA]"
    assert layer.key == "lora_unet_to_q.lora_down.weight"
    scale = 1.0 if alpha is None else float(alpha.sum()) / 2
    up, down = state["lora_unet_to_q.lora_up.weight"], state["lora_unet_to_q.lora_down.weight"]
    check_core(layer, scale * up @ down)
    codes = {s.name: s.skip.code for s in source.skipped}
    assert codes.pop("lora_unet_to_q.alpha", "lora_alpha") == "lora_alpha"
    assert set(codes.values()) == {"lora_half"}


def test_only_a_number_beside_such_a_pair_is_its_alpha() -> None:
    state = {**kohya(), "other.alpha": np.ones(()), "lora_unet_to_q.alpha": np.ones((2, 2))}
    source = open_weights(state)
    assert {s.skip.code for s in source.skipped if "alpha" in s.name} == {"name"}


# --- two pairs ----------------------------------------------------------------------------------


def pair(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    return {"x.lora_A.weight": a, "x.lora_B.weight": b}


def test_permuted_ranks_are_the_same_update() -> None:
    a, b = normal(12, 60), normal(50, 12)
    order = np.random.default_rng(0).permutation(12)
    one, other = pair(a, b), pair(a[order], b[:, order])
    for method in ("raw", "euclidean"):
        assert ps.distances(one, other, method).mean < 1e-12 * np.linalg.norm(b @ a)
        assert ps.distances(one, one, method).mean == 0.0
    assert ps.distances(one, other, "cka").mean == pytest.approx(1.0, rel=1e-12)
    (layer,) = ps.analyze(one, base_model=other).layers
    assert layer.metrics["norm"] < 1e-24 * np.linalg.norm(b @ a) ** 2
    (skipped,) = (s for s in ps.analyze(one, base_model=one).skipped if "[lora" in s.name)
    assert skipped.skip.code == "unchanged"


@pytest.mark.parametrize("ranks", [(12, 12), (12, 3), (12, 60)])
def test_a_difference_of_updates_has_all_of_their_ranks(ranks: tuple[int, int]) -> None:
    halves = [(normal(r, 60), normal(50, r)) for r in ranks]
    one, other = (pair(a, b) for a, b in halves)
    products = [b @ a for a, b in halves]
    (layer,) = ps.analyze(one, base_model=other, min_evals=1).layers
    count = min(50, sum(ranks))
    assert len(layer.esd.evals) == count
    expected = sigma(products[0] - products[1])[:count] ** 2
    np.testing.assert_allclose(layer.esd.evals[::-1], expected, rtol=1e-9, atol=1e-9 * expected[0])
    raw = np.linalg.norm(products[0] - products[1])
    assert ps.distances(one, other).mean == pytest.approx(raw, rel=1e-12)
    expected_cka = ref.cka(*products)
    assert ps.distances(one, other, "cka").mean == pytest.approx(expected_cka, rel=1e-9)


def test_updates_of_other_shapes_are_told_apart() -> None:
    one, other = pair(normal(4, 60), normal(50, 4)), pair(normal(4, 61), normal(50, 4))
    assert ps.distances(one, other).layers[0].reason == "shapes differ: (50, 60) and (50, 61)"
    with pytest.raises(ValueError, match="has another shape in base_model"):
        ps.analyze(one, base_model=other)


def test_an_update_that_is_not_finite_has_no_difference() -> None:
    a, b = normal(4, 60), normal(50, 4)
    a[0, 0] = np.inf
    assert ps.distances(pair(a, b), pair(normal(4, 60), b)).layers[0].reason == "not finite"
