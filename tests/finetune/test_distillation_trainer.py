"""Distillation in the real Trainer: its loss by hand, and every path that a run takes."""

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

from torch.nn import functional as F  # noqa: E402

from pyspectra.finetune import DistillationMixin, FeatureMatching  # noqa: E402
from pyspectra.training.callbacks.hf import EMACallback, optimizer_cls_and_kwargs  # noqa: E402

T, W = 3.0, 0.7
TOLD: dict[str, Any] = {"temperature": T, "distillation_weight": W}
# One float32 forward pass in two orders of summation.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


class Distilling(DistillationMixin, transformers.Trainer):
    pass


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """More threads than free cores cost such tiny models a hundredfold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def causal(seed: int, width: int = 8, dropout: float = 0.0, kind: str = "llama") -> Any:
    torch.manual_seed(seed)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=13, n_positions=8, n_embd=width, n_layer=1, n_head=2, bos_token_id=0,
            eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.5,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        vocab_size=13, hidden_size=width, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=8, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        attention_dropout=dropout, initializer_range=0.5,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def said(model: Any, batch: Any) -> Any:
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def classifier(seed: int, width: int = 8, classes: int = 3, **options: Any) -> Any:
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=13, hidden_size=width, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8, num_labels=classes, initializer_range=0.5,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **options,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def texts(labelled: bool = True) -> list[dict[str, Any]]:
    """Rows with unequal numbers of labels, so that means of means are not the mean."""
    draws = torch.Generator().manual_seed(1)
    rows = []
    for i in range(24):
        ids = torch.randint(0, 13, (6,), generator=draws)
        labels = torch.where(torch.arange(6) < 1 + i % 6, ids, -100)
        mask = (torch.arange(6) < 2 + i % 5).long()
        own = {"labels": labels} if labelled else {}
        rows.append({"input_ids": ids, "attention_mask": mask, **own})
    return rows


def classes(labels: Any = None) -> list[dict[str, Any]]:
    made = torch.arange(24) % 3 if labels is None else labels
    return [
        {"input_ids": row["input_ids"], "attention_mask": row["attention_mask"], "labels": y}
        for row, y in zip(texts(), made, strict=True)
    ]


def trainer(folder: Path, student: Any, teacher: Any, rows: Any, **options: Any) -> Any:
    settings: dict[str, Any] = {
        "max_steps": 6,
        "save_steps": 3,
        "save_strategy": "steps",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "max_grad_norm": 0.5,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
        "seed": 3,
    }
    told = {**TOLD, **options.pop("told", {})}
    extra = options.pop("extra", {})
    args = transformers.TrainingArguments(output_dir=str(folder), **{**settings, **options})
    return Distilling(
        student, args, train_dataset=rows, eval_dataset=rows[:5], teacher=teacher, **told, **extra
    )


def weights(model: Any) -> dict[str, Any]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def kl(student: Any, teacher: Any) -> Any:
    """Rows of the divergence, by torch's own function."""
    log_q, p = F.log_softmax(student / T, -1), F.softmax(teacher / T, -1)
    return T**2 * F.kl_div(log_q, p, reduction="none").sum(-1)


# --- the gradient of a step of two batches --------------------------------------------------------


def gradients_of_a_step(
    folder: Path, student: Any, teacher: Any, rows: Any, means: bool = False, **options: Any
) -> Any:
    """Let the Trainer add up the gradients of one step, and keep them.

    With `means` the Trainer is told that the model does not use the number of items.
    """
    run = trainer(
        folder, student, teacher, rows, max_steps=1, save_strategy="no", max_grad_norm=0.0,
        learning_rate=0.0, **options,
    )  # fmt: skip
    if means:
        run.model_accepts_loss_kwargs = False
    kept: dict[str, Any] = {}
    run.create_optimizer()
    run.optimizer.register_step_pre_hook(
        lambda *_: kept.update({n: p.grad.clone() for n, p in student.named_parameters()})
    )
    seen: list[Any] = []
    inner = run.training_step
    run.training_step = lambda model, inputs, n=None: (
        seen.append(dict(inputs)), inner(model, inputs, n))[1]  # fmt: skip
    run.train()
    return kept, seen


