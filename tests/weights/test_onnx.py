"""ONNX files: golden ones of torch's exporters, graphs made by hand, and hostile files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from container_checks import FILES, check_container, check_truncated, spectrum, torch_spectrum
from weights_checks import by_name, reasons, values

from pyspectra.errors import FormatError
from pyspectra.weights import WeightSource, open_weights
from pyspectra.weights.formats.protobuf import varints

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

# --- what torch exports -------------------------------------------------------------------------


def golden(name: str, tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder with the file and what is beside it, and the weights that torch saved."""
    folder = tmp_path / "given"
    folder.mkdir()
    for file in FILES.glob(f"{name}.onnx*"):
        if file.suffix != ".npz":
            shutil.copy(file, folder)
    with np.load(FILES / f"{name}.onnx.npz") as arrays:
        weights = {key.removesuffix(".weight"): arrays[key] for key in arrays}
    return folder, weights


@pytest.mark.parametrize("name", ["words", "words_dynamo", "images"])
def test_layers_go_by_the_names_of_torch(name: str, tmp_path: Path) -> None:
    folder, weights = golden(name, tmp_path)
    (tmp_path / "work").mkdir()
    source = check_container(folder, weights, tmp_path / "work")
    assert source.format == "onnx"
    assert len(source.files) >= 1 + (name != "words")
    names = {s.name for s in source.skipped}
    if name == "words":
        assert [la.name for la in source if la.part_of == "rnn.weight_hh_l1_reverse"] == [
            f"rnn.weight_hh_l1_reverse[{gate}]" for gate in "iofg"
        ]
    if name == "images":
        assert {f"{layer}.bias" for layer in weights} == names
        kinds = {n: la.kind for n, la in by_name(source).items()}
        assert kinds["grouped"] == "conv2d_grouped"
        assert kinds["up"] == "conv_transpose2d"


def test_gates_are_those_of_torch(tmp_path: Path) -> None:
    """torch stacks i, f, g, o; ONNX i, o, f, c."""
    torch_layers = by_name(open_weights(FILES / "words.onnx.npz"))
    layers = by_name(open_weights(FILES / "words.onnx"))
    for gate in "ifgo":
        name = f"rnn.weight_ih_l0_reverse[{gate}]"
        np.testing.assert_allclose(spectrum(layers[name]), spectrum(torch_layers[name]), rtol=1e-5)


# --- graphs made by hand ------------------------------------------------------------------------


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape).astype(np.float32)


def node(
    op: str, *inputs: str, out: str = "y", name: str = "", domain: str = "", **how: Any
) -> Any:
    return helper.make_node(op, list(inputs), [out], name=name, domain=domain, **how)


def save(path: Path, nodes: list[Any], arrays: dict[str, Any], functions: Any = ()) -> Path:
    tensors = [
        numpy_helper.from_array(a, name) if isinstance(a, np.ndarray) else a
        for name, a in arrays.items()
    ]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [], [out], tensors)
    model = helper.make_model(graph, functions=functions)
    path.write_bytes(model.SerializeToString())
    return path


def only(source: WeightSource, name: str) -> np.ndarray:
    (layer,) = [la for la in source if la.part_of is None]
    assert layer.name == name
    return spectrum(layer)


