"""Programs written after the first ones were mended, to see what that is worth on others."""

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, ExponentialLR

from .data import blobs, fashion, housing, waves, windows
from .loops import adam, batches, fit, sgd
from .networks import Letters, Recurrent, cnn, mlp

LATER_HEALTHY, LATER_FAULTY = {}, {}


def later(*causes):
    """Enter a program into its list: of faulty ones if causes are given."""

    def enter(program):
        if causes:
            LATER_FAULTY[program.__name__] = (program, causes)
        else:
            LATER_HEALTHY[program.__name__] = program
        return program

    return enter


@later()
def points_diffusion(eye):
    x = torch.randn(1500, 2) * 0.1 + torch.tensor([1.0, -1.0])
    model = mlp(3, 64, 64, 2, act=nn.SiLU)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    watch = eye(model, optimizer)
    for _ in range(8):
        for rows, _ in batches(x, x, 50):
            t, noise = torch.rand(len(rows), 1), torch.randn_like(rows)
            out = model(torch.cat(((1 - t).sqrt() * rows + t.sqrt() * noise, t), 1))
            loss = F.mse_loss(out, noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss, targets=noise, outputs=out)
        watch.end_epoch()


@later()
def letters_masked(eye):
    train, val, size = windows(n=500)

    def hide(x, y):
        hidden = torch.rand(x.shape) < 0.2
        return x.masked_fill(hidden, 0), x.masked_fill(~hidden, -100)

    fit(
        eye,
        Letters(size, causal=False),
        (train, val),
        lambda out, y: F.cross_entropy(out.transpose(1, 2), y),
        adam(3e-3),
        change=hide,
        val_change=hide,
        epochs=4,
    )


class Graph(nn.Module):
    """Two graph convolutions over one fixed graph of all rows."""

    def __init__(self, links):
        super().__init__()
        self.register_buffer("links", links / links.sum(1, keepdim=True))
        self.first, self.second = nn.Linear(10, 32), nn.Linear(32, 4)

    def forward(self, x):
        return self.second(self.links @ F.relu(self.first(self.links @ x)))


@later()
def blobs_graph_of_nodes(eye):
    (x, y), _ = blobs(300)
    links = ((y[:, None] == y) & (torch.rand(300, 300) < 0.03)).float() + torch.eye(300)
    model, seen = Graph(links), torch.rand(300) < 0.5
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    watch = eye(model, optimizer)
    for _ in range(60):
        out = model(x)
        loss = F.cross_entropy(out[seen], y[seen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss, inputs=x, targets=y[seen], outputs=out[seen])
        with watch.evaluating():
            out = model(x)
            watch.eval_batch(
                F.cross_entropy(out[~seen], y[~seen]), outputs=out[~seen], targets=y[~seen]
            )
        watch.end_epoch()


@later()
def letters_bags_of_different_lengths(eye):
    train, _, size = windows(n=800)
    bags, head = nn.EmbeddingBag(size, 16), nn.Linear(16, 2)
    both = nn.ModuleList((bags, head))
    optimizer = torch.optim.Adagrad(both.parameters(), 0.05)
    watch = eye(both, optimizer)
    upper = (train[0] == train[0].mode().values.mode().values).float().mean(1)
    y = (upper > upper.median()).long()
    for _ in range(8):
        for xb, yb in batches(train[0], y, 32):
            length = torch.randint(24, 33, (len(xb),))
            flat = torch.cat([row[:k] for row, k in zip(xb, length.tolist(), strict=True)])
            out = head(
                bags(flat, torch.cat((torch.zeros(1, dtype=torch.long), length.cumsum(0)[:-1])))
            )
            loss = F.cross_entropy(out, yb)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss, targets=yb, outputs=out)
        watch.end_epoch()


class ByName(nn.Module):
    """A model that is called with names, and returns a dictionary."""

    def __init__(self):
        super().__init__()
        self.net, self.other = mlp(8, 32, 16), nn.Linear(16, 1)

    def forward(self, features, scale=1.0):
        hidden = self.net(features)
        return {"price": self.other(F.relu(hidden)) * scale, "hidden": hidden}