def check(kept: dict[str, Any], model: Any, loss: Any) -> None:
    model.zero_grad()
    loss.backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(kept[name], p.grad, **CLOSE, msg=name)


@pytest.mark.parametrize(("kind", "smoothing"), [("llama", 0.0), ("llama", 0.1), ("gpt2", 0.0)])
def test_tokens_of_accumulated_batches_count_alike(
    tmp_path: Path, kind: str, smoothing: float
) -> None:
    """The mean is over the words of both batches: of each position the next is the label."""
    student, teacher = causal(0, kind=kind), causal(1, 12, kind=kind)
    kept, seen = gradients_of_a_step(
        tmp_path, student, teacher, texts(), label_smoothing_factor=smoothing
    )
    assert len(seen) == 2
    soft = hard = count = 0.0
    for batch in seen:
        z = said(student, batch)[:, :-1]
        t = said(teacher, batch)[:, :-1].detach()
        y = batch["labels"][:, 1:]
        soft = soft + kl(z, t)[y != -100].sum()
        hard = hard + F.cross_entropy(
            z.flatten(0, 1), y.flatten(), reduction="sum", label_smoothing=smoothing
        )
        # The Trainer counts the first label too where a model has the default loss.
        count += int(((y if kind == "llama" else batch["labels"]) != -100).sum())
    check(kept, student, (W * soft + (1 - W) * hard) / count)


def test_classes_are_a_mean_of_the_batches(tmp_path: Path) -> None:
    student, teacher = classifier(0), classifier(1, 12)
    kept, seen = gradients_of_a_step(tmp_path, student, teacher, classes(), means=True)
    loss = 0.0
    for batch in seen:
        z = said(student, batch)
        t = said(teacher, batch).detach()
        loss = loss + (W * kl(z, t).mean() + (1 - W) * F.cross_entropy(z, batch["labels"])) / 2
    check(kept, student, loss)


def test_a_model_that_does_not_use_the_number_of_items_is_named(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="the loss of BertForSequenceClassification is the mean"):
        trainer(tmp_path, classifier(0), classifier(1), classes(), save_strategy="no").train()
    one = {"save_strategy": "no", "gradient_accumulation_steps": 1}
    trainer(tmp_path, classifier(0), classifier(1), classes(), **one).train()


def test_a_regression_follows_the_numbers_of_its_teacher(tmp_path: Path) -> None:
    student, teacher = classifier(0, classes=1), classifier(1, classes=1)
    rows = classes(torch.linspace(-1, 1, 24))
    told = {"temperature": None}
    kept, seen = gradients_of_a_step(tmp_path, student, teacher, rows, means=True, told=told)
    loss = 0.0
    for batch in seen:
        z = said(student, batch)[:, 0]
        t = said(teacher, batch)[:, 0].detach()
        loss = loss + (W * F.mse_loss(z, t) + (1 - W) * F.mse_loss(z, batch["labels"])) / 2
    check(kept, student, loss)
    with pytest.raises(ValueError, match="'temperature' must be None where labels are no classes"):
        trainer(tmp_path, classifier(0, classes=1), teacher, rows).train()


def test_logits_of_words_are_matched_where_there_are_words(tmp_path: Path) -> None:
    student, teacher = causal(0), causal(1)
    told = {"temperature": None, "distillation_weight": 0.999}
    kept, seen = gradients_of_a_step(tmp_path, student, teacher, texts(), told=told)
    soft = hard = count = 0.0
    for batch in seen:
        z, t = said(student, batch)[:, :-1], said(teacher, batch)[:, :-1].detach()
        y = batch["labels"][:, 1:]
        soft = soft + (z - t).square().mean(-1)[y != -100].sum()
        hard = hard + F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="sum")
        count += int((y != -100).sum())
    check(kept, student, (0.999 * soft + 0.001 * hard) / count)


