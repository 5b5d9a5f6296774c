"""Pruning: exactly as many zeros as asked for, nothing else; and shares of layers by alpha."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import layerwise as ref
from torch import nn

import pyspectra as ps
from pyspectra.edit import trimming
from pyspectra.edit.allocation import MOST, spread

# Shares of a handful of layers: a dozen float64 operations each.
SHARE_RTOL = 1e-12


def state(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "fc.weight": rng.standard_normal((20, 30)).astype(np.float32),
        "fc.bias": rng.standard_normal(20).astype(np.float32),
        "conv.weight": rng.standard_normal((6, 5, 3, 3)),
        "half.weight": rng.standard_normal((12, 10)).astype(np.float16),
        "embed.weight": rng.standard_normal((40, 8)).astype(np.float32),
    }


MATRICES = ("fc.weight", "conv.weight", "half.weight")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.935, 0.999])
def test_the_smallest_of_each_layer_are_zero_and_nothing_else_changes(share: float) -> None:
    model = state()
    before = copy.deepcopy(model)
    out = ps.prune(model, share)
    for key, value in before.items():
        assert np.array_equal(model[key], value)
        assert out[key].dtype == value.dtype
        assert not np.shares_memory(out[key], model[key])
        if key not in MATRICES:
            assert np.array_equal(out[key], value)
            continue
        count = round(share * value.size)
        assert np.count_nonzero(out[key] == 0) == count
        kept = out[key] != 0
        assert np.array_equal(out[key][kept], value[kept])
        if 0 < count < value.size:
            assert np.abs(value[~kept]).max() <= np.abs(value[kept]).min()


@given(
    st.lists(st.sampled_from([0.0, -1.0, 1.0, 2.0]), min_size=4, max_size=40), st.floats(0, 0.99)
)
@settings(max_examples=60, deadline=None)
def test_ties_are_cut_exactly_where_asked(values: list[float], share: float) -> None:
    W = (
        np.array(values).reshape(2, -1)
        if len(values) % 2 == 0
        else np.array(values)[:-1].reshape(2, -1)
    )
    out = ps.prune({"w.weight": W}, share)["w.weight"]
    assert np.count_nonzero(out == 0) == max(np.count_nonzero(W == 0), round(share * W.size))


def test_all_layers_may_compete() -> None:
    model = state()
    out = ps.prune(model, 0.6, scope="global")
    flat = np.concatenate([np.abs(model[key].astype(float)).ravel() for key in MATRICES])
    limit = np.sort(flat)[round(0.6 * flat.size) - 1]
    for key in MATRICES:
        wanted = np.where(np.abs(model[key].astype(float)) <= limit, 0, model[key])
        assert np.array_equal(out[key], wanted)
    assert np.array_equal(out["embed.weight"], model["embed.weight"])
    same = ps.prune(model, 0.0, scope="global")
    assert all(np.array_equal(same[key], model[key]) for key in model)


def test_layers_and_embeddings_may_be_named() -> None:
    model = state()
    out = ps.prune(model, 0.5, layers=["fc", "embed"])
    assert np.count_nonzero(out["embed.weight"]) == np.count_nonzero(out["fc.weight"]) - 140 == 160
    assert np.array_equal(out["conv.weight"], model["conv.weight"])
    out = ps.prune(model, {"fc.weight": 0.25, "conv": 1.0, "embed": 0.5})
    assert [np.count_nonzero(out[key]) for key in model if key != "fc.bias"] == [450, 0, 120, 160]


def test_tied_and_narrow_weights_of_a_module() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(16, 24, bias=False), "b": nn.Linear(16, 24, bias=False)})
    model["b"].weight = model["a"].weight
    model = model.to(torch.bfloat16)
    before = model["a"].weight.detach().clone()
    out = ps.prune(model, 0.75)
    assert out["a.weight"].data_ptr() == out["b.weight"].data_ptr() != before.data_ptr()
    assert out["a.weight"].dtype == torch.bfloat16
    assert int((out["a.weight"] == 0).sum()) == 288
    kept = out["a.weight"] != 0
    assert torch.equal(out["a.weight"][kept], before[kept])
    assert torch.equal(model["a"].weight, before)
    assert ps.prune(model, 0.75, inplace=True) is model
    assert torch.equal(model["b"].weight, out["a.weight"])
    model.load_state_dict(out)


def test_what_is_not_finite_stays() -> None:
    broken = np.full((10, 10), np.nan)
    fine = np.random.default_rng(0).standard_normal((10, 10))
    for scope in ("layer", "global"):
        out = ps.prune({"a.weight": broken, "b.weight": fine}, 0.5, scope=scope)
        assert np.isnan(out["a.weight"]).all()
        assert np.count_nonzero(out["b.weight"]) == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0,), r"'sparsity' must be in \[0, 1\)"),
        (("half",), "'sparsity' must be in"),
        (({"fc": "x"},), "'sparsity' must hold shares by name, got 'x' for 'fc'"),
        (({"fc": 1.5},), r"'sparsity' must be in \[0, 1\]"),
        (({"fd": 0.5},), "'sparsity' must name layers of the model, got 'fd'"),
    ],
)
def test_shares_are_checked(arguments: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"prune: {message}"):
        ps.prune(state(), *arguments)
    with pytest.raises(ValueError, match="prune: 'scope' must be one of"):
        ps.prune(state(), 0.5, scope="all")
    with pytest.raises(TypeError, match="prune: 'model' must be a torch module, a state dict or a"):
        ps.prune([1.0], 0.5)


# --- allocation -----------------------------------------------------------------------------------


def blocks(alphas: list[float]) -> dict[str, Any]:
    """A block for each alpha, two layers each, with the eigenvalues of an exact power law."""
    rng = np.random.default_rng(1)
    out: dict[str, Any] = {}
    for i, alpha in enumerate(alphas):
        for name, shape in (("q", (40, 40)), ("up", (60, 40))):
            grid = (np.arange(40) + 0.5) / 40
            s = np.sqrt((1 - grid) ** (-1 / (alpha - 1)))
            U, _ = np.linalg.qr(rng.standard_normal((shape[0], 40)))
            V, _ = np.linalg.qr(rng.standard_normal((40, 40)))
            out[f"layers.{i}.{name}.weight"] = (U * s) @ V.T
    return out | {"head.weight": rng.standard_normal((50, 40))}


@pytest.mark.parametrize("estimator", ["ww", "fix_finger", "farms(30, 2, 1)"])
def test_shares_are_those_of_alphapruning(estimator: str) -> None:
    model = blocks([2.0, 3.5, 6.0])
    report = ps.analyze(model, estimator=estimator, goodness=False)
    found = ps.allocate_sparsity(report, 0.6, epsilon=0.3)
    rows = [row for row in report if row.key in found]
    assert [*found] == [key for key in model if key.startswith("layers")]
    means = [(rows[i].alpha + rows[i + 1].alpha) / 2 for i in (0, 2, 4) for _ in range(2)]
    sizes = [math.prod(row.shape) for row in rows]
    wanted = ref.sparsities(means, sizes, 0.6, 0.3)
    assert [*found.values()] == pytest.approx(wanted, rel=SHARE_RTOL)
    each = ps.allocate_sparsity(report, 0.6, epsilon=0.3, by="layer")
    wanted = ref.sparsities([row.alpha for row in rows], sizes, 0.6, 0.3)
    assert [*each.values()] == pytest.approx(wanted, rel=SHARE_RTOL)
    pruned = ps.prune(model, found)
    zeros = sum(np.count_nonzero(pruned[key] == 0) for key in found)
    assert zeros / sum(sizes) == pytest.approx(0.6, abs=1e-3)


@given(
    st.lists(st.floats(1.1, 20.0), min_size=2, max_size=8),
    st.floats(0.01, 0.99),
    st.floats(0.0, 0.99),
)
@settings(max_examples=60, deadline=None)
def test_shares_always_add_up(alphas: list[float], target: float, epsilon: float) -> None:
    sizes = np.arange(1.0, len(alphas) + 1.0)
    shares = spread(np.array(alphas), sizes, target, epsilon)
    assert (shares >= 0).all()
    assert (shares <= max(MOST, target)).all()
    assert (shares * sizes).sum() == pytest.approx(target * sizes.sum(), rel=1e-9)
    order = np.argsort(alphas)
    assert (np.diff(shares[order]) >= -1e-12).all()


def test_layers_without_an_alpha_count_as_the_mean() -> None:
    model = blocks([2.0, 6.0]) | {"layers.2.q.weight": np.ones((40, 40))}
    report = ps.analyze(model, goodness=False)
    assert math.isnan(report["layers.2.q"].alpha)
    found = ps.allocate_sparsity(report, 0.5)
    assert found["layers.0.q.weight"] < found["layers.2.q.weight"] < found["layers.1.q.weight"]
    alike = ps.allocate_sparsity(ps.analyze({"a.weight": np.ones((40, 40))}), 0.5)
    assert alike == {"a.weight": 0.5}


def test_what_cannot_be_allocated_is_refused() -> None:
    report = ps.analyze(blocks([2.0]), goodness=False)
    for arguments, message in (
        ((3, 0.5), "'report' must be a report"),
        ((report, 1.0), r"'sparsity' must be in \(0, 1\)"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"allocate_sparsity: {message}"):
            ps.allocate_sparsity(*arguments)
    with pytest.raises(ValueError, match="'epsilon'"):
        ps.allocate_sparsity(report, 0.5, epsilon=1.0)
    with pytest.raises(ValueError, match="'by' must be one of"):
        ps.allocate_sparsity(report, 0.5, by="row")
    embedding = ps.analyze({"embed.weight": np.random.default_rng(0).random((40, 20))})
    with pytest.raises(ValueError, match="must have weight matrices, one row a layer"):
        ps.allocate_sparsity(embedding, 0.5)


# --- all layers together --------------------------------------------------------------------------


@pytest.mark.parametrize("held", [4, 1 << 18])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_limit_of_all_layers_is_exact(
    dtype: str, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "HELD", held)
    rng = np.random.default_rng(3)
    parts = [
        rng.standard_normal((20, 10)),
        rng.standard_normal((7, 11)) * 1e-4,
        np.zeros((3, 3)),
        -np.ones((5, 2)),
        rng.random((2, 2)) * 6e-8,
    ]
    model = {f"{i}.weight": np.asarray(x, dtype) for i, x in enumerate(parts)}
    sizes = np.sort(np.abs(np.concatenate([x.astype(float).reshape(-1) for x in model.values()])))
    for share in (0.0, 1 / 300, 1e-2, 0.1, 0.5, 0.97, 0.999):
        count = round(share * len(sizes))
        limit = sizes[count - 1] if count else -1.0
        out = ps.prune(model, share, scope="global")
        for key, value in model.items():
            assert np.array_equal(out[key], np.where(np.abs(value) <= limit, 0, value))
