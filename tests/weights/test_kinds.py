"""Kinds of layers: axes make matrices, names and modules make kinds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import pyspectra as ps
from pyspectra._arrays import HostArray
from pyspectra.weights.kinds import KINDS, Guess, Kind, guess_kind
from pyspectra.weights.layer import Layer
from pyspectra.weights.matricize import matricize, matrix_shape


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_makes_as_many_matrices_as_its_other_axes_have_positions(kind: Kind) -> None:
    assert sorted(axis for axis in kind.axes if axis in ("in", "out")) == ["in", "out"]
    shape = tuple(range(2, 2 + kind.rank))
    array = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    layer = Layer("l", kind.name, shape, "float64", 1, "l.weight", lambda: None)  # type: ignore[arg-type, return-value]
    matrices = matricize(layer, HostArray(array, "float64"))
    sides = dict(zip(kind.axes, shape, strict=True))
    pair = (sides.pop("out"), sides.pop("in"))
    assert (max(pair), min(pair)) == (matrices.N, matrices.M)
    assert matrices.rf == len(matrices.slices) == int(np.prod(list(sides.values()) or [1]))
    assert matrix_shape(layer) == (matrices.N, matrices.M, matrices.rf)
    together = np.concatenate([part.data.ravel() for part in matrices.slices])
    assert sorted(together) == sorted(array.ravel())


def test_a_source_may_store_the_axes_in_another_order() -> None:
    """Keras stores height, width, in, out; GGUF reverses everything."""
    W = np.random.default_rng(0).standard_normal((6, 5, 2, 3))
    torch_layout = Layer("l", "conv2d", W.shape, "float64", 1, "l.weight", lambda: None)  # type: ignore[arg-type, return-value]
    expected = [s.data for s in matricize(torch_layout, HostArray(W, "float64")).slices]
    for order in ((2, 3, 1, 0), (3, 2, 1, 0)):
        stored = np.ascontiguousarray(W.transpose(order))
        axes = tuple(KINDS["conv2d"].axes[i] for i in order)
        layer = Layer(
            "l", "conv2d", stored.shape, "float64", 1, "l", lambda: None, axes=axes  # type: ignore[arg-type, return-value]
        )  # fmt: skip
        found = [s.data.T for s in matricize(layer, HostArray(stored, "float64")).slices]
        assert matrix_shape(layer) == (6, 5, 6)
        assert len(found) == len(expected)
        assert all(any(np.array_equal(x, y) for y in expected) for x in found)


def test_a_name_takes_the_first_kind_that_fits() -> None:
    assert guess_kind("rnn.weight_ih_l0", (8, 3)).name == "rnn"
    assert guess_kind("rnn.weight_ih_l0", (8, 3, 1)).name == "conv1d"
    assert guess_kind("tok_embeddings.weight", (8, 3)).name == "embedding"
    assert guess_kind("embedder.weight", (8, 3)).name == "linear"
    assert guess_kind("experts.w1", (2, 8, 3)).name == "expert_stack"
    assert guess_kind("x.weight", (2,) * 6) == Guess("unknown")


@pytest.mark.parametrize(
    ("key", "shape", "kind", "others"),
    [
        # Stacks, as gpt-oss, Llama 4, Qwen3-MoE, DeepSeek and Mixtral (from transformers 5 on),
        # MegaBlocks and GGUF call them.
        ("model.layers.0.mlp.experts.gate_up_proj", (32, 2880, 5760), "expert_stack", ()),
        ("model.layers.0.mlp.experts.down_proj", (4, 9, 8), "expert_stack", ()),
        (
            "language_model.layers.1.feed_forward.experts.gate_up_proj",
            (4, 9, 8),
            "expert_stack",
            (),
        ),
        ("transformer.blocks.0.ffn.experts.mlp.w1", (4, 9, 8), "expert_stack", ()),
        ("moe.experts.weight", (4, 9, 8), "expert_stack", ()),
        ("moe.experts.w1.weight", (4, 9, 8), "expert_stack", ()),
        ("blk.0.ffn_gate_exps.weight", (8, 128, 128), "expert_stack", ()),
        ("layers.3.experts.0.w1", (4, 9, 8), "expert_stack", ()),
        # One expert, which may well hold a convolution.
        ("experts.0.weight", (32, 48, 9), "conv1d", ("expert_stack",)),
        ("m.expert_1.weight", (32, 48, 9), "conv1d", ("expert_stack",)),
        ("experts.0.conv.weight", (32, 48, 9), "conv1d", ()),
        ("m.experts.3.conv1.weight", (32, 48, 9), "conv1d", ()),
        # Nothing but the shape: kernels are short.
        ("net.0.weight", (32, 48, 9), "conv1d", ("expert_stack",)),
        ("moe.input_linear.weight", (40, 1024, 1536), "expert_stack", ("conv1d",)),
        ("moe.input_linear.weight", (40, 96, 8), "conv1d", ("expert_stack",)),
        ("encoder.pos_conv_embed.weight", (768, 128, 128), "conv1d", ()),
        ("bilinear.weight", (4, 5, 6), "unknown", ()),
        # Stacks in modules of several weights (Zamba, RecurrentGemma), and no module's convolution.
        ("layers.0.mamba.dt_proj_weight", (2, 9, 8), "expert_stack", ()),
        ("mixer.conv_weight", (32, 1, 4), "conv1d", ()),
        # Other ranks make the same matrices whatever the kind.
        ("x.weight", (4, 5), "linear", ()),
        ("experts.0.weight", (4, 5), "linear", ()),
        ("x.weight", (4, 5, 3, 3), "conv2d", ()),
    ],
)
def test_tensors_of_three_axes_are_slices_along_the_last_or_the_first(
    key: str, shape: tuple[int, ...], kind: str, others: tuple[str, ...]
) -> None:
    assert guess_kind(key, shape) == Guess(kind, others)


def test_where_name_and_shape_do_not_decide_the_row_says_so(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.ModuleDict({
        "experts": nn.ModuleList([nn.Conv1d(32, 48, 9)]), "form": nn.Bilinear(20, 30, 10),
        "bilinear": nn.Bilinear(20, 30, 10),
    })  # fmt: skip
    known, guessed = ps.analyze(model), ps.analyze(model.state_dict())
    assert known["experts.0"].kind == guessed["experts.0"].kind == "conv1d"
    assert known["experts.0"].alpha == guessed["experts.0"].alpha
    assert known["experts.0"].could_be == ()
    assert guessed["experts.0"].could_be == ("expert_stack",)
    found = {f.where: f for f in guessed.findings if f.code == "kind_guessed"}
    assert set(found) == {"experts.0", "form"}
    assert found["form"].severity == "info"
    assert (
        "taken for conv1d: by its name and shape it could be expert_stack" in found["form"].message
    )
    assert {s.name for s in known.skipped if s.skip.code == "no_rule"} == {"form", "bilinear"}
    assert {s.name for s in guessed.skipped if s.skip.code == "no_rule"} == {"bilinear"}
    assert not [f for f in known.findings if f.code == "kind_guessed"]
    listed = json.loads(guessed.to_json())["findings"]
    assert [f["where"] for f in listed if f["code"] == "kind_guessed"] == ["form", "experts.0"]
    guessed.save(tmp_path / "report")
    assert ps.Report.load(tmp_path / "report") == guessed
    slices = ps.analyze(model.state_dict(), pool=False)
    assert [f.where for f in slices.findings if f.code == "kind_guessed"] == ["form", "experts.0"]


def test_weightwatcher_calls_a_grouped_convolution_a_convolution() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Conv2d(16, 16, 3, groups=2), torch.nn.Linear(30, 20))
    report = ps.analyze(model)
    assert [row["kind"] for row in report.rows()] == ["conv2d_grouped", "linear"]
    assert [row["layer_type"] for row in report.rows("weightwatcher")] == ["conv2d", "dense"]
    assert {kind.layer_type for kind in KINDS.values() if kind.grouped} == {
        name for name in KINDS if name.startswith("conv") and "grouped" not in name
    } - {"conv1d_gpt2"}


def test_what_the_class_of_a_module_says_gives_way_to_the_shape() -> None:
    torch = pytest.importorskip("torch")
    odd = torch.nn.Linear(3, 4)
    odd.weight = torch.nn.Parameter(torch.ones(4, 3, 2))
    (layer,) = ps.open_weights(torch.nn.Sequential(odd)).layers
    assert (layer.kind, matrix_shape(layer)) == ("conv1d", (4, 3, 2))


def test_names_that_end_like_a_weight_name_one() -> None:
    content = {
        "projector.mm_input_projection_weight": np.ones((9, 8)),  # Gemma 3
        "mlp.fc1_weight": np.ones((9, 8)),  # Transformer Engine
        "mamba.x_proj_weight": np.ones((2, 9, 8)),  # Zamba
        "mlp.layer_norm_weight": np.ones(9),
        "mlp.fc1_bias": np.ones((1, 9)),
        "mamba.A_log": np.ones((9, 8)),
    }
    source = ps.open_weights(content)
    assert {layer.name: layer.kind for layer in source} == {
        "projector.mm_input_projection_weight": "linear",
        "mlp.fc1_weight": "linear",
        "mamba.x_proj_weight": "expert_stack",
    }
    codes = {s.name: s.skip.code for s in source.skipped}
    assert codes == {
        "mlp.layer_norm_weight": "name",
        "mlp.fc1_bias": "bias",
        "mamba.A_log": "name",
    }


def test_a_vector_of_several_axes_is_no_stack_of_matrices() -> None:
    content = {"grn.weight": np.ones((1, 1, 1, 384)), "mix.weight": np.ones((1, 1, 9)),
               "conv.weight": np.ones((16, 1, 9))}  # fmt: skip
    source = ps.open_weights(content)
    assert [layer.name for layer in source] == ["conv"]
    assert {s.name: s.skip.code for s in source.skipped} == {"grn": "one_axis", "mix": "one_axis"}