def test_numbers_of_several_outputs_are_items_each(tmp_path: Path) -> None:
    student, teacher = classifier(0, classes=2), classifier(1, classes=2)

    def squares(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        return (outputs["logits"] - labels).square().sum() / num_items_in_batch

    rows = classes(torch.linspace(-1, 1, 48).reshape(24, 2))
    options = {"told": {"temperature": None}, "extra": {"compute_loss_func": squares}}
    kept, seen = gradients_of_a_step(tmp_path, student, teacher, rows, **options)
    loss = 0.0
    for batch in seen:
        z, t = said(student, batch), said(teacher, batch).detach()
        loss = loss + (W * F.mse_loss(z, t) + (1 - W) * F.mse_loss(z, batch["labels"])) / 2
    check(kept, student, loss)


def test_the_teacher_alone_needs_no_labels(tmp_path: Path) -> None:
    student, teacher = causal(0), causal(1)
    kept, seen = gradients_of_a_step(
        tmp_path, student, teacher, texts(labelled=False), told={"distillation_weight": 1.0}
    )
    loss = 0.0
    for batch in seen:
        z = said(student, batch)
        t = said(teacher, batch).detach()
        loss = loss + kl(z, t)[batch["attention_mask"].bool()].mean() / 2
    check(kept, student, loss)


def test_a_loss_of_ones_own_is_the_loss_of_the_task(tmp_path: Path) -> None:
    """It divides by the items that it is told; so does the divergence."""
    student, teacher = classifier(0), classifier(1)

    def focal(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        return outputs["logits"].square().sum() / num_items_in_batch

    extra = {"compute_loss_func": focal}
    kept, seen = gradients_of_a_step(tmp_path, student, teacher, classes(), extra=extra)
    loss = 0.0
    for batch in seen:
        z = said(student, batch)
        t = said(teacher, batch).detach()
        loss = loss + (W * kl(z, t).sum() + (1 - W) * z.square().sum()) / 4
    check(kept, student, loss)


def test_features_of_a_part_of_the_student_are_trained_with_it(tmp_path: Path) -> None:
    student, teacher = causal(0), causal(1, 12)
    example = transformers.default_data_collator(texts()[:2])
    matching = FeatureMatching(student, teacher, {"model.layers.0": "model.layers.0"}, example)
    told = {"features": matching, "feature_weight": 0.4}
    with pytest.raises(ValueError, match="'features' must be a part of the student"):
        trainer(tmp_path, student, teacher, texts(), told=told)
    student.matching = matching
    kept, seen = gradients_of_a_step(tmp_path, student, teacher, texts(), told=told)
    assert kept["matching.projections.0.weight"].any()
    soft = hard = apart = count = 0.0
    for batch in seen:
        with torch.no_grad():
            t = said(teacher, batch)[:, :-1]
        z = said(student, batch)[:, :-1]
        y = batch["labels"][:, 1:]
        apart = apart + matching.loss(batch["attention_mask"].bool()) / 2
        soft = soft + kl(z, t)[y != -100].sum()
        hard = hard + F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="sum")
        count += int((y != -100).sum())
    check(kept, student, (W * soft + (1 - W) * hard) / count + 0.4 * apart)
    with pytest.raises(ValueError, match="'features' must be None with model_init"):
        trainer(tmp_path, None, teacher, texts(), told=told, extra={"model_init": lambda: student})


# --- the paths of a run ---------------------------------------------------------------------------


def new(folder: Path, fused: bool, **options: Any) -> tuple[Any, Any, Any]:
    student, teacher = causal(0, dropout=0.2), causal(1, 12, dropout=0.2)
    extra: dict[str, Any] = {}
    if fused:
        args = transformers.TrainingArguments(
            str(folder), learning_rate=0.01, weight_decay=0.1, report_to="none", use_cpu=True
        )
        extra["optimizer_cls_and_kwargs"] = optimizer_cls_and_kwargs(
            student, args, mode="F", ema_decay=0.9, seed=5
        )
        extra["callbacks"] = [EMACallback()]
    return student, teacher, trainer(folder, student, teacher, texts(), extra=extra, **options)


@pytest.mark.parametrize("fused", [True, False])
def test_every_path_of_a_run(tmp_path: Path, fused: bool) -> None:
    options = {
        "eval_strategy": "steps", "eval_steps": 3, "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
    }  # fmt: skip
    student, teacher, run = new(tmp_path, fused, **options)
    before, modes = weights(teacher), [m.training for m in teacher.modules()]
    calls: list[tuple[bool, bool]] = []
    teacher.register_forward_hook(lambda m, *_: calls.append((m.training, torch.is_grad_enabled())))
    run.train()

    # fit: the teacher spoke once for each of 12 batches, and is what it was.
    assert calls == [(False, False)] * 12
    assert same(weights(teacher), before)
    assert [m.training for m in teacher.modules()] == modes
    assert all(p.grad is None for p in teacher.parameters())
    trained = {p for group in run.optimizer.param_groups for p in group["params"]}
    assert not trained & {*teacher.parameters()}
    plain, _, other = new(tmp_path / "other", fused, save_strategy="no",
                          told={"distillation_weight": 0.0})  # fmt: skip
    other.train()
    assert not same(weights(plain), weights(student))

    # evaluate: the loss is that of the task alone, without the teacher.
    calls.clear()
    batch = run.data_collator(texts()[:5])
    with torch.no_grad():
        wanted = float(student.eval()(**batch).loss)
    assert run.evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-5)

    # predict: one row of logits for each word.
    found = run.predict(texts()[:5])
    assert found.predictions.shape == (5, 6, 13)
    assert found.metrics["test_loss"] == pytest.approx(wanted, rel=1e-5)
    assert not calls

    # best: the checkpoint with the least loss of the task is in the model.
    losses = {row["step"]: row["eval_loss"] for row in run.state.log_history if "eval_loss" in row}
    best = tmp_path / f"checkpoint-{min((3, 6), key=losses.__getitem__)}"
    assert Path(run.state.best_model_checkpoint) == best
    saved = transformers.LlamaForCausalLM.from_pretrained(best)
    assert same(weights(saved), weights(student))

    # save: files hold the student alone.
    run.save_model(str(tmp_path / "final"))
    for folder in (best, tmp_path / "final"):
        own = transformers.LlamaForCausalLM.from_pretrained(folder)
        assert same(weights(own), weights(student))
        size = (folder / "model.safetensors").stat().st_size
        assert size < 1.5 * 4 * sum(p.numel() for p in student.parameters()) + 4096

    # resume: from the middle to the same bits.
    last = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "checkpoint-6")
    resumed, _, again = new(tmp_path, fused, **{**options, "load_best_model_at_end": False})
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert same(weights(resumed), weights(last))


