"""Healthy programs that learn prices and clothes."""

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, ReduceLROnPlateau

from .data import fashion, housing
from .loops import adam, batches, fit, sgd
from .networks import Residual, cnn, mlp

HEALTHY = {}


def healthy(program):
    """Enter a program into the list under its name."""
    HEALTHY[program.__name__] = program
    return program


def warm_cosine(optimizer, steps):
    """Return a linear warm-up of a tenth of the steps and half a cosine after it."""
    warm = max(1, steps // 10)
    return LambdaLR(
        optimizer,
        lambda k: (
            (k + 1) / warm
            if k < warm
            else 0.5 * (1 + math.cos(math.pi * (k - warm) / (steps - warm)))
        ),
    )


@healthy
def house_mlp_adam(eye):
    fit(eye, mlp(8, 64, 64, 1), housing(), F.mse_loss, adam(1e-3), epochs=12)


@healthy
def house_linear_sgd(eye):
    fit(eye, nn.Linear(8, 1), housing(), F.mse_loss, sgd(0.01, 0), epochs=10)


@healthy
def house_l1_onecycle(eye):
    fit(
        eye,
        mlp(8, 64, 32, 1, act=nn.SiLU),
        housing(),
        F.smooth_l1_loss,
        sgd(0.02),
        epochs=10,
        per_batch=True,
        schedule=lambda o, steps: OneCycleLR(o, 0.1, total_steps=steps + 1),
    )


@healthy
def house_lbfgs(eye):
    (x, y), (xv, yv) = housing(1000)
    model = mlp(8, 16, 1, act=nn.Tanh)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=10)
    watch = eye(model, optimizer)
    for _ in range(30):

        def closure():
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            return loss

        watch.step(optimizer.step(closure))
        with watch.evaluating():
            watch.eval_batch(F.mse_loss(model(xv), yv))
        watch.end_epoch()


@healthy
def house_tanh_weight_decay_groups(eye):
    model = mlp(8, 64, 64, 1, act=nn.Tanh)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    fit(eye, model, housing(), F.mse_loss, epochs=10, optimizer=torch.optim.AdamW(groups, 2e-3))


@healthy
def house_dropout_plateau(eye):
    fit(
        eye,
        mlp(8, 64, 64, 1, dropout=0.2),
        housing(1500),
        F.mse_loss,
        adam(5e-3),
        epochs=15,
        schedule=lambda o, _: ReduceLROnPlateau(o, patience=2),
    )


@healthy
def house_gaussian_likelihood(eye):
    def loss(out, y):
        return F.gaussian_nll_loss(out[:, :1], y, F.softplus(out[:, 1:]) + 1e-3)

    fit(eye, mlp(8, 64, 2), housing(), loss, adam(2e-3), epochs=10)


@healthy
def house_full_batch(eye):
    fit(eye, mlp(8, 32, 1), housing(500), F.mse_loss, adam(1e-2), epochs=120, batch=500)


@healthy
def fashion_cnn_batchnorm(eye):
    fit(eye, cnn(), fashion(), epochs=5)


@healthy
def fashion_cnn_groupnorm_warm_cosine(eye):
    fit(
        eye,
        cnn(norm=lambda c: nn.GroupNorm(4, c)),
        fashion(),
        make=sgd(0.05, weight_decay=5e-4, nesterov=True),
        schedule=warm_cosine,
        per_batch=True,
    )


@healthy
def fashion_zero_init_residual(eye):
    fit(
        eye,
        Residual(),
        fashion(1000),
        make=sgd(0.1),
        epochs=4,
        schedule=lambda o, _: CosineAnnealingLR(o, 4),
    )


@healthy
def fashion_mlp_dropout(eye):
    fit(eye, mlp(196, 128, 128, 10, dropout=0.3, flat=True), fashion(2000), epochs=8)


@healthy
def fashion_accumulate_and_clip(eye):
    fit(eye, cnn(), fashion(), batch=16, accumulate=4, clip=1.0, epochs=4)


@healthy
def fashion_autocast_bf16(eye):
    fit(eye, mlp(196, 128, 64, 10, flat=True), fashion(), autocast=True, epochs=6)


@healthy
def fashion_grad_scaler(eye):
    fit(
        eye,
        mlp(196, 96, 10, act=nn.GELU, flat=True),
        fashion(),
        scaler=torch.amp.GradScaler("cpu"),
        epochs=6,
    )


@healthy
def fashion_label_smoothing(eye):
    fit(eye, cnn(), fashion(), lambda out, y: F.cross_entropy(out, y, label_smoothing=0.1))


