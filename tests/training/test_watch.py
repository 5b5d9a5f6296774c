"""Watch on real loops: silent where they are right, exact where they are wrong, and harmless."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyspectra.training import History, Watch
from pyspectra.training.run_report import RunError, TrainingWarning

X = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)


def mlp(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 16), nn.ReLU(),
        nn.Linear(16, 3),
    )  # fmt: skip


def train(model, optimizer, watch=None, steps=30, zero="before", each=1):
    torch.manual_seed(1)
    for k in range(steps):
        x, y = X[20 * k % 600 :][:20], Y[20 * k % 600 :][:20]
        if zero == "before":
            optimizer.zero_grad()
        for _ in range(each):
            out = model(x)
            loss = F.cross_entropy(out, y)
            if zero == "between":
                optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        if watch is not None:
            watch.step(loss, targets=y, outputs=out)
        if zero == "after":
            optimizer.zero_grad(set_to_none=False)
    return model


def errors(watch):
    return {x.code: x for x in watch.report() if x.severity == "error"}


@pytest.mark.parametrize(
    ("zero", "each"),  # clearing between the passes of a step would clear what they accumulate
    [("before", 1), ("between", 1), ("after", 1), ("before", 4), ("after", 4)],
)
def test_loops_that_clear_gradients_are_silent(zero, each):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect", every=5)
    train(model, optimizer, watch, zero=zero, each=each)
    assert not errors(watch)


def test_forgotten_zero_grad_is_told_at_the_second_step_and_once():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watch = Watch(model, optimizer, on="collect", every=5)
    train(model, optimizer, watch, zero="never")
    assert errors(watch)["stale_gradient"].step == 2
    assert [x.code for x in watch.report().all_findings].count("stale_gradient") == 1


def test_a_gan_whose_fakes_are_not_detached_is_silent():
    torch.manual_seed(0)
    both = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 1)])
    make, tell = both
    optimizers = [torch.optim.Adam(m.parameters(), lr=1e-3) for m in (make, tell)]
    watch = Watch(both, optimizers, on="collect", every=5)
    for _ in range(20):
        fake = make(torch.randn(16, 4))
        optimizers[1].zero_grad()
        one = tell(torch.randn(16, 8)).mean() - tell(fake).mean()
        one.backward(retain_graph=True)
        optimizers[1].step()
        optimizers[0].zero_grad()
        other = tell(make(torch.randn(16, 4))).pow(2).mean()
        other.backward()
        optimizers[0].step()
        watch.step(other)
    assert not errors(watch)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_weights_are_the_same_to_the_last_bit(dropout):
    ended = []
    for watched in (False, True):
        model = mlp(dropout=dropout)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        watch = Watch(model, optimizer, on="collect", every=2) if watched else None
        train(model, optimizer, watch, steps=20)
        if watch is not None:
            with watch.evaluating():
                watch.eval_batch(F.cross_entropy(model(X), Y), outputs=model(X), targets=Y)
            watch.end_epoch()
        assert model.training
        train(model, optimizer, watch, steps=20)
        ended.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ended, strict=True))


def test_zero_initialisation_is_told_at_the_third_step_with_all_names():
    model = mlp()
    for p in model.parameters():
        nn.init.zeros_(p)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect", every=5)
    train(model, optimizer, watch)
    found = errors(watch)["symmetric_init"]
    assert found.step == 3
    assert found.evidence["names"] == ("0.weight", "3.weight", "5.weight")


class LoRA(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(8, 3)
        self.base.requires_grad_(False)
        self.A = nn.Parameter(0.1 * torch.randn(2, 8))
        self.B = nn.Parameter(torch.zeros(3, 2))

    def forward(self, x):
        return self.base(x) + x @ self.A.T @ self.B.T


def test_lora_begins_at_zero_and_is_left_alone():
    torch.manual_seed(0)
    model = LoRA()
    optimizer = torch.optim.AdamW([model.A, model.B], lr=1e-2)
    watch = Watch(model, optimizer, on="collect", every=5)
    train(model, optimizer, watch)
    assert [x.code for x in watch.report() if x.severity != "info"] == []


@pytest.mark.parametrize("k", [2, 10, 1000])
def test_softmax_before_cross_entropy_prints_the_floor(k):
    torch.manual_seed(0)
    model = nn.Linear(8, k)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect")
    for _ in range(3):
        loss = F.cross_entropy(model(X[:40]).softmax(1), Y[:40] % k)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss)
    floor = torch.tensor(torch.e + k - 1).log().item() - 1
    found = errors(watch)["loss_input"]
    assert found.evidence["floor"] == pytest.approx(floor, rel=1e-4)
    assert f"{floor:.4f}" in found.message


def test_log_softmax_before_cross_entropy_is_a_note_only():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect")
    for _ in range(3):
        out = model(X[:40]).log_softmax(1)
        loss = F.cross_entropy(out, Y[:40])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss, outputs=out, targets=Y[:40])
    assert {x.severity for x in watch.report() if x.code == "loss_input"} == {"info"}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("by_hand", [False, True])
def test_broadcast_losses_are_told_without_targets(by_hand):
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watch = Watch(model, optimizer, on="collect")
    out, target = model(X[:40]), X[:40, 0]
    loss = ((out - target) ** 2).mean() if by_hand else F.mse_loss(out, target)
    loss.backward()
    optimizer.step()
    watch.step(loss)
    assert "(40, 40)" in errors(watch)["loss_broadcast"].message


class AlwaysDrops(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(F.dropout(x, 0.5))


def test_a_model_that_ignores_eval_is_found_by_two_passes():
    torch.manual_seed(0)
    model = AlwaysDrops()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect")
    train(model, optimizer, watch)
    with watch.evaluating():
        watch.eval_batch(F.cross_entropy(model(X), Y))
    watch.end_epoch()
    assert errors(watch)["train_mode_at_eval"].evidence["modules"] == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_that_is_as_it_should_be_does_the_same_twice(dtype):
    """In eval mode torch's transformer has another path, which rounds otherwise."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(8 * 8, 3)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect")
    x = 30 * torch.randn(16, 8, 8).to(dtype)
    with watch.evaluating():
        watch.eval_batch(F.cross_entropy(model(x).float(), torch.zeros(16, dtype=torch.long)))
    watch.end_epoch()
    assert not {"train_mode_at_eval", "batch_mixing"} & set(errors(watch))


