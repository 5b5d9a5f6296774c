"""The battery before training: its verdicts, and that it leaves no trace."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyspectra.training import Thresholds, sanity
from pyspectra.training.rules import facts as f
from pyspectra.training.rules import judge

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def model(p=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(p), nn.Linear(32, 2))


def overfit(m, loss=F.cross_entropy, **more):
    return sanity.overfit_one_batch(m, loss, (X, Y), **more)


def test_a_sound_model_learns_a_batch_by_heart():
    assert overfit(model(p=0.5), lr=1e-2).verdict == "fits"


def test_it_rises_where_the_sign_is_wrong():
    m = model()
    result = overfit(m, lambda o, y: -F.cross_entropy(o, y))
    assert result.verdict in ("rises", "explodes", "plateaus", "fits")
    up = sanity.overfit_one_batch(
        m, F.cross_entropy, (X, Y),
        optimizer=torch.optim.SGD(m.parameters(), lr=1e-2, maximize=True), steps=60,
    )  # fmt: skip
    assert up.verdict in ("rises", "explodes")
    assert up.findings[-1].evidence["slope"] == 1.0


def test_it_explodes_and_plateaus():
    m = model()
    wild = torch.optim.SGD(m.parameters(), lr=1e4)
    assert sanity.overfit_one_batch(m, F.cross_entropy, (X, Y), optimizer=wild).verdict in (
        "explodes", "oscillates", "plateaus", "rises",
    )  # fmt: skip
    assert overfit(m, lr=1e-7).verdict == "plateaus"


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        (np.exp(-np.arange(300) / 20), None),
        (1 + np.arange(300) / 300, "rises"),
        (np.exp(np.arange(300) / 40), "explodes"),
        (np.r_[1.0, np.nan], "explodes"),
        (1 + 0.4 * (-1.0) ** np.arange(300), "oscillates"),
        (np.full(300, 0.9), "plateaus"),
    ],
)
def test_verdicts_of_losses(losses, verdict):
    found = judge([f.OverfitTrial(losses, None, "cross_entropy")], Thresholds())
    assert [x.evidence["verdict"] for _, x in found] == ([verdict] if verdict else [])


def test_a_plateau_at_the_floor_of_a_second_softmax_says_so():
    result = overfit(model(), lambda o, y: F.cross_entropy(o.softmax(1), y), lr=1e-2, steps=300)
    assert result.verdict == "plateaus"
    assert "0.3133" in result.findings[-1].message


class Mixes(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        return self.fc(x) - self.fc(x).mean(0)


def codes(m, loss=F.cross_entropy, **more):
    optimizer = torch.optim.Adam(m.parameters(), lr=1e-2)
    report = sanity.check(m, optimizer, loss, (X, Y), **more)
    return [x.code for x in report if x.severity != "info"]


def test_check():
    assert codes(model(p=0.2)) == []
    assert "batch_mixing" in codes(Mixes(), steps=0)
    norm = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    assert codes(norm, steps=0) == []
    assert "loss_input" in codes(nn.Sequential(model(), nn.Softmax(1)), steps=0)


def test_sums_are_a_note():
    m = model()
    optimizer = torch.optim.Adam(m.parameters(), lr=1e-2)
    report = sanity.check(m, optimizer, nn.CrossEntropyLoss(reduction="sum"), (X, Y), steps=0)
    assert "loss_reduction" in [x.code for x in report if x.severity == "info"]


def test_everything_is_restored():
    m = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(m.parameters(), lr=1e-2)
    F.cross_entropy(m(X), Y).backward()
    optimizer.step()
    m[1].eval()
    before = copy.deepcopy(
        (m.state_dict(), optimizer.state_dict(), [p.grad for p in m.parameters()])
    )
    modes, random = [x.training for x in m.modules()], torch.get_rng_state()
    sanity.check(m, optimizer, F.cross_entropy, (X, Y))
    torch.testing.assert_close(
        (m.state_dict(), optimizer.state_dict(), [p.grad for p in m.parameters()]), before,
        rtol=0, atol=0,
    )  # fmt: skip
    assert [x.training for x in m.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert not m._forward_hooks


class Ignores(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        return self.fc(x * 0.0)


def test_inputs_that_are_ignored():
    assert "input_ignored" in codes(Ignores(), steps=20)
    assert "input_ignored" not in codes(model(), steps=20)


def test_an_augmentation_that_turns_one_class_into_another():
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    knows = nn.Sequential(nn.Linear(6, 2, bias=False))
    with torch.no_grad():
        knows[0].weight[:] = 0.0
        knows[0].weight[1, 0] = 1.0
        knows[0].weight[0, 0] = -1.0
    y = (x[:, 0] > 0).long()
    assert len(sanity.augmentation(knows, lambda v: v + 0.01, x, y)) == 0
    report = sanity.augmentation(knows, lambda v: v.abs(), x, y)
    assert [(f.code, f.where) for f in report] == [("augmentation_changes_label", "class 0")]
    assert knows.training
    with pytest.raises(ValueError, match="'targets' must have the length of inputs, 300, got"):
        sanity.augmentation(knows, torch.neg, x, y[:5])
