"""Which weights are evaluated and saved: every trainer, both kinds of averages, every action."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of third parties, while they are imported
    pl = pytest.importorskip("lightning.pytorch")

from safetensors.torch import load_file  # noqa: E402

from pyspectra._support import files  # noqa: E402
from pyspectra.optim import EMA, AdamW  # noqa: E402
from pyspectra.training.callbacks import hf, lightning  # noqa: E402

from averages_matrix import (  # noqa: E402  isort: skip
    AVERAGE,
    DECAY,
    Accelerate,
    Plain,
    Toy,
    averages,
    keeper,
    names,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


KINDS = pytest.mark.parametrize("fused", [True, False], ids=["fused", "attached"])


# --- a loop of one's own, and accelerate's --------------------------------------------------------


@KINDS
def test_an_average_begins_at_weights_that_are_loaded(tmp_path: Path, fused: bool) -> None:
    run = Plain(tmp_path, fused)
    run.model.load_state_dict({"weight": torch.full((1,), 5.0)})
    assert names([run.predict()]) == ["raw 5"]
    run.step()
    with run.swap():
        assert run.model.weight.item() == 5.5


# --- Hugging Face ---------------------------------------------------------------------------------


def arguments(folder: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {
        "max_steps": 6,
        "save_steps": 2,
        "eval_steps": 2,
        "save_strategy": "steps",
        "eval_strategy": "steps",
        "lr_scheduler_type": "constant",
        "learning_rate": 1.0,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 8,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
        **options,
    }
    return transformers.TrainingArguments(output_dir=str(folder), **settings)


def hugging_face(
    folder: Path, fused: bool, *, swap: bool = True, toy: Any = Toy, **options: Any
) -> tuple[Any, Any, Any]:
    model, args = toy(), arguments(folder, **options)
    ema = None if fused else EMA(model, DECAY, None)
    callback = hf.EMACallback(ema)
    own: dict[str, Any] = {}
    if fused:
        chosen = hf.optimizer_cls_and_kwargs(model, args, optimizer_cls=AdamW, **AVERAGE)
        own["optimizer_cls_and_kwargs"] = chosen
    data = [{"x": torch.zeros(1), "labels": torch.zeros(1)}] * 8
    trainer = transformers.Trainer(
        model, args, train_dataset=data, eval_dataset=data, callbacks=[callback], **own
    )
    if swap:
        callback.swap_around_evaluation(trainer)
    return model, callback, trainer


def in_folder(folder: Path) -> list[str]:
    """Which weights a model folder and its averages have."""
    files = (folder / "model.safetensors", folder / "ema" / "model.safetensors")
    return names(load_file(file)["weight"] for file in files if file.exists())


BEST = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}


@KINDS
def test_the_best_average_of_hugging_face(tmp_path: Path, fused: bool) -> None:
    model, callback, trainer = hugging_face(tmp_path, fused, **BEST)
    trainer.train()
    assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-4"
    assert names([model.weight]) == ["average 4"]
    model.seen.clear()
    assert trainer.evaluate()["eval_loss"] == trainer.state.best_metric
    output = trainer.predict(trainer.eval_dataset).predictions
    assert names([*model.seen, output.flat[0]]) == ["average 4"] * 3
    trainer.save_model(str(tmp_path / "out"))
    assert in_folder(tmp_path / "out") == ["average 4", "average 4"]

    start = model.weight.item()
    trainer.train()  # from the weights that are there; their average begins anew
    with trainer.optimizer.optimizer.swap_ema() if fused else callback._ema.swap():
        assert model.weight.item() == pytest.approx(start + averages(6)[6], abs=1e-4)

    # Without averages in the evaluation the best weights are the raw ones of another step.
    model, _, trainer = hugging_face(tmp_path / "raw", fused, swap=False, **BEST)
    trainer.train()
    assert names(model.seen) == ["raw 2", "raw 4", "raw 6"]
    model.seen.clear()
    trainer.evaluate()
    assert names([*model.seen, model.weight]) == ["raw 2", "raw 2"]
    trainer.save_model(str(tmp_path / "raw" / "out"))
    assert in_folder(tmp_path / "raw" / "out") == ["raw 2", "average 2"]


@KINDS
def test_checkpoints_of_the_same_number(tmp_path: Path, fused: bool) -> None:
    """A folder of another run has a checkpoint of the same step, with other averages."""
    a, b = tmp_path / "a", tmp_path / "b"
    hugging_face(a, fused)[2].train()
    _, _, other = hugging_face(b, fused)
    other.model.weight.data.fill_(100.0)
    other.train()
    model, _, trainer = hugging_face(b, fused)
    trainer.train(resume_from_checkpoint=str(a / "checkpoint-4"))
    assert names([*model.seen, model.weight]) == ["average 6", "raw 6"]


@KINDS
def test_a_run_that_is_resumed_by_its_arguments(tmp_path: Path, fused: bool) -> None:
    hugging_face(tmp_path, fused, max_steps=4)[2].train()
    for given in (True, str(tmp_path / "checkpoint-2")):
        model, _, trainer = hugging_face(tmp_path, fused, resume_from_checkpoint=given)
        trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint)
        assert names(model.seen)[-1] == "average 6"


@KINDS
@pytest.mark.parametrize("strategy", ["no", "epoch", "best"])
def test_save_strategies(tmp_path: Path, fused: bool, strategy: str) -> None:
    evaluation = "no" if strategy == "no" else strategy if strategy == "epoch" else "steps"
    options = {"metric_for_best_model": "eval_loss"} if strategy == "best" else {}
    _, _, trainer = hugging_face(
        tmp_path, fused, save_strategy=strategy, eval_strategy=evaluation, **options
    )
    trainer.train()
    if strategy == "no":
        assert in_folder(tmp_path) == ["average 6"]
        trainer.save_model()
        assert in_folder(tmp_path) == ["raw 6", "average 6"]
    elif strategy == "epoch":
        assert in_folder(tmp_path / "checkpoint-6") == ["raw 6", "average 6"]
    else:
        assert in_folder(tmp_path / "checkpoint-4") == ["raw 4", "average 4"]
        assert not (tmp_path / "checkpoint-6").exists()


@KINDS
def test_checkpoints_without_an_optimizer(tmp_path: Path, fused: bool) -> None:
    hugging_face(tmp_path, fused, save_only_model=True, max_steps=4)[2].train()
    assert in_folder(tmp_path / "checkpoint-4") == ["raw 4", "average 4"]
    model, _, trainer = hugging_face(tmp_path, fused, save_only_model=True)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    if fused:  # the average went with the optimizer's state, and begins at the weights of step 4
        assert model.seen[-1] == pytest.approx(4 + 0.25 + 1.0)
    else:
        assert names(model.seen) == ["average 6"]


@KINDS
def test_weights_that_are_loaded_after_training_are_evaluated(tmp_path: Path, fused: bool) -> None:
    model, _, trainer = hugging_face(tmp_path, fused)
    trainer.train()
    model.load_state_dict(load_file(tmp_path / "checkpoint-2" / "model.safetensors"))
    model.seen.clear()
    trainer.evaluate()
    assert names(model.seen) == ["raw 2"]
    with pytest.warns(UserWarning, match="gets no averages"):
        trainer.save_model(str(tmp_path / "out"))
    assert in_folder(tmp_path / "out") == ["raw 2"]

    # A fresh Trainer around a model that was saved.
    for source in ("", "ema"):
        model, _, trainer = hugging_face(tmp_path, fused)
        file = tmp_path / "checkpoint-4" / source / "model.safetensors"
        model.load_state_dict(load_file(file))
        trainer.evaluate()
        assert names(model.seen) == ["average 4" if source else "raw 4"]


@KINDS
def test_what_goes_to_the_hub(tmp_path: Path, fused: bool, monkeypatch: Any) -> None:
    uploads: list[tuple[Any, ...]] = []

    class Job:
        def is_done(self) -> bool:
            return True

    class Hub:
        def upload_folder(self, *, folder_path: str, **kwargs: Any) -> Job:
            files = sorted(p.name for p in Path(folder_path, "ema").glob("*"))
            uploads.append((Path(folder_path).name, files, in_folder(Path(folder_path))))
            return Job()

    module = transformers.trainer
    monkeypatch.setattr(module, "hf_api", Hub, raising=False)
    monkeypatch.setattr(module, "upload_folder", Hub().upload_folder, raising=False)
    monkeypatch.setattr(module, "PushInProgress", lambda jobs: jobs[0])
    monkeypatch.setattr(transformers.Trainer, "init_hf_repo", lambda *a, **k: None)
    monkeypatch.setattr(transformers.Trainer, "_finish_current_push", lambda self: None)
    monkeypatch.setattr(transformers.Trainer, "create_model_card", lambda *a, **k: None)
    folder = tmp_path / "run"
    _, _, trainer = hugging_face(
        folder, fused, push_to_hub=True, hub_model_id="me/run", hub_strategy="checkpoint"
    )
    trainer.hub_model_id, trainer.push_in_progress = "me/run", None
    trainer.train()
    trainer.push_to_hub()
    assert [(name, which) for name, _, which in uploads] == [
        *(
            (name, [f"raw {t}", f"average {t}"])
            for t in (2, 4, 6)
            for name in ("run", f"checkpoint-{t}")
        ),
        ("run", ["raw 6", "average 6"]),
    ]


def test_one_callback_in_two_trainers(tmp_path: Path) -> None:
    """An average goes on in a second Trainer of the same model; each writes where it is told."""
    model, callback, first = hugging_face(tmp_path / "a", False)
    first.train()
    args = arguments(tmp_path / "b")
    second = transformers.Trainer(
        model,
        args,
        train_dataset=first.train_dataset,
        eval_dataset=first.eval_dataset,
        callbacks=[callback],
    )
    model.seen.clear()
    second.evaluate()
    assert names(model.seen) == ["average 6"]
    second.train()
    assert in_folder(tmp_path / "b" / "checkpoint-6") == ["raw 12", "average 12"]
    first.save_model()
    assert in_folder(tmp_path / "a") == ["raw 12", "average 12"]


def test_a_full_disk_names_the_file_and_leaves_the_folder(tmp_path: Path, monkeypatch: Any) -> None:
    _, _, trainer = hugging_face(tmp_path, False)
    trainer.train()
    kept = sorted(p.name for p in (tmp_path / "checkpoint-6" / "ema").iterdir())

    def no_space(self: Any, data: Any) -> int:
        self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(self.name))
        raise self.error

    monkeypatch.setattr(files.NewFile, "write", no_space)
    with pytest.raises(OSError, match="No space left on device") as caught:
        trainer.save_model(str(tmp_path / "checkpoint-6"))
    assert caught.value.filename == str(tmp_path / "checkpoint-6" / "ema" / "ema_state.pt")
    assert sorted(p.name for p in (tmp_path / "checkpoint-6" / "ema").iterdir()) == kept
    assert not [p for p in (tmp_path / "checkpoint-6").iterdir() if p.name.endswith(".tmp")]


def test_a_callback_that_is_added_later(tmp_path: Path) -> None:
    hugging_face(tmp_path, False, swap=False)[2].train()
    _, callback, trainer = hugging_face(tmp_path, False, swap=False)
    trainer.remove_callback(callback)
    late = hf.EMACallback(EMA(trainer.model, DECAY, None))
    trainer.add_callback(late)
    with pytest.raises(ValueError, match="it is not known from where"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


# --- Lightning ------------------------------------------------------------------------------------


class Module(pl.LightningModule):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = Toy()
        self.fused = fused
        self.ema: EMA | None = None

    def training_step(self, batch: Any, index: int) -> Any:
        return self.net(None)["loss"]

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("loss", self.net(None)["loss"])

    def test_step(self, batch: Any, index: int) -> None:
        self.log("loss", self.net(None)["loss"])

    def predict_step(self, batch: Any, index: int) -> Any:
        return self.net(None)["logits"]

    def configure_optimizers(self) -> Any:
        return keeper(self.net, self.fused)[0]


def loader() -> Any:
    return torch.utils.data.DataLoader([torch.zeros(1)] * 2, batch_size=1)


def light(
    folder: Path, fused: bool, epochs: int = 3, module: Any = None, **options: Any
) -> tuple[Any, Any]:
    """Epochs of two steps, each with a validation of one batch and a checkpoint."""
    module = Module(fused) if module is None else module
    ema = None if fused else EMA(module, DECAY, None)
    best = pl.callbacks.ModelCheckpoint(
        folder, "{step}", monitor="loss", save_top_k=-1, save_last=True, **options
    )
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[lightning.EMACallback(ema), best],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=1,
        limit_test_batches=1,
        limit_predict_batches=1,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    return module, trainer


def in_file(file: Path, name: str = "net.weight") -> list[str]:
    saved = torch.load(file, weights_only=True)
    states = [
        saved["state_dict"],
        *([saved["ema_state_dict"]] if "ema_state_dict" in saved else []),
    ]
    return names(state[name] for state in states)


@KINDS
def test_lightning(tmp_path: Path, fused: bool) -> None:
    module, trainer = light(tmp_path, fused)
    seen = module.net.seen
    trainer.fit(module, loader(), loader())  # fit
    assert names(seen) == ["average 2", "average 4", "average 6"]
    assert names([module.net.weight]) == ["raw 6"]
    for step in (2, 4, 6):
        assert in_file(tmp_path / f"step={step}.ckpt") == [f"raw {step}", f"average {step}"]
    for action in (trainer.validate, trainer.test, trainer.predict):  # test, predict
        seen.clear()
        got = action(module, loader())
        assert names(seen) == ["average 6"], action
    assert names([got[0]]) == ["average 6"]
    for weights_only in (False, True):  # save
        trainer.save_checkpoint(tmp_path / "own.ckpt", weights_only=weights_only)
        assert in_file(tmp_path / "own.ckpt") == ["raw 6", "average 6"]

    module, trainer = light(tmp_path, fused, epochs=4)  # resume
    trainer.fit(module, loader(), loader(), ckpt_path=tmp_path / "step=4.ckpt")
    assert names(module.net.seen) == ["average 6", "average 8"]
    assert in_file(tmp_path / "step=8.ckpt") == ["raw 8", "average 8"]
    module, trainer = light(tmp_path, fused, epochs=5)
    trainer.fit(module, loader(), loader(), ckpt_path="last")
    assert names(module.net.seen) == ["average 10"]


@KINDS
@pytest.mark.parametrize("weights_only", [False, True])
def test_the_best_average_of_lightning(tmp_path: Path, fused: bool, weights_only: bool) -> None:
    module, trainer = light(tmp_path, fused, save_weights_only=weights_only)
    trainer.fit(module, loader(), loader())
    best = trainer.checkpoint_callback.best_model_path
    assert Path(best).name == "step=4.ckpt"
    assert in_file(Path(best)) == ["raw 4", "average 4"]

    def seen(action: Any, module: Any, **options: Any) -> list[str]:
        module.net.seen.clear()
        action(module, loader(), **options)
        return names(module.net.seen)

    for action in (trainer.validate, trainer.test, trainer.predict):
        assert seen(action, module, ckpt_path="best") == ["average 4"]
        assert names([module.net.weight]) == ["raw 4"]  # is loaded, with its average
        assert seen(action, module) == ["average 4"]
    trainer.save_checkpoint(tmp_path / "own.ckpt", weights_only=True)
    assert in_file(tmp_path / "own.ckpt") == ["raw 4", "average 4"]

    module, fresh = light(tmp_path, fused)  # a fresh Trainer
    for action in (fresh.validate, fresh.test, fresh.predict):
        assert seen(action, module, ckpt_path=best) == ["average 4"]
    loaded = Module.load_from_checkpoint(best, fused=fused, weights_only=True)
    assert names([loaded.net.weight]) == ["raw 4"]
    assert seen(light(tmp_path, fused, module=loaded)[1].test, loaded) == ["raw 4"]

    lightning.averaged_checkpoint(best, tmp_path / "average.ckpt")
    loaded = Module.load_from_checkpoint(tmp_path / "average.ckpt", weights_only=True)
    assert names([loaded.net.weight]) == ["average 4"]
    assert seen(light(tmp_path, fused, module=loaded)[1].test, loaded) == ["average 4"]
    with pytest.raises(ValueError, match="has no averaged weights"):
        lightning.averaged_checkpoint(tmp_path / "average.ckpt", tmp_path / "again.ckpt")
    with pytest.raises(FileExistsError):
        lightning.averaged_checkpoint(best, tmp_path / "average.ckpt")

    # Weights that come by another way are evaluated as they are, and begin an average.
    trainer.strategy.connect(module)
    state = torch.load(tmp_path / "step=2.ckpt", weights_only=True)["state_dict"]
    module.load_state_dict(state)
    assert seen(trainer.test, module) == ["raw 2"]


@KINDS
def test_a_fit_that_goes_on_from_other_weights(tmp_path: Path, fused: bool) -> None:
    module, trainer = light(tmp_path, fused)
    trainer.fit(module, loader(), loader())
    module.load_state_dict({"net.weight": torch.full((1,), 2.0)})
    module.net.seen.clear()
    assert names([*module.parameters()]) == ["raw 2"]
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, loader(), loader())
    assert names([module.net.weight]) == ["raw 4"]
    assert module.net.seen[-1] == pytest.approx(2 + 0.25 + 1.0)


def test_a_run_that_is_resumed_without_an_average(tmp_path: Path) -> None:
    """It starts one at the weights of the checkpoint, not at those of its beginning."""
    module, trainer = light(tmp_path, False)
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, lightning.EMACallback)]
    trainer.fit(module, loader(), loader())
    assert in_file(tmp_path / "last.ckpt") == ["raw 6"]
    module, trainer = light(tmp_path, False, epochs=4)
    trainer.fit(module, loader(), loader(), ckpt_path=tmp_path / "last.ckpt")
    assert module.net.seen == [pytest.approx(6 + 0.25 + 1.0)]
    module, trainer = light(tmp_path, False)
    with pytest.warns(UserWarning, match="has no averaged weights"):
        trainer.test(module, loader(), ckpt_path=tmp_path / "step=2.ckpt")
    assert names(module.net.seen) == ["raw 2"]


class Pair(pl.LightningModule):
    """Two toys with an optimizer each, of which the second steps at every other batch."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.a, self.b = Toy(), Toy()
        self.fused = fused
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> None:
        for k, (net, opt) in enumerate(zip((self.a, self.b), self.optimizers(), strict=True)):
            if index % (k + 1) == 0:
                opt.zero_grad()
                self.manual_backward(net(None)["loss"])
                opt.step()

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("loss", self.a(None)["loss"] + self.b(None)["loss"])

    def configure_optimizers(self) -> Any:
        return [keeper(net, self.fused)[0] for net in (self.a, self.b)]


