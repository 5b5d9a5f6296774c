"""Edits of weights: truncation keeps what it says, removal takes the trap and nothing else."""

import copy
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import synthetic_cases
import torch
from torch import nn

import pyspectra as ps


def rank(W):
    return int(np.linalg.matrix_rank(W.astype(np.float64), tol=1e-4 * np.linalg.norm(W, 2)))


@pytest.fixture
def state():
    cases = synthetic_cases.cases()
    return {
        "lin.weight": cases["spiked_320x160_seed5"],
        "lin.bias": np.arange(3.0, dtype=np.float32),
        "conv.weight": cases["conv_64x32x3x3_seed8"],
        "half.weight": cases["t3_256x128_seed3"].astype(np.float16),
    }


# --- smoothing ------------------------------------------------------------------------------------


def test_fraction_keeps_the_leading_directions(state):
    before = copy.deepcopy(state)
    out = ps.svd_smoothing(state, keep=0.25)
    assert set(out) == set(state)
    for key, value in before.items():
        assert np.array_equal(state[key], value)  # the original is untouched
        assert out[key].dtype == value.dtype
        assert out[key].shape == value.shape
        assert not np.shares_memory(out[key], state[key])
    assert np.array_equal(out["lin.bias"], state["lin.bias"])
    u, s, vt = np.linalg.svd(state["lin.weight"].astype(float), full_matrices=False)
    best = (u[:, :40] * s[:40]) @ vt[:40]
    assert np.allclose(out["lin.weight"], best, atol=1e-6)
    for i in range(3):
        for j in range(3):
            assert rank(out["conv.weight"][:, :, i, j]) == 8


@pytest.mark.parametrize("keep", ["detX", "powerlaw", "mp"])
def test_named_rules_keep_as_many_as_the_report_says(keep, state):
    W = state["lin.weight"]
    out = ps.svd_smoothing({"w.weight": W}, keep=keep)["w.weight"]
    layer = ps.analyze({"w.weight": W}, detx=True, mp_fit=True).layers[0]
    expected = {
        "detX": layer.metrics["detX_num"],
        "powerlaw": layer.n_tail,
        "mp": layer.metrics["n_spikes"],
    }[keep]
    assert 0 < expected < 160
    assert rank(out) == expected


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("keep", ["detX", "powerlaw", "mp"])
def test_a_matrix_of_low_rank_stays(keep):
    rng = np.random.default_rng(1)
    W = rng.standard_normal((50, 6)) @ rng.standard_normal((6, 40))
    W[:10] = 0.0
    out = ps.svd_smoothing({"w.weight": W}, keep=keep)["w.weight"]
    assert rank(out) <= 6
    if keep == "mp":
        assert np.allclose(out, W, atol=1e-9)


def test_layers_without_spikes_stay(state):
    W = np.random.default_rng(0).standard_normal((60, 40)).astype(np.float32)
    out = ps.svd_smoothing({"w.weight": W}, keep="mp")["w.weight"]
    assert np.array_equal(out, W)


def test_all_directions_are_the_matrix_itself(state):
    out = ps.svd_smoothing({"w.weight": state["lin.weight"]}, keep=1.0)
    assert np.allclose(out["w.weight"], state["lin.weight"], atol=1e-6)


def test_layers_are_selected_and_broken_ones_left(state):
    broken = np.full((20, 20), np.nan, dtype=np.float32)
    model = {**state, "broken.weight": broken}
    out = ps.svd_smoothing(model, keep=0.1, layers="lin")
    assert rank(out["lin.weight"]) == 16
    assert np.array_equal(out["conv.weight"], state["conv.weight"])
    out = ps.svd_smoothing(model, keep=0.1)
    assert np.isnan(out["broken.weight"]).all()


# --- traps ----------------------------------------------------------------------------------------


def trapped(dtype=np.float32):
    """Noise, a rank-one signal that training could have made, and one absurd entry."""
    rng = np.random.default_rng(3)
    W = rng.standard_normal((160, 120))
    u, v = rng.standard_normal(160), rng.standard_normal(120)
    signal = 60.0 * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    W += signal
    W[31, 77] = 90.0
    return W.astype(dtype), signal