class Mixes(nn.Linear):
    """What a row gives depends on the others of its batch."""

    def forward(self, x):
        return super().forward(x - x.mean(0))


def test_rows_that_are_mixed_are_told_from_rounding():
    torch.manual_seed(0)
    for mixes in (False, True):
        model = nn.Sequential(nn.Linear(8, 256), nn.Tanh(), (Mixes if mixes else nn.Linear)(256, 3))
        model.bfloat16()
        watch = Watch(model, torch.optim.SGD(model.parameters(), lr=0.1), on="collect")
        x = torch.randn(32, 8).bfloat16() + 1
        with watch.evaluating():
            watch.eval_batch(F.cross_entropy(model(x).float(), torch.zeros(32, dtype=torch.long)))
        watch.end_epoch()
        assert ("batch_mixing" in errors(watch)) is mixes


def test_dropout_left_on_in_an_evaluation_of_ones_own():
    model = mlp(dropout=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect")
    train(model, optimizer, watch)
    with torch.no_grad():
        model(X)
    watch.end_epoch()
    assert errors(watch)["train_mode_at_eval"].where == "2"


def test_frozen_batch_norm_is_left_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect")
    model[1].eval()
    train(model, optimizer, watch)
    with watch.evaluating():
        watch.eval_batch(F.cross_entropy(model(X), Y))
    watch.end_epoch()
    assert not model[1].training
    assert model[0].training
    assert [x for x in watch.report() if x.severity != "info"] == []


def test_training_in_eval_mode():
    model = mlp(dropout=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect")
    train(model.eval(), optimizer, watch)
    assert [x.code for x in watch.report() if x.severity == "warning"] == ["eval_mode_at_train"]


def test_bfloat16_updates_that_are_lost():
    torch.manual_seed(0)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        model = nn.Linear(8, 64).to(dtype)
        nn.init.constant_(model.weight, 0.02)
        with torch.no_grad():
            model.weight += 0.001 * torch.randn(64, 8).to(dtype)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)
        watch = Watch(model, optimizer, on="collect", every=5)
        for _ in range(40):
            optimizer.zero_grad()
            loss = model(X[:40].to(dtype)).float().pow(2).mean()
            loss.backward()
            optimizer.step()
            watch.step(loss)
        found.append([x.code for x in watch.report()])
    assert "lost_updates" in found[0]
    assert "lost_updates" not in found[1]


def test_nan_in_the_inputs_is_named():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect", every=5)
    for k in range(20):
        x = X[:20].clone()
        x[0, 0] = float("nan") if k == 7 else 0.0
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), Y[:20])
        loss.backward()
        optimizer.step()
        watch.step(loss)
    [found] = [x for x in watch.report() if x.severity == "error"]
    assert (found.code, found.step, found.where) == ("nonfinite", 8, "inputs")


