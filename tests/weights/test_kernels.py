"""Weights in the layout of Keras and JAX, told by their names: the same matrices as torch's."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from weights_checks import by_name, reasons, sigma, values

from pyspectra.weights import WeightSource, open_weights
from pyspectra.weights.matricize import matricize, matrix_shape

RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def spectra(source: WeightSource, name: str) -> list[float]:
    """Singular values of all matrices of a layer, in ascending order."""
    layer = by_name(source)[name]
    found = matricize(layer, layer.load())
    assert matrix_shape(layer) == (found.N, found.M, found.rf)
    return sorted(s for part in found.slices for s in sigma(part.to_float64()))


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape)


# Names and arrays of one layer in the layout of Keras and JAX, and its weight as torch keeps it.
Case = tuple[dict[str, np.ndarray], np.ndarray]
dense, conv1, conv2, conv3 = (
    normal(7, 5),
    normal(3, 7, 5),
    normal(3, 2, 7, 5),
    normal(2, 3, 2, 7, 5),
)
heads, out, heads_first = normal(8, 4, 2), normal(4, 2, 8), normal(4, 8, 2)
depthwise = normal(3, 3, 6, 2)
CASES: dict[str, Case] = {
    "linear": ({"l.kernel": dense, "l.bias": zeros(5)}, dense.T),
    "embedding": ({"l.embedding": dense}, dense),
    "embeddings": ({"l.embeddings": dense}, dense),
    "conv1d": ({"l_conv.kernel": conv1, "l_conv.bias": zeros(5)}, conv1.transpose(2, 1, 0)),
    "conv2d": ({"l.kernel": conv2, "l.bias": zeros(5)}, conv2.transpose(3, 2, 0, 1)),
    "conv3d": ({"l.kernel": conv3}, conv3.transpose(4, 3, 0, 1, 2)),
    "transposed": ({"l_transpose.kernel": conv2}, conv2.transpose(3, 2, 0, 1)),
    "depthwise": (
        {"l.depthwise_kernel": depthwise, "l.pointwise_kernel": normal(1, 1, 12, 4)},
        depthwise.reshape(3, 3, 12, 1).transpose(2, 3, 0, 1),
    ),
    "depthwise by its bias": (
        {"l.kernel": depthwise, "l.bias": zeros(12)},
        depthwise.reshape(3, 3, 12, 1).transpose(2, 3, 0, 1),
    ),
    "heads by their bias": (
        {"l.query.kernel": heads, "l.query.bias": zeros(4, 2)}, heads.reshape(8, 8).T
    ),
    "heads by the way out": (
        {"l.query.kernel": heads, "l.out.kernel": out}, heads.reshape(8, 8).T
    ),
    "heads first": (
        {"l.q_proj.kernel": heads_first, "l.o_proj.kernel": out},
        heads_first.transpose(1, 0, 2).reshape(8, 8).T,
    ),
    "all heads at once": (
        {"l.qkv.kernel": normal(8, 3, 4, 2), "l.qkv.bias": zeros(3, 4, 2)}, np.empty(0)
    ),
    "way out": ({"l.out.kernel": out, "l.out.bias": zeros(8)}, out.reshape(8, 8).T),
    "experts": ({"l.experts.wi.kernel": normal(3, 8, 9)}, np.empty(0)),
    "layers in a scan": ({"l.kernel": normal(3, 8, 9), "l.bias": zeros(3, 9)}, np.empty(0)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("separator", [".", "/"])
def test_the_spectra_are_those_of_torch(case: str, separator: str, tmp_path: Path) -> None:
    arrays, weight = CASES[case]
    arrays = {key.replace(".", separator): array for key, array in arrays.items()}
    key = next(iter(arrays))
    name = key.removesuffix(f"{separator}kernel")
    name = name.removesuffix(f"{separator}embedding").removesuffix(f"{separator}embeddings")
    np.savez(tmp_path / "m.npz", **arrays)
    for source in (open_weights(arrays), open_weights(tmp_path / "m.npz")):
        found = spectra(source, name)
        if not weight.size:  # a stack: one matrix along the first axis each; or all in one
            stored = arrays[key]
            kept = stored.reshape(8, -1)[None] if stored.ndim == 4 else stored
            expected = sorted(s for part in kept for s in sigma(part))
        else:
            torch_key = "l.conv.weight" if weight.ndim > 2 else "l.weight"
            expected = spectra(open_weights({torch_key: weight}), torch_key.removesuffix(".weight"))
        np.testing.assert_allclose(found, expected, atol=1e-12)
        wholes = [layer for layer in source.layers if layer.part_of is None]
        assert len(wholes) + len(source.skipped) == len(arrays)
        assert all(r == "bias: not a weight matrix" for r in reasons(source).values())
        copy = pickle.loads(pickle.dumps(by_name(source)[name]))
        np.testing.assert_array_equal(values(copy), values(by_name(source)[name]))


def test_the_gates_of_recurrent_kernels_are_parts() -> None:
    for gates, names in ((4, "ifgo"), (3, "zrn")):
        kernel, hidden = normal(9, gates * 6), normal(6, gates * 6)
        source = open_weights({
            "rnn.cell.kernel": kernel, "rnn.cell.recurrent_kernel": hidden,
            "rnn.cell.bias": normal(2, gates * 6),
        })  # fmt: skip
        layers = by_name(source)
        assert reasons(source) == {"rnn.cell.bias": "bias: not a weight matrix"}
        assert list(layers) == [
            part
            for whole in ("rnn.cell", "rnn.cell.recurrent_kernel")
            for part in (whole, *(f"{whole}[{n}]" for n in names))
        ]
        for i, n in enumerate(names):
            columns = slice(6 * i, 6 * i + 6)
            np.testing.assert_array_equal(values(layers[f"rnn.cell[{n}]"]), kernel[:, columns])


def test_query_key_and_value_in_one_kernel() -> None:
    for shape, parts in (((8, 3, 4, 2), 3), ((8, 4, 3, 2), 0)):
        source = open_weights({"a.qkv.kernel": normal(*shape), "a.qkv.bias": zeros(*shape[1:])})
        assert len(source.layers) == 1 + parts
        assert source.layers[0].shape == (8, 24)


def test_what_the_names_do_not_tell_is_listed() -> None:
    source = open_weights({
        "a.query.kernel": normal(4, 8, 2),  # heads of unknown order
        "a.embedding": normal(1, 8, 2), "b.kernel": normal(2, 2, 2, 2, 2, 2), "c.kernel": normal(3),
    })  # fmt: skip
    assert source.layers == ()
    assert set(reasons(source)) == {"a.query", "a", "b", "c"}
    both = open_weights({"a.kernel": dense, "a.weight": dense.copy(), "a": dense.copy()})
    assert [la.name for la in both] == ["a.kernel", "a.weight"]