@healthy
def fashion_mixup(eye):
    def mix(x, y):
        share, order = float(torch.distributions.Beta(0.4, 0.4).sample()), torch.randperm(len(x))
        hot = F.one_hot(y, 10).float()
        return share * x + (1 - share) * x[order], share * hot + (1 - share) * hot[order]

    fit(eye, cnn(), fashion(), change=mix, epochs=6)


@healthy
def fashion_one_label_in_five_wrong(eye):
    (x, y), val = fashion(2000)
    wrong = torch.rand(len(y)) < 0.2
    y = torch.where(wrong, torch.randint(10, y.shape), y)
    fit(eye, mlp(196, 64, 10, flat=True), ((x, y), val), make=adam(5e-4), epochs=6)


@healthy
def fashion_weighted_imbalance(eye):
    (x, y), (xv, yv) = fashion(4000)
    keep, keep_v = (y == 0) | (torch.rand(len(y)) < 0.1), slice(None)
    weight = torch.tensor([0.15] + [1.0] * 9)
    fit(
        eye,
        cnn(),
        ((x[keep], y[keep]), (xv[keep_v], yv[keep_v])),
        lambda out, t: F.cross_entropy(out, t, weight),
        epochs=8,
    )


@healthy
def fashion_a_hundred_pictures(eye):
    fit(
        eye,
        mlp(196, 32, 10, flat=True, dropout=0.2),
        fashion(100),
        batch=10,
        epochs=12,
        make=adam(1e-3),
    )


@healthy
def fashion_one_epoch(eye):
    fit(eye, cnn(), fashion(4000), epochs=1)


@healthy
def fashion_large_batch(eye):
    fit(eye, mlp(196, 128, 10, flat=True), fashion(4000), batch=400, make=adam(3e-3), epochs=15)


@healthy
def fashion_batch_of_four(eye):
    fit(eye, mlp(196, 64, 10, flat=True), fashion(1500), batch=4, make=sgd(0.005, 0.5), epochs=3)


@healthy
def fashion_frozen_backbone(eye):
    model = cnn()
    (x, y), val = fashion(1500)
    maker = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(3):
        for xb, yb in batches(x, y % 5, 32):
            maker.zero_grad()
            F.cross_entropy(model(xb), yb).backward()
            maker.step()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model[-1] = nn.Linear(288, 10)
    fit(eye, model, ((x, y), val), epochs=5)


class LoRA(nn.Module):
    """A frozen linear layer with a trained correction of low rank."""

    def __init__(self, layer, rank=4):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x):
        return self.layer(x) + x @ self.a.T @ self.b.T


@healthy
def fashion_lora(eye):
    model = mlp(196, 128, 64, 10, flat=True)
    (x, y), val = fashion(1500)
    maker = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(3):
        for xb, yb in batches(x, y, 32):
            maker.zero_grad()
            F.cross_entropy(model(xb), yb).backward()
            maker.step()
    for place in (1, 3, 5):
        model[place] = LoRA(model[place])
    turned = ((x.flip(-1), y), (val[0].flip(-1), val[1]))
    fit(eye, model, turned, make=lambda p: torch.optim.AdamW(p, 3e-3), epochs=5)


@healthy
def fashion_distillation(eye):
    teacher, student = cnn(), mlp(196, 32, 10, flat=True)
    (x, y), val = fashion(1500)
    maker = torch.optim.Adam(teacher.parameters(), 2e-3)
    for xb, yb in batches(x, y, 32):
        maker.zero_grad()
        F.cross_entropy(teacher(xb), yb).backward()
        maker.step()
    teacher.eval()
    optimizer = torch.optim.Adam(student.parameters(), 2e-3)
    watch = eye(student, optimizer)
    for _ in range(6):
        for xb, yb in batches(x, y, 32):
            with torch.no_grad():
                soft = F.softmax(teacher(xb) / 3, 1)
            out = student(xb)
            loss = 9 * F.kl_div(
                F.log_softmax(out / 3, 1), soft, reduction="batchmean"
            ) + F.cross_entropy(out, yb)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss, inputs=xb, targets=yb, outputs=out)
        with watch.evaluating():
            out = student(val[0])
            watch.eval_batch(F.cross_entropy(out, val[1]), outputs=out, targets=val[1])
        watch.end_epoch()


@healthy
def fashion_swa(eye):
    model = cnn()
    mean = torch.optim.swa_utils.AveragedModel(model)
    fit(eye, model, fashion(), make=sgd(0.05), after=mean.update_parameters)


@healthy
def fashion_ema_teacher(eye):
    model = mlp(196, 64, 10, flat=True)
    shadow = copy.deepcopy(model)

    def follow(model):
        with torch.no_grad():
            for slow, fast in zip(shadow.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.01)

    fit(eye, model, fashion(), make=lambda p: torch.optim.RMSprop(p, 5e-4), after=follow, epochs=6)