def test_the_trap_goes_and_the_signal_stays():
    W, signal = trapped()
    before = ps.analyze({"w.weight": W}, randomize=True).layers[0]
    assert before.metrics["n_traps"] == 1
    out = ps.remove_traps({"w.weight": W})["w.weight"]
    assert W[31, 77] == 90.0
    assert abs(out[31, 77]) < 10.0
    changed = np.argwhere(out != W)
    assert changed.tolist() == [[31, 77]]
    u, s, vt = np.linalg.svd(out.astype(float))
    su, _, svt = np.linalg.svd(signal)
    assert abs(u[:, 0] @ su[:, 0]) > 0.95
    assert abs(vt[0] @ svt[0]) > 0.95
    assert s[0] > 60.0
    after = ps.analyze({"w.weight": out}, randomize=True, mp_fit=True, seed=9).layers[0]
    assert after.metrics["n_traps"] == 0
    assert after.metrics["n_spikes"] == 1


def test_heavy_tailed_entries_are_tamed_until_no_trap_is_left():
    W = synthetic_cases.cases()["t2_128x400_seed4"]
    before = ps.find_traps(W)
    assert before[0].eigenvalue > 10 * before[0].threshold
    out = ps.remove_traps({"w.weight": W}, seed=1)["w.weight"]
    # Another permutation may still show what just missed the threshold.
    assert all(t.eigenvalue < 1.2 * t.threshold for t in ps.find_traps(out, seed=2))
    assert np.mean(out != W) < 0.05


@pytest.mark.parametrize(
    "W",
    [
        np.random.default_rng(0).uniform(0.0, 1.0, (60, 40)),  # the mean is a spike in any order
        np.full((24, 24), 0.1),
        np.eye(40),  # every entry that is not zero is a trap
        np.where(np.random.default_rng(1).random((120, 90)) < 0.1, 1.0, 0.0)
        * np.random.default_rng(2).standard_normal((120, 90)),
    ],
    ids=["mean", "constant", "identity", "sparse"],
)
def test_what_is_no_outlier_stays(W):
    assert ps.find_traps(W)
    assert np.array_equal(ps.remove_traps({"w.weight": W})["w.weight"], W)


@pytest.mark.parametrize("axis", [0, 1])
def test_an_outlier_channel_stays_and_an_outlier_beside_it_goes(axis):
    """A column ten times as large makes traps in random order, and is a direction in its own."""
    W = np.random.default_rng(6).standard_normal((150, 100))
    np.moveaxis(W, axis, 0)[7] *= 10.0
    assert len(ps.find_traps(W)) > 3
    assert np.array_equal(ps.remove_traps({"w.weight": W})["w.weight"], W)
    W[40, 50] = 120.0
    out = ps.remove_traps({"w.weight": W})["w.weight"]
    assert np.argwhere(out != W).tolist() == [[40, 50]]


def test_an_outlier_goes_where_entries_have_a_mean():
    W = np.random.default_rng(5).uniform(0.0, 1.0, (60, 40))
    W[3, 4] = 30.0
    out = ps.remove_traps({"w.weight": W})["w.weight"]
    assert np.argwhere(out != W).tolist() == [[3, 4]]
    assert abs(out[3, 4]) < 5.0


def test_slices_of_a_convolution_are_cleaned_each():
    W = np.random.default_rng(4).standard_normal((40, 30, 3, 3)).astype(np.float32)
    W[5, 6, 1, 2] = 50.0
    out = ps.remove_traps({"conv.weight": W})["conv.weight"]
    assert np.argwhere(out != W).tolist() == [[5, 6, 1, 2]]
    assert abs(out[5, 6, 1, 2]) < 10.0


# --- torch ----------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        W, _ = trapped()
        self.embed = nn.Embedding(160, 120)
        self.head = nn.Linear(120, 160, bias=True)
        self.head.weight = self.embed.weight
        with torch.no_grad():
            self.embed.weight.copy_(torch.from_numpy(W))
        self.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_module_gives_a_new_state_dict_with_ties_kept(dtype):
    net = Net(dtype)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    out = ps.remove_traps(net)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])
        assert out[key].dtype == dtype
        assert out[key].device == value.device
    assert out["embed.weight"][31, 77].abs() < 10
    assert torch.equal(out["embed.weight"], out["head.weight"])
    net.load_state_dict(out)


