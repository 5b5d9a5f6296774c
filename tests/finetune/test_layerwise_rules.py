"""Rules by layer: the numbers of their papers; every parameter in exactly one group."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import layerwise as ref

import pyspectra as ps

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from pyspectra.finetune import (  # noqa: E402
    HFT,
    LISA,
    AlphaDecay,
    BitFit,
    FreezeWellTrained,
    Spectrum,
    TempBalance,
    layer_scores,
    param_groups,
    snr,
)
from pyspectra.finetune.layerwise.units import units  # noqa: E402

DATA = Path(__file__).parent.parent / "data"

# The repositories work in float32; ours and the transcription in float64, by other routes.
REPOSITORY_RTOL = 1e-6
# Eigenvalues by a Gram matrix and by an SVD of a random matrix, and a few hundred logarithms.
ROUTE_RTOL = 1e-9


class Net(nn.Module):
    """Named as ResNets are: a batch norm has the name of its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 20, 3)
        self.bn1 = nn.BatchNorm2d(20)
        self.conv2 = nn.Conv2d(20, 30, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(30)
        self.narrow = nn.Linear(30, 40)
        self.fc1 = nn.Linear(40, 80)
        self.fc2 = nn.Linear(80, 60)
        self.norm = nn.LayerNorm(60)
        self.head = nn.Linear(60, 10)


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    model = Net()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            if p.ndim > 1:  # tails of different weight
                p.mul_(torch.randn_like(p).abs() ** (0.3 * (i % 4)))
    return model


def names_of(model: Any, group: dict[str, Any]) -> set[str]:
    of = {id(p): name for name, p in model.named_parameters()}
    return {of[id(p)] for p in group["params"]}


def values(model: Any, groups: list[dict[str, Any]], option: str) -> dict[str, float]:
    found = {name: group[option] for group in groups for name in names_of(model, group)}
    assert len(found) == sum(len(group["params"]) for group in groups)
    return found


def trained(model: Any) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


# --- TempBalance and AlphaDecay -------------------------------------------------------------------

# The layers of `Net`, in order, and what the released code has follow them.
LAYERS = {
    "conv1.weight": ("conv1.bias", "bn1.weight", "bn1.bias"),
    "conv2.weight": ("bn2.weight", "bn2.bias"),
    "narrow.weight": ("narrow.bias",),
    "fc1.weight": ("fc1.bias",),
    "fc2.weight": ("fc2.bias",),
    "head.weight": ("head.bias",),
}


def expected(model: Any, base: float, how: str, low: float, high: float) -> dict[str, float]:
    state = {k: v.double().numpy() for k, v in model.state_dict().items()}
    evals = [ref.eigenvalues(state[key]) for key in LAYERS]
    numbers = ref.layer_values(evals, base, how, low, high, least=40)
    out = {"norm.weight": base, "norm.bias": base}
    for (key, followers), number in zip(LAYERS.items(), numbers, strict=True):
        out.update(dict.fromkeys((key, *followers), number))
    return out


@pytest.mark.parametrize("how", ["linear", "sqrt", "log2", "step"])
def test_learning_rates_are_those_of_tempbalance(how: str) -> None:
    model = net()
    rule = TempBalance(assign=how, min_evals=40)
    found = values(
        model, param_groups(model, ps.analyze(model, goodness=False), rule, lr=0.1), "lr"
    )
    wanted = expected(model, 0.1, how, 0.5, 1.5)
    assert found == pytest.approx(wanted, rel=ROUTE_RTOL)
    assert len({round(x, 12) for x in found.values()}) == 4  # 1 of the base and 3 layers
    assert found["narrow.weight"] == found["norm.weight"] == 0.1  # 30 eigenvalues, no matrix


def test_decays_are_those_of_alphadecay() -> None:
    model = net(1)
    rule = AlphaDecay(low=0.6666, min_evals=40)
    found = values(model, param_groups(model, None, rule, weight_decay=1e-5), "weight_decay")
    wanted = expected(model, 1e-5, "linear", 0.6666, 3.0)
    assert found == pytest.approx(wanted, rel=ROUTE_RTOL)


def test_the_median_alpha_is_that_of_the_repositories() -> None:
    # A fixed spectrum, and the numbers of the formula by hand: i = 3, the tail is 4, 8, 16 over 4.
    evals = np.array([0.0, 0.5, 1.0, 4.0, 8.0, 16.0])
    by_hand = 1.0 + 3.0 / (math.log(2.0) + math.log(4.0))
    assert ref.median_alpha(evals) == pytest.approx(by_hand, rel=1e-15)
    W = np.diag(np.sqrt(evals))
    (score,) = layer_scores(nn.ParameterDict({"w": nn.Parameter(torch.tensor(W))}), MEDIAN)
    assert score.value == pytest.approx(by_hand, rel=REPOSITORY_RTOL)
    assert score.n_evals == 6  # a zero counts, as in the released code


MEDIAN = "tempbalance_median"


def test_a_report_by_any_estimator_serves() -> None:
    model = net()
    rule = TempBalance(min_evals=40)
    own = param_groups(model, None, rule, lr=0.1)
    for estimator in ("hill(20)", MEDIAN):
        report = ps.analyze(model, estimator=estimator)
        assert values(model, param_groups(model, report, rule, lr=0.1), "lr") == values(
            model, own, "lr"
        )


def test_the_reported_alpha_and_sub_matrices_may_be_the_score() -> None:
    model = net()
    for estimator in ("ww", "farms(20, 3, 1)"):
        report = ps.analyze(model, estimator=estimator, min_evals=1, goodness=False)
        score = "alpha" if estimator == "ww" else estimator
        for source in (report, model):
            assert [x.value for x in layer_scores(source, score)] == [x.alpha for x in report]
        rule = TempBalance(score=score, min_evals=0)
        groups = values(model, param_groups(model, report, rule, lr=1.0), "lr")
        assert min(groups.values()) == 0.5
        assert max(groups.values()) == 1.5
    with pytest.raises(ValueError, match=r"'report' must be made with estimator='farms"):
        param_groups(model, ps.analyze(model), TempBalance(score="farms(20, 3, 1)"), lr=1.0)


def test_without_different_alphas_all_layers_are_alike() -> None:
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(4)])
    scores = {f"{i}.weight": 3.0 for i in range(4)}
    (group,) = param_groups(model, scores, TempBalance(min_evals=0), lr=0.1)
    assert group["lr"] == 0.1
    scores |= {"1.weight": math.nan, "2.weight": 5.0}  # one is left
    assert len(param_groups(model, scores, TempBalance(min_evals=0), lr=0.1)) == 1
    assert len(param_groups(model, {}, TempBalance(min_evals=0), lr=0.1)) == 1


