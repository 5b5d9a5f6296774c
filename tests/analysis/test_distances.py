"""`distances`: formulas against their reference, matching by name, what cannot be compared."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from reference import distance as ref

import pyspectra as ps
from pyspectra.spectra import distance

Array = np.ndarray


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([*shape, seed]).standard_normal(shape)


def squares(W: Array) -> Array:
    return np.sort(np.linalg.svd(W, compute_uv=False) ** 2)


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6), (40, 3)])
def test_cka_follows_the_reference(shape: tuple[int, int]) -> None:
    A, B = random(*shape), random(*shape, seed=1) + 0.3 * random(*shape)
    assert distance.cka(A, B) == pytest.approx(ref.cka(A, B), rel=1e-12)
    assert distance.cka(A, 3.0 * A) == pytest.approx(1.0, rel=1e-12)
    assert math.isnan(distance.cka(A, 0.0 * A))


@pytest.mark.parametrize("sizes", [(30, 30), (30, 17)])
def test_spectral_distances_follow_the_reference(sizes: tuple[int, int]) -> None:
    x = np.sort(np.random.default_rng(3).pareto(2.0, sizes[0]))
    y = np.sort(np.random.default_rng(4).pareto(3.0, sizes[1]) + 0.1)
    assert distance.kolmogorov_smirnov(x, y) == pytest.approx(ref.ks(x, y), rel=1e-12)
    assert distance.wasserstein(x, y) == pytest.approx(ref.wasserstein(x, y), rel=1e-12)
    if sizes[0] == sizes[1]:
        js = distance.jensen_shannon(x, y)
        assert js == pytest.approx(ref.jensen_shannon(x, y), rel=1e-9)


def models() -> tuple[dict[str, Array], dict[str, Array]]:
    a = {
        "only.a.weight": random(20, 10),
        "fc.weight": random(30, 20),
        "conv.weight": random(12, 10, 2, 3),
    }
    b = {
        "conv.weight": random(12, 10, 2, 3, seed=1),
        "fc.weight": random(30, 20, seed=1),
        "only.b.weight": random(20, 10),
    }
    return a, b


@pytest.mark.parametrize("method", ["raw", "euclidean", "cka", "ks", "wasserstein", "js"])
def test_layers_are_matched_by_name(method: str) -> None:
    a, b = models()
    found = ps.distances(a, b, method)
    assert (found.only_in_a, found.only_in_b) == (("only.a",), ("only.b",))
    assert [x.name for x in found.layers] == ["conv", "fc"]
    fc, conv = a["fc.weight"], a["conv.weight"]
    fc_b, conv_b = b["fc.weight"], b["conv.weight"]
    slices = [(conv[:, :, i, j], conv_b[:, :, i, j]) for i in range(2) for j in range(3)]
    pooled = [np.sort(np.concatenate([squares(s[k]) for s in slices])) for k in (0, 1)]
    expected = {
        "raw": (np.linalg.norm(conv - conv_b), np.linalg.norm(fc - fc_b)),
        "euclidean": (
            np.mean([np.linalg.norm(x - y) for x, y in slices]),
            np.linalg.norm(fc - fc_b),
        ),
        "cka": (np.mean([ref.cka(x, y) for x, y in slices]), ref.cka(fc, fc_b)),
        "ks": (ref.ks(*pooled), ref.ks(squares(fc), squares(fc_b))),
        "wasserstein": (ref.wasserstein(*pooled), ref.wasserstein(squares(fc), squares(fc_b))),
        "js": (ref.jensen_shannon(*pooled), ref.jensen_shannon(squares(fc), squares(fc_b))),
    }[method]
    assert [x.distance for x in found.layers] == pytest.approx(expected, rel=1e-9)
    assert found.mean == pytest.approx(np.mean(expected), rel=1e-9)
    table = found.to_pandas()
    assert list(table["name"]) == ["conv", "fc"]


@pytest.mark.parametrize("method", ["raw", "cka", "js", "ks", "wasserstein"])
def test_other_shapes_have_a_reason_or_a_spectral_distance(method: str) -> None:
    a, b = {"fc.weight": random(30, 20)}, {"fc.weight": random(30, 24)}
    row = ps.distances(a, b, method).layers[0]
    if method in ("ks", "wasserstein"):
        assert row.distance > 0
        assert row.reason == ""
    else:
        assert math.isnan(row.distance)
        assert row.reason == "shapes differ: (30, 20) and (30, 24)"


@pytest.mark.parametrize("method", ["raw", "cka", "js"])
def test_a_bad_layer_is_reported_and_the_rest_goes_on(method: str) -> None:
    a, b = models()
    a["fc.weight"][3, 4] = np.nan
    found = ps.distances(a, b, method)
    conv, fc = found.layers
    assert math.isnan(fc.distance)
    assert fc.reason == "not finite"
    assert found.mean == conv.distance > 0


def test_files_and_mappings_mix(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.numpy").save_file
    a, _ = models()
    save_file(a, tmp_path / "a.safetensors")
    assert ps.distances(tmp_path / "a.safetensors", a).mean == 0.0


def test_bad_arguments_are_named() -> None:
    a, b = models()
    with pytest.raises(ValueError, match=r"^distances: 'method' must be one of .* got 'cosine'"):
        ps.distances(a, b, "cosine")
    with pytest.raises(TypeError, match=r"^distances: 'b' must be"):
        ps.distances(a, 3)
    with pytest.raises(FileNotFoundError, match=r"^distances: 'a' must exist"):
        ps.distances("nowhere", b)
    with pytest.raises(ValueError, match=r"^distances: 'a' must hold a weight matrix, got "):
        ps.distances({}, b)
    with pytest.raises(ValueError, match="'progress' must be"):
        ps.distances(a, b, progress=2)


@pytest.mark.parametrize("factor", [1e-200, 1e150, 1e200])
def test_no_scale_overflows(factor: float) -> None:
    W = random(30, 20)
    models = {"fc.weight": W}, {"fc.weight": W * factor}

    def found(method: str) -> ps.LayerDistance:
        return ps.distances(*models, method=method).layers[0]

    expected = max(factor, 1.0) * np.linalg.norm(W)
    assert found("raw").distance == pytest.approx(expected, rel=1e-12)
    assert found("euclidean").distance == pytest.approx(expected, rel=1e-12)
    assert found("cka").distance == pytest.approx(1.0, rel=1e-12)
    assert found("ks").reason == {1e-200: "degenerate", 1e150: "", 1e200: "not finite"}[factor]


@pytest.mark.parametrize("method", ["cka", "js"])
def test_a_zero_matrix_is_named_as_the_reason(method: str) -> None:
    found = ps.distances({"fc.weight": random(30, 20)}, {"fc.weight": np.zeros((30, 20))}, method)
    assert math.isnan(found.layers[0].distance)
    assert found.layers[0].reason == "a matrix is zero"


def test_models_without_a_common_layer_are_an_error_that_says_why() -> None:
    message = (
        r"^distances: 'b' must have a layer that 'a' has too, got layers such as 'y' and .*'x'"
    )
    with pytest.raises(ValueError, match=message):
        ps.distances({"x.weight": random(9, 9)}, {"y.weight": random(9, 9)})
