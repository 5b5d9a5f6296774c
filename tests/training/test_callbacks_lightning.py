"""The callback for the real Trainer of Lightning: validation, exceptions, saving, resuming."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of third parties, while they are imported
    pl = pytest.importorskip("lightning.pytorch")

from pyspectra.optim import EMA, ChildAdamW  # noqa: E402
from pyspectra.training.callbacks.lightning import EMACallback  # noqa: E402

# Advice about workers and step counts; a name that torch has deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Module(pl.LightningModule):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        )
        self.fused = fused
        self.crash = False
        self.validated: list[Any] = []

    def training_step(self, batch: Any, index: int) -> Any:
        return self.net(batch[0]).square().mean()

    def validation_step(self, batch: Any, index: int) -> None:
        self.validated.append(weights(self))
        if self.crash:
            raise KeyError("crash")

    def test_step(self, batch: Any, index: int) -> None:
        self.validated.append(weights(self))

    def configure_optimizers(self) -> Any:
        if self.fused:
            return ChildAdamW(self.named_parameters(), lr=0.05, mode="F", ema_decay=0.9)
        return torch.optim.AdamW(self.parameters(), lr=0.05)


def weights(module: Any) -> list[Any]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def batches() -> Any:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=2)


def new(folder: Path, fused: bool, epochs: int, **options: Any) -> tuple[Any, Any, Any]:
    module = Module(fused)
    ema = None if fused else EMA(module, 0.9)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[EMACallback(ema, **options)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=2,
        default_root_dir=folder,
    )
    return module, ema, trainer


def averages(module: Any, ema: Any, trainer: Any) -> list[Any]:
    source = trainer.optimizers[0] if ema is None else ema
    state = source.ema_state_dict(module)
    return [state[name].clone() for name, _ in module.named_parameters()]


@pytest.mark.parametrize("fused", [True, False])
def test_validation_and_test_see_the_averages(tmp_path: Path, fused: bool) -> None:
    module, ema, trainer = new(tmp_path, fused, 2)
    trainer.fit(module, batches(), batches())
    raw, averaged = weights(module), averages(module, ema, trainer)
    assert not same(raw, averaged)
    assert same(module.validated[-1], averaged)
    if ema is not None:
        assert ema.state_dict()["steps"] == 6  # two epochs of three, each of two micro-batches
    trainer.test(module, batches(), verbose=False)
    assert same(module.validated[-1], averaged)
    assert same(weights(module), raw)

    other, _, plain = new(tmp_path, fused, 2, swap=False)
    plain.fit(other, batches(), batches())
    assert same(weights(other), raw)
    assert same(other.validated[-1], raw)


@pytest.mark.parametrize("fused", [True, False])
def test_an_exception_in_validation_brings_the_weights_back(tmp_path: Path, fused: bool) -> None:
    want, _, trainer = new(tmp_path, fused, 1)
    trainer.fit(want, batches())
    module, _, trainer = new(tmp_path, fused, 2)
    module.on_train_epoch_start = lambda: setattr(module, "crash", True)
    with pytest.raises(KeyError, match="crash"):
        trainer.fit(module, batches(), batches())
    assert same(weights(module), weights(want))
    assert not same(module.validated[-1], weights(want))


@pytest.mark.parametrize("fused", [True, False])
def test_checkpoints_have_both_weights_and_resume_both(tmp_path: Path, fused: bool) -> None:
    file = tmp_path / "half.ckpt"
    module, ema, trainer = new(tmp_path, fused, 2)
    trainer.fit(module, batches(), batches())
    trainer.save_checkpoint(file)
    saved = torch.load(file, weights_only=True)
    assert same([saved["state_dict"][k] for k, _ in module.named_parameters()], weights(module))
    averaged = averages(module, ema, trainer)
    assert same([saved["ema_state_dict"][k] for k, _ in module.named_parameters()], averaged)

    module, ema, trainer = new(tmp_path, fused, 4)
    trainer.fit(module, batches(), batches())
    again, ema_again, resumed = new(tmp_path, fused, 4)
    resumed.fit(again, batches(), batches(), ckpt_path=file)
    assert same(weights(again), weights(module))
    assert same(averages(again, ema_again, resumed), averages(module, ema, trainer))


def test_what_keeps_no_average_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'ema' must be an EMA or None, got an object of type int"):
        EMACallback(3)
    module, _, _ = new(tmp_path, False, 1)
    _, _, trainer = new(tmp_path, True, 1)
    with pytest.raises(ValueError, match="the optimizer must keep an average, got AdamW"):
        trainer.fit(module, batches())
