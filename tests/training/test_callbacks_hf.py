"""The callback for the real Trainer of transformers: saving, resuming, evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched: the models are random

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

import pyspectra as ps  # noqa: E402
from pyspectra.optim import EMA, AdamW, ChildAdamW  # noqa: E402
from pyspectra.training.callbacks.hf import EMACallback, optimizer_cls_and_kwargs  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """More threads than free cores cost such tiny models a hundredfold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def language_model() -> Any:
    """Random weights; input and output embedding are tied."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=13, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


class Plain(torch.nn.Module):
    """No PreTrainedModel: its tied weights have to be untied for safetensors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(13, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.head = torch.nn.Linear(8, 13, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: Any, labels: Any) -> Any:
        x = self.norm(self.embed(input_ids).transpose(1, 2)).transpose(1, 2)
        logits = self.head(x)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss, "logits": logits}


def examples() -> list[dict[str, Any]]:
    ids = torch.randint(0, 13, (24, 6), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": row} for row in ids]


def trainer(folder: Path, model: Any, callback: Any, fused: bool, **options: Any) -> Any:
    settings: dict[str, Any] = {
        "max_steps": 6,
        "save_steps": 3,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "save_strategy": "steps",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
        "seed": 3,
        **options,
    }
    args = transformers.TrainingArguments(output_dir=str(folder), **settings)
    kwargs = {}
    if fused:
        chosen = optimizer_cls_and_kwargs(model, args, mode="F", ema_decay=0.9, seed=5)
        kwargs["optimizer_cls_and_kwargs"] = chosen
    return transformers.Trainer(
        model,
        args,
        train_dataset=examples(),
        eval_dataset=examples()[:4],
        callbacks=[callback],
        **kwargs,
    )


def averages(model: Any, ema: EMA | None, run: Any) -> dict[str, Any]:
    source = run.optimizer.optimizer if ema is None else ema
    return {k: v.clone() for k, v in source.ema_state_dict(model).items()}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def raw(model: Any) -> dict[str, Any]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def new(folder: Path, fused: bool, make: Any = language_model, **options: Any) -> Any:
    model = make()
    ema = None if fused else EMA(model, 0.9)
    callback = EMACallback(ema)
    return model, ema, callback, trainer(folder, model, callback, fused, **options)


@pytest.mark.parametrize("fused", [True, False])
def test_checkpoints_have_both_weights_and_resume_both(tmp_path: Path, fused: bool) -> None:
    model, ema, _, run = new(tmp_path, fused)
    run.train()
    last = tmp_path / "checkpoint-6"
    want_raw, want_averages = raw(model), averages(model, ema, run)
    assert not same(want_raw, want_averages)
    saved = transformers.GPT2LMHeadModel.from_pretrained(last / "ema")
    assert same(raw(saved), want_averages)
    assert same(raw(transformers.GPT2LMHeadModel.from_pretrained(last)), want_raw)
    files = {p.name for p in (last / "ema").iterdir()}
    assert {"model.safetensors", "config.json"} <= files
    assert ("ema_state.pt" in files) == (not fused)
    assert not [p for p in last.iterdir() if p.name.startswith(".")]

    model, ema, _, run = new(tmp_path, fused)
    run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert same(raw(model), want_raw)
    assert same(averages(model, ema, run), want_averages)
    if ema is not None:
        assert ema.state_dict()["steps"] == 6  # optimizer steps, of two micro-batches each


def test_models_of_any_class_are_saved(tmp_path: Path) -> None:
    model, ema, _, run = new(tmp_path, False, Plain, save_strategy="no")
    run.train()
    callback = EMACallback(ema)
    callback.on_save(run.args, run.state, run.control, model=model, optimizer=run.optimizer)
    saved = load_file(tmp_path / "checkpoint-6" / "ema" / "model.safetensors")
    assert same(saved, averages(model, ema, run))
    assert torch.equal(saved["embed.weight"], saved["head.weight"])


@pytest.mark.parametrize("fused", [True, False])
def test_evaluation_with_averages(tmp_path: Path, fused: bool) -> None:
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "no"}
    model, ema, callback, run = new(tmp_path, fused, **options)
    callback.swap_around_evaluation(run)
    before = run.evaluate()["eval_loss"]
    torch.manual_seed(7)  # evaluate() has drawn
    run.train()
    weights = raw(model)
    loss = run.evaluate()["eval_loss"]
    assert same(raw(model), weights)
    logged = [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry]
    assert len(logged) == 4  # steps 2, 4 and 6, and the call after training
    assert logged[-1] == logged[-2] == loss != before

    plain, _, _, other = new(tmp_path, fused, **options)
    torch.manual_seed(7)
    other.train()
    assert same(raw(plain), weights)  # evaluating has not touched the run
    assert other.evaluate()["eval_loss"] != loss
    plain.load_state_dict(averages(model, ema, run))
    assert other.evaluate()["eval_loss"] == loss

    def crash(*args: Any, **kwargs: Any) -> None:
        raise KeyError("crash")

    run.prediction_step = crash
    with pytest.raises(KeyError, match="crash"):
        run.evaluate()
    assert same(raw(model), weights)


