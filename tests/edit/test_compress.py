"""Low-rank compression: the best products, copies, ties, and modules that load again."""

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from reference import low_rank as ref
from torch import nn

import pyspectra as ps
from pyspectra.edit.low_rank import DAMPING
from pyspectra.finetune import LowRankLinear, factorize, load_low_rank


def weights(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "fc.weight": rng.standard_normal((30, 20)),
        "fc.bias": rng.standard_normal(30),
        "up.weight": rng.standard_normal((40, 25)).astype(np.float32),
        "conv.weight": rng.standard_normal((8, 8, 3, 3)),
    }


def moments(n: int, seed: int = 1) -> np.ndarray:
    X = np.random.default_rng(seed).standard_normal((n, 3 * n)) * np.arange(1, n + 1)[:, None]
    return X @ X.T / (3 * n)


def test_weights_become_the_best_of_their_rank() -> None:
    state = weights()
    before = copy.deepcopy(state)
    out = ps.compress(state, {"fc": 6, "up.weight": 25})
    np.testing.assert_allclose(out["fc.weight"], ref.truncated(before["fc.weight"], 6), atol=1e-9)
    for key, value in before.items():
        assert np.array_equal(state[key], value)
        assert out[key].dtype == value.dtype
        assert not np.shares_memory(out[key], state[key])
        if key != "fc.weight":
            assert np.array_equal(out[key], value)  # of full rank, or of another kind
    assert ps.compress(state, {"fc": 6}, inplace=True) is state
    assert np.array_equal(state["fc.weight"], out["fc.weight"])


def test_with_inputs_it_is_the_product_of_svd_llm() -> None:
    W, G = weights()["fc.weight"], moments(20)
    out = ps.compress({"fc.weight": W}, {"fc": 5}, grams={"fc": G})["fc.weight"]
    damped = ref.damped(G, DAMPING)
    np.testing.assert_allclose(out, ref.truncated_for_inputs(W, 5, damped), atol=1e-8)

    def loss(other: np.ndarray) -> float:
        return float(np.trace((W - other) @ damped @ (W - other).T))

    dropped = np.linalg.svd(W @ np.linalg.cholesky(damped), compute_uv=False)[5:]
    assert loss(out) == pytest.approx((dropped**2).sum(), rel=1e-9)
    assert loss(out) < 0.8 * loss(ref.truncated(W, 5))


@pytest.mark.parametrize("with_grams", [False, True])
@pytest.mark.parametrize("by", [None, "uniform", "spectrum", "loss"])
def test_a_ratio_is_that_of_allocate_ranks(by: str | None, with_grams: bool) -> None:
    state = weights()
    grams = {"fc": moments(20), "up": moments(25)} if with_grams or by == "loss" else None
    rule = by or ("loss" if with_grams else "spectrum")
    ranks = ps.allocate_ranks(state, 0.5, by=rule, grams=grams if rule == "loss" else None)
    out = ps.compress(state, 0.5, by=by, grams=grams)
    same = ps.compress(state, ranks, grams=grams)
    for key in state:
        assert np.array_equal(out[key], same[key])
    for key, k in ranks.items():
        if k == min(state[key].shape):
            assert np.array_equal(out[key], state[key])
            continue
        s = np.linalg.svd(out[key], compute_uv=False)
        assert s[k] < 1e-5 < s[k - 1]


def test_files_as_in_memory(tmp_path: Any) -> None:
    from safetensors.numpy import load_file, save_file

    state = weights()
    save_file(state, tmp_path / "model.safetensors")
    wanted = ps.compress(state, 0.5)
    done = ps.compress(tmp_path / "model.safetensors", 0.5, out=tmp_path / "small.safetensors")
    found = load_file(tmp_path / "small.safetensors")
    assert {t.key for t in done.tensors} == {"fc.weight", "up.weight"}
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert np.array_equal(found[key], value)
    whole = ps.compress(tmp_path / "model.safetensors", 1.0, out=tmp_path / "whole.safetensors")
    assert whole.tensors == ()


# --- modules --------------------------------------------------------------------------------------