def test_all_layers_may_take_part() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), *[nn.Linear(4, 4) for _ in range(3)])
    report = ps.analyze(model, min_evals=1)
    rule = TempBalance(skip_first=False, skip_last=False, min_evals=0)
    found = values(model, param_groups(model, report, rule, lr=1.0), "lr")
    assert found["0.weight"] == 1.0  # the embedding
    assert {found["1.weight"], found["2.weight"], found["3.weight"]} >= {0.5, 1.5}


def test_norms_may_keep_the_learning_rate() -> None:
    model = net()
    found = values(
        model, param_groups(model, None, TempBalance(min_evals=40, norms=False), lr=1.0), "lr"
    )
    assert found["bn2.weight"] == 1.0 != found["conv2.weight"]


# --- units ----------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.rnn = nn.LSTM(8, 8, num_layers=2, proj_size=4)
        self.scale = nn.Parameter(torch.ones(8))
        self.head = nn.Linear(8, 12)
        self.head.weight = self.table.weight


MODELS = {
    "cnn": net,
    "tied": Tied,
    "sequence": lambda: nn.Sequential(
        nn.Linear(6, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 6), nn.BatchNorm1d(6)
    ),
    "transformer": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16), 3, enable_nested_tensor=False
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_parameter_is_in_exactly_one_group(kind: str) -> None:
    model = MODELS[kind]()
    rules = [TempBalance(min_evals=0), AlphaDecay(min_evals=0), Spectrum(), FreezeWellTrained()]
    if kind == "transformer":
        rules += [LISA(active=1), HFT(), BitFit()]
    for rule in rules:
        groups = param_groups(model, None, rule, lr=0.1, weight_decay=0.1)
        count = Counter(id(p) for group in groups for p in group["params"])
        assert count == Counter(id(p) for p in model.parameters())
        torch.optim.AdamW(groups)
        for unit in [] if isinstance(rule, BitFit) else units(model):
            assert len({param.requires_grad for param in map(model.get_parameter, unit.names)}) == 1
        model.requires_grad_(True)