def test_inplace_edits_the_module():
    net = Net()
    assert ps.remove_traps(net, inplace=True) is net
    assert net.embed.weight[31, 77].abs() < 10
    assert net.head.weight is net.embed.weight
    assert net.embed.weight.requires_grad
    assert ps.svd_smoothing(net, 0.1, inplace=True) is net
    assert rank(net.head.weight.detach().numpy()) == 12


def test_wrapped_state_dicts_keep_their_wrapper():
    W, _ = trapped()
    given = {"state_dict": {"w.weight": torch.from_numpy(W)}, "epoch": 3}
    out = ps.remove_traps(given)
    assert out["epoch"] == 3
    assert out["state_dict"]["w.weight"][31, 77].abs() < 10
    assert given["state_dict"]["w.weight"][31, 77] == 90
    assert ps.remove_traps(given, inplace=True) is given
    assert given["state_dict"]["w.weight"][31, 77].abs() < 10


# --- refusals -------------------------------------------------------------------------------------


def test_bad_arguments():
    W = {"w.weight": np.ones((20, 20), dtype=np.float32)}
    with pytest.raises(TypeError, match="'model' must be a torch module, a state dict or a path"):
        ps.svd_smoothing(7)
    with pytest.raises(ValueError, match="svd_smoothing: 'keep' must be one of"):
        ps.svd_smoothing(W, keep="best")
    for keep in (0.0, 1.5, 10**400, float("nan")):
        with pytest.raises(ValueError, match=r"'keep' must be in \(0, 1\]"):
            ps.svd_smoothing(W, keep=keep)
    with pytest.raises(ValueError, match="remove_traps: 'layers' must hold what the model has"):
        ps.remove_traps(W, layers="x")
    for keep in (None, [0.5], True):
        with pytest.raises(TypeError, match="'keep' must be one of"):
            ps.svd_smoothing(W, keep=keep)
    with pytest.raises(TypeError, match="remove_traps: 'seed' must be an integer"):
        ps.remove_traps(W, seed=1.5)
    with pytest.raises(ValueError, match="remove_traps: 'seed' must be an integer in"):
        ps.remove_traps(W, seed=-1)
    for seed in (None, 1.5):
        with pytest.raises(TypeError, match="find_traps: 'seed' must be an integer"):
            ps.find_traps(W["w.weight"], seed=seed)
    with pytest.raises(TypeError, match="'inplace' must be a bool"):
        ps.remove_traps(W, inplace="yes")
    frozen, _ = trapped()
    frozen.setflags(write=False)
    with pytest.raises(ValueError, match="must be writable"):
        ps.remove_traps({"w.weight": frozen}, inplace=True)
    assert abs(ps.remove_traps({"w.weight": frozen})["w.weight"][31, 77]) < 10


@pytest.mark.parametrize("edit", [ps.svd_smoothing, ps.remove_traps])
def test_a_model_without_weights_is_refused(edit) -> None:
    for model in ({}, {"w.weight": [[1.0]]}, torch.nn.Linear(9, 9, device="meta")):
        with pytest.raises(ValueError, match=r"'model' must hold a weight matrix, got .*, which"):
            edit(model)


def test_mappings_and_tensors_that_do_not_copy_deeply(tmp_path) -> None:
    W = np.random.default_rng(1).standard_normal((30, 20))
    np.savez(tmp_path / "m.npz", **{"w.weight": W})
    part_of_a_graph = torch.tensor(W, requires_grad=True) * 1.0
    expanded = torch.tensor(W[:1]).expand(30, 20)
    with np.load(tmp_path / "m.npz") as stored:
        for model in (
            stored,
            MappingProxyType({"w.weight": W}),
            {"w.weight": part_of_a_graph},
            {"w.weight": expanded},
        ):
            before = torch.as_tensor(model["w.weight"]).detach().numpy().copy()
            after = ps.svd_smoothing(model, keep=0.1)["w.weight"]
            assert np.linalg.matrix_rank(torch.as_tensor(after).numpy(), tol=1e-8) == min(
                2, np.linalg.matrix_rank(before)
            )
            unchanged = torch.as_tensor(model["w.weight"]).detach().numpy()
            np.testing.assert_array_equal(unchanged, before)
        with pytest.raises(TypeError, match="'model' must be in memory with inplace=True"):
            ps.svd_smoothing(stored, keep=0.1, inplace=True)