class Net(nn.Module):
    """Blocks with a tied pair, GPT-2's layer, a head that is the embedding, and attention."""

    def __init__(self) -> None:
        super().__init__()
        from transformers.pytorch_utils import Conv1D

        self.embed = nn.Embedding(50, 24)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(24, 40), "down": nn.Linear(40, 24, bias=i > 0)})
            for i in range(2)
        )
        self.layers[1]["up"].weight = self.layers[0]["up"].weight
        self.mid = Conv1D(24, 24)
        self.head = nn.Linear(24, 50, bias=False)
        self.head.weight = self.embed.weight
        with torch.no_grad():
            self.mid.weight.copy_(torch.randn(24, 24))
            self.mid.bias.copy_(torch.randn(24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.mid(self.embed(x))
        for layer in self.layers:
            h = h + layer["down"](torch.relu(layer["up"](h)))
        return self.head(h)


X = torch.arange(20).reshape(4, 5)
RANKS = {"layers.0.up": 9, "layers.0.down": 20, "layers.1.down.weight": 7, "mid": 8}


@pytest.fixture
def net() -> Net:
    pytest.importorskip("transformers", reason="the layer of GPT-2 is its Conv1D")
    torch.manual_seed(0)
    return Net()


@pytest.mark.parametrize("with_grams", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_two_layers_for_one_compute_the_same(net: Net, dtype: Any, with_grams: bool) -> None:
    net = net.to(dtype)
    before = copy.deepcopy(net.state_dict())
    grams = ps.input_grams(net, [X], layers="*") if with_grams else None
    small = factorize(net, RANKS, grams=grams)
    same = copy.deepcopy(net)
    same.load_state_dict(ps.compress(net, RANKS, grams=grams))
    # In bfloat16 five layers round, and in one of the two models their products, each by 2^-9.
    difference = (small(X).double() - same(X).double()).norm() / same(X).double().norm()
    assert difference < (1e-5 if dtype == torch.float32 else 0.02)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.dtype == dtype for p in small.parameters())
    for name, rank in (("layers.0.up", 9), ("layers.1.down", 7), ("mid", 8)):
        layer = small.get_submodule(name)
        assert isinstance(layer, LowRankLinear)
        assert layer.rank == rank
        s = np.linalg.svd(layer.weight.detach().double(), compute_uv=False)[:rank]
        for half in (layer.to_rank.weight, layer.from_rank.weight):  # both have the roots
            found = np.linalg.svd(half.detach().double(), compute_uv=False) ** 2
            np.testing.assert_allclose(found, s, rtol=1e-3 if dtype == torch.float32 else 0.05)
    # 20 * (24 + 40) is more than 24 * 40.
    assert type(small.layers[0]["down"]) is nn.Linear
    rank = np.linalg.matrix_rank(small.layers[0]["down"].weight.detach().float(), tol=0.05)
    assert rank == 20


def test_ties_stay(net: Net) -> None:
    net.layers[0]["up"].weight.requires_grad_(False)
    small = factorize(net.train(), 0.5, layers="*")
    one, two = (small.layers[i]["up"] for i in range(2))
    assert one.to_rank.weight is two.to_rank.weight
    assert one.from_rank.weight is two.from_rank.weight
    assert not one.to_rank.weight.requires_grad
    assert one.from_rank.bias is not two.from_rank.bias
    assert one.from_rank.bias.requires_grad
    assert small.head.weight is small.embed.weight
    assert small.training
    assert one.training
    chosen = [p for n, p in net.named_parameters() if "embed" not in n and p.ndim == 2]
    left = [p for n, p in small.named_parameters() if "embed" not in n and p.ndim == 2]
    ratio = sum(p.numel() for p in left) / sum(p.numel() for p in chosen)
    assert 0.4 < ratio <= 0.5
    weights_again = ps.compress(net, 0.5)
    tied = [weights_again[f"layers.{i}.up.weight"] for i in range(2)]
    assert tied[0].data_ptr() == tied[1].data_ptr()
    small(X).sum().backward()


def test_in_place_and_shared_modules() -> None:
    layer = nn.Linear(20, 20)
    model = nn.ModuleDict({"a": layer, "b": layer, "c": nn.Linear(20, 20)})
    bias = layer.bias
    assert factorize(model, {"a": 4}, inplace=True) is model
    assert model["a"] is model["b"]
    assert isinstance(model["a"], LowRankLinear)
    assert type(model["c"]) is nn.Linear
    assert model["a"].bias is bias  # optimizers go on with it


def test_saved_and_loaded(net: Net, tmp_path: Any) -> None:
    from safetensors.torch import load_file, save_model

    small = factorize(net, 0.5, layers="*")
    torch.manual_seed(5)
    other = Net()
    assert load_low_rank(other, small.state_dict()) is other
    assert torch.equal(other(X), small(X))
    assert other.layers[0]["up"].to_rank.weight is other.layers[1]["up"].to_rank.weight
    again = load_low_rank(other, small.state_dict())  # it may be one already
    assert torch.equal(again(X), small(X))
    save_model(small, tmp_path / "small.safetensors")  # which leaves out tied names
    loaded = load_low_rank(Net(), load_file(tmp_path / "small.safetensors"), strict=False)
    assert torch.equal(loaded(X), small(X))
    file = io.BytesIO()
    torch.save(small, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(X), small(X))


def test_states_that_do_not_fit(net: Net) -> None:
    state = factorize(net, 0.5).state_dict()
    with pytest.raises(ValueError, match="load_low_rank: 'model' must have its linear layers"):
        load_low_rank(nn.Linear(3, 3), state)
    with pytest.raises(RuntimeError, match="Missing key"):
        load_low_rank(Net(), {k: v for k, v in state.items() if "embed" not in k})
    with pytest.raises(TypeError, match="load_low_rank: 'state' must be a mapping"):
        load_low_rank(net, [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="load_low_rank: 'model' must be"):
        load_low_rank({}, state)  # type: ignore[type-var]


def test_factors_of_another_shape_are_refused_and_nothing_has_changed() -> None:
    def network(inside: int, outside: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(20, inside), nn.Linear(inside, outside, bias=False))

    state = factorize(network(24, 30), {"0": 4, "1": 4}).state_dict()
    for other in (network(24, 40), network(26, 30)):
        with pytest.raises(
            ValueError, match="load_low_rank: 'state' must have factors of a matrix"
        ):
            load_low_rank(other, state)
        assert [type(layer) for layer in other] == [nn.Linear, nn.Linear]


def test_moments_that_are_none_change_nothing() -> None:
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
    before = copy.deepcopy(model.state_dict())
    grams = {"0": np.eye(20), "1": -np.eye(20)}
    for edit in (ps.compress, factorize):
        with pytest.raises(ValueError, match="'grams' must hold positive semidefinite"):
            edit(model, {"0": 4, "1": 4}, grams=grams, inplace=True)
        assert [type(layer) for layer in model] == [nn.Linear, nn.Linear]
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_compressed_module_is_analysed(net: Net) -> None:
    report = ps.analyze(factorize(net, RANKS), min_evals=1, goodness=False)
    names = [row.name for row in report]
    assert {"layers.0.up.to_rank", "layers.0.up.from_rank", "mid.to_rank"} <= set(names)
    assert [report[f"layers.1.down.{x}_rank"].shape for x in ("to", "from")] == [(7, 40), (24, 7)]
    # As the layer itself: where it stands, and what it does.
    assert {(row.block, row.stack) for row in report if "_rank" in row.name} == {
        (0, "layers"), (1, "layers"), (None, "")}  # fmt: skip
    named = ps.analyze({"h.0.mlp.fc1.to_rank.weight": np.random.default_rng(0).random((9, 60))})
    assert named.layers[0].role == "up"


def test_a_model_that_reads_the_weights_of_its_layers() -> None:
    block = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True).eval()
    small = factorize(block, 0.6)
    assert isinstance(small.linear1, LowRankLinear)
    same = copy.deepcopy(block)
    same.load_state_dict(ps.compress(block, 0.6))
    x = torch.randn(2, 3, 16)
    with torch.no_grad():
        torch.testing.assert_close(small(x), same(x), atol=1e-5, rtol=0.0)


def test_what_is_not_finite_stays() -> None:
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
    with torch.no_grad():
        model[0].weight[0, 0] = torch.inf
    small = factorize(model, {"0": 4, "1": 4})
    assert type(small[0]) is nn.Linear
    assert isinstance(small[1], LowRankLinear)
    out = ps.compress(model, {"0": 4, "1": 4})
    assert torch.equal(out["0.weight"], model[0].weight)


@pytest.mark.parametrize(
    ("ratio", "options", "message"),
    [
        (1.5, {}, r"'ratio' must be in \(0, 1\]"),
        ({"fd": 3}, {}, "'ratio' must name linear layers that .*, got 'fd'"),
        ({"fc": 0}, {}, "'ratio' must be a positive integer"),
        ({3: 3}, {}, "'ratio' must hold ranks by name, got a name of type int"),
        ({"fc": 3}, {"by": "loss"}, "'by' must be None where ranks are given, got 'loss'"),
        (0.5, {"by": "loss"}, "'grams' must be given for by='loss'"),
        (0.5, {"by": ""}, "'by' must be one of"),
        ({"fc": 3}, {"grams": {}}, "'grams' must have 'fc.weight'"),
        (0.5, {"inplace": 1}, "'inplace' must be a bool"),
        ({"conv": 2}, {}, "'ratio' must name linear layers"),
    ],
)
def test_refused_arguments(ratio: Any, options: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"compress: {message}"):
        ps.compress(weights(), ratio, **options)
    with pytest.raises(TypeError, match=r"factorize: 'model' must be a torch\.nn\.Module"):
        factorize({}, 0.5)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="factorize: 'ratio' must name linear layers"):
        factorize(nn.Sequential(nn.Linear(9, 9)), {"1": 3})