@later()
def house_called_by_name(eye):
    (x, y), (xv, yv) = housing(1500)
    model = ByName()
    optimizer = torch.optim.NAdam(model.parameters(), 2e-3)
    watch = eye(model, optimizer)
    for _ in range(8):
        for xb, yb in batches(x, y, 32):
            out = model(features=xb, scale=2.0)["price"].squeeze(-1)
            loss = F.l1_loss(out, yb.squeeze(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss.item(), inputs=xb, targets=yb, outputs=out)
        with watch.evaluating():
            out = model(features=xv, scale=2.0)["price"].squeeze(-1)
            watch.eval_batch(F.l1_loss(out, yv.squeeze(-1)).item(), outputs=out, targets=yv)
        watch.end_epoch()


@later()
def oscillator_informed_by_physics(eye):
    model = mlp(1, 32, 32, 1, act=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    watch = eye(model, optimizer)
    for _ in range(400):
        t = (3 * torch.rand(64, 1)).requires_grad_()
        u = model(t)
        first = torch.autograd.grad(u.sum(), t, create_graph=True)[0]
        second = torch.autograd.grad(first.sum(), t, create_graph=True)[0]
        loss = (second + u).square().mean() + (model(torch.zeros(1, 1)) - 1).square().mean() * 10
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss)
    watch.end_epoch()


@later()
def house_poisson_counts_with_restarts(eye):
    (x, y), (xv, yv) = housing(1500)
    fit(
        eye,
        mlp(8, 32, 1),
        ((x, torch.poisson(2 * y)), (xv, torch.poisson(2 * yv))),
        F.poisson_nll_loss,
        sgd(0.01),
        epochs=9,
        schedule=lambda o, _: CosineAnnealingWarmRestarts(o, 3),
    )


@later()
def fashion_two_heads_and_balanced_draws(eye):
    (x, y), (xv, yv) = fashion(1500)
    rare = (y < 2) | (torch.rand(len(y)) < 0.3)
    x, y = x[rare], y[rare]
    rows = torch.multinomial((1 / y.bincount(minlength=10).float())[y], len(y), replacement=True)

    def loss(out, y):
        return F.cross_entropy(out[:, :10], y) + 0.5 * F.cross_entropy(out[:, 10:], y // 5)

    fit(eye, cnn(12), ((x[rows], y[rows]), (xv, yv)), loss, epochs=6)


@later()
def house_quantiles(eye):
    def pinball(out, y):
        level = torch.tensor([0.1, 0.5, 0.9])
        return torch.maximum(level * (y - out), (level - 1) * (y - out)).mean()

    fit(eye, mlp(8, 64, 3), housing(), pinball, adam(2e-3), epochs=8)


@later()
def fashion_probabilities_handed_on(eye):
    (x, y), _ = fashion(1200)
    model = mlp(196, 64, 10, flat=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    watch = eye(model, optimizer)
    for _ in range(5):
        for xb, yb in batches(x, y, 32):
            out = model(xb)
            loss = F.nll_loss(F.log_softmax(out, 1), yb)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss, inputs=xb, targets=yb, outputs=out.softmax(1))
        watch.end_epoch()


@later("no_gradient", "zero_gradient")
def zero_grad_before_the_step(eye):
    (x, y), _ = housing()
    model = mlp(8, 32, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    watch = eye(model, optimizer)
    for _ in range(4):
        for xb, yb in batches(x, y, 32):
            out = model(xb)
            loss = F.mse_loss(out, yb)
            loss.backward()
            optimizer.zero_grad()
            optimizer.step()
            watch.step(loss, inputs=xb, targets=yb, outputs=out)
        watch.end_epoch()


@later("loss_input")
def sigmoid_before_cross_entropy(eye):
    fit(eye, nn.Sequential(mlp(196, 64, 10, flat=True), nn.Sigmoid()), fashion())


@later("train_mode_at_eval")
def functional_dropout_that_is_always_on(eye):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(196, 64), nn.Linear(64, 10)

        def forward(self, x):
            return self.b(F.dropout(F.relu(self.a(x.flatten(1))), 0.5))

    fit(eye, Net(), fashion())


@later("nonfinite")
def missing_values_in_a_column(eye):
    (x, y), val = housing()
    x[torch.rand(len(x)) < 0.01, 4] = float("nan")
    fit(eye, mlp(8, 32, 1), ((x, y), val), F.mse_loss)


@later("update_ratio", "learning_rate")
def exponential_schedule_per_batch(eye):
    fit(eye, cnn(), fashion(), per_batch=True, schedule=lambda o, _: ExponentialLR(o, 0.9))


@later("parameter_not_optimized", "no_gradient")
def copied_after_the_optimizer(eye):
    model = mlp(10, 32, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    fit(eye, copy.deepcopy(model), blobs(), optimizer=optimizer)


@later("zero_gradient", "step_has_no_effect", "update_ratio")
def clipped_to_zero(eye):
    fit(eye, mlp(10, 32, 4), blobs(), clip=1e-30)


@later("symmetric_init")
def weights_all_alike(eye):
    model = mlp(8, 32, 32, 1)
    for p in model.parameters():
        nn.init.constant_(p, 0.05)
    fit(eye, model, housing(), F.mse_loss)


@later("overfitting")
def sixty_rows_by_accident(eye):
    (x, y), val = housing(60)
    fit(eye, mlp(8, 128, 128, 1), ((x, y), val), F.mse_loss, adam(5e-3), epochs=80, batch=20)


@later("update_ratio", "divergence", "exploding_gradient", "nonfinite", "oscillation")
def recurrent_rate_of_ten(eye):
    fit(eye, Recurrent(1, 24, 1, cell=nn.RNN), waves(), F.mse_loss, sgd(10.0))


@later("not_learning", "labels_carry_no_information", "input_range")
def features_in_another_order_than_labels(eye):
    (x, y), (xv, yv) = blobs(1000, classes=5)
    order, order_v = torch.randperm(len(x)), torch.randperm(len(xv))
    fit(eye, mlp(10, 64, 5), ((x[order], y), (xv[order_v], yv)), make=adam(3e-3), epochs=12)


@later("target_scale", "not_comparable", "label_shift")
def validation_prices_in_dollars(eye):
    (x, y), (xv, yv) = housing()
    fit(eye, mlp(8, 64, 1), ((x, y), (xv, 1e5 * yv)), F.mse_loss)


@later("output_range")
def tanh_on_prices(eye):
    fit(eye, nn.Sequential(mlp(8, 64, 1), nn.Tanh()), housing(), F.mse_loss)


@later("eval_mode_at_train")
def trained_in_evaluation_mode(eye):
    (x, y), _ = fashion()
    model = mlp(196, 64, 10, flat=True, dropout=0.3).eval()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    watch = eye(model, optimizer)
    for _ in range(4):
        for xb, yb in batches(x, y, 32):
            out = model(xb)
            loss = F.cross_entropy(out, yb)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss, inputs=xb, targets=yb, outputs=out)
        watch.end_epoch()
