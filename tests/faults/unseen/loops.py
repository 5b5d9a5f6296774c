"""A plain loop, whose every keyword is a line that people write differently, and its watch."""

import contextlib
import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pyspectra.training import Watch


class ThreeLines:
    """A watch used as README's three lines use it: the losses, and nothing else."""

    def __init__(self, model, optimizer, **options):
        self.model = model
        self.watch = Watch(model, optimizer, on="collect", **options)

    def step(self, loss, **_):
        self.watch.step(loss)

    @contextlib.contextmanager
    def evaluating(self):
        self.model.eval()
        with torch.no_grad():
            yield
        self.model.train()

    def eval_batch(self, loss=None, **_):
        pass

    def end_epoch(self, **_):
        pass

    def findings(self):
        return list(self.watch.report())


class Whole(ThreeLines):
    """A watch used as docs/watching.md uses it: batches, evaluations and epochs are told."""

    def step(self, loss, **given):
        self.watch.step(loss, **given)

    def evaluating(self):
        return self.watch.evaluating()

    def eval_batch(self, loss=None, **given):
        self.watch.eval_batch(loss, **given)

    def end_epoch(self, **given):
        self.watch.end_epoch(**given)


def letter_loss(out, y):
    """Return the cross-entropy of every letter."""
    return F.cross_entropy(out.flatten(0, 1), y.flatten())


def adam(lr=1e-3, **options):
    """Return a maker of Adam."""
    return lambda parameters: torch.optim.Adam(parameters, lr, **options)


def sgd(lr=0.05, momentum=0.9, **options):
    """Return a maker of SGD."""
    return lambda parameters: torch.optim.SGD(parameters, lr, momentum, **options)


def batches(x, y, size, shuffle=True):
    """Yield batches, in a new order if they are shuffled."""
    order = torch.randperm(len(x)) if shuffle else torch.arange(len(x))
    for rows in order.split(size):
        yield x[rows], y[rows]


def fit(
    eye,
    model,
    data,
    loss=F.cross_entropy,
    make=None,
    *,
    epochs=5,
    batch=32,
    shuffle=True,
    zero=True,
    accumulate=1,
    clip=None,
    schedule=None,
    per_batch=False,
    evaluate="well",
    autocast=False,
    scaler=None,
    change=lambda x, y: (x, y),
    val_change=lambda x, y: (x, y),
    tell_targets=True,
    after=None,
    optimizer=None,
):
    """Train as a plain loop does, watched by `eye`."""
    (x, y), (xv, yv) = data
    optimizer = optimizer or (make or adam())([p for p in model.parameters() if p.requires_grad])
    watch = eye(model, optimizer)
    plan = schedule(optimizer, math.ceil(len(x) / batch) * epochs) if schedule else None
    count = 0
    for _ in range(epochs):
        if evaluate != "never back":
            model.train()
        for drawn in batches(x, y, batch, shuffle):
            xb, yb = change(*drawn)
            if zero and count % accumulate == 0:
                optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                out = model(xb)
                value = loss(out, yb)
            (scaler.scale(value) if scaler else value / accumulate).backward()
            count += 1
            if count % accumulate == 0:
                if clip:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                if scaler:
                    scaler.step(optimizer)
                    scaler.update()
                else:
                    optimizer.step()
                if after:
                    after(model)
            if plan and per_batch:
                plan.step()
            told = {"targets": yb} if tell_targets else {}
            watch.step(value, inputs=xb, outputs=out, **told)
        last = _evaluated(watch, model, loss, val_change(xv, yv), evaluate)
        if plan and not per_batch:
            plan.step(*([last] if isinstance(plan, ReduceLROnPlateau) else []))
        watch.end_epoch()
    return watch


def _evaluated(watch, model, loss, data, how):
    """Return the loss of validation; "no eval" and "never back" are mistakes."""
    total = 0.0
    if how == "none":
        return total
    if how == "never back":
        model.eval()
    context = torch.no_grad() if how in ("no eval", "never back") else watch.evaluating()
    with context:
        for xb, yb in batches(*data, 125, shuffle=False):
            out = model(xb)
            value = loss(out, yb)
            total += value.item() / 4
            if context is not None and how == "well":
                watch.eval_batch(value, outputs=out, targets=yb)
    return total
