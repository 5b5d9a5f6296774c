"""Rules from weights to matrices."""

from __future__ import annotations

import numpy as np
import pytest

from pyspectra._arrays import HostArray
from pyspectra.weights.layer import Layer
from pyspectra.weights.matricize import apart, matricize, matrix_shape


def make(kind: str, shape: tuple[int, ...]) -> tuple[Layer, HostArray]:
    array = HostArray(np.arange(np.prod(shape), dtype=np.float64).reshape(shape), "float64")
    return Layer("l", kind, shape, "float64", 1, "l.weight", lambda: array), array


@pytest.mark.parametrize("kind", ["linear", "embedding", "conv1d_gpt2", "attention_in_proj", "rnn"])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (1, 4)])
def test_one_matrix(kind: str, shape: tuple[int, ...]) -> None:
    layer, array = make(kind, shape)
    matrices = matricize(layer, array)
    assert (matrices.N, matrices.M, matrices.rf) == (max(shape), min(shape), 1)
    assert np.shares_memory(matrices.slices[0].data, array.data)
    np.testing.assert_array_equal(matrices.slices[0].data, array.data)
    assert matrix_shape(layer) == (matrices.N, matrices.M, 1)


@pytest.mark.parametrize("kind", ["conv2d", "conv2d_grouped", "conv_transpose2d"])
def test_conv2d_slices_run_over_rows_then_columns(kind: str) -> None:
    layer, array = make(kind, (4, 6, 2, 3))
    matrices = matricize(layer, array)
    assert (matrices.N, matrices.M, matrices.rf) == (6, 4, 6)
    assert matrix_shape(layer) == (6, 4, 6)
    for n, (i, j) in enumerate((i, j) for i in range(2) for j in range(3)):
        part = matrices.slices[n].data
        assert np.shares_memory(part, array.data)
        np.testing.assert_array_equal(part, array.data[:, :, i, j])


def test_other_convolutions_and_experts() -> None:
    layer, array = make("conv1d", (4, 2, 3))
    assert matrix_shape(layer) == (4, 2, 3)
    np.testing.assert_array_equal(matricize(layer, array).slices[2].data, array.data[:, :, 2])
    layer, array = make("conv3d", (2, 3, 2, 2, 2))
    assert matrix_shape(layer) == (3, 2, 8)
    np.testing.assert_array_equal(matricize(layer, array).slices[5].data, array.data[:, :, 1, 0, 1])
    layer, array = make("expert_stack", (7, 4, 6))
    assert matrix_shape(layer) == (6, 4, 7)
    np.testing.assert_array_equal(matricize(layer, array).slices[3].data, array.data[3])


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("conv1d", (40, 30, 50)), ("conv2d", (300, 20, 3, 2)), ("conv_transpose2d", (5, 4, 1, 9)),
     ("conv3d", (2, 3, 2, 1, 2))],
)  # fmt: skip
def test_slices_of_a_convolution_are_laid_apart(kind: str, shape: tuple[int, ...]) -> None:
    layer, array = make(kind, shape)
    moved = apart(layer, array)
    assert moved.dtype == array.dtype
    np.testing.assert_array_equal(moved.data, array.data)
    for found, wanted in zip(
        matricize(layer, moved).slices, matricize(layer, array).slices, strict=True
    ):
        assert found.data.flags.c_contiguous
        np.testing.assert_array_equal(found.data, wanted.data)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("linear", (4, 5)), ("expert_stack", (3, 4, 5)), ("conv2d", (4, 5, 1, 1)),
     ("conv2d_grouped", (6, 1, 3, 3))],
)  # fmt: skip
def test_nothing_is_copied_where_no_slices_are_interleaved(
    kind: str, shape: tuple[int, ...]
) -> None:
    layer, array = make(kind, shape)
    assert apart(layer, array) is array


def test_other_layouts_of_a_convolution_stay_as_they_are() -> None:
    layer, array = make("conv2d", (4, 6, 3, 2))
    strided = array.view((slice(None), slice(None), slice(None, None, 2)))
    assert apart(layer, strided) is strided
    axes = ("height", "width", "in", "out")
    keras = Layer("l", "conv2d", (3, 2, 6, 4), "float64", 1, "l", lambda: array, axes=axes)
    stored = HostArray(np.zeros((3, 2, 6, 4)), "float64")
    assert apart(keras, stored) is stored


def test_shape_needs_no_load() -> None:
    def fail() -> HostArray:
        raise AssertionError

    assert matrix_shape(Layer("l", "linear", (9, 2), "float32", 1, "l.weight", fail)) == (9, 2, 1)


def test_what_has_no_rule_is_said_clearly() -> None:
    layer, array = make("unknown", (2, 3))
    with pytest.raises(ValueError, match=r"of a kind with a rule, got kind 'unknown' \(layer 'l'"):
        matricize(layer, array)
    layer, array = make("linear", (2, 3, 4))
    with pytest.raises(ValueError, match="must be 2-D"):
        matrix_shape(layer)
    layer, _ = make("linear", (2, 3))
    with pytest.raises(ValueError, match="must have the layer's shape"):
        matricize(layer, array)
