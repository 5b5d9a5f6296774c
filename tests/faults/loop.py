"""One training loop with switches: each fault, and each healthy variant, is a set of them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from faults import real
from faults.tasks import ARCHITECTURES, N_TRAIN
from pyspectra.training import Thresholds, Watch

RATES = {"sgd": 0.1, "momentum": 0.03, "adam": 3e-3, "adamw": 3e-3, "rmsprop": 1e-3,
         "nesterov": 0.03, "fused": 3e-3}  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """What a run does; the defaults are a healthy one."""

    optimizer: str = "adam"
    rate: float = 1.0
    schedule: str | None = None
    epochs: int = 6
    batch: int = 50
    n_train: int = N_TRAIN
    model: dict[str, Any] | None = None
    prepare: Callable[[Any], None] | None = None
    parameters: Callable[[Any], Any] | None = None
    data: Callable[[Any, Any, Any], Any] | None = None
    loss: Callable[[Any, Any], Any] = F.cross_entropy
    clear: str = "before"
    accumulate: int = 1
    clip: float | None = None
    autocast: bool = False
    dtype: Any = None
    train_mode: bool = True
    evaluate: str = "watch"
    sign: float = 1.0
    decay: float | None = None
    momentum: float | None = None
    retain: bool = False
    repeat: int = 1
    shuffle_val: bool = False


def optimizer_of(setup: Setup, params):
    lr = RATES[setup.optimizer] * setup.rate
    more = {} if setup.decay is None else {"weight_decay": setup.decay}
    if setup.optimizer == "fused":
        from pyspectra.optim import AdamW

        return AdamW(params, lr=lr, statistics=True, **more)
    kinds = {
        "sgd": (torch.optim.SGD, {}), "momentum": (torch.optim.SGD, {"momentum": 0.9}),
        "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        "adam": (torch.optim.Adam, {}), "adamw": (torch.optim.AdamW, {}),
        "rmsprop": (torch.optim.RMSprop, {}),
    }  # fmt: skip
    kind, options = kinds[setup.optimizer]
    if setup.momentum is not None:
        options = {**options, "momentum": setup.momentum}
    return kind(params, lr=lr, **options, **more)


def schedule_of(setup: Setup, optimizer, steps: int):
    s = torch.optim.lr_scheduler
    return {
        None: lambda: None,
        "cosine": lambda: s.CosineAnnealingLR(optimizer, steps),
        "warmup": lambda: s.LambdaLR(optimizer, lambda k: min(1.0, (k + 1) / (0.3 * steps))),
        "onecycle": lambda: s.OneCycleLR(
            optimizer, 3 * optimizer.param_groups[0]["lr"], total_steps=steps + 1
        ),
        "steps": lambda: s.StepLR(optimizer, max(steps // 3, 1), 0.1),
        "vanishes": lambda: s.ExponentialLR(optimizer, 0.5),
    }[setup.schedule]()


def run(architecture: str, setup: Setup, seed: int, thresholds: Thresholds | None = None,
        every: int = 10, memory: Any = None):  # fmt: skip
    """Train once and return the `Watch`; `memory` may take the place of its own."""
    torch.set_num_threads(1)
    make_data, make_model = {**ARCHITECTURES, **real.REAL}[architecture]
    setup = dataclasses.replace(setup, rate=setup.rate * real.SCALES.get(architecture, 1.0))
    X, y = make_data(seed)
    g = torch.Generator().manual_seed(seed)
    if setup.data is not None:
        X, y = setup.data(X, y, g)
    n = setup.n_train
    train, val = (X[:n], y[:n]), (X[N_TRAIN:], y[N_TRAIN:])
    if setup.shuffle_val:
        val = val[0], val[1][torch.randperm(len(val[1]), generator=g)]
    torch.manual_seed(seed)
    model = make_model(**(setup.model or {}))
    if setup.prepare is not None:
        setup.prepare(model)
    if setup.dtype is not None:
        model.to(setup.dtype)
    params = model.parameters() if setup.parameters is None else setup.parameters(model)
    optimizer = optimizer_of(setup, [p for p in params if p.requires_grad])
    steps = setup.repeat * setup.epochs * (n // (setup.batch * setup.accumulate))
    schedule = schedule_of(setup, optimizer, steps)
    watch = Watch(model, optimizer, every=every, on="collect", thresholds=thresholds)
    if memory is not None:
        watch._memory = memory
    model.train(setup.train_mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(setup.epochs):
            _epoch(model, optimizer, schedule, watch, setup, train, g)
            _evaluate(model, watch, setup, val)
            watch.end_epoch()
    return watch


def _epoch(model, optimizer, schedule, watch, setup, train, g):
    X, y = train
    order = torch.randperm(len(X), generator=g)
    batches = [rows for rows in order.split(setup.batch) for _ in range(setup.repeat)]
    model.train(setup.train_mode)
    for k, rows in enumerate(batches):
        x = X[rows] if setup.dtype is None or not X.is_floating_point() else X[rows].to(setup.dtype)
        first, last = k % setup.accumulate == 0, (k + 1) % setup.accumulate == 0
        if setup.clear == "before" and first:
            optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=setup.autocast):
            out = model(x)
            loss = setup.loss(out.float() if setup.dtype else out, y[rows])
        (setup.sign * loss / setup.accumulate).backward()
        if setup.clear == "too late":
            optimizer.zero_grad()
        if setup.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), setup.clip)
        if last:
            optimizer.step()
            if schedule is not None:
                schedule.step()
        more = {"penalty": loss * 2} if setup.retain else {}
        watch.step(loss, targets=y[rows], **more)


def _evaluate(model, watch, setup, val):
    X, y = val
    X = X if setup.dtype is None or not X.is_floating_point() else X.to(setup.dtype)
    if setup.evaluate == "careless":
        with torch.no_grad():
            losses = [setup.loss(model(x).float(), t) for x, t in zip(X.split(200), y.split(200),
                                                                   strict=True)]  # fmt: skip
        watch.history.log(step=1, epoch=watch._epoch + 1, val_loss=sum(losses) / len(losses))
        return
    with watch.evaluating():
        for x, t in zip(X.split(200), y.split(200), strict=True):
            out = model(x).float()
            watch.eval_batch(setup.loss(out, t), outputs=out, targets=t)