W = normal(6, 4)
CASES: dict[str, tuple[list[Any], dict[str, Any], str, np.ndarray]] = {
    "MatMul": ([node("MatMul", "x", "fc.weight")], {"fc.weight": W}, "fc", W),
    "on the left": ([node("MatMul", "w", "x")], {"w": W}, "w", W),
    "Gemm": ([node("Gemm", "x", "w", "b", transB=1)], {"w": W, "b": normal(6)}, "w", W),
    "turned": (
        [node("Transpose", "w", out="t", perm=[1, 0]), node("Cast", "t", out="c", to=1),
         node("MatMul", "x", "c")], {"w": W}, "w", W,
    ),
    "one of a batch": ([node("MatMul", "x", "w")], {"w": normal(1, 6, 4)}, "w", normal(1, 6, 4)[0]),
    "a stack": (
        [node("MatMul", "x", "w")], {"w": normal(3, 6, 4)}, "w", normal(3, 6, 4).transpose(1, 2, 0)
    ),
    "a turned stack": (
        [node("Transpose", "w", out="t", perm=[2, 0, 1]), node("MatMul", "x", "t")],
        {"w": normal(6, 4, 3)}, "w", normal(6, 4, 3),
    ),
    "anonymous": (
        [node("MatMul", "x", "onnx::MatMul_12", name="/model/layers.0/q_proj/MatMul")],
        {"onnx::MatMul_12": W}, "model.layers.0.q_proj", W,
    ),
    "a constant node": (
        [node("Constant", out="w", value=numpy_helper.from_array(W)), node("MatMul", "x", "w")],
        {}, "w", W,
    ),
    "einsum": (
        [node("Einsum", "x", "w", equation="btd,dnh->btnh")], {"w": normal(6, 2, 4)}, "w",
        normal(6, 2, 4).reshape(6, 8),
    ),
    "einsum on the left": (
        [node("Einsum", "w", "x", equation="ij,bj->bi")], {"w": W}, "w", W,
    ),
    "embedding": ([node("Gather", "w", "i")], {"w": W}, "w", W),
    "fused": (
        [node("FusedMatMul", "x", "w", domain="com.microsoft", transB=1)], {"w": W}, "w", W
    ),
    "one dimension": ([node("Conv", "x", "w")], {"w": normal(5, 4, 3)}, "w", normal(5, 4, 3)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_node_tells_what_its_weight_is(case: str, tmp_path: Path) -> None:
    nodes, arrays, name, weight = CASES[case]
    source = open_weights(save(tmp_path / "m.onnx", nodes, arrays))
    np.testing.assert_allclose(only(source, name), torch_spectrum(weight), rtol=1e-5, atol=1e-6)


def test_the_attention_of_onnx_runtime_has_parts(tmp_path: Path) -> None:
    nodes = [node("Attention", "x", "qkv.weight", "b", domain="com.microsoft", num_heads=2)]
    weight = normal(8, 24)
    source = open_weights(save(tmp_path / "m.onnx", nodes, {"qkv.weight": weight, "b": normal(24)}))
    layers = by_name(source)
    assert list(layers) == ["qkv", "qkv[q]", "qkv[k]", "qkv[v]"]
    np.testing.assert_array_equal(values(layers["qkv[k]"]), weight[:, 8:16])


def test_branches_loops_and_functions(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [node("MatMul", "x", "outer.weight", out="a"), node("MatMul", "a", "inner.weight")], "then",
        [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(normal(4, 5), "inner.weight")],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 20)]
    function = helper.make_function(
        "local", "Linear", ["x", "w"], ["y"],
        [node("Transpose", "w", out="t"), node("MatMul", "x", "t")], opset,
    )  # fmt: skip
    nodes = [node("If", "c", out="z", then_branch=inner, else_branch=inner),
             node("Linear", "z", "called.weight", domain="local")]  # fmt: skip
    arrays = {"outer.weight": W, "called.weight": normal(7, 5)}
    source = open_weights(save(tmp_path / "m.onnx", nodes, arrays, [function]))
    assert {n: la.axes for n, la in by_name(source).items()} == {
        "outer": ("in", "out"), "called": ("out", "in"),
        "inner": ("in", "out"), "inner.weight 2": ("in", "out"),  # both branches hold one
    }  # fmt: skip


def test_names_that_two_weights_would_have(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x", "onnx::MatMul_1", out="a", name="/block/MatMul"),
             node("MatMul", "a", "onnx::MatMul_2", out="b", name="/block/MatMul_1"),
             node("MatMul", "b", "onnx::MatMul_3", out="c"),
             node("MatMul", "c", "onnx::MatMul_4", out="d", name="/MatMul"),
             node("MatMul", "d", "onnx::MatMul_5", name="/layer/layer.0/fc/MatMul")]  # fmt: skip
    arrays = {f"onnx::MatMul_{i}": normal(4 + i, 5 + i) for i in range(1, 6)}
    source = open_weights(save(tmp_path / "m.onnx", nodes, arrays))
    assert {la.name for la in source} == {
        "MatMul", "block.MatMul", "block.MatMul_1", "c", "layer.0.fc"
    }  # fmt: skip


def test_what_is_no_weight_is_listed_with_its_use(tmp_path: Path) -> None:
    nodes = [node("Add", "x", "position", out="a"), node("Strange", "a", "w", domain="own"),
             node("Conv", "x", "conv.weight", "conv.bias", out="b"),
             node("Reshape", "b", "shape", out="c")]  # fmt: skip
    arrays = {
        "position": normal(5, 6), "w": normal(4, 5), "conv.weight": normal(4, 3, 3, 3),
        "conv.bias": normal(4), "shape": np.array([1, 2]), "alone": normal(3, 4),
        "half": TensorProto(name="half", data_type=TensorProto.FLOAT, dims=[2, 3]),
    }  # fmt: skip
    source = open_weights(save(tmp_path / "m.onnx", nodes, arrays))
    assert [la.name for la in source] == ["conv"]
    assert reasons(source) == {
        "position": "an operand of Add: not a weight matrix",
        "w": "an operand of Strange, an operator that is not known",
        "conv.bias": "bias: not a weight matrix",
        "alone": "used by no node of the graph",
        "half": "cannot be read",
    }


# --- element types and their places -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"])
@pytest.mark.parametrize("raw", [True, False])
def test_element_types(kind: str, raw: bool, tmp_path: Path) -> None:
    number = getattr(TensorProto, kind)
    exact = np.round(W * 4) / 4
    if raw:
        dtype = helper.tensor_dtype_to_np_dtype(number)
        tensor = helper.make_tensor("w", number, W.shape, exact.astype(dtype).tobytes(), raw=True)
    else:
        tensor = helper.make_tensor("w", number, W.shape, exact.ravel())
    source = open_weights(save(tmp_path / "m.onnx", [node("MatMul", "x", "w")], {"w": tensor}))
    np.testing.assert_array_equal(values(source.layers[0]), exact)
    both = np.stack([exact, -exact]).astype(np.float64)
    tensor = helper.make_tensor("w", number, both.shape, both.ravel())
    source = open_weights(save(tmp_path / "r.onnx", [node("RNN", "x", "w", "w")], {"w": tensor}))
    assert [la.name for la in source] == ["w", "w_reverse"]
    np.testing.assert_array_equal(values(source.layers[1]), -exact)


def test_numbers_of_any_length() -> None:
    numbers = [0, 1, 127, 128, 300, -1, 1 << 62]
    raw = b"".join(TensorProto(int64_data=[n]).SerializeToString()[2:] for n in numbers)
    assert varints(raw).tolist() == numbers
    for broken in (b"\x80", b"\x80" * 11 + b"\x01"):
        with pytest.raises(ValueError, match="does not end"):
            varints(broken)


def quantised(
    bits: str, scale: np.ndarray, zero: Any, **how: Any
) -> tuple[list[Any], dict[str, Any]]:
    rng = np.random.default_rng(0)
    low = 0 if bits.startswith("u") else -8
    numbers = rng.integers(low, low + 16, (6, 4))
    kind = getattr(TensorProto, bits.upper())
    arrays: dict[str, Any] = {
        "w_quantized": helper.make_tensor("w_quantized", kind, (6, 4), numbers.ravel()),
        "w_scale": scale.astype(np.float32),
    }
    names = ["w_quantized", "w_scale"]
    if zero is not None:
        arrays["z"] = helper.make_tensor("z", kind, scale.shape, np.full(scale.size, zero))
        names.append("z")
    nodes = [node("DequantizeLinear", *names, out="f", **how), node("MatMul", "x", "f")]
    arrays["numbers"] = numbers
    return nodes, arrays


@pytest.mark.parametrize("bits", ["int8", "uint8", "int4", "uint4", "int16"])
@pytest.mark.parametrize(
    ("shape", "how", "words"),
    [
        ((), {}, "one scale"),
        ((4,), {}, "a scale a channel"),
        ((6,), {"axis": -2}, "a scale a channel"),
        ((2, 4), {"axis": 0, "block_size": 3}, "blocks of 3"),
    ],
)
def test_integers_are_dequantised(
    bits: str, shape: tuple[int, ...], how: dict[str, int], words: str, tmp_path: Path
) -> None:
    scale = np.abs(np.random.default_rng(1).standard_normal(shape)) + 0.5
    zero = None if shape == () else 3
    nodes, arrays = quantised(bits, np.asarray(scale), zero, **how)
    numbers = arrays.pop("numbers")
    (layer,) = open_weights(save(tmp_path / "m.onnx", nodes, arrays))
    full = {(6,): scale.reshape(-1, 1), (2, 4): np.repeat(scale, 3, 0)}.get(shape, scale)
    expected = (numbers - (zero or 0)) * full
    np.testing.assert_allclose(values(layer), expected, rtol=1e-5, atol=1e-6)
    assert (layer.name, layer.dtype) == ("w", "float32")
    assert layer.stored_as is not None
    assert layer.stored_as.bits == int(bits.lstrip("uint"))
    assert layer.stored_as.words == f"ONNX {bits}, {words}"


def test_integer_operators(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(-128, 128, (6, 4)).astype(np.int8)
    scale = np.float32([0.5])
    later = [node("MatMulInteger", "x", "fc.weight_quantized", out="a"), node("Mul", "a", "s")]
    arrays = {"fc.weight_quantized": numbers, "fc.weight_scale": scale, "s": scale}
    (layer,) = open_weights(save(tmp_path / "a.onnx", later, arrays))
    np.testing.assert_allclose(values(layer), numbers * 0.5)
    nodes = [node("QLinearMatMul", "x", "sx", "zx", "w", "sw", "zw", "sy", "zy")]
    arrays = {"w": numbers, "sw": scale, "zw": np.zeros(1, np.int8)}
    (layer,) = open_weights(save(tmp_path / "b.onnx", nodes, arrays))
    np.testing.assert_allclose(values(layer), numbers * 0.5)
    source = open_weights(save(tmp_path / "c.onnx", later[:1], {"fc.weight_quantized": numbers}))
    assert reasons(source) == {"fc": "integer dtype int8: quantised weights are not dequantised"}


# --- elements in other files --------------------------------------------------------------------


def external(path: Path, change: Callable[[Any], None] = lambda tensor: None) -> Path:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=W.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "m.data"), ("offset", "8"), ("length", str(W.nbytes))):
        tensor.external_data.add(key=key, value=value)
    change(tensor)
    (path.parent / "m.data").write_bytes(bytes(8) + W.tobytes())
    return save(path, [node("MatMul", "x", "w")], {"w": tensor})


