"""Spectra while a model trains: what is measured and when, and that training stays as it was."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyspectra as ps
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.training import History, Watch, diagnose
from pyspectra.training.collect.spectra import SpectraCollector, SpectraPlan, measured
from pyspectra.training.trajectories import spectra_of
from pyspectra.weights import open_weights

X = torch.randn(320, 24, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)


def mlp(dropout=0.2):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(24, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 32), nn.ReLU(),
        nn.Linear(32, 3),
    )  # fmt: skip


def train(model, optimizer, watch=None, steps=12):
    for k in range(steps):
        x, y = X[32 * k % 320 :][:32], Y[32 * k % 320 :][:32]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if watch is not None:
            watch.step(loss)


def watched(steps=12, **options):
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    watch = Watch(model, optimizer, on="collect", **options)
    train(model, optimizer, watch, steps)
    return model, watch


def test_every_so_many_steps_all_layers_as_analyze_has_them():
    model, watch = watched(steps=12, spectra_every=5)
    lines = watch.history.spectra
    assert [line["step"] for line in lines] == [0, 5, 10]
    # The last layer has three eigenvalues: too few for a tail.
    assert [[row["name"] for row in line["layers"]] for line in lines] == [["0", "3"]] * 3
    first = ps.analyze(mlp(), randomize=True)
    for row, layer in zip(spectra_of(lines[:1]), first.layers, strict=False):
        assert (row.name, row.N, row.M, row.kind) == (layer.name, 32, layer.esd.M, "linear")
        assert row.alpha == layer.alpha
        assert row.alpha_high - row.alpha == pytest.approx(1.96 * layer.fit.alpha_stderr)
        assert row.stable_rank == layer.metrics["stable_rank"]
        assert row.spectral_norm == layer.metrics["spectral_norm"]
        assert row.random_p_value == layer.metrics["random_p_value"]
        assert row.n_traps == layer.metrics["n_traps"]
    now = measured(open_weights(model).layers, 12)
    assert now[0].spectral_norm != spectra_of(lines)[-2].spectral_norm  # it trained on


def test_nothing_is_measured_unless_it_is_asked_for():
    assert watched()[1].history.spectra == []


def test_a_file_keeps_them_and_a_resumed_run_goes_on(tmp_path):
    path = tmp_path / "run.jsonl"
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for part in range(2):
        history = History.open(path, resume_step=10 * part)
        watch = Watch(model, optimizer, history=history, on="collect", spectra_every=5)
        train(model, optimizer, watch, steps=10)
        watch.close()
        history.close()
    loaded = History.load(path)
    assert [row["step"] for row in loaded.steps] == list(range(1, 21))
    assert sorted({line["step"] for line in loaded.spectra}) == [0, 5, 10, 15, 20]
    assert not [x for x in diagnose(loaded) if x.severity != "info"]


class Clock:
    """Seconds that pass as a test wants."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 0.5  # between two calls: what each measurement takes
        return self.now


def test_a_budget_takes_layers_in_turn_and_holds():
    clock = Clock()
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3)))
    spectra = SpectraCollector(model, SpectraPlan(budget=0.02), clock=clock)
    assert spectra.first(0) == []
    seen, began = [], clock.now
    for step in range(1, 200):
        clock.now += 1.0
        seen += [(step, row.name) for row in spectra.after(step)]
        # One that costs more than was known may exceed it, once; time goes on in the test's steps.
        assert spectra.seconds <= 0.02 * (clock.now - began) + 0.5
    names = [name for _, name in seen]
    assert names == (["0", "1", "2"] * len(names))[: len(names)]
    assert 4 <= len(names) <= 13  # 200 steps of 1.5 to 2 seconds, 0.5 a layer, 2 %
    assert spectra.seconds == pytest.approx(0.5 * len(names))