def test_nothing_is_written_where_one_tensor_cannot_be() -> None:
    rng = np.random.default_rng(2)
    line = rng.standard_normal(49)
    windows = np.lib.stride_tricks.as_strided(line, (30, 20), (8, 8), writeable=True)
    expanded = torch.tensor(line[:20]).expand(30, 20)
    for shared in (windows, expanded, torch.tensor(line).as_strided((30, 20), (1, 1))):
        good = rng.standard_normal((20, 30)).T
        before = good.copy(), torch.as_tensor(shared).clone()
        with pytest.raises(
            ValueError, match=r"writable, got elements of 'b.weight' that share memory"
        ):
            ps.svd_smoothing({"a.weight": good, "b.weight": shared}, keep=0.1, inplace=True)
        np.testing.assert_array_equal(good, before[0])
        assert torch.equal(torch.as_tensor(shared), before[1])
        ps.svd_smoothing({"a.weight": good}, keep=0.1, inplace=True)
        assert np.linalg.matrix_rank(good, tol=1e-8) == 2


def test_the_tail_of_a_convolution_is_the_one_that_analyze_finds() -> None:
    # So small that an absolute threshold would leave eigenvalues out.
    W = np.random.default_rng(2).standard_t(3, (24, 20, 3, 3)) * 4e-4
    layer = ps.analyze({"conv.weight": W}).layers[0]
    assert np.count_nonzero(layer.esd.evals > 1e-5) < layer.fit.n == len(layer.esd.evals)
    smoothed = ps.svd_smoothing({"conv.weight": W}, keep="powerlaw")["conv.weight"]
    left = ps.analyze({"conv.weight": smoothed}, method="svd").layers[0].esd.evals
    assert np.count_nonzero(left > 1e-9 * left[-1]) == layer.n_tail


@pytest.mark.parametrize("factor", [1e-200, 1.0, 1e200, 2e307])
def test_a_fraction_is_that_of_the_leading_directions_at_any_scale(factor: float) -> None:
    W = np.random.default_rng(0).standard_normal((60, 40))
    U, s, V = np.linalg.svd(W, full_matrices=False)
    leading = (U[:, :10] * s[:10]) @ V[:10]
    kept = ps.svd_smoothing({"w.weight": W * factor}, keep=0.25)["w.weight"]
    np.testing.assert_allclose(kept / factor, leading, atol=1e-12)
    if factor != 1.0:
        W[3, 4] = 7.0
        unchanged = ps.remove_traps({"w.weight": W * factor})["w.weight"]
        np.testing.assert_array_equal(unchanged, W * factor)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_half_precision_does_not_overflow(kind) -> None:
    W = np.clip(np.random.default_rng(0).standard_normal((60, 40)) * 60000, -65504, 65504)
    kept = ps.svd_smoothing({"w.weight": kind(W.astype(np.float16))}, keep=0.5)["w.weight"]
    size = np.abs(np.asarray(kept))
    assert size.max() == 65504


# --- models that somebody made to see what happens ----------------------------------------------


def test_mappings_that_hold_themselves_or_one_another() -> None:
    W = np.random.default_rng(0).standard_normal((20, 12))
    own: dict[str, Any] = {"a.weight": W}
    own["model"] = own
    smooth = ps.svd_smoothing(own, keep=0.5)
    assert smooth["model"] is smooth
    assert smooth is not own
    assert np.linalg.matrix_rank(smooth["a.weight"]) == 6
    assert np.linalg.matrix_rank(own["a.weight"]) == 12

    many: dict[str, Any] = {"a.weight": W}
    for _ in range(7):
        many = {f"m{i}": many for i in range(12)}
    with pytest.raises(ps.FormatError, match="mappings that hold one another"):
        ps.svd_smoothing(many)

    deep: dict[str, Any] = {"x": 1}
    for _ in range(3000):
        deep = {"in": deep}
    with pytest.raises(ValueError, match="'model' must be a plain state dict, got mappings that"):
        ps.svd_smoothing({"a.weight": W, "deep": deep})


def test_squares_beyond_float64_leave_a_layer_as_it_is() -> None:
    weights = {"huge.weight": np.full((20, 12), 1e308), "a.weight": np.ones((20, 12))}
    for keep in ("mp", "powerlaw", "detX"):
        smooth = ps.svd_smoothing(weights, keep=keep)
        assert np.array_equal(smooth["huge.weight"], weights["huge.weight"])