def test_vectors_follow_their_matrix() -> None:
    found = {unit.key: unit.names for unit in units(Tied())}
    assert found["attention.in_proj_weight"] == (
        "attention.in_proj_weight",
        "attention.in_proj_bias",
    )
    assert found["rnn.weight_hh_l1"] == ("rnn.weight_hh_l1", "rnn.bias_hh_l1")
    assert found["rnn.weight_hr_l0"] == ("rnn.weight_hr_l0",)
    assert found["table.weight"] == ("table.weight",)  # its ties have names of their own
    assert found["head.bias"] == ("head.bias",)
    assert found["scale"] == ("scale",)
    sequence = {unit.key: unit.names for unit in units(MODELS["sequence"]())}
    assert sequence["0.weight"] == ("0.weight", "0.bias", "1.weight", "1.bias")


def test_a_report_of_a_wrapped_or_a_saved_model_is_joined(tmp_path: Path) -> None:
    model = net()
    state = {f"module.{k}": v for k, v in model.state_dict().items()}
    torch.save(model.state_dict(), tmp_path / "model.pt")
    rule = TempBalance(min_evals=40)
    own = values(model, param_groups(model, None, rule, lr=0.1), "lr")
    for other in (state, tmp_path / "model.pt"):
        report = ps.analyze(other, goodness=False)
        assert values(model, param_groups(model, report, rule, lr=0.1), "lr") == own
    compiled = nn.ModuleDict({"_orig_mod": model})  # what torch.compile makes of the names
    report = ps.analyze(model, goodness=False)
    found = values(compiled, param_groups(compiled, report, rule, lr=0.1), "lr")
    assert {name.removeprefix("_orig_mod."): x for name, x in found.items()} == own


def test_groups_may_have_names() -> None:
    model = net()
    groups = param_groups(model, None, TempBalance(min_evals=40), lr=0.1, named=True)
    optimizer = torch.optim.SGD(groups)
    assert {n for g in optimizer.param_groups for n in g["param_names"]} == {
        n for n, _ in model.named_parameters()
    }


# --- Spectrum -------------------------------------------------------------------------------------


def test_the_signal_to_noise_ratio_is_that_of_spectrum() -> None:
    rng = np.random.default_rng(0)
    for shape in ((40, 30), (20, 50), (8, 8)):
        W = rng.standard_normal(shape)
        W[0] += 5.0
        S = np.linalg.svd(W, compute_uv=False)
        assert snr(S, *shape) == pytest.approx(ref.snr(W), rel=1e-12)
        model = nn.ParameterDict({"w": nn.Parameter(torch.tensor(W))})
        (score,) = layer_scores(model, "snr")
        assert score.value == pytest.approx(ref.snr(W), rel=REPOSITORY_RTOL)
    assert snr([3.0], 1, 4) == ref.snr(np.full((1, 9), 1.0))  # all is signal: the noise is one
    assert snr([0.0, 0.0], 2, 2) == math.inf
    assert math.isnan(snr([], 1, 1))
    for wrong in ([-1.0], [math.nan], [[1.0]]):
        with pytest.raises(ValueError, match="'singular_values' must be one-dimensional"):
            snr(wrong, 2, 2)  # type: ignore[arg-type]


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = nn.ModuleDict({"k_proj": nn.Linear(2, 2)})
        self.mlp = nn.ModuleDict({"gate_proj": nn.Linear(2, 2)})
        self.input_layernorm = nn.LayerNorm(2)


