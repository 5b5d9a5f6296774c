"""The faults, each with the codes that name it, and the healthy runs."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from faults.loop import Setup
from faults.tasks import Branch


@dataclass(frozen=True)
class Fault:
    """A fault: what the run does, and the codes of which one must come first."""

    name: str
    setup: Setup
    codes: tuple[str, ...]
    exact: bool = False
    only: tuple[str, ...] = ("mlp", "cnn", "transformer")


# --- what is done to models, data and losses ----------------------------------------------------


def set_all(value):
    def prepare(model):
        for p in model.parameters():
            nn.init.constant_(p, value)

    return prepare


def constant_matrices(model):
    for p in model.parameters():
        if p.dim() > 1:
            nn.init.constant_(p, 0.05)


def cut(model):
    model.cut = True


def drop(model):
    model.drop = True


def after(function):
    def prepare(model):
        model.after = function

    return prepare


def kill(model):
    for m in model.modules():
        if isinstance(m, nn.Linear | nn.Conv2d) and m is not model.head:
            nn.init.constant_(m.bias, -20.0)


def deep_sigmoid(model):
    d = model.head.in_features
    layers = [layer for _ in range(8) for layer in (nn.Linear(d, d), nn.Sigmoid())]
    model.head = nn.Sequential(*layers, nn.Linear(d, model.head.out_features))


def freeze(model):
    model.body.requires_grad_(False)


def without_head(model):
    return model.body.parameters()


def of_a_copy(model):
    return copy.deepcopy(model).parameters()


def blank(model):
    model.blank = True


def shuffled(X, y, g):
    return X, y[torch.randperm(len(y), generator=g)]


def with_nan(X, y, g):
    X = X.clone().float()
    X[::97].view(len(X[::97]), -1)[:, 0] = float("nan")
    return X, y


def with_inf(X, y, g):
    X = X.clone()
    X[300].view(-1)[0] = float("inf")
    return X, y


def rare(share):
    def change(X, y, g):
        keep = (y == 0) | (torch.rand(len(y), generator=g) < share)
        common = (y == 0).nonzero()[:, 0]
        other = common[torch.randint(0, len(common), (len(y),), generator=g)]
        rows = torch.where(keep, torch.arange(len(y)), other)
        return X[rows], y[rows]

    return change


def unfindable(X, y, g):
    """One class is common; the labels of the rare one do not depend on the inputs."""
    return X, (torch.rand(len(y), generator=g) < 0.12).long()


def noisy(share):
    def change(X, y, g):
        wrong = torch.rand(len(y), generator=g) < share
        return X, torch.where(wrong, torch.randint(0, int(y.max()) + 1, y.shape, generator=g), y)

    return change


def all_pairs(out, y):
    return F.mse_loss(out[:, :1], y.float())


def all_pairs_by_hand(out, y):
    return ((out[:, :1] - y.float()) ** 2).mean()


def log_of_probability(out, y):
    p = (3000 * out).softmax(1)
    return -p.gather(1, y[:, None]).log().mean()


def smoothed(out, y):
    return F.cross_entropy(out, y, label_smoothing=0.1)


def regression(out, y):
    return F.mse_loss(out[:, 0], y.float())


def first_half(out, y):
    return (y < out.shape[1] // 2).float()


def binary(out, y):
    return F.binary_cross_entropy_with_logits(out[:, 0], first_half(out, y))


def binary_twice(out, y):
    return F.binary_cross_entropy_with_logits(out[:, 0].sigmoid(), first_half(out, y))


def nll(out, y):
    return F.nll_loss(out.log_softmax(1), y)


class LoRA(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.randn(4, base.in_features) / base.in_features**0.5)
        self.B = nn.Parameter(torch.zeros(base.out_features, 4))

    def forward(self, x):
        return self.base(x) + 2.0 * (x @ self.A.T @ self.B.T)


def lora(model):
    for parent in list(model.body.modules()):
        for name, m in list(parent.named_children()):
            if isinstance(m, nn.Linear) and not isinstance(m, LoRA) and not isinstance(
                parent, nn.MultiheadAttention | LoRA
            ):  # fmt: skip
                setattr(parent, name, LoRA(m))


def zero_residual(model):
    d = model.head.in_features
    last = nn.Linear(d, d)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    model.head = nn.Sequential(Branch(nn.Sequential(nn.Linear(d, d), nn.ReLU(), last)), model.head)


def zero_head(model):
    nn.init.zeros_(model.head.weight)


S = Setup
FAULTS = [
    Fault("forgotten zero_grad", S(clear="never"), ("stale_gradient",), True),
    Fault("zero_grad before step", S(clear="too late"), ("no_gradient",), True),
    Fault("head not in optimizer", S(parameters=without_head), ("parameter_not_optimized",), True),
    Fault("body under no_grad", S(prepare=cut), ("no_gradient",), True),
    Fault("zero initialisation", S(prepare=set_all(0.0)), ("symmetric_init",), True),
    Fault("constant initialisation", S(prepare=constant_matrices), ("symmetric_init",)),
    Fault("softmax before cross-entropy", S(prepare=after(lambda o: o.softmax(1))),
          ("loss_input",), True),
    Fault("softmax over the batch", S(prepare=after(lambda o: o.softmax(0))),
          ("loss_input",), True),
    Fault("probabilities to NLL", S(prepare=after(lambda o: o.softmax(1)), loss=F.nll_loss),
          ("loss_input",), True),
    Fault("sigmoid twice", S(loss=binary_twice), ("loss_input",)),
    Fault("broadcast loss", S(loss=all_pairs), ("loss_broadcast",), True),
    Fault("broadcast by hand", S(loss=all_pairs_by_hand), ("loss_broadcast",), True),
    Fault("dropout in evaluation", S(model={"p": 0.3}, evaluate="careless"),
          ("train_mode_at_eval",), True),
    Fault("dropout that ignores eval", S(prepare=drop), ("train_mode_at_eval",), True),
    Fault("training in eval mode", S(model={"p": 0.3}, train_mode=False), ("eval_mode_at_train",)),
    Fault("metric keeps its graph", S(retain=True), ("tensor_retained",)),
    Fault("NaN in the inputs", S(data=with_nan), ("nonfinite",), True, ("mlp", "cnn")),
    Fault("Inf in the inputs", S(data=with_inf), ("nonfinite",), True, ("mlp", "cnn")),
    Fault("log of zero", S(loss=log_of_probability), ("nonfinite",), True),
    Fault("rate x 3000", S(rate=3000.0), ("update_ratio", "divergence", "nonfinite", "dead_units")),
    Fault("SGD rate x 300", S(optimizer="sgd", rate=300.0),
          ("update_ratio", "divergence", "nonfinite", "exploding_gradient", "dead_units",
           "zero_gradient")),
    Fault("rate / 1e5", S(rate=1e-5), ("update_ratio",)),
    Fault("rate vanishes", S(schedule="vanishes", optimizer="sgd"), ("update_ratio",)),
    Fault("ascent", S(sign=-1.0, optimizer="sgd"), ("divergence", "nonfinite")),
    Fault("momentum 0.99, rate x 100", S(optimizer="momentum", rate=100.0, momentum=0.99),
          ("divergence", "update_ratio", "nonfinite", "exploding_gradient", "dead_units",
           "zero_gradient")),
    Fault("shuffled labels", S(data=shuffled), ("not_learning",)),
    Fault("dead units", S(prepare=kill, model={"act": nn.ReLU}),
          ("dead_units", "zero_gradient"), False, ("mlp", "cnn")),
    Fault("eight sigmoids", S(prepare=deep_sigmoid, optimizer="sgd"),
          ("vanishing_gradient", "not_learning", "saturated_units")),
    Fault("bfloat16 weights", S(dtype=torch.bfloat16, rate=1e-2), ("lost_updates",)),
    Fault("majority only", S(data=unfindable), ("accuracy_paradox", "not_learning")),
    Fault("overfitting", S(data=noisy(0.3), n_train=60, batch=20, epochs=60), ("overfitting",)),
    Fault("optimizer of a copy", S(parameters=of_a_copy), ("parameter_not_optimized",), True),
    Fault("inputs wiped out", S(prepare=blank), ("zero_gradient", "not_learning")),
    Fault("rate x 100", S(rate=100.0),
          ("update_ratio", "divergence", "nonfinite", "dead_units", "not_learning")),
    Fault("rate / 1000", S(rate=1e-3, optimizer="sgd"),
          ("update_ratio", "not_learning", "plateau")),
    Fault("clipped to nothing", S(optimizer="sgd", clip=1e-6), ("update_ratio",)),
    Fault("decay far too strong", S(optimizer="adamw", decay=100.0),
          ("not_learning", "plateau", "update_ratio")),
    Fault("validation labels shuffled", S(shuffle_val=True),
          ("not_learning", "labels_carry_no_information")),
    Fault("each batch twice", S(repeat=2, epochs=3), ("duplicated_batches",)),
]  # fmt: skip

# What is found at the first steps, or at the first evaluation, needs no long run.
EARLY = {"constant initialisation": 2, "sigmoid twice": 2, "training in eval mode": 2,
         "metric keeps its graph": 2, "rate x 3000": 3, "SGD rate x 300": 3, "rate / 1e5": 3,
         "rate vanishes": 3, "momentum 0.99, rate x 100": 3, "clipped to nothing": 3}  # fmt: skip
FAULTS = [
    replace(fault, setup=replace(fault.setup, epochs=2 if fault.exact else EARLY[fault.name]))
    if fault.exact or fault.name in EARLY
    else fault
    for fault in FAULTS
]

HEALTHY = {
    "adam": S(),
    "sgd": S(optimizer="sgd"),
    "momentum, steps": S(optimizer="momentum", schedule="steps"),
    "nesterov": S(optimizer="nesterov"),
    "adamw, cosine": S(optimizer="adamw", schedule="cosine"),
    "adamw, warm-up, clipping": S(optimizer="adamw", schedule="warmup", clip=1.0),
    "one cycle": S(optimizer="momentum", schedule="onecycle"),
    "rmsprop": S(optimizer="rmsprop"),
    "fused": S(optimizer="fused"),
    "dropout": S(model={"p": 0.3}),
    "norm": S(model={"norm": True}),
    "gelu": S(model={"act": nn.GELU}),
    "tanh": S(model={"act": nn.Tanh}),
    "relu": S(model={"act": nn.ReLU}),
    "accumulation": S(accumulate=3, batch=25),
    "small batches": S(batch=10, epochs=3, rate=0.5),
    "large batches": S(batch=250, epochs=10),
    "label smoothing": S(loss=smoothed),
    "nll": S(loss=nll),
    "binary": S(loss=binary),
    "regression": S(loss=regression),
    "autocast": S(autocast=True),
    "frozen body": S(prepare=freeze, rate=3.0),
    "lora": S(prepare=lora, rate=2.0),
    "zero-init residual": S(prepare=zero_residual),
    "zero head": S(prepare=zero_head),
    "imbalanced": S(data=rare(0.4)),
    "label noise": S(data=noisy(0.2)),
    "long": S(epochs=12, optimizer="adamw", schedule="cosine", rate=0.3),
    "slow": S(rate=0.1),
    "weight decay": S(optimizer="adamw", decay=0.1),
    "half rate": S(rate=0.5),
}
