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