def test_the_helper_hands_on_names_groups_and_arguments(tmp_path: Path) -> None:
    *_, run = new(tmp_path, True, save_strategy="no")
    run.create_optimizer()
    opt = run.optimizer
    assert isinstance(opt, ChildAdamW)
    decayed, rest = opt.param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    assert "transformer.h.0.attn.c_attn.weight" in decayed["param_names"]
    assert "transformer.ln_f.weight" in rest["param_names"]
    assert decayed["lr"] == 0.01
    model = language_model()
    cls, options = optimizer_cls_and_kwargs(model, run.args, optimizer_cls=AdamW, lr=0.5)
    assert (cls.__name__, options["lr"]) == ("AdamW", 0.5)
    with pytest.raises(TypeError, match="'optimizer_cls' must be ChildAdamW or AdamW"):
        optimizer_cls_and_kwargs(model, run.args, optimizer_cls=torch.optim.AdamW)


def test_what_keeps_no_average_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'ema' must be an EMA or None, got an object of type str"):
        EMACallback("ema")  # type: ignore[arg-type]
    run = trainer(tmp_path, language_model(), EMACallback(), fused=False)
    with pytest.raises(ValueError, match="the optimizer must keep an average, got AdamW"):
        run.train()


def test_resuming_without_averages_is_refused(tmp_path: Path) -> None:
    model = language_model()
    trainer(tmp_path, model, transformers.TrainerCallback(), fused=False).train()
    *_, run = new(tmp_path, False)
    with pytest.raises(ps.FormatError, match=r"ema_state\.pt is not there"):
        run.train(resume_from_checkpoint=True)


def test_options_are_checked_before_the_trainer_builds(tmp_path: Path) -> None:
    net, args = language_model(), transformers.TrainingArguments(str(tmp_path), report_to=[])
    for model, arguments, options, message in (
        (None, args, {}, "'model' must be a torch.nn.Module"),
        (net, None, {}, "'args' must be TrainingArguments"),
        (net, args, {"ema_decy": 0.9}, "'ema_decy' must be an option of ChildAdamW"),
        (net, args, {"ema_decay": 2.0}, "'ema_decay' must be"),
        (net, args, {"statistics": 1}, "'statistics' must be a bool"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            optimizer_cls_and_kwargs(model, arguments, **options)
    cls, options = optimizer_cls_and_kwargs(net, args, optimizer_cls=AdamW)
    with pytest.raises(ValueError, match="model_init is not supported"):
        cls([{"params": [*language_model().parameters()]}], **options)


def test_where_to_resume_from_is_checked_at_once(tmp_path: Path) -> None:
    ema = EMA(language_model())
    with pytest.raises(TypeError, match="'resume_from' must be a path"):
        EMACallback(ema, resume_from=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'resume_from' must come with 'ema'"):
        EMACallback(resume_from=tmp_path)
    with pytest.raises(FileNotFoundError, match="'resume_from' must be a folder"):
        EMACallback(ema, resume_from=tmp_path / "none")
