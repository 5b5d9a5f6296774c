"""Programs with one mistake each in gradients, optimizers, steps, losses or numbers."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR, StepLR

from .data import blobs, fashion, housing, waves
from .loops import adam, batches, fit, sgd
from .networks import Recurrent, cnn, mlp

FAULTY = {}


def fault(*causes):
    """Enter a program with the codes of findings that lead a person to its mistake."""

    def enter(program):
        FAULTY[program.__name__] = (program, causes)
        return program

    return enter


@fault("stale_gradient")
def no_zero_grad(eye):
    fit(eye, mlp(8, 64, 1), housing(), F.mse_loss, zero=False)


@fault("stale_gradient")
def zero_grad_of_the_other_optimizer(eye):
    body, head = mlp(8, 32, 16), nn.Linear(16, 1)
    first, second = (
        torch.optim.Adam(body.parameters(), 1e-3),
        torch.optim.Adam(head.parameters(), 1e-3),
    )
    watch = eye(nn.Sequential(body, nn.ReLU(), head), [first, second])
    for _ in range(6):
        for xb, yb in batches(*housing()[0], 32):
            second.zero_grad()
            out = head(F.relu(body(xb)))
            loss = F.mse_loss(out, yb)
            loss.backward()
            first.step()
            second.step()
            watch.step(loss, inputs=xb, targets=yb, outputs=out)
        watch.end_epoch()


@fault("no_gradient")
def detached_features(eye):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = mlp(196, 64, 32, flat=True), nn.Linear(32, 10)

        def forward(self, x):
            return self.head(F.relu(self.body(x).detach()))

    fit(eye, Net(), fashion())


@fault("no_gradient", "step_has_no_effect")
def loss_made_anew(eye):
    fit(
        eye,
        mlp(8, 32, 1),
        housing(),
        lambda out, y: torch.tensor(F.mse_loss(out, y).item(), requires_grad=True),
    )


@fault("no_gradient", "step_has_no_effect", "zero_gradient")
def step_before_backward(eye):
    model = mlp(10, 32, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    watch = eye(model, optimizer)
    for _ in range(6):
        for xb, yb in batches(*blobs()[0], 32):
            out = model(xb)
            loss = F.cross_entropy(out, yb)
            optimizer.zero_grad()
            optimizer.step()
            loss.backward()
            watch.step(loss, inputs=xb, targets=yb, outputs=out)
        watch.end_epoch()


@fault("almost_all_frozen")
def all_but_a_bias_frozen(eye):
    model = cnn()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "8.bias" or name == "9.bias")
    fit(eye, model, fashion())


@fault("parameter_not_optimized")
def optimizer_of_the_head_only(eye):
    model = nn.Sequential(mlp(10, 64, 32), nn.ReLU(), nn.Linear(32, 4))
    fit(eye, model, blobs(), optimizer=torch.optim.Adam(model[-1].parameters(), 1e-3))


@fault("parameter_not_optimized")
def head_replaced_after_the_optimizer(eye):
    model = cnn(1000)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    model[-1] = nn.Linear(288, 10)
    fit(eye, model, fashion(), optimizer=optimizer)


@fault("parameter_not_optimized", "step_has_no_effect", "no_gradient")
def optimizer_of_an_older_model(eye):
    optimizer = torch.optim.Adam(mlp(8, 32, 1).parameters(), 1e-3)
    fit(eye, mlp(8, 32, 1), housing(), F.mse_loss, optimizer=optimizer)


@fault("parameter_not_optimized", "tensor_not_in_model")
def layers_in_a_plain_list(eye):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(196, 64), nn.Linear(64, 64)]
            self.head = nn.Linear(64, 10)

        def forward(self, x):
            x = x.flatten(1)
            for layer in self.layers:
                x = F.relu(layer(x))
            return self.head(x)

    fit(eye, Net(), fashion())


@fault("update_ratio", "divergence", "exploding_gradient", "nonfinite")
def rate_far_too_high_sgd(eye):
    fit(eye, mlp(8, 64, 64, 1), housing(), F.mse_loss, sgd(0.5))


@fault("update_ratio", "divergence", "dead_units")
def rate_far_too_high_adam(eye):
    fit(eye, mlp(196, 64, 64, 10, flat=True), fashion(), make=adam(1.0))


@fault("update_ratio")
def rate_far_too_low(eye):
    fit(eye, cnn(), fashion(), make=adam(1e-8))


@fault("update_ratio", "learning_rate", "step_has_no_effect")
def epochs_schedule_stepped_per_batch(eye):
    fit(
        eye,
        mlp(196, 64, 10, flat=True),
        fashion(2000),
        make=sgd(0.05),
        per_batch=True,
        epochs=6,
        schedule=lambda o, _: StepLR(o, 5, 0.3),
    )


@fault("update_ratio", "learning_rate", "step_has_no_effect")
def integer_division_in_the_schedule(eye):
    fit(
        eye,
        mlp(8, 32, 1),
        housing(),
        F.mse_loss,
        per_batch=True,
        epochs=5,
        schedule=lambda o, steps: LambdaLR(o, lambda k: k // (2 * steps)),
    )


@fault("update_ratio")
def clipped_to_a_millionth(eye):
    fit(eye, mlp(196, 64, 10, flat=True), fashion(), make=sgd(0.01, 0), clip=1e-5)


@fault("update_ratio", "rank_collapse", "weight_decay", "symmetric_weights")
def weight_decay_of_two(eye):
    fit(eye, mlp(196, 64, 64, 10, flat=True), fashion(), make=sgd(0.05, weight_decay=2.0))


@fault("update_ratio", "divergence", "exploding_gradient", "nonfinite", "loss_reduction")
def summed_loss_with_the_rate_of_a_mean(eye):
    fit(
        eye,
        mlp(8, 64, 1),
        housing(),
        lambda out, y: F.mse_loss(out, y, reduction="sum"),
        sgd(0.01),
        batch=128,
    )


@fault("divergence", "loss_sign")
def loss_with_the_wrong_sign(eye):
    fit(eye, mlp(10, 32, 4), blobs(), lambda out, y: -F.cross_entropy(out, y))


@fault("lost_updates")
def pure_bf16_with_a_small_rate(eye):
    model = mlp(196, 64, 10, flat=True).bfloat16()
    (x, y), (xv, yv) = fashion()
    fit(eye, model, ((x.bfloat16(), y), (xv.bfloat16(), yv)), make=sgd(2e-4, 0))


@fault("loss_input")
def softmax_before_cross_entropy(eye):
    fit(eye, nn.Sequential(mlp(196, 64, 10, flat=True), nn.Softmax(1)), fashion())


@fault("loss_input")
def sigmoid_twice(eye):
    (x, y), (xv, yv) = blobs(classes=2)
    fit(
        eye,
        nn.Sequential(mlp(10, 32, 1), nn.Sigmoid()),
        ((x, y[:, None].float()), (xv, yv[:, None].float())),
        F.binary_cross_entropy_with_logits,
    )


@fault("loss_input")
def nll_of_raw_scores(eye):
    fit(eye, mlp(10, 32, 4), blobs(), F.nll_loss)


@fault("loss_input", "batch_mixing")
def softmax_over_the_batch(eye):
    fit(eye, nn.Sequential(mlp(10, 32, 4), nn.LogSoftmax(0)), blobs(), F.nll_loss)


@fault("loss_input")
def softmax_of_one_score(eye):
    (x, y), (xv, yv) = blobs(classes=2)
    fit(
        eye,
        nn.Sequential(mlp(10, 32, 1), nn.Softmax(1)),
        ((x, y[:, None].float()), (xv, yv[:, None].float())),
        F.binary_cross_entropy,
    )


@fault("loss_broadcast")
def column_against_row(eye):
    (x, y), (xv, yv) = housing()
    fit(eye, mlp(8, 64, 1), ((x, y[:, 0]), (xv, yv[:, 0])), F.mse_loss)


@fault("target_scale", "not_learning", "update_ratio", "underfitting", "initial_loss")
def prices_in_dollars(eye):
    fit(eye, mlp(8, 64, 1), housing(dollars=True), F.mse_loss)


@fault("output_range", "dead_units", "not_learning", "zero_gradient")
def relu_on_the_output(eye):
    (x, y), (xv, yv) = waves()
    fit(
        eye,
        nn.Sequential(Recurrent(1, 16, 1), nn.ReLU()),
        ((x, y - 1.5), (xv, yv - 1.5)),
        F.mse_loss,
    )


@fault("output_range", "underfitting", "saturated_units")
def sigmoid_output_for_prices(eye):
    fit(
        eye, nn.Sequential(mlp(8, 64, 1), nn.Sigmoid()), housing(), F.mse_loss, adam(5e-3), epochs=8
    )


@fault("nonfinite")
def logarithm_of_zero(eye):
    def loss(out, y):
        p = F.softmax(out, 1)
        return -(F.one_hot(y, 10) * torch.log(p)).sum(1).mean()

    fit(eye, mlp(196, 64, 10, flat=True), fashion(raw=True), loss, adam(0.01))


@fault("nonfinite")
def root_of_zero(eye):
    (x, y), _ = blobs(width=6)
    pairs = torch.randperm(len(x))
    pairs[::50] = torch.arange(len(x))[::50]
    x = torch.cat((x, x[pairs]), 1)

    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(6, 32, 8)

        def forward(self, x):
            return (self.net(x[:, :6]) - self.net(x[:, 6:])).square().sum(1).sqrt()

    same = (y == y[pairs]).float()
    fit(
        eye,
        Twins(),
        ((x, same), (x[:200], same[:200])),
        lambda d, s: (s * d**2 + (1 - s) * F.relu(2 - d) ** 2).mean(),
    )


@fault("nonfinite")
def divided_by_the_deviation_of_a_constant(eye):
    (x, y), (xv, yv) = housing()
    x[:, 3] = xv[:, 3] = 1.0
    fit(
        eye,
        mlp(8, 32, 1),
        (((x - x.mean(0)) / x.std(0), y), ((xv - x.mean(0)) / x.std(0), yv)),
        F.mse_loss,
    )
