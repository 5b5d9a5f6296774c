"""Kinds of layers: axes make matrices, names and modules make kinds."""

from __future__ import annotations

import numpy as np
import pytest

import pyspectra as ps
from pyspectra._arrays import HostArray
from pyspectra.weights.kinds import KINDS, Kind, guess_kind
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
    assert guess_kind("rnn.weight_ih_l0", (8, 3)) == "rnn"
    assert guess_kind("rnn.weight_ih_l0", (8, 3, 1)) == "conv1d"
    assert guess_kind("tok_embeddings.weight", (8, 3)) == "embedding"
    assert guess_kind("embedder.weight", (8, 3)) == "linear"
    assert guess_kind("experts.w1", (2, 8, 3)) == "expert_stack"
    assert guess_kind("x.weight", (2,) * 6) == "unknown"


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