def test_what_a_finding_does():
    for on in ("warn", "raise"):
        model = mlp()
        optimizer = torch.optim.SGD([model[0].weight], lr=0.1)
        watch = Watch(model, optimizer, on=on)
        loss = F.cross_entropy(model(X), Y)
        loss.backward()
        optimizer.step()
        kind = pytest.warns(TrainingWarning, match="parameter_not_optimized") if on == "warn" else (
            pytest.raises(RunError, match="parameter_not_optimized")
        )  # fmt: skip
        with kind:
            watch.step(loss)


def test_ignored_codes_and_parameters():
    model = mlp()
    for more in ({"ignore": {"parameter_not_optimized"}}, {
        "ignore_params": [n for n, _ in model.named_parameters()]
    }):  # fmt: skip
        optimizer = torch.optim.SGD([model[0].weight], lr=0.1)
        watch = Watch(model, optimizer, **more)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train(model, optimizer, watch, steps=2)
        watch.close()
    with pytest.raises(ValueError, match="did you mean 'dead_units'"):
        Watch(model, optimizer, ignore={"dead_unit"})


def test_the_history_has_both_splits(tmp_path):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, history=tmp_path / "run.jsonl", on="collect")
    for _ in range(2):
        train(model, optimizer, watch)
        with watch.evaluating():
            out = model(X)
            watch.eval_batch(F.cross_entropy(out, Y), outputs=out, targets=Y)
        watch.end_epoch()
    rows = History.load(tmp_path / "run.jsonl").epochs
    assert [r["step"] for r in rows] == [30, 60]
    assert {"train_loss", "val_loss", "train_accuracy", "val_accuracy"} <= set(rows[1])
    assert rows[0]["n_val"] == 600


def test_hooks_are_gone_after_close():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect")
    watch.close()
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert all(not p._backward_hooks for p in model.parameters())


def test_a_metric_with_a_graph_is_detached_and_told():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect")
    loss = F.cross_entropy(model(X), Y)
    loss.backward()
    optimizer.step()
    watch.step(loss, penalty=model(X).mean())
    assert [x.where for x in watch.report() if x.code == "tensor_retained"] == ["penalty"]


def test_of_a_large_embedding_that_few_rows_use_nothing_is_told():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(60_000, 16), nn.Flatten(), nn.Linear(32, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect", every=1)
    for _ in range(12):
        # Odd rows: evenly spaced ones, which are looked at of a large table, may be none of them.
        x = 2 * torch.randint(0, 30_000, (8, 2)) + 1
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), torch.randint(0, 3, (8,)))
        loss.backward()
        optimizer.step()
        watch.step(loss)
    assert not errors(watch)


@pytest.mark.parametrize("sparse", [False, True])
def test_non_finite_gradients_are_counted(sparse):
    model = nn.Embedding(10, 4, sparse=sparse)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect", every=1)
    scale = torch.ones(4)
    scale[1] = float("inf")
    (model(torch.tensor([1, 2])) * scale).sum().backward()
    optimizer.step()
    [row] = watch._run._collectors[0].peek()
    assert row.statistics.n_non_finite == 2
    watch.close()