@KINDS
def test_one_average_over_two_optimizers(tmp_path: Path, fused: bool) -> None:
    module, trainer = light(tmp_path, fused, module=Pair(fused))
    trainer.fit(module, loader(), loader())
    assert names([module.a.weight, module.b.weight]) == ["raw 6", "raw 3"]
    assert names(module.a.seen) == ["average 2", "average 4", "average 6"]
    assert names(module.b.seen) == ["average 1", "average 2", "average 3"]
    assert in_file(tmp_path / "last.ckpt", "b.weight") == ["raw 3", "average 3"]
    module, trainer = light(tmp_path, fused, epochs=4, module=Pair(fused))
    trainer.fit(module, loader(), loader(), ckpt_path=tmp_path / "last.ckpt")
    assert names([module.a.seen[-1], module.b.seen[-1]]) == ["average 8", "average 4"]


# --- the matrix -----------------------------------------------------------------------------------

Cell = tuple[list[str], list[str]]  # the weights that were evaluated, and those that were saved


class Cells:
    """The actions of one trainer with one kind of average, in their order."""

    actions = ("fit", "test", "predict", "save", "best", "resume")

    def __init__(self, folder: Path, fused: bool) -> None:
        self.folder, self.fused = folder, fused

    def run(self) -> dict[str, Cell]:
        return {action: getattr(self, action)() for action in self.actions}