def place(key: str, value: str) -> Callable[[Any], None]:
    def change(tensor: Any) -> None:
        next(e for e in tensor.external_data if e.key == key).value = value

    return change


def test_elements_in_a_file_beside(tmp_path: Path) -> None:
    source = open_weights(external(tmp_path / "m.onnx"))
    np.testing.assert_array_equal(values(source.layers[0]), W)
    assert {p.name for p in source.files} == {"m.onnx", "m.data"}
    (tmp_path / "m.data").write_bytes(bytes(8) + W.tobytes() + b"x")
    with pytest.raises(FormatError, match="changed since it was opened"):
        source.layers[0].load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((place("location", name), "refused: .* not a file inside its folder")
          for name in ("../m.data", "/etc/passwd", "a/../../x", "C:\\x", "..\\x", "", "a\nb")),
        (place("location", "other.data"), "'other.data' beside it is missing"),
        (place("location", "."), "not a file inside|is missing"),
        (place("offset", "9"), "does not fit"),
        (place("offset", "-1"), "no number of bytes"),
        (place("offset", "9" * 40), "no number of bytes"),
        (place("length", "8"), "does not fit"),
        (lambda t: t.dims.__setitem__(0, 1 << 40), "does not fit"),
    ],
)  # fmt: skip
def test_places_that_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        open_weights(external(tmp_path / "m.onnx", change))