def test_a_budget_with_rounds():
    clock = Clock()
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3)))
    spectra = SpectraCollector(model, SpectraPlan(every=50, budget=1.0), clock=clock)
    seen = []
    for step in range(1, 110):
        clock.now += 10.0
        seen += [(step, row.name) for row in spectra.after(step)]
    rounds = [[s for s, name in seen if name == str(k)] for k in range(3)]
    assert [len(r) for r in rounds] == [3, 3, 3]
    assert all(b - a >= 45 for r in rounds for a, b in itertools.pairwise(r))


def test_frozen_layers_are_measured_once():
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    model[0].requires_grad_(False)
    spectra = SpectraCollector(model, SpectraPlan(every=1))
    names = [[row.name for row in rows] for rows in (spectra.first(0), spectra.after(1))]
    assert names == [["0", "1"], ["1"]]


def test_a_layer_that_is_not_finite_loses_no_other():
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    with torch.no_grad():
        model[0].weight[3, 3] = np.nan
    rows = SpectraCollector(model, SpectraPlan(every=1)).first(0)
    assert [row.name for row in rows] == ["0", "1"]
    assert np.isnan(rows[0].alpha)
    assert np.isfinite(rows[1].alpha)
    history = History()
    history.log_spectra(0, [{"name": "0", "alpha": rows[0].alpha}])
    assert "NaN" not in history.to_jsonl()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"spectra_every": 0}, ArgumentValueError),
        ({"spectra_every": 1.5}, ArgumentTypeError),
        ({"spectra_budget": 0.0}, ArgumentValueError),
        ({"spectra_budget": 1.5}, ArgumentValueError),
        ({"spectra_budget": "much"}, ArgumentTypeError),
    ],
)
def test_arguments(options, error):
    model = mlp()
    with pytest.raises(error, match=r"^Watch: "):
        Watch(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


# --- training stays as it was -------------------------------------------------------------------


class Block(nn.Module):
    """Normalisation, dropout and attention, as transformers have them."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(24, 32)
        self.norm = nn.BatchNorm1d(32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.2, batch_first=True)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        h = self.norm(self.into(x)).reshape(-1, 2, 32)
        return self.head(self.layer(h).reshape(-1, 32))


def loop(model, run, *, way, watch_options):
    """Train by some way, with or without a watch; return all that may differ."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", enabled=way == "scaler")
    watch = None
    if watch_options is not None:
        watch = Watch(model, optimizer, on="collect", **watch_options)
    torch.manual_seed(1)
    np.random.seed(1)
    for k in range(12):
        optimizer.zero_grad()
        for part in range(2 if way == "accumulation" else 1):
            x, y = X[32 * (k + part) % 320 :][:32], Y[32 * (k + part) % 320 :][:32]
            bf16 = torch.autocast("cpu", torch.bfloat16)
            with bf16 if way in ("bf16", "scaler") else contextlib.nullcontext():
                loss = F.cross_entropy(run(x), y)
            scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if watch is not None:
            watch.step(loss)
    drawn = torch.rand(3), torch.tensor(np.random.rand(3))
    grads = [p.grad for p in model.parameters()]
    modes = torch.tensor([m.training for m in model.modules()])
    if watch is not None:
        watch.end_epoch()
        assert len(watch.history.spectra) >= 1
        watch.close()
    return [*model.state_dict().values(), *grads, *drawn, modes, loss.detach()]


WATCHES = [{"every": 1, "spectra_every": 3}, {"every": 4, "spectra_budget": 0.5}]


@pytest.mark.parametrize("way", ["plain", "accumulation", "bf16", "scaler", "compiled"])
@pytest.mark.parametrize("watch_options", WATCHES, ids=["every", "budget"])
def test_training_is_the_same_to_the_last_bit(way, watch_options):
    ended = []
    for options in (None, watch_options):
        torch.manual_seed(0)
        model = Block()
        run = model
        if way == "compiled":
            torch.compiler.reset()
            run = torch.compile(model, backend="aot_eager")
        ended.append(loop(model, run, way=way, watch_options=options))
    assert all(torch.equal(a, b) for a, b in zip(*ended, strict=True))