class OfLoop(Cells):
    loop: Any = Plain

    def fit(self) -> Cell:
        self.trained = self.loop(self.folder, self.fused)
        self.seen = self.trained.model.seen
        self.trained.fit(6)
        return names(self.seen), self.trained.saved(self.folder / "6")

    def test(self) -> Cell:
        self.seen.clear()
        self.trained.evaluate()
        return names(self.seen), []

    def predict(self) -> Cell:
        return names([self.trained.predict()]), []

    def save(self) -> Cell:
        self.trained.save(self.folder / "own")
        return [], self.trained.saved(self.folder / "own")

    def best(self) -> Cell:
        self.trained.load_best()
        evaluated, _ = self.test()
        self.trained.save(self.folder / "best")
        return evaluated, self.trained.saved(self.folder / "best")

    def resume(self) -> Cell:
        again = self.loop(self.folder, self.fused)
        again.load(self.folder / "4")
        again.fit(8)
        return names(again.model.seen), again.saved(self.folder / "8")


class OfAccelerate(OfLoop):
    loop = Accelerate


class OfHuggingFace(Cells):
    def fit(self) -> Cell:
        self.model, _, self.trainer = hugging_face(self.folder, self.fused)
        self.trainer.train()
        return names(self.model.seen), in_folder(self.folder / "checkpoint-6")

    def test(self) -> Cell:
        self.model.seen.clear()
        self.trainer.evaluate()
        return names(self.model.seen), []

    def predict(self) -> Cell:
        output = self.trainer.predict(self.trainer.eval_dataset)
        return names([output.predictions.flat[0]]), []

    def save(self) -> Cell:
        self.trainer.save_model(str(self.folder / "own"))
        return [], in_folder(self.folder / "own")

    def best(self) -> Cell:
        self.model, _, self.trainer = hugging_face(self.folder / "best", self.fused, **BEST)
        self.trainer.train()
        return self.test()[0], self.save()[1]

    def resume(self) -> Cell:
        model, _, trainer = hugging_face(self.folder, self.fused, max_steps=8)
        trainer.train(resume_from_checkpoint=str(self.folder / "checkpoint-4"))
        return names(model.seen), in_folder(self.folder / "checkpoint-8")


