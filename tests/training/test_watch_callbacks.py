"""Three lines in a plain loop, in Hugging Face's Trainer, and in Lightning's."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyspectra.training import History, Watch

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def small(softmax: bool) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 2), *([nn.Softmax(1)] if softmax else []))


def test_a_plain_loop(tmp_path):
    model = small(softmax=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, history=tmp_path / "run.jsonl", on="collect")
    for x, y in zip(X.split(16), Y.split(16), strict=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        watch.step(loss)
    assert watch.report().findings[0].code == "loss_input"


class Classifier(nn.Module):
    def __init__(self, softmax):
        super().__init__()
        self.net = small(softmax)

    def forward(self, x, labels=None):
        from transformers.modeling_outputs import SequenceClassifierOutput

        out = self.net(x)
        return SequenceClassifierOutput(loss=F.cross_entropy(out, labels), logits=out)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("softmax", [False, True])
def test_hugging_face(tmp_path, softmax):
    pytest.importorskip("transformers")
    from transformers import Trainer, TrainingArguments

    from pyspectra.training.callbacks.hf import WatchCallback

    callback = WatchCallback(tmp_path / "run.jsonl", on="collect")
    args = TrainingArguments(
        tmp_path / "out", per_device_train_batch_size=16, num_train_epochs=2, use_cpu=True,
        report_to=[], eval_strategy="epoch", disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    rows = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    trainer = Trainer(
        Classifier(softmax), args, train_dataset=rows, eval_dataset=rows, callbacks=[callback]
    )
    trainer.train()
    assert [x.code for x in callback.report() if x.severity == "error"] == (
        ["loss_input"] if softmax else []
    )
    epochs = History.load(tmp_path / "run.jsonl").epochs
    assert {"train_loss", "val_loss"} <= set(epochs[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("softmax", [False, True])
def test_lightning(tmp_path, softmax):
    pytest.importorskip("lightning")
    import lightning

    from pyspectra.training.callbacks.lightning import WatchCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = small(softmax)

        def training_step(self, batch, k):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, k):
            self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=16)
    callback = WatchCallback(tmp_path / "run.jsonl", on="collect")
    trainer = lightning.Trainer(
        max_epochs=2, callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(Module(), data, data)
    assert [x.code for x in callback.report() if x.severity == "error"] == (
        ["loss_input"] if softmax else []
    )
    epochs = History.load(tmp_path / "run.jsonl").epochs
    assert {"train_loss", "val_loss"} <= set(epochs[0])


# --- gradients that are accumulated, and runs that are resumed ------------------------------------


def hugging_face(folder, softmax=False, **options):
    from transformers import Trainer, TrainingArguments

    from pyspectra.training.callbacks.hf import WatchCallback

    callback = WatchCallback(folder / "run.jsonl", on="collect")
    args = TrainingArguments(
        folder / "out", use_cpu=True, report_to=[], disable_tqdm=True, seed=0,
        **{"per_device_train_batch_size": 16, "save_strategy": "no", "num_train_epochs": 2,
           **options},
    )  # fmt: skip
    rows = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    trainer = Trainer(Classifier(softmax), args, train_dataset=rows, callbacks=[callback])
    return trainer, callback


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_accumulates(tmp_path):
    pytest.importorskip("transformers")
    found = []
    for folder, options in (
        ("whole", {"per_device_train_batch_size": 32}),
        ("parts", {"gradient_accumulation_steps": 2}),
    ):
        trainer, callback = hugging_face(tmp_path / folder, **options)
        trainer.train()
        found.append(History.load(tmp_path / folder / "run.jsonl").steps)
        assert not [x for x in callback.report() if x.severity != "info"]
    whole, parts = found
    assert [r["step"] for r in parts] == [r["step"] for r in whole] == [1, 2, 3, 4]
    assert [r["n"] for r in parts] == [r["n"] for r in whole] == [32] * 4
    for a, b in zip(parts, whole, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_resumes(tmp_path):
    pytest.importorskip("transformers")
    for epochs, resume in ((1, None), (2, True), (3, True)):
        trainer, _ = hugging_face(tmp_path, num_train_epochs=epochs, save_strategy="epoch")
        trainer.train(resume_from_checkpoint=resume)
    history = History.load(tmp_path / "run.jsonl")
    assert [r["step"] for r in history.steps] == list(range(1, 13))
    assert [r["epoch"] for r in history.epochs] == [1, 2, 3]
    assert [r["segment"] for r in history.epochs] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore")
def test_lightning_accumulates_and_resumes(tmp_path):
    pytest.importorskip("lightning")
    import lightning

    from pyspectra.training.callbacks.lightning import WatchCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = small(False)

        def training_step(self, batch, k):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def train(file, epochs, batch, parts, checkpoint=None):
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=batch)
        callback = WatchCallback(tmp_path / file, on="collect")
        trainer = lightning.Trainer(
            max_epochs=epochs, callbacks=[callback], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
            accumulate_grad_batches=parts,
        )  # fmt: skip
        trainer.fit(Module(), data, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "model.ckpt")
        assert not [x for x in callback.report() if x.severity != "info"]
        return History.load(tmp_path / file)

    whole = train("whole.jsonl", 2, 32, 1).steps
    parts = train("parts.jsonl", 2, 16, 2).steps
    assert [r["step"] for r in parts] == [r["step"] for r in whole] == [1, 2, 3, 4]
    for a, b in zip(parts, whole, strict=True):
        assert (a["n"], a["loss"]) == (32, pytest.approx(b["loss"], rel=1e-5))
    resumed = train("parts.jsonl", 4, 16, 2, tmp_path / "model.ckpt")
    assert [r["step"] for r in resumed.steps] == list(range(1, 9))
    assert [r["epoch"] for r in resumed.epochs] == [1, 2, 3, 4]