class Storm(nn.Module):
    """The names of Llama, with layers of two by two."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(2, 2)
        self.layers = nn.ModuleList(Part() for _ in range(32))
        self.lm_head = nn.Linear(2, 2)


def test_the_layers_are_those_that_spectrum_published() -> None:
    published = json.loads((DATA / "spectrum_storm_8b.json").read_text())
    model = Storm()
    types = ("self_attn.k_proj", "mlp.gate_proj")
    scores = {
        f"layers.{i}.{kind}.weight": x for kind in types for i, x in published[kind]["snr"].items()
    }
    param_groups(model, scores | {"lm_head.weight": 0.0}, Spectrum(percent=50))
    for kind in types:
        unfrozen = {i for i in range(32) if f"layers.{i}.{kind}.weight" in trained(model)}
        assert unfrozen == {*published[kind]["unfrozen"]}
        assert {i for i in range(32) if f"layers.{i}.{kind}.bias" in trained(model)} == unfrozen
    assert {"lm_head.weight", "embed_tokens.weight", "layers.3.input_layernorm.weight"} <= trained(
        model
    )


@pytest.mark.parametrize(("percent", "count"), [(0, 0), (25, 1), (70, 4), (100, 6)])
def test_a_share_of_the_layers_is_rounded_down(percent: float, count: int) -> None:
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(6)])
    scores = {f"{i}.weight": float(i) for i in range(6)}
    scores["5.weight"] = math.nan  # no score is the least
    param_groups(model, scores, Spectrum(percent=percent))
    best = ["4.weight", "3.weight", "2.weight", "1.weight", "0.weight", "5.weight"]
    assert {name for name in trained(model) if "weight" in name} == {*best[:count]}


# --- LISA, and freezing the well trained ----------------------------------------------------------


def test_well_trained_layers_are_frozen() -> None:
    model = net()
    report = ps.analyze(model, goodness=False)
    rule = FreezeWellTrained(low=2.0, high=3.5, min_evals=40)
    groups = param_groups(model, report, rule, lr=0.1)
    inside = {row.key for row in report if 2.0 <= row.alpha <= 3.5 and len(row.esd.evals) >= 40}
    assert 0 < len(inside) < sum(2.0 <= row.alpha <= 3.5 for row in report)
    assert {n for n in LAYERS if n not in trained(model)} == inside
    assert len(groups) == 2


def test_lisa_draws_blocks_by_seed_and_number_alone() -> None:
    model = MODELS["transformer"]()
    found = units(model)
    blocks = {f"layers.{i}" for i in range(3)}

    def active(rule: LISA, turn: int) -> set[str]:
        frozen = rule.decide(found, {}, turn).frozen
        rest = {unit.block for unit in found if unit.key not in frozen}
        assert frozen == {n for u in found if u.block in blocks - rest for n in u.names}
        return {block for block in rest if block}

    drawn = [active(LISA(active=1, seed=3), turn) for turn in range(300)]
    assert drawn == [active(LISA(active=1, seed=3), turn) for turn in range(300)]
    assert drawn != [active(LISA(active=1, seed=4), turn) for turn in range(300)]
    counts = Counter(block for blocks in drawn for block in blocks)
    assert all(70 < counts[block] < 130 for block in blocks)  # 100 each: 3.7 standard deviations
    assert active(LISA(active=9), 0) == blocks
    assert active(LISA(active=0), 0) == set()


# --- half of a network, and biases ----------------------------------------------------------------


class Block(nn.Module):
    """The matrices of a block of Llama."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = nn.ModuleDict({x: nn.Linear(2, 2) for x in ("q", "k", "v", "o")})
        self.mlp = nn.ModuleDict({x: nn.Linear(2, 2, bias=False) for x in ("up", "down", "gate")})
        self.norm = nn.LayerNorm(2)


def llama() -> Any:
    parts = {"embed": nn.Embedding(2, 2), "layers": nn.ModuleList(Block() for _ in range(6))}
    return nn.ModuleDict({**parts, "lm_head": nn.Linear(2, 2)})


