"""Models of other libraries: every matrix is analysed once or named, wherever it is read from."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from architectures import ARCHITECTURES

import pyspectra as ps
from pyspectra import open_weights

torch = pytest.importorskip("torch")
by_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


@contextmanager
def others_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def model_of(name: str) -> Any:
    package = ARCHITECTURES[name].package
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    with others_may_warn():
        torch.manual_seed(0)
        return ARCHITECTURES[name].build()


@functools.cache
def alphas_of_module(name: str) -> dict[str, float]:
    return alphas(model_of(name))


def alphas(source: Any) -> dict[str, float]:
    """Exponents of all layers, however small, by id and name."""
    report = ps.analyze(source, min_evals=4, progress=False)
    return {f"{layer.layer_id} {layer.name}": layer.alpha for layer in report.layers}


@by_architecture
def test_every_matrix_is_analysed_once_or_named_with_its_reason(name: str) -> None:
    model, expected = model_of(name), ARCHITECTURES[name].skipped
    source = open_weights(model)
    layers = {layer.key: layer for layer in source if layer.part_of is None}
    times = Counter(layer.name for layer in source if layer.part_of is None)
    times.update(skipped.name for skipped in source.skipped)
    matrices = {
        key: parameter
        for key, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.ndim > 1
    }
    assert {key: times[key] + times[key.removesuffix(".weight")] * key.endswith(".weight")
            for key in matrices} == dict.fromkeys(matrices, 1)  # fmt: skip
    of_name = {layer.name: layer.key for layer in layers.values()}
    used = set()
    for skipped in source.skipped:
        if skipped.shape is None or len(skipped.shape) < 2:
            continue
        if skipped.skip.code == "shared":
            assert matrices[f"{skipped.name}.weight"] is matrices[of_name[skipped.same_as]]
            continue
        ends = [end for end in expected if skipped.name.endswith(end)]
        assert ends, (skipped.name, skipped.skip.code)
        assert skipped.skip.code == expected[max(ends, key=len)], skipped.name
        used.add(max(ends, key=len))
    assert used == set(expected)
    computed = set(layers) - set(matrices)  # of a normalised weight, whose factors are skipped
    assert {key.removesuffix(".weight") for key in computed} == {
        key.split(".parametrizations.")[0] for key in matrices if ".parametrizations." in key
    }


def saved_state(model: Any, path: Path) -> Any:
    return model.state_dict()


def saved_torch(model: Any, path: Path) -> Any:
    torch.save(model.state_dict(), path / "model.pt")
    return path / "model.pt"


def saved_folder(model: Any, path: Path, **options: Any) -> Any:
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(path, **options)
        return path
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_model(model, path / "model.safetensors")
    return path / "model.safetensors"


def saved_shards(model: Any, path: Path) -> Any:
    saved_folder(model, path, max_shard_size="6KB")
    assert len(list(path.glob("*.safetensors"))) > 1
    return path


WAYS: dict[str, Callable[[Any, Path], Any]] = {
    "state_dict": saved_state, "torch": saved_torch, "folder": saved_folder, "shards": saved_shards,
}  # fmt: skip
CASES = [
    (name, way)
    for name, architecture in ARCHITECTURES.items()
    for way in WAYS
    if way != "shards" or architecture.package in ("transformers", "diffusers")
]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_alphas_are_those_of_the_module(name: str, way: str, tmp_path: Path) -> None:
    with others_may_warn():
        path = WAYS[way](model_of(name), tmp_path)
    expected, found = alphas_of_module(name), alphas(path)
    architecture, of_a_folder = ARCHITECTURES[name], way in ("folder", "shards")
    if architecture.regrouped and of_a_folder:
        assert norm(path) == pytest.approx(norm(model_of(name)), rel=1e-6)
        expected, found = without_experts(expected), without_experts(found)
    if architecture.renamed and of_a_folder:
        assert sorted(found.values()) == pytest.approx(sorted(expected.values()), rel=1e-5)
    else:
        assert found == pytest.approx(expected, rel=1e-5)


def without_experts(alphas: dict[str, float]) -> dict[str, float]:
    """Alphas by name alone: one by one, experts take other ids, and their router another name."""
    rest = {key: alpha for key, alpha in by_name(alphas).items() if ".experts." not in key}
    return {key.replace("block_sparse_moe", "mlp"): alpha for key, alpha in rest.items()}


def norm(source: Any) -> float:
    """Return the sum of all squared weights."""
    layers = [layer for layer in open_weights(source) if layer.part_of is None]
    return sum(float((layer.load().to_float64() ** 2).sum()) for layer in layers)


PICTURES = (1, 3, 32, 32)
EXPORTED: dict[str, tuple[int, ...]] = {
    "gru": (5, 1, 12), "vit": PICTURES, "resnet": PICTURES, "mobilenet_v2": PICTURES,
}  # fmt: skip
EXPORTS = [*((name, "torchscript") for name in EXPORTED), ("gru", "dynamo"), ("vit", "dynamo")]


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_alphas_of_an_onnx_export_are_those_of_the_module(
    name: str, exporter: str, tmp_path: Path
) -> None:
    dynamo = exporter == "dynamo"
    pytest.importorskip("onnxscript" if dynamo else "onnx")
    path, inputs = tmp_path / "m.onnx", torch.zeros(EXPORTED[name])
    with others_may_warn():
        torch.onnx.export(model_of(name).eval(), (inputs,), path, dynamo=dynamo, verbose=False)
    # Norms become constants or are folded into convolutions, and ids count them.
    assert by_name(alphas(path)) == pytest.approx(by_name(alphas_of_module(name)), rel=1e-5)


def by_name(alphas: dict[str, float]) -> dict[str, float]:
    return {key.partition(" ")[2]: alpha for key, alpha in alphas.items()}
