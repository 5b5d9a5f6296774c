"""Ranks: never over the budget, and as little error as enumeration finds."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from reference import low_rank as ref
from torch import nn

import pyspectra as ps
from pyspectra.edit.low_rank import DAMPING

# Sums of a handful of shares.
ERROR_ATOL = 1e-9


def matrix(shape: tuple[int, int], s: Any, seed: int = 0) -> np.ndarray:
    """A matrix with these singular values."""
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.standard_normal((shape[0], shape[0])))[0][:, : len(s)]
    V = np.linalg.qr(rng.standard_normal((shape[1], shape[1])))[0][:, : len(s)]
    return (U * np.asarray(s)) @ V.T


SHAPES = ((8, 6), (5, 9), (7, 7))


def layers(seed: int, shapes: Any, steep: float) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    spectra = [np.sort(rng.random(min(n)) ** (1 + steep * i))[::-1] for i, n in enumerate(shapes)]
    weights = {
        f"{i}.weight": matrix(shape, s, i)
        for i, (shape, s) in enumerate(zip(shapes, spectra, strict=True))
    }
    return weights, spectra


def spent_and_lost(ranks: dict[str, int], shapes: Any, spectra: Any) -> tuple[int, float]:
    found = [*ranks.values()]
    spent = sum(ref.parameters(n, k) for n, k in zip(shapes, found, strict=True))
    return spent, sum(ref.errors(s)[k] for s, k in zip(spectra, found, strict=True))


def test_never_over_the_budget_and_mostly_the_best_ranks_there_are() -> None:
    size = sum(math.prod(shape) for shape in SHAPES)
    best = 0
    for seed in range(12):
        weights, spectra = layers(seed, SHAPES, seed % 4)
        for ratio in (0.45, 0.6, 0.75, 0.9, 1.0):
            ranks = ps.allocate_ranks(weights, ratio)
            spent, lost = spent_and_lost(ranks, SHAPES, spectra)
            assert spent <= ratio * size + 1e-9
            least = ref.least_error(spectra, SHAPES, ratio * size)
            best += lost <= least + ERROR_ATOL
            # With three small layers the last step that does not fit counts.
            assert lost <= least + 0.2
        assert [*ranks.values()] == [6, 5, 7]
    assert best >= 45


def test_the_best_ranks_of_every_budget_for_steps_of_one_size() -> None:
    """Steep layers of one shape: no layer is worth being whole."""
    shapes = ((9, 6), (6, 9))
    spectra = [0.5 ** np.arange(6), 0.4 ** np.arange(6)]
    weights = {f"{i}.weight": matrix(shapes[i], spectra[i]) for i in range(2)}
    for budget in range(30, 84):
        ranks = ps.allocate_ranks(weights, budget / 108)
        spent, lost = spent_and_lost(ranks, shapes, spectra)
        assert spent <= budget
        assert lost == pytest.approx(ref.least_error(spectra, shapes, budget), abs=ERROR_ATOL)


def test_flat_layers_keep_more_than_steep_ones() -> None:
    flat, steep = np.ones(40), 0.7 ** np.arange(40)
    weights = {"a.weight": matrix((40, 50), flat), "b.weight": matrix((40, 50), steep)}
    ranks = ps.allocate_ranks(weights, 0.5)
    assert ranks["a.weight"] > 2 * ranks["b.weight"]
    scaled = {"a.weight": 1e3 * weights["a.weight"], "b.weight": 1e-3 * weights["b.weight"]}
    assert ps.allocate_ranks(scaled, 0.5) == ranks  # shares, not sizes
    assert ps.allocate_ranks(scaled, 0.5, by="uniform") == {"a.weight": 11, "b.weight": 11}


def test_the_whole_budget_leaves_layers_whole() -> None:
    weights = {"a.weight": matrix((20, 21), np.ones(20)), "b.weight": matrix((20, 20), np.ones(20))}
    for by in ("uniform", "spectrum"):
        assert ps.allocate_ranks(weights, 1.0, by=by) == {"a.weight": 20, "b.weight": 20}


def test_a_layer_stays_whole_where_that_is_cheaper() -> None:
    """At half its rank two factors of a square matrix are as large as the matrix."""
    weights = {"a.weight": matrix((40, 40), np.ones(40)), "b.weight": matrix((40, 40), [1.0, 0.1])}
    assert ps.allocate_ranks(weights, 0.525) == {"a.weight": 40, "b.weight": 1}
    zero = {**weights, "c.weight": np.zeros((40, 40))}
    assert ps.allocate_ranks(zero, 0.4)["c.weight"] == 1


def test_by_loss_follows_the_inputs() -> None:
    rng = np.random.default_rng(0)
    W = rng.standard_normal((2, 30, 40))
    weights = {"a.weight": W[0], "b.weight": W[1]}
    narrow = rng.standard_normal((40, 4)) @ rng.standard_normal((4, 500))
    wide = rng.standard_normal((40, 500))
    grams = {"a.weight": narrow @ narrow.T / 500, "b": wide @ wide.T / 500}
    ranks = ps.allocate_ranks(weights, 0.5, grams=grams)
    assert 2 * ranks["a.weight"] < ranks["b.weight"]
    spectra = [
        np.linalg.svd(w @ np.linalg.cholesky(ref.damped(G, DAMPING)), compute_uv=False)
        for w, G in zip(W, grams.values(), strict=True)
    ]
    # Without grams it is the same as for weights with these spectra.
    seen = {f"{x}.weight": matrix((30, 40), s) for x, s in zip("ab", spectra, strict=True)}
    assert ps.allocate_ranks(seen, 0.5) == ranks
    nothing = {"a.weight": np.zeros((40, 40)), "b.weight": np.eye(40)}
    assert ps.allocate_ranks(weights, 0.5, grams=nothing)["a.weight"] > 5


def test_a_report_serves_as_well_as_the_model(tmp_path: Any) -> None:
    weights, _ = layers(1, SHAPES, 2.0)
    weights = {f"layers.{k}": W for k, W in weights.items()} | {
        "head.weight": np.random.default_rng(0).standard_normal((30, 20)),
        "embed.weight": np.random.default_rng(0).standard_normal((30, 20)),
        "layers.0.bias": np.ones(8),
        "layers.3.conv.weight": np.random.default_rng(0).standard_normal((8, 8, 3, 3)),
    }
    ranks = ps.allocate_ranks(weights, 0.6)
    assert [*ranks] == ["layers.0.weight", "layers.1.weight", "layers.2.weight"]
    report = ps.analyze(weights, min_evals=1, goodness=False)
    assert ps.allocate_ranks(report, 0.6) == ranks
    assert ps.allocate_ranks(report, 0.6, by="uniform") == ps.allocate_ranks(
        weights, 0.6, by="uniform"
    )
    np.savez(tmp_path / "model.npz", **weights)
    assert ps.allocate_ranks(tmp_path / "model.npz", 0.6) == ranks
    assert [*ps.allocate_ranks(weights, 0.6, layers="head")] == ["head.weight"]
    assert [*ps.allocate_ranks(report, 0.6, layers="head")] == ["head.weight"]
    with pytest.raises(ValueError, match="'model' must be the model itself for by='loss'"):
        ps.allocate_ranks(report, 0.6, grams={})


def test_what_is_left_out() -> None:
    rng = np.random.default_rng(0)
    weights = {"a.weight": rng.standard_normal((20, 20)), "b.weight": np.full((20, 20), np.nan)}
    weights |= {"c.weight": rng.standard_normal((1, 20)), "d.weight": rng.standard_normal((2, 2))}
    assert [*ps.allocate_ranks(weights, 0.5)] == ["a.weight"]
    attention = nn.TransformerEncoderLayer(16, 2, 24)
    keys = [*ps.allocate_ranks(attention, 0.5)]
    # MultiheadAttention reads the weights of its layers itself.
    assert keys == ["linear1.weight", "linear2.weight"]
    tied = nn.ModuleDict({"embed": nn.Embedding(30, 16), "head": nn.Linear(16, 30, bias=False)})
    tied["fc"] = nn.Linear(16, 16)
    tied["head"].weight = tied["embed"].weight
    assert [*ps.allocate_ranks(tied, 0.5)] == ["fc.weight"]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0.0,), {}, r"'ratio' must be in \(0, 1\]"),
        ((0.01,), {}, "'ratio' must leave a direction to each layer, got 0.01, room for 4 of 40"),
        ((0.5,), {"by": "energy"}, "'by' must be one of 'uniform', 'spectrum', 'loss'"),
        ((0.5,), {"by": "loss"}, "'grams' must be given for by='loss', got None"),
        ((0.5,), {"by": "uniform", "grams": {}}, "'grams' must be for by='loss'"),
        ((0.5,), {"grams": {}}, "'grams' must have 'a.weight', got 0 others"),
        ((0.5,), {"grams": 3}, "'grams' must be a mapping"),
        ((0.5,), {"grams": {"a": np.eye(3)}}, r"'grams' must be finite and of shape \(20, 20\)"),
        ((0.5,), {"grams": {"a": -np.eye(20) + 2}}, "'grams' must hold positive semidefinite"),
        (
            (0.5,),
            {"grams": {"a": np.triu(np.ones((20, 20)))}},
            "'grams' must hold symmetric matrices",
        ),
        ((0.5,), {"layers": "b"}, "'layers' must hold what the model has"),
    ],
)
def test_refused_arguments(arguments: Any, options: Any, message: str) -> None:
    weights = {"a.weight": np.random.default_rng(0).standard_normal((20, 20))}
    with pytest.raises((ValueError, TypeError), match=f"allocate_ranks: {message}"):
        ps.allocate_ranks(weights, *arguments, **options)
    with pytest.raises(ValueError, match="'model' must have linear layers"):
        ps.allocate_ranks({"conv.weight": np.ones((4, 4, 3, 3))}, 0.5)
    with pytest.raises(ValueError, match="'model' must have finite linear layers"):
        ps.allocate_ranks({"fc.weight": np.full((9, 9), np.inf)}, 0.5)


# --- inputs ---------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 4)
        self.unused = nn.Linear(5, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor, attention_mask: Any = None) -> torch.Tensor:
        return self.second(input=self.drop(torch.relu(self.first(x))))


def test_second_moments_of_what_goes_in() -> None:
    model, x = Net().train(), torch.randn(3, 7, 6)
    model.drop.eval()
    grams = ps.input_grams(model, [x[:1], x[1:]])
    assert [*grams] == ["first.weight", "second.weight"]
    flat = x.reshape(-1, 6).double()
    hidden = torch.relu(model.first(flat.float())).detach().double()
    for key, values in (("first.weight", flat), ("second.weight", hidden)):
        np.testing.assert_allclose(grams[key], (values.T @ values / 21).numpy(), atol=1e-6)
    assert model.training
    assert not model.drop.training
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_batches_of_every_form_and_padding() -> None:
    model, x = Net(), torch.randn(2, 4, 6)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    whole = ps.input_grams(model, [x])
    for batch in ((x,), [x], {"x": x}, {"x": x, "attention_mask": torch.ones(2, 4)}):
        same = ps.input_grams(model, [batch])
        assert all(np.allclose(same[key], whole[key]) for key in whole)
    only = ps.input_grams(model, [{"x": x, "attention_mask": mask}], layers="first")
    part = x[mask.bool()].double()
    np.testing.assert_allclose(only["first.weight"], (part.T @ part / 4).numpy(), atol=1e-6)
    labelled = ps.input_grams(model, [(x, 3)], forward=lambda m, batch: m(batch[0]))
    assert np.allclose(labelled["second.weight"], whole["second.weight"])


def test_tied_layers_add_up() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    x = torch.randn(8, 5)
    (G,) = ps.input_grams(model, [x]).values()
    both = torch.cat([x, model[0](x).detach()]).double()
    np.testing.assert_allclose(G, (both.T @ both / 16).numpy(), atol=1e-6)


def test_refused_data() -> None:
    model = Net()
    for arguments, message in (
        (({}, []), "'model' must be a torch"),
        ((model, 3), "'data' must be an iterable of batches"),
        ((model, {"x": 3}), "'data' must be an iterable of batches"),
        ((model, []), "'data' must give at least one batch, got none"),
        ((model, [torch.ones(0, 6)]), "'data' must give at least one sample, got 1 batch from"),
        ((model, [torch.full((2, 6), torch.nan)]), "'data' must give finite inputs"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"input_grams: {message}"):
            ps.input_grams(*arguments)
    with pytest.raises(RuntimeError):
        ps.input_grams(model, [torch.ones(2, 3)])
    assert not any(m._forward_pre_hooks for m in model.modules())