class OfLightning(Cells):
    def _seen(self, action: Any, **options: Any) -> list[str]:
        self.module.net.seen.clear()
        action(self.module, loader(), **options)
        return names(self.module.net.seen)

    def fit(self) -> Cell:
        self.module, self.trainer = light(self.folder, self.fused)
        self.trainer.fit(self.module, loader(), loader())
        return names(self.module.net.seen), in_file(self.folder / "step=6.ckpt")

    def test(self) -> Cell:
        return self._seen(self.trainer.test), []

    def predict(self) -> Cell:
        return self._seen(self.trainer.predict), []

    def save(self) -> Cell:
        self.trainer.save_checkpoint(self.folder / "own.ckpt")
        return [], in_file(self.folder / "own.ckpt")

    def best(self) -> Cell:
        return self._seen(self.trainer.test, ckpt_path="best"), self.save()[1]

    def resume(self) -> Cell:
        module, trainer = light(self.folder, self.fused, epochs=4)
        trainer.fit(module, loader(), loader(), ckpt_path=self.folder / "step=4.ckpt")
        return names(module.net.seen), in_file(self.folder / "step=8.ckpt")


TRAINERS: dict[str, type[Cells]] = {
    "plain": OfLoop,
    "accelerate": OfAccelerate,
    "huggingface": OfHuggingFace,
    "lightning": OfLightning,
}

