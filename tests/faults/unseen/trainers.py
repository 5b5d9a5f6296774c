"""Healthy programs that leave the loop to the trainers of other packages."""

import tempfile

import torch
from torch.nn import functional as F

from .data import fashion
from .healthy import healthy
from .networks import cnn


def parities(n=600):
    """Return rows of tokens whose label says whether token 3 is in them."""
    rows = torch.randint(0, 20, (n, 12))
    return [{"input_ids": row, "labels": int((row == 3).any())} for row in rows]


def tiny_bert():
    """Return a BERT of two layers."""
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=20,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
        )
    )


def hugging_face(rate=1e-3, model=None, rows=None, epochs=5):
    """Train a tiny BERT with the Trainer; return its callback."""
    from transformers import Trainer, TrainingArguments

    from pyspectra.training.callbacks.hf import WatchCallback

    rows = rows or parities()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            learning_rate=rate,
            num_train_epochs=epochs,
            per_device_train_batch_size=16,
            report_to=[],
            logging_steps=20,
            eval_strategy="epoch",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        callback = WatchCallback(on="collect")
        Trainer(
            model or tiny_bert(),
            arguments,
            train_dataset=rows[:500],
            eval_dataset=rows[500:],
            callbacks=[callback],
        ).train()
    return callback


@healthy
def trainer_of_hugging_face(eye):
    eye.adopt(hugging_face())


def lightning_run(loss=F.cross_entropy, rate=1e-3, epochs=5):
    """Train a network for pictures with Lightning; return its callback."""
    import lightning
    from torch.utils.data import DataLoader, TensorDataset

    from pyspectra.training.callbacks.lightning import WatchCallback

    class Lit(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = cnn()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            return loss(self(batch[0]), batch[1])

        def validation_step(self, batch, _):
            self.log("val_loss", loss(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), rate)

    train, val = fashion(1200)
    callback = WatchCallback(on="collect")
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    trainer.fit(
        Lit(),
        DataLoader(TensorDataset(*train), 32, shuffle=True),
        DataLoader(TensorDataset(*val), 125),
    )
    return callback


@healthy
def trainer_of_lightning(eye):
    eye.adopt(lightning_run())
