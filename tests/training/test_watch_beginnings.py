"""What Watch learns of a loop in its first passes: activations, batches, labels, the first NaN."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyspectra.training import Thresholds, Watch
from pyspectra.training.collect.initial import stable_rank

X = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)
RANDOM = torch.randint(0, 3, (600,), generator=torch.Generator().manual_seed(1))


def mlp(width=32):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
    )


def watched(model, epochs=1, x=X, y=Y, val=None, order=None, rate=1e-3, **options):
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    watch = Watch(model, optimizer, on="collect", **{"every": 5, **options})
    for _ in range(epochs):
        rows = torch.arange(len(x)).split(20) if order is None else order
        for part in rows:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[part]), y[part])
            loss.backward()
            optimizer.step()
            watch.step(loss, targets=y[part])
        if val is not None:
            with watch.evaluating():
                out = model(val[0])
                watch.eval_batch(F.cross_entropy(out, val[1]), outputs=out, targets=val[1])
        watch.end_epoch()
    return watch


def found(watch, code):
    return [x for x in watch.report() if x.code == code]


# --- initialisation -----------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.0, 0.3, 20.0])
def test_the_scale_of_a_layer_is_judged_by_the_activation_after_it(factor):
    model = mlp()
    with torch.no_grad():
        model[2].weight.mul_(factor)
    notes = found(watched(model), "init_scale")
    assert [x.where for x in notes] == ([] if factor == 1.0 else ["2.weight"])


def test_a_normalisation_or_an_earlier_training_takes_care_of_the_scale():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
    with torch.no_grad():
        model[0].weight.mul_(20)
    assert not found(watched(model), "init_scale")
    model = mlp()
    with torch.no_grad():
        model[2].weight.mul_(20)
    assert not found(watched(model, pretrained=True), "init_scale")


def test_a_matrix_of_rank_one_is_found_though_its_rows_differ():
    model = mlp()
    with torch.no_grad():
        u = torch.randn(32, 1)
        model[2].weight.copy_(u @ torch.randn(1, 32))
    [finding] = found(watched(model), "symmetric_init")
    assert finding.evidence["names"] == ("2.weight",)
    assert finding.value == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("shape", [(8, 8), (200, 30), (30, 200)])
def test_the_stable_rank_by_powers_is_an_upper_bound(shape):
    W = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exact = float((torch.linalg.norm(W) / torch.linalg.matrix_norm(W, 2)) ** 2)
    assert exact <= stable_rank(W) * (1 + 1e-5)
    assert stable_rank(W) < 2 * exact
    assert stable_rank(torch.zeros(shape)) == 0.0
    assert stable_rank(torch.ones(shape)) == pytest.approx(1.0, rel=1e-5)
    assert math.isnan(stable_rank(torch.full(shape, math.nan)))


# --- batches ------------------------------------------------------------------------------------


def test_batches_that_come_twice():
    rows = torch.arange(600).split(20)
    twice = [part for part in rows[:15] for _ in range(2)]
    [finding] = found(watched(mlp(), order=twice), "duplicated_batches")
    assert finding.value == 0.5
    assert not found(watched(mlp(), epochs=2), "duplicated_batches")
    assert not found(watched(mlp(), order=[rows[0]] * 30), "duplicated_batches")
    assert not found(watched(mlp(), order=list(rows[:15]) * 2), "duplicated_batches")


# --- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "y_val", "where"),
    [(Y, Y, None), (RANDOM, RANDOM, "targets"), (Y, RANDOM, "validation")],
)
def test_labels_that_validation_never_confirms(y, y_val, where):
    watch = watched(mlp(128), 12, X[:300], y[:300], (X[300:], y_val[300:]), rate=1e-2)
    notes = found(watch, "labels_carry_no_information")
    assert [(x.severity, x.where) for x in notes] == ([] if where is None else [("warning", where)])
    if where is not None:
        assert not found(watch, "overfitting")  # it follows


# --- the end ------------------------------------------------------------------------------------


def test_only_the_end_of_a_run_is_early():
    seen = []
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    watch = Watch(model, optimizer, on="collect")
    for _ in range(5):
        for k in range(0, 600, 20):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(X[k : k + 20]), Y[k : k + 20])
            loss.backward()
            optimizer.step()
            watch.step(loss)
        seen += watch.end_epoch()
    assert "stopped_early" not in [x.code for x in seen]
    assert [x.code for x in watch.report()] == ["stopped_early"]
    assert "stopped_early" not in [x["code"] for x in watch.history.findings]


def test_a_target_makes_flat_curves_underfit():
    for target, fires in ((None, False), (0.01, True)):
        watch = watched(nn.Linear(8, 3), 2, val=(X, Y), target=target)
        for epoch in range(3, 15):
            watch.history.log(epoch=epoch, step=30 * epoch, train_loss=0.5, val_loss=0.5)
        assert bool(found(watch, "underfitting")) is fires
    with pytest.raises(TypeError, match="'target' must be a finite number"):
        watched(nn.Linear(8, 3), target="low")


# --- the first NaN ------------------------------------------------------------------------------


class Breaks(nn.Module):
    """Divides by the spread of its input, which is zero for equal rows."""

    def __init__(self):
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(8, 16), Spread(), nn.Linear(16, 3)

    def forward(self, x):
        return self.fc2(self.norm(self.fc1(x).relu()))


class Spread(nn.Module):
    def forward(self, x):
        return x / (x.std(0) if len(x) > 1 else x * 0)


def test_the_module_of_the_first_nan_is_named():
    torch.manual_seed(0)
    model = Breaks()
    same = X.clone()
    same[180:200] = X[180]
    [finding] = found(watched(model, x=same, thresholds=Thresholds()), "nonfinite")
    assert (finding.where, finding.step) == ("norm", 10)
    assert "in the output of norm at step 10" in finding.message
    assert finding.evidence["max_abs"] > 0
    assert not [h for m in model.modules() for h in m._forward_hooks.values() if m is not model]


def test_weights_that_were_broken_before_are_named():
    model = mlp()
    with torch.no_grad():
        model[2].weight[0, 0] = math.inf
    [finding] = [x for x in found(watched(model), "nonfinite") if x.severity == "error"]
    assert finding.where == "2.weight"