EVALUATED_AND_SAVED: dict[str, Cell] = {
    "fit": (["average 2", "average 4", "average 6"], ["raw 6", "average 6"]),
    "resume": (["average 6", "average 8"], ["raw 8", "average 8"]),
    "best": (["average 4"], ["raw 4", "average 4"]),
    "test": (["average 6"], []),
    "predict": (["average 6"], []),
    "save": ([], ["raw 6", "average 6"]),
}

# The Trainer of Hugging Face puts the best model into the one that was trained.
OTHERWISE = {("huggingface", "best"): (["average 4"], ["average 4", "average 4"])}


@pytest.fixture(scope="module")
def runs() -> dict[tuple[str, bool], dict[str, Cell]]:
    """What was evaluated and saved in the runs that are done."""
    return {}


@KINDS
@pytest.mark.parametrize("action", EVALUATED_AND_SAVED)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_which_weights_are_evaluated_and_saved(
    tmp_path: Path, runs: Any, trainer: str, fused: bool, action: str
) -> None:
    if (trainer, fused) not in runs:
        runs[trainer, fused] = TRAINERS[trainer](tmp_path, fused).run()
    evaluated, saved = OTHERWISE.get((trainer, action), EVALUATED_AND_SAVED[action])
    assert runs[trainer, fused][action] == (evaluated, saved)
