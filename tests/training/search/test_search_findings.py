"""Trials of Optuna that end by what `Watch` finds: in a plain loop, and in trainers of others."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyspectra as ps
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.report.findings import Finding
from pyspectra.training import Watch
from pyspectra.training.run_report import RunReport
from pyspectra.training.search import Choice, OptunaFindings, Range, Space, suggest

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.ERROR)

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def small(softmax: bool) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 2), *([nn.Softmax(1)] if softmax else []))


def study(**options):
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), **options)


class Never(optuna.pruners.BasePruner):
    """Prunes what is reported as more than a bound."""

    def __init__(self, bound: float = float("inf")) -> None:
        self.bound = bound

    def prune(self, study, trial):
        return max(trial.intermediate_values.values()) > self.bound


def loop(pruner, softmax=False, epochs=2):
    """Return the steps that were made, and what ended them."""
    model = small(softmax)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on=pruner)
    try:
        for _ in range(epochs):
            for x, y in zip(X.split(16), Y.split(16), strict=True):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                watch.step(loss)
            with watch.evaluating():
                watch.eval_batch(F.cross_entropy(model(X), Y), outputs=model(X), targets=Y)
            watch.end_epoch()
    except optuna.TrialPruned as pruned:
        return watch.report().n_steps, str(pruned)
    finally:
        watch.close()
    return watch.report().n_steps, None


def test_an_error_ends_the_trial_and_is_kept():
    def objective(trial):
        softmax = suggest(trial, {"softmax": Choice([False, True])})["softmax"]
        steps, pruned = loop(OptunaFindings(trial), softmax)
        trial.set_user_attr("steps", steps)
        if pruned is not None:
            raise optuna.TrialPruned(pruned)
        return 0.0

    done = study()
    done.enqueue_trial({"softmax": True})
    done.enqueue_trial({"softmax": False})
    done.optimize(objective, n_trials=2)
    broken, sound = done.trials
    assert broken.state == optuna.trial.TrialState.PRUNED
    assert broken.user_attrs["steps"] < sound.user_attrs["steps"] == 8
    found = broken.user_attrs["findings"][0]
    assert (found["code"], found["severity"]) == ("loss_input", "error")
    assert sound.state == optuna.trial.TrialState.COMPLETE
    assert "findings" not in sound.user_attrs


def test_only_some_findings_end_a_trial():
    every = {"severity": ("error", "warning", "info", None), "codes": (None, ["stale_gradient"])}
    ended = {}
    for severity in every["severity"]:
        for codes in every["codes"]:
            trial = study().ask()
            pruner = OptunaFindings(trial, severity=severity, codes=codes)
            ended[severity, codes is None] = loop(pruner, softmax=True)[1] is not None
            assert [x.code for x in pruner.findings][:1] == ["loss_input"]
            assert trial.user_attrs["findings"][0]["code"] == "loss_input"
    assert {key for key, value in ended.items() if value} == {
        (severity, True) for severity in ("error", "warning", "info")
    }


def test_the_monitored_value_is_reported_and_may_end_the_trial():
    trial = study(pruner=Never()).ask()
    assert loop(OptunaFindings(trial, monitor="val_loss")) == (8, None)
    assert list(trial.storage.get_trial(trial._trial_id).intermediate_values) == [4, 8]
    trial = study(pruner=Never(bound=0.0)).ask()
    steps, why = loop(OptunaFindings(trial, monitor="val_loss"))
    assert steps == 4
    assert why.startswith("val_loss is ")
    assert why.endswith(" after 4 steps")


def test_values_that_a_loop_reports_by_itself():
    trial = study(pruner=Never()).ask()
    model = small(False)
    pruner = OptunaFindings(trial, monitor="val_loss")
    watch = Watch(model, torch.optim.SGD(model.parameters(), lr=0.1), on=pruner)
    watch.end_epoch(val_loss=torch.tensor(0.5))
    watch.record(step=7, epoch=2, val_loss=0.25)
    watch.record(step=8, epoch=2, val_accuracy=0.25)
    found = trial.storage.get_trial(trial._trial_id).intermediate_values
    assert found == {0: 0.5, 7: 0.25}
    with pytest.raises(ArgumentTypeError, match="'val_loss' must be a number, got 'low'"):
        pruner.evaluated(9, {"val_loss": "low"})
    watch.close()


def test_checks_before_training_end_it_at_once():
    trial = study().ask()
    finding = Finding(code="batch_mixing", severity="error", message="Rows mix.")
    report = RunReport((finding,))  # what sanity.check returns
    with pytest.raises(optuna.TrialPruned, match="batch_mixing: Rows mix"):
        OptunaFindings(trial).found(report)


class Classifier(nn.Module):
    def __init__(self, softmax):
        super().__init__()
        self.net = small(softmax)

    def forward(self, x, labels=None):
        from transformers.modeling_outputs import SequenceClassifierOutput

        out = self.net(x)
        return SequenceClassifierOutput(loss=F.cross_entropy(out, labels), logits=out)


@pytest.mark.filterwarnings("ignore")
def test_hugging_face(tmp_path):
    pytest.importorskip("transformers")
    from transformers import Trainer, TrainingArguments

    from pyspectra.training.callbacks.hf import WatchCallback

    def train(softmax, bound):
        trial = study(pruner=Never(bound)).ask()
        callback = WatchCallback(on=OptunaFindings(trial, monitor="val_loss"))
        args = TrainingArguments(
            tmp_path, per_device_train_batch_size=16, num_train_epochs=2, use_cpu=True,
            report_to=[], eval_strategy="epoch", disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        rows = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
        model = Classifier(softmax)
        try:
            Trainer(
                model, args, train_dataset=rows, eval_dataset=rows, callbacks=[callback]
            ).train()
        finally:
            assert callback.report().n_steps == (8 if bound and not softmax else 4)
        return trial

    trial = train(softmax=False, bound=9.0)
    assert list(trial.storage.get_trial(trial._trial_id).intermediate_values) == [4, 8]
    with pytest.raises(optuna.TrialPruned, match="val_loss is"):
        train(softmax=False, bound=0.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("softmax", [False, True])
def test_lightning(softmax):
    pytest.importorskip("lightning")
    import lightning

    from pyspectra.training.callbacks.lightning import WatchCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = small(softmax)

        def training_step(self, batch, index):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, index):
            self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=16)
    trial = study(pruner=Never()).ask()
    callback = WatchCallback(on=OptunaFindings(trial, monitor="val_loss"))
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[callback],
    )  # fmt: skip
    if softmax:
        with pytest.raises(optuna.TrialPruned, match="loss_input"):
            trainer.fit(Module(), loader, loader)
        assert callback.report().n_steps < 8
    else:
        trainer.fit(Module(), loader, loader)
        found = trial.storage.get_trial(trial._trial_id).intermediate_values
        assert list(found) == [4, 8]


def test_choices_that_are_equal_to_python_stay_apart():
    space = {"n": Choice([0, False, 0.0])}
    found = [
        suggest(optuna.trial.FixedTrial({"n": name}), space)["n"] for name in (0, "false", "0.0")
    ]
    assert [type(value) for value in found] == [int, bool, float]


def test_suggestions_lie_in_the_space():
    space = Space({"lr": Range(1e-4, 1.0, log=True), "n": Range(1, 8, log=True, integer=True),
                   "act": Choice(["relu", None, True, 2]),
                   "hidden": Choice([[64], [32, 32]])})  # fmt: skip
    trial = optuna.trial.FixedTrial({"lr": 0.01, "n": 3, "act": None, "hidden": "[32, 32]"})
    assert suggest(trial, space) == {"lr": 0.01, "n": 3, "act": None, "hidden": [32, 32]}
    done = study()
    for _ in range(20):
        values = suggest(done.ask(), space)
        assert 1e-4 <= values["lr"] <= 1.0
        assert values["n"] in range(1, 9)
        assert values["hidden"] in ([64], [32, 32])


def test_what_is_refused(monkeypatch):
    trial = study().ask()
    for options, error, message in [
        ({"monitor": 3}, ArgumentTypeError, "'monitor' must be a name"),
        ({"severity": "fatal"}, ArgumentValueError, "'severity' must be one of"),
        ({"codes": "loss_input"}, ArgumentTypeError, "'codes' must be a list"),
        ({"codes": ["los_input"]}, ArgumentValueError, "did you mean 'loss_input'"),
    ]:
        with pytest.raises(error, match=message):
            OptunaFindings(trial, **options)
    for call in (OptunaFindings, lambda trial: suggest(trial, {"a": Range(0, 1)})):
        with pytest.raises(ArgumentTypeError, match="'trial' must be a trial of Optuna"):
            call(None)
    model = small(False)
    with pytest.raises(ArgumentValueError, match="Watch: 'on' must be one of 'warn', 'raise', 'co"):
        Watch(model, torch.optim.SGD(model.parameters(), lr=0.1), on="rais")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ps.errors.MissingDependencyError, match=r"pyspectra-nn\[optuna\]"):
        OptunaFindings(trial)