# --- hostile files ------------------------------------------------------------------------------


def test_truncated_files(tmp_path: Path) -> None:
    path = FILES / "words.onnx"
    size = path.stat().st_size
    check_truncated(path, tmp_path, [0, 1, 5, 100, size // 2, size - 1])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"no protocol buffer at all", "not a valid ONNX file"),
        (b"\x08\x07", "it has no graph"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "outside of its message"),
        (b"\x3a" + b"\xff" * 12, "does not end"),
        (b"\x00\x00", "outside of its message"),
        (b"\x0b", "a field of type 3"),
    ],
)
def test_what_is_no_onnx_file(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "m.onnx").write_bytes(raw)
    with pytest.raises(FormatError, match=message):
        open_weights(tmp_path / "m.onnx")


def test_forged_shapes_and_graphs(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(W, "w")
    for dims, message in (([1 << 40, 4], "does not fit"), ([-1, 4], "invalid shape"),
                          ([1] * 40, "invalid shape")):  # fmt: skip
        tensor.dims[:] = dims
        with pytest.raises(FormatError, match=message):
            open_weights(save(tmp_path / "m.onnx", [node("MatMul", "x", "w")], {"w": tensor}))
    nodes = [node("Transpose", "a", out="b"), node("Transpose", "b", out="a"),  # a ring
             node("MatMul", "x", "a"), node("Transpose", "w", out="t", perm=[0, 0]),
             node("MatMul", "x", "t")]  # fmt: skip
    source = open_weights(save(tmp_path / "m.onnx", nodes, {"w": W}))
    assert source.layers == ()
    with pytest.raises(FormatError, match="two tensors go by the name"):
        open_weights(save(tmp_path / "m.onnx", [], {"w": W, "v": numpy_helper.from_array(W, "w")}))
    graph = helper.make_graph([], "g", [], [])
    for _ in range(20):
        graph = helper.make_graph([node("If", "c", then_branch=graph)], "g", [], [])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(FormatError, match="deeper than in any model"):
        open_weights(tmp_path / "m.onnx")


def test_functions_that_call_one_another_end(tmp_path: Path) -> None:
    opset = [helper.make_opsetid("", 20)]
    functions = [
        helper.make_function("own", f"f{i}", ["x"], ["y"],
                             [node(f"f{i + 1}", "x", domain="own") for _ in range(12)], opset)
        for i in range(12)
    ]  # fmt: skip
    last = [node("f0", "x", domain="own")]
    functions.append(helper.make_function("own", "f12", ["x"], ["y"], last, opset))
    path = save(tmp_path / "m.onnx", [node("f0", "x", domain="own")], {"w": W}, functions)
    with pytest.raises(FormatError, match="more calls of functions"):
        open_weights(path)
