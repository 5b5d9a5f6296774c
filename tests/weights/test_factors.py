"""Weights that files store as factors: the same layers as of the module, wherever they are read."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from weights_checks import by_name, reasons, values

from pyspectra import open_weights

torch = pytest.importorskip("torch")
nn = torch.nn


def model() -> Any:
    parametrizations = pytest.importorskip("torch.nn.utils.parametrizations")
    prune = pytest.importorskip("torch.nn.utils.prune")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older normalisation is deprecated, and in many files
        layers = {
            "conv": parametrizations.weight_norm(nn.Conv1d(6, 8, 3), dim=2),
            "transposed": parametrizations.weight_norm(nn.ConvTranspose1d(3, 1, 4), dim=1),
            "whole": parametrizations.weight_norm(nn.Linear(5, 4), dim=None),
            "older": nn.utils.weight_norm(nn.Linear(5, 4)),
            "lstm": nn.utils.weight_norm(nn.LSTM(4, 4), "weight_hh_l0"),
            "pruned": prune.l1_unstructured(nn.Linear(6, 5), "weight", amount=0.5),
        }
    with torch.no_grad():  # norms that are not those of the directions
        for name, parameter in nn.ModuleDict(layers).named_parameters():
            if name.endswith(("_g", "original0")):
                parameter.mul_(torch.rand_like(parameter) + 0.5)
    return nn.ModuleDict(layers)


def test_layers_are_those_of_the_module(tmp_path: Path) -> None:
    module = model()
    torch.save(module.state_dict(), tmp_path / "m.pt")
    expected = by_name(open_weights(module))
    assert {layer.name for layer in expected.values() if layer.part_of is None} == {
        "conv", "transposed", "whole", "older", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "pruned",
    }  # fmt: skip
    for source in map(open_weights, (module.state_dict(), tmp_path / "m.pt")):
        found = by_name(source)
        assert [(la.name, la.layer_id) for la in source] == [
            (la.name, la.layer_id) for la in expected.values()
        ]
        assert reasons(source) == reasons(open_weights(module))
        for name, layer in expected.items():
            np.testing.assert_allclose(values(found[name]), values(layer), rtol=3e-6, atol=1e-7)
            again = pickle.loads(pickle.dumps(found[name]))
            np.testing.assert_array_equal(values(again), values(found[name]))


def test_what_is_no_pair_stays_listed() -> None:
    v = np.ones((4, 3), np.float32)
    for content in (
        {"a.weight_v": v},  # one alone
        {"a.weight_v": v, "a.weight_g": np.ones((3, 1), np.float32)},  # of another length
        {"a.weight_v": v, "a.weight_g": np.ones((4, 3), np.float32)},
        {"a.weight_v": v, "a.weight_g": np.ones((4, 1), np.int32)},
        {"a.parametrizations.weight.original1": v},
    ):
        source = open_weights({**content, "b.weight": v})
        assert [layer.name for layer in source] == ["b"]
        assert {s.skip.code for s in source.skipped} == {"parametrized"}


def test_a_shared_pair_is_one_weight() -> None:
    v, g = np.ones((4, 3), np.float32), np.full((4, 1), 2, np.float32)
    source = open_weights(
        {f"{name}.weight_{x}": a for name in "ab" for x, a in zip("gv", (g, v), strict=True)}
    )
    assert [layer.name for layer in source] == ["a"]
    assert reasons(source)["b"] == "shares its tensor with a"


def test_a_norm_of_zero_is_not_finite_and_loses_nothing_else() -> None:
    content = {
        "a.weight_v": np.zeros((4, 3)),
        "a.weight_g": np.ones((4, 1)),
        "b.weight": np.ones((4, 3)),
    }
    source = open_weights(content)
    assert np.isnan(values(by_name(source)["a"])).all()
    assert np.isfinite(values(by_name(source)["b"])).all()