def test_what_the_student_does_not_return_is_named(tmp_path: Path) -> None:
    class Silent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Embedding(13, 1)

        def forward(self, input_ids: Any, labels: Any = None) -> Any:
            return {"loss": self.net(input_ids).mean()}

    with pytest.raises(TypeError, match="DistillationMixin: 'model' must return 'logits'"):
        trainer(tmp_path, Silent(), causal(1), texts(), save_strategy="no").train()
    with pytest.raises(ValueError, match="DistillationMixin: 'distillation_weight' must be in"):
        trainer(tmp_path, causal(0), causal(1), texts(), told={"distillation_weight": 2})
    student = causal(0)
    with pytest.raises(ValueError, match="'teacher' must be another model than the student"):
        trainer(tmp_path, student, student, texts())
    run = trainer(tmp_path, student, classifier(1), texts(), save_strategy="no")
    with pytest.raises(ValueError, match="DistillationMixin: 'teacher_logits' must have the shape"):
        run.train()


@pytest.mark.parametrize(
    ("devices", "across", "processes", "factor"),
    [(1, True, 4, 4.0), (1, False, 4, 1.0), (2, True, 1, 1.0), (2, False, 1, 0.5)],
)
def test_a_share_of_all_items_for_each_kind_of_parallel_run(
    tmp_path: Path, devices: int, across: bool, processes: int, factor: float
) -> None:
    """The Trainer takes the mean of gradients over processes, and of losses over devices."""
    run = trainer(tmp_path, causal(0), causal(1), texts())
    run.args._n_gpu, run.args.average_tokens_across_devices = devices, across
    run.accelerator.state._shared_state["num_processes"] = processes
    try:
        assert run._processes_of_a_mean() == factor
    finally:
        run.accelerator.state._shared_state["num_processes"] = 1
