"""Quantised weights are what the libraries make of them, and what is wrong with one is said."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import golden.quantised as golden
import ml_dtypes
import numpy as np
import pytest
import torch
from reference import quantised as reference
from safetensors import safe_open
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file
from weights_checks import by_name, nothing_is_read, reasons, values

import pyspectra as ps
from pyspectra.weights.formats import torch_checkpoint
from pyspectra.weights.formats.torchao import torchao_tensor
from pyspectra.weights.quantised.bits import FLOAT_TABLES, unpacked

Tensors = dict[str, torch.Tensor]
RNG = np.random.default_rng(0)

# Where the library itself rounds what it returns.
ROUNDS = {"nvfp4": 2.0**-8}
EXACT = 1e-6


def folder(path: Path, tensors: Tensors, config: dict[str, Any] | None = None) -> Path:
    save_file({k: v.contiguous() for k, v in tensors.items()}, path / "model.safetensors")
    if config is not None:
        (path / "config.json").write_text(json.dumps({"quantization_config": config}))
    return path


# --- what libraries make ------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["safetensors", "torch", "state dict"])
def test_weights_are_what_the_libraries_say(tmp_path: Path, layout: str) -> None:
    source: Any = golden.PATH
    if layout == "torch":
        source = tmp_path / "model.pt"
        torch.save(load_torch(golden.PATH), source)
    elif layout == "state dict":
        source = load_torch(golden.PATH)
    opened = ps.open_weights(source)
    assert opened.skipped == ()
    with np.load(golden.EXPECTED) as expected:
        assert {layer.name for layer in opened} == set(expected.files)
        for layer in opened:
            W = expected[layer.name].astype(np.float64)
            off = np.abs(values(pickle.loads(pickle.dumps(layer))) - W).max() / np.abs(W).max()
            assert off <= ROUNDS.get(layer.name, EXACT), layer.name
            assert layer.stored_as is not None
            assert len(layer.made_of) > 1


def test_spectra_are_those_of_the_weights_as_arrays() -> None:
    found = ps.analyze(golden.PATH, min_evals=4)
    with np.load(golden.EXPECTED) as arrays:
        whole = {name if "experts" in name else f"{name}.weight": arrays[name] for name in arrays}
    expected = ps.analyze(whole, min_evals=4)
    assert {row.name for row in found} == {row.name for row in expected}
    for row in found:
        off = ROUNDS.get(row.name, EXACT)
        np.testing.assert_allclose(
            row.esd.evals, expected[row.name].esd.evals, rtol=10 * off, atol=off * row.esd.evals[-1]
        )


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_tensors_of_torchao(suffix: str) -> None:
    opened = ps.open_weights(golden.TORCHAO / f"torchao{suffix}")
    assert opened.skipped == ()
    with np.load(golden.TORCHAO / "torchao.npz") as expected:
        assert {layer.name for layer in opened} == set(expected.files)
        for layer in opened:
            found = values(pickle.loads(pickle.dumps(layer)))
            np.testing.assert_array_equal(found, expected[layer.name])
    assert {layer.name: str(layer.stored_as) for layer in opened} == {
        "int8": "8 bits: int8, a scale a row",
        "fp8": "8 bits: fp8 e4m3, a scale a row",
        "int4": "4 bits: int4, groups of 32",
    }


def test_shards_of_torchao_describe_their_own_tensors(tmp_path: Path) -> None:
    whole = load_torch(golden.TORCHAO / "torchao.safetensors")
    with safe_open(golden.TORCHAO / "torchao.safetensors", "pt") as file:
        note = file.metadata()
    for i, name in enumerate(("int4", "int8", "fp8"), start=1):
        own = {k: v for k, v in whole.items() if k.startswith(name)}
        described = {k: note[k] for k in (f"{name}.weight",)}
        described["tensor_names"] = json.dumps([f"{name}.weight"])
        save_file(own, tmp_path / f"model-{i:05}-of-00003.safetensors", described)
    opened = ps.open_weights(tmp_path)
    assert {layer.name: layer.stored_as.bits for layer in opened if layer.stored_as} == {
        "int4": 4,
        "int8": 8,
        "fp8": 8,
    }


@pytest.mark.parametrize(
    ("name", "shape", "changes"),
    [
        ("Int4TilePackedTensor", (2, 8), {}),  # another layout
        ("Int8Tensor", (8, 2), {}),
        ("Int8Tensor", (2, 8), {"scale": None}),
        ("Int8Tensor", (2, 8), {"act_pre_scale": "anything"}),  # the weight was divided by it
    ],
)
def test_what_is_not_known_of_torchao_is_no_tensor(
    tmp_path: Path, name: str, shape: tuple[int, ...], changes: dict[str, Any]
) -> None:
    torch.save({"q": torch.ones(2, 8, dtype=torch.int8), "s": torch.ones(2, 1)}, tmp_path / "a.pt")
    stored = torch_checkpoint.stored(tmp_path / "a.pt")
    state = {"qdata": stored["q"], "scale": stored["s"], "zero_point": None}
    assert torchao_tensor("Int8Tensor", (2, 8), state) is not None
    assert torchao_tensor(name, shape, {**state, **changes}) is None


def test_every_tensor_is_accounted_for() -> None:
    opened = ps.open_weights(golden.PATH)
    used = [key for layer in opened for key in layer.made_of]
    assert sorted(used) == sorted(load_torch(golden.PATH))


def test_opening_reads_no_weights(tmp_path: Path) -> None:
    with nothing_is_read():
        opened = ps.open_weights(golden.PATH)
    data = golden.PATH.read_bytes()
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(data)
    opened = ps.open_weights(copy)
    copy.unlink()  # nothing holds the file
    with pytest.raises(ps.FormatError):
        opened.layers[0].load()


def test_tables_of_small_floats() -> None:
    patterns = np.arange(256, dtype=np.uint8)
    for name, table in FLOAT_TABLES.items():
        with np.errstate(all="ignore"):
            expected = patterns.view(getattr(ml_dtypes, name)).astype(np.float32)
        np.testing.assert_array_equal(table, expected, err_msg=name)


@pytest.mark.parametrize("bits", range(1, 9))
def test_integers_that_share_words(bits: int) -> None:
    numbers = RNG.integers(0, 1 << bits, (3, 64))
    np.testing.assert_array_equal(unpacked(reference.words(numbers, bits), bits), numbers)


# --- modules ------------------------------------------------------------------------------------


class Codes(torch.nn.Parameter):
    """A parameter with scales as an attribute, as those of bitsandbytes are."""


class State:
    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors

    def as_dict(self, packed: bool) -> Tensors:
        assert packed
        return self.tensors


def module_of(tensors: Tensors, name: str) -> torch.nn.Module:
    own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
    layer = torch.nn.Linear(64, 16, bias=False)
    weight = Codes(own.pop("weight"), requires_grad=False)
    layer._parameters["weight"] = weight
    if "SCB" in own:
        weight.SCB = own["SCB"]
    elif "weight_scale_inv" in own:
        layer.weight_scale_inv = torch.nn.Parameter(own["weight_scale_inv"], requires_grad=False)
    else:
        weight.quant_state = State({k.removeprefix("weight."): v for k, v in own.items()})
    return torch.nn.ModuleDict({name: layer})


@pytest.mark.parametrize(
    "name", ["bitsandbytes_nf4", "bitsandbytes_fp4_nested", "bitsandbytes_int8", "fp8_blocks"]
)
def test_modules_are_read_like_their_files(name: str) -> None:
    module = module_of(load_torch(golden.PATH), name)
    expected = by_name(ps.open_weights(golden.PATH))[name]
    opened = ps.open_weights(module)
    (layer,) = opened
    assert opened.skipped == ()
    assert (layer.kind, layer.stored_as) == ("linear", expected.stored_as)
    np.testing.assert_array_equal(values(layer), values(expected))
    np.testing.assert_array_equal(values(pickle.loads(pickle.dumps(layer))), values(expected))


# --- GPTQ ---------------------------------------------------------------------------------------


def gptq(
    bits: int, *, group_size: int = 32, act_order: bool = False, first_version: bool = True
) -> tuple[Tensors, np.ndarray]:
    rows, columns = 32, 96
    count = columns // group_size
    numbers = RNG.integers(0, 1 << bits, (rows, columns))
    zeros = RNG.integers(0, 1 << bits, (rows, count))
    scales = RNG.uniform(0.01, 0.1, (rows, count)).astype(np.float16)
    groups = np.arange(columns) // group_size
    if act_order:
        groups = RNG.permutation(groups)
    made = reference.gptq_tensors(numbers, zeros, bits, first_version=first_version)
    tensors = {
        "fc.qweight": torch.from_numpy(made["qweight"]),
        "fc.qzeros": torch.from_numpy(made["qzeros"]),
        "fc.scales": torch.from_numpy(scales.T.copy()),
        "fc.g_idx": torch.from_numpy(groups.astype(np.int32)),
    }
    return tensors, reference.dequantised(numbers, zeros, scales, groups)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [32, 48, 96])
@pytest.mark.parametrize("act_order", [False, True])
def test_gptq(tmp_path: Path, bits: int, group_size: int, act_order: bool) -> None:
    for first_version in (True, False):
        tensors, W = gptq(
            bits, group_size=group_size, act_order=act_order, first_version=first_version
        )
        layout = "gptq" if first_version else "gptq_v2"
        config = {"quant_method": "gptq", "bits": bits, "checkpoint_format": layout}
        (layer,) = ps.open_weights(folder(tmp_path, tensors, config))
        assert (layer.name, layer.key, layer.shape) == ("fc", "fc.weight", W.shape)
        assert layer.stored_as is not None
        assert layer.stored_as.bits == bits
        np.testing.assert_allclose(values(layer), W, rtol=1e-6, atol=1e-7)


def test_gptq_without_an_order_of_groups_or_a_configuration() -> None:
    tensors, W = gptq(4)
    del tensors["fc.g_idx"]
    (layer,) = ps.open_weights(tensors)
    np.testing.assert_allclose(values(layer), W, rtol=1e-6, atol=1e-7)


# --- scales -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "scales", "block", "words"),
    [
        ((200, 300), (2, 3), (128, 128), "blocks of 128 x 128"),
        ((192, 64), (3, 1), (64, 64), "blocks of 64 x 64"),
        ((20, 30), (20, 1), (1, 30), "a scale a row"),
        ((20, 30), (20,), (1, 30), "a scale a row"),
        ((20, 30), (), (20, 30), "one scale"),
        ((20, 30), (1,), (20, 30), "one scale"),
        ((20, 32), (20, 4), (1, 8), "groups of 8"),
    ],
)
@pytest.mark.parametrize("ending", ["_scale_inv", "_scale"])
def test_scales_of_fp8(
    shape: tuple[int, int],
    scales: tuple[int, ...],
    block: tuple[int, int],
    words: str,
    ending: str,
) -> None:
    stored = torch.randn(shape).to(torch.float8_e4m3fn)
    scale = torch.rand(scales)
    config_free = {"fc.weight": stored, f"fc.weight{ending}": scale}
    (layer,) = ps.open_weights(config_free)
    spread = scale.numpy().reshape(scales if len(scales) == 2 else (-1, 1))
    W = reference.blockwise(stored.float().numpy(), spread, block)
    np.testing.assert_allclose(values(layer), W, rtol=1e-6)
    assert layer.stored_as is not None
    assert str(layer.stored_as) == f"8 bits: fp8 e4m3, {words}"


def test_the_configuration_tells_the_blocks(tmp_path: Path) -> None:
    stored = torch.randn(150, 150).to(torch.float8_e5m2)
    scale = torch.rand(2, 2)
    path = folder(
        tmp_path,
        {"fc.weight": stored, "fc.weight_scale_inv": scale},
        {"quant_method": "fp8", "weight_block_size": [100, 100]},
    )
    (layer,) = ps.open_weights(path)
    W = reference.blockwise(stored.float().numpy(), scale.numpy(), (100, 100))
    np.testing.assert_allclose(values(layer), W, rtol=1e-6)


def test_two_four_bit_floats_in_a_byte_with_exponents_as_scales() -> None:
    octets = torch.randint(-128, 128, (6, 32), dtype=torch.int8)
    exponents = torch.randint(120, 130, (6, 2), dtype=torch.uint8)
    scales = exponents.view(torch.float8_e8m0fnu)
    (layer,) = ps.open_weights({"fc.weight": octets, "fc.scale": scales})
    sizes = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    W = np.empty((6, 64))
    for i in range(6):
        for j in range(64):
            code = (int(octets[i, j // 2]) & 0xFF) >> (4 * (j % 2)) & 15
            size = sizes[code & 7] * 2.0 ** (int(exponents[i, j // 32]) - 127)
            W[i, j] = -size if code & 8 else size
    np.testing.assert_array_equal(values(layer), W)
    assert str(layer.stored_as) == "4 bits: mxfp4, groups of 32"


def test_stacked_experts_with_scales_of_their_own() -> None:
    stored = torch.randn(4, 20, 30).to(torch.float8_e4m3fn)
    scale = torch.rand(4, 1, 1)
    name = "model.layers.0.mlp.experts.down_proj"
    (layer,) = ps.open_weights({name: stored, f"{name}_scale": scale})
    assert (layer.kind, layer.shape) == ("expert_stack", (4, 20, 30))
    np.testing.assert_allclose(values(layer), (stored.float() * scale).numpy(), rtol=1e-6)


# --- beside other models ------------------------------------------------------------------------


def test_a_quantised_model_has_the_names_and_ids_of_the_model() -> None:
    tensors, W = gptq(4)
    quantised = {
        **{key.replace("fc", "layers.0.q_proj"): value for key, value in tensors.items()},
        "layers.0.norm.weight": torch.ones(9),
        "layers.0.up_proj.weight": torch.randn(60, 40),
    }
    plain = {
        "layers.0.q_proj.weight": torch.from_numpy(W).half(),
        "layers.0.norm.weight": torch.ones(9),
        "layers.0.up_proj.weight": quantised["layers.0.up_proj.weight"],
    }
    found = by_name(ps.open_weights(quantised))
    expected = by_name(ps.open_weights(plain))
    assert {n: (x.layer_id, x.key, x.shape) for n, x in found.items()} == {
        n: (x.layer_id, x.key, x.shape) for n, x in expected.items()
    }
    report = ps.analyze(quantised, base_model=plain)
    assert [s.name for s in report.skipped if s.skip.code == "unchanged"] == ["layers.0.up_proj"]
    report = ps.analyze(quantised)
    assert report["layers.0.q_proj"].stored_as is not None
    assert "dequantised from 4 bits" in report.verdict.text


# --- what is wrong ------------------------------------------------------------------------------


def drop(key: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.__delitem__(key)


def put(key: str, value: torch.Tensor) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({key: value})


def state(**changes: Any) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        key = "bitsandbytes_nf4.weight.quant_state.bitsandbytes__nf4"
        values = {**json.loads(bytes(tensors[key].tolist())), **changes}
        tensors[key] = torch.tensor(list(json.dumps(values).encode()), dtype=torch.uint8)

    return change


MISFITS: list[tuple[str, Callable[[Tensors], None], str]] = [
    ("fc.qweight", drop("fc.scales"), "fc.scales is missing"),
    ("fc.qweight", drop("fc.qzeros"), "fc.qzeros is missing"),
    ("fc.qweight", put("fc.scales", torch.rand(3, 31)), "do not fit together"),
    ("fc.qweight", put("fc.scales", torch.rand(5, 32)), "do not fit together"),
    ("fc.qweight", put("fc.qzeros", torch.ones(3, 5, dtype=torch.int32)), "zero points"),
    ("fc.qweight", put("fc.g_idx", torch.zeros(95, dtype=torch.int32)), "not (96,)"),
    ("fc.qweight", put("fc.qzeros", torch.ones(0, 4, dtype=torch.int32)), "empty"),
    ("fc.qweight", put("fc.weight", torch.rand(9, 8)), "in the source as well"),
    ("bitsandbytes_nf4", drop("bitsandbytes_nf4.weight.absmax"), "absmax is missing"),
    ("bitsandbytes_nf4", put("bitsandbytes_nf4.weight.quant_map", torch.rand(15)), "not (16,)"),
    ("bitsandbytes_nf4", put("bitsandbytes_nf4.weight.absmax", torch.rand(15)), "not (16,)"),
    ("bitsandbytes_nf4", state(shape=[1 << 30, 1 << 30]), "hold no"),
    ("bitsandbytes_nf4", state(shape=[1 << 50, 1]), "a length"),
    ("bitsandbytes_nf4", state(shape=[16, -64]), "a length of -64"),
    ("bitsandbytes_nf4", state(blocksize=0), "a block size of 0"),
    ("bitsandbytes_nf4", state(blocksize=True), "a block size of True"),
    ("bitsandbytes_nf4_nested", drop("bitsandbytes_nf4_nested.weight.nested_quant_map"), "missing"),
    ("bitsandbytes_int8", put("bitsandbytes_int8.SCB", torch.rand(15)), "not (16,)"),
    ("bitsandbytes_int8", put("bitsandbytes_int8.weight_format", torch.tensor([2]).byte()), "rows"),
    ("fp8_blocks", put("fp8_blocks.weight_scale_inv", torch.rand(3, 5)), "do not fit a weight"),
    ("fp8_blocks", put("fp8_blocks.weight_scale_inv", torch.rand(2, 1, 1)), "do not fit a weight"),
    ("fp8_blocks", put("fp8_blocks.weight_scale_inv", torch.ones(2, 1).int()), "of type int32"),
    ("int4.weight_packed", drop("int4.weight_shape"), "int4.weight_shape is missing"),
    ("int4.weight_packed", put("int4.weight_shape", torch.tensor([16, 1 << 40])), "do not hold"),
    ("int4.weight_packed", put("int4.weight_shape", torch.tensor([-1, 64])), "do not fit"),
    ("int4.weight_packed", put("int4.weight_shape", torch.tensor([16, 0])), "do not hold"),
    (
        "int4_zeros.weight_packed",
        put("int4_zeros.weight_zero_point", torch.ones(1, 2).int()),
        "not",
    ),
    ("experts.up_proj_blocks", put("experts.up_proj_scales", torch.ones(3, 8, 1).byte()), "not"),
    ("experts.up_proj_blocks", drop("experts.up_proj_scales"), "is missing"),
    ("nvfp4.weight_packed", put("nvfp4.weight_global_scale", torch.rand(3)), "a global scale"),
]


@pytest.mark.parametrize(("name", "spoil", "words"), MISFITS)
def test_what_does_not_fit_is_one_line_and_the_rest_goes_on(
    tmp_path: Path, name: str, spoil: Callable[[Tensors], None], words: str
) -> None:
    tensors = {**load_torch(golden.PATH), **gptq(4)[0]}
    whole = {layer.name for layer in ps.open_weights(tensors)}
    spoil(tensors)
    opened = ps.open_weights(folder(tmp_path, tensors))
    assert words in reasons(opened)[name]
    lost = name.partition("_blocks")[0] if "experts" in name else name.partition(".")[0]
    assert {layer.name for layer in opened} >= whole - {lost}
    used = [key for layer in opened for key in layer.made_of or (layer.key,)]
    skipped = [key if key in tensors else f"{key}.weight" for key in reasons(opened)]
    assert sorted([*used, *skipped]) == sorted(tensors)
    (line,) = (s for s in opened.skipped if s.name == name)
    assert line.is_matrix
    assert not any(s.is_matrix for s in opened.skipped if s.skip.code == "quantised_part")


@pytest.mark.parametrize("group", [-1, 3, 1 << 30])
def test_a_group_out_of_range_is_an_unread_layer(group: int) -> None:
    tensors, _ = gptq(4)
    tensors["fc.g_idx"][5] = group
    tensors["up.weight"] = torch.randn(60, 40)
    report = ps.analyze(tensors)
    assert [row.name for row in report] == ["up"]
    (line,) = (s for s in report.skipped if s.name == "fc")
    assert line.failed
    assert f"g_idx names group {group} of 3" in line.reason


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "'marlin' is not read"),
        ({"quant_method": "hqq"}, "packed by hqq"),
    ],
)
def test_other_layouts_are_named(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    tensors, _ = gptq(4)
    if config["quant_method"] == "hqq":
        tensors = {"fc.W_q": torch.ones(9, 8, dtype=torch.uint8)}
    opened = ps.open_weights(folder(tmp_path, {**tensors, "up.weight": torch.rand(9, 8)}, config))
    assert [layer.name for layer in opened] == ["up"]
    assert any(words in reason for reason in reasons(opened).values())


def test_packed_numbers_are_counted_as_the_parameters_they_are() -> None:
    tensors, W = gptq(4)
    del tensors["fc.scales"]
    (line,) = (s for s in ps.open_weights(tensors).skipped if s.name == "fc.qweight")
    assert (line.parameters, line.is_matrix) == (W.size, True)


def test_a_configuration_that_is_broken_is_said(tmp_path: Path) -> None:
    path = folder(tmp_path, gptq(4)[0])
    (path / "config.json").write_text("{")
    with pytest.raises(ps.FormatError, match="not a valid configuration"):
        ps.open_weights(path)


def test_ordinary_integers_stay_what_they_were() -> None:
    tensors = {"fc.weight": torch.ones(9, 8, dtype=torch.int8), "up.weight": torch.rand(9, 8)}
    opened = ps.open_weights(tensors)
    assert "integer dtype int8" in reasons(opened)["fc"]
