"""The fused optimizers in the Trainer of transformers: what the helper hands on."""

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

from pyspectra.finetune import child_mask, fisher_diag  # noqa: E402
from pyspectra.optim import SGD, Adam, AdamW  # noqa: E402
from pyspectra.training.callbacks.hf import optimizer_cls_and_kwargs  # noqa: E402

IDS = torch.randint(0, 13, (24, 6), generator=torch.Generator().manual_seed(1))
DATA = [{"input_ids": row, "labels": row} for row in IDS]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """More threads than free cores cost such tiny models a hundredfold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def language_model() -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=13, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def arguments(folder: Path, **options: Any) -> Any:
    quiet = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no",
             "dataloader_pin_memory": False, "logging_strategy": "no"}  # fmt: skip
    return transformers.TrainingArguments(str(folder), **quiet, **options)


@pytest.mark.parametrize("by_init", [False, True])
def test_every_seed_of_a_study_has_masks_of_its_own(tmp_path: Path, by_init: bool) -> None:
    def built(of_study: int, **options: Any) -> Any:
        model = language_model()
        args = arguments(tmp_path, seed=of_study)
        of = language_model if by_init else model
        chosen = optimizer_cls_and_kwargs(of, args, mode="F", **options)
        given: dict[str, Any] = {"model_init": of} if by_init else {"model": model}
        run = transformers.Trainer(**given, args=args, optimizer_cls_and_kwargs=chosen)
        run.create_optimizer()
        return run.optimizer

    assert [built(s).param_groups[0]["seed"] for s in (1, 2)] == [1, 2]
    assert built(1, seed=7).param_groups[0]["seed"] == 7
    names = built(1).param_groups[0]["param_names"]
    assert "transformer.h.0.attn.c_attn.weight" in names


def test_the_optimizer_of_a_model_init_is_that_of_the_model(tmp_path: Path) -> None:
    # One batch holds all the data, so that its order does not matter.
    args = arguments(
        tmp_path,
        max_steps=3,
        learning_rate=0.01,
        weight_decay=0.1,
        seed=3,
        per_device_train_batch_size=len(DATA),
    )
    trained = []
    for of in (language_model(), language_model):
        given: dict[str, Any] = {"model" if isinstance(of, torch.nn.Module) else "model_init": of}
        chosen = optimizer_cls_and_kwargs(of, args, mode="F")
        run = transformers.Trainer(
            **given, args=args, train_dataset=DATA, optimizer_cls_and_kwargs=chosen
        )
        run.train()
        trained.append({n: p.detach().clone() for n, p in run.model.named_parameters()})
    for name, p in trained[1].items():
        torch.testing.assert_close(trained[0][name], p, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("by_init", [False, True])
def test_the_trainer_moves_the_child_network_alone(tmp_path: Path, by_init: bool) -> None:
    """Child-Tuning D by the recipe of docs/optimizers.md, with batches of a data collator."""
    model = language_model()
    loader = torch.utils.data.DataLoader(
        DATA, batch_size=8, collate_fn=transformers.default_data_collator
    )
    scores = fisher_diag(model, loader, lambda model, batch: model(**batch).loss)
    mask = child_mask(scores, reserve_p=0.3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    args = arguments(tmp_path, max_steps=3, learning_rate=0.01, weight_decay=0.1)
    of = language_model if by_init else model
    given: dict[str, Any] = {"model_init" if by_init else "model": of}
    chosen = optimizer_cls_and_kwargs(of, args, mode="D", mask=mask, decay_masked=False)
    run = transformers.Trainer(
        **given, args=args, train_dataset=DATA, optimizer_cls_and_kwargs=chosen
    )
    run.train()
    assert "transformer.h.0.mlp.c_fc.weight" in mask
    for name, p in run.model.named_parameters():
        moved = p.detach() != before[name]
        if name in mask:
            assert torch.equal(moved, mask[name])
        else:
            assert moved.any()


def test_a_search_over_rates_sets_those_of_each_trial(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    for of in (language_model(), language_model):
        cls, options = optimizer_cls_and_kwargs(of, args, optimizer_cls=AdamW, eps=1e-6)
        args.learning_rate, args.adam_epsilon, args.seed = 0.125, 1e-3, 77
        model = of if isinstance(of, torch.nn.Module) else of()
        groups = [{"params": [*model.parameters()]}]
        opt = cls(groups, **options) if model is of else cls()(model, **options)
        group = opt.param_groups[0]
        assert (group["lr"], group["eps"], group["seed"]) == (0.125, 1e-6, 77)


@pytest.mark.parametrize(("cls", "extra"), [(SGD, {"momentum": 0.9}), (Adam, {}), (AdamW, {})])
def test_other_optimizers_come_by_the_helper_too(tmp_path: Path, cls: Any, extra: Any) -> None:
    model = language_model()
    args = arguments(tmp_path, max_steps=2, learning_rate=0.01, adam_beta1=0.8)
    chosen = optimizer_cls_and_kwargs(model, args, optimizer_cls=cls, ema_decay=0.9, **extra)
    run = transformers.Trainer(model, args, train_dataset=DATA, optimizer_cls_and_kwargs=chosen)
    run.train()
    group = run.optimizer.optimizer.param_groups[0]
    assert group["ema_decay"] == 0.9
    assert group.get("betas", (0.8,))[0] == 0.8
    assert group.get("momentum", 0.9) == 0.9


def test_an_older_trainer_says_that_it_wants_the_model(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    cls, options = optimizer_cls_and_kwargs(language_model, args)
    with pytest.raises(ValueError, match="must be the model itself with this version"):
        cls([{"params": []}], **options)