def test_half_of_each_block_is_frozen() -> None:
    def frozen(seed: int, turn: int = 0) -> frozenset[str]:
        return HFT(seed=seed).decide(units(llama()), {}, turn).frozen

    found = frozen(0)
    assert found == frozen(0)
    assert len({found, frozen(1), frozen(0, 1)}) == 3
    assert not any("norm" in n or "head" in n or "embed" in n for n in found)
    for i in range(6):
        attention = [n for n in found if n.startswith(f"layers.{i}.self_attn")]
        assert sum(n.endswith("weight") for n in attention) == 2
        assert len(attention) == 4  # a bias follows
    mlp = Counter(n.split(".")[1] for n in found if ".mlp." in n)
    assert sorted(mlp.values()) == [1, 1, 1, 2, 2, 2]  # half of three, in the mean


def test_biases_and_head_are_trained_alone() -> None:
    model = llama()
    model["layers"][0].self_attn["q"].bias.requires_grad_(False)
    param_groups(model, None, BitFit())
    names = {n for n, _ in model.named_parameters()}
    wanted = {n for n in names if n.endswith("bias")} | {"lm_head.weight"}
    assert trained(model) == wanted - {"layers.0.self_attn.q.bias"}
    model = llama()
    param_groups(model, None, BitFit(also=("embed",)))
    assert {n for n in trained(model) if n.endswith("weight")} == {"embed.weight"}


# --- what is refused ------------------------------------------------------------------------------


def test_what_cannot_be_done_is_refused() -> None:
    model = net()
    with pytest.raises(ValueError, match="'lr' must be given: TempBalance multiplies it"):
        param_groups(model, None, TempBalance())
    with pytest.raises(TypeError, match="'rule' must be a rule"):
        param_groups(model, None, TempBalance, lr=0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"'model' must be a torch\.nn\.Module"):
        param_groups({}, None, TempBalance(), lr=0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'report' must be a report, a model"):
        param_groups(model, 3, TempBalance(), lr=0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"hold numbers, got 'x' for 'fc1.weight'"):
        param_groups(model, {"fc1.weight": "x"}, TempBalance(), lr=0.1)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"'report' must be of the model, got layers such as 'fc'"):
        param_groups(model, {"fc": 3.0}, TempBalance(), lr=0.1)
    with pytest.raises(ValueError, match="'report' must be a report with one row a layer"):
        param_groups(model, ps.analyze(model, pool=False), TempBalance(), lr=0.1)
    with pytest.raises(ValueError, match="'model' must have numbered blocks"):
        param_groups(model, None, LISA())
    with pytest.raises(ValueError, match="'model' must have matrices in numbered blocks"):
        param_groups(model, None, HFT())


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (TempBalance, {"low": -1.0}, "TempBalance: 'low'"),
        (TempBalance, {"low": 2.0}, "TempBalance: 'high' must be finite and at least 2"),
        (TempBalance, {"assign": "liner"}, "did you mean 'linear'"),
        (TempBalance, {"score": "tempbalance"}, "TempBalance: 'score' must be one of"),
        (TempBalance, {"score": None}, "TempBalance: 'score'"),
        (TempBalance, {"every": 0}, "TempBalance: 'every'"),
        (AlphaDecay, {"norms": 1}, "AlphaDecay: 'norms' must be a bool"),
        (AlphaDecay, {"min_evals": -1}, "AlphaDecay: 'min_evals'"),
        (Spectrum, {"percent": 101}, "Spectrum: 'percent'"),
        (Spectrum, {"score": None}, "Spectrum: 'score'"),
        (FreezeWellTrained, {"low": 5.0}, "FreezeWellTrained: 'high'"),
        (FreezeWellTrained, {"score": None}, "FreezeWellTrained: 'score'"),
        (LISA, {"active": -1}, "LISA: 'active'"),
        (LISA, {"score": "alpha"}, "LISA: 'score' must be None"),
        (HFT, {"score": "alpha"}, "HFT: 'score' must be None"),
        (HFT, {"seed": -1}, "HFT: 'seed'"),
        (BitFit, {"score": "alpha"}, "BitFit: 'score' must be None"),
        (BitFit, {"also": "head"}, "BitFit: 'also' must hold parts of names"),
    ],
)
def test_options_are_checked(rule: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        rule(**options)
