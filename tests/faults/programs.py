"""Healthy programs of other kinds than the suite's: rules were not made with them in view."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from pyspectra.training import Watch


def tabular(n=1000, d=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(n, d, generator=g)
    return X, (X[:, 0] * X[:, 1] + X[:, 2] + 0.3 * torch.randn(n, generator=g)), g


def loop(model, optimizer, loss_of, X, *rest, epochs=8, batch=32, val=200, schedule=None,
         metrics=True, **options):  # fmt: skip
    """Train on all but the last `val` rows; `loss_of(model, x, ...)` returns loss, outputs, y."""
    watch = Watch(model, optimizer, on="collect", every=10, **options)
    data = (X, *rest)
    n = len(X) - val
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(n).split(batch):
            optimizer.zero_grad()
            loss, out, y = loss_of(model, *(v[rows] for v in data))
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            watch.step(loss, **({"outputs": out, "targets": y} if metrics else {}))
        with watch.evaluating():
            for k in range(n, len(X), 100):
                loss, out, y = loss_of(model, *(v[k : k + 100] for v in data))
                watch.eval_batch(loss, **({"outputs": out, "targets": y} if metrics else {}))
        watch.end_epoch()
    return watch


def dense(*sizes, act=nn.ReLU):
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), act()]
    return nn.Sequential(*layers[:-1])


def raw_prices():
    """Regression on targets of a hundred thousand, standardised inside the loss."""
    X, t, _ = tabular()
    y = 2e5 + 5e4 * t
    model = dense(12, 64, 64, 1)

    def loss_of(m, x, y):
        out = m(x)[:, 0]
        return F.mse_loss(out, (y - 2e5) / 5e4), out, (y - 2e5) / 5e4

    return loop(model, torch.optim.Adam(model.parameters(), 3e-3), loss_of, X, y)


def huber():
    X, t, _ = tabular()
    model = dense(12, 64, 64, 1, act=nn.SiLU)

    def loss_of(m, x, y):
        out = m(x)[:, 0]
        return F.smooth_l1_loss(out, y), out, y

    return loop(model, torch.optim.SGD(model.parameters(), 0.05, momentum=0.9), loss_of, X, t)


def multi_label():
    X, _, _ = tabular()
    Y = (X[:, :4] + 0.5 * X[:, 4:8] > 0.5).float()
    model = dense(12, 64, 4)

    def loss_of(m, x, y):
        out = m(x)
        return F.binary_cross_entropy_with_logits(out, y), out, y

    return loop(model, torch.optim.AdamW(model.parameters(), 3e-3), loss_of, X, Y)


def auto_encoder():
    g = torch.Generator().manual_seed(0)
    X = torch.randn(1000, 3, generator=g) @ torch.randn(3, 20, generator=g)
    model = dense(20, 32, 3, 32, 20, act=nn.Tanh)

    def loss_of(m, x):
        out = m(x)
        return F.mse_loss(out, x), out, x

    return loop(model, torch.optim.Adam(model.parameters(), 3e-3), loss_of, X)


class Variational(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = dense(20, 64, 8), dense(4, 64, 20)

    def forward(self, x):
        mean, log_var = self.enc(x).chunk(2, 1)
        z = mean
        if self.training:
            z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(1).mean()
        return self.dec(z), kl


def variational():
    g = torch.Generator().manual_seed(0)
    X = torch.randn(1000, 3, generator=g) @ torch.randn(3, 20, generator=g)
    model = Variational()

    def loss_of(m, x):
        out, kl = m(x)
        return F.mse_loss(out, x) + 0.01 * kl, out, x

    return loop(model, torch.optim.Adam(model.parameters(), 2e-3), loss_of, X, metrics=False)


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.embed, self.head = nn.Embedding(12, 16), nn.Linear(32, 3)
        self.rnn = kind(16, 32, batch_first=True)

    def forward(self, x):
        return self.head(self.rnn(self.embed(x))[0][:, -1])


def tokens(n=1200, length=10):
    g = torch.Generator().manual_seed(0)
    X = torch.randint(0, 12, (n, length), generator=g)
    return X, X[:, -3] // 4


def lstm():
    X, y = tokens()
    model = Recurrent()

    def loss_of(m, x, y):
        out = m(x)
        return F.cross_entropy(out, y), out, y

    return loop(model, torch.optim.Adam(model.parameters(), 1e-2), loss_of, X, y)


class Causal(nn.Module):
    """Next token: a small GPT with tied embeddings and weights of 0.02."""

    def __init__(self, d=32):
        super().__init__()
        self.embed, self.place = nn.Embedding(12, d), nn.Parameter(0.02 * torch.randn(16, d))
        self.block = nn.TransformerEncoderLayer(d, 2, 64, 0.0, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(d)
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, x):
        h = self.embed(x) + self.place[: x.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.norm(self.block(h, src_mask=mask)) @ self.embed.weight.T


def language_model():
    g = torch.Generator().manual_seed(0)
    step = torch.randint(1, 4, (1200, 1), generator=g)
    X = (torch.randint(0, 12, (1200, 1), generator=g) + step * torch.arange(12)) % 12
    model = Causal()

    def loss_of(m, x):
        out = m(x[:, :-1])
        return F.cross_entropy(out.reshape(-1, 12), x[:, 1:].reshape(-1)), None, None

    return loop(model, torch.optim.AdamW(model.parameters(), 3e-3), loss_of, X, metrics=False)


class Residual(nn.Module):
    """A convolutional block whose last scale begins at zero."""

    def __init__(self, c):
        super().__init__()
        self.a, self.b = nn.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)
        self.na, self.nb = nn.BatchNorm2d(c), nn.BatchNorm2d(c)
        nn.init.zeros_(self.nb.weight)

    def forward(self, x):
        return (x + self.nb(self.b(self.na(self.a(x)).relu()))).relu()


def residual_network():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (900,), generator=g)
    X = torch.randn(900, 1, 8, 8, generator=g)
    for k in range(3):
        X[y == k, 0, 2 * k + 1] += 1.0
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), Residual(12), Residual(12),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3),
    )  # fmt: skip

    def loss_of(m, x, y):
        out = m(x)
        return F.cross_entropy(out, y), out, y

    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8 * 22)
    return loop(model, optimizer, loss_of, X, y, schedule=schedule)


def contrastive():
    """Two views of each row; each finds its own among those of the batch."""
    X, _, _ = tabular()
    model = dense(12, 64, 16)

    def loss_of(m, x):
        views = [F.normalize(m(x + 0.3 * torch.randn_like(x)), dim=1) for _ in range(2)]
        logits = views[0] @ views[1].T / 0.2
        return F.cross_entropy(logits, torch.arange(len(x))), None, None

    return loop(model, torch.optim.Adam(model.parameters(), 2e-3), loss_of, X, metrics=False)


def distillation():
    X, _, _ = tabular()
    torch.manual_seed(1)
    teacher, model = dense(12, 32, 5), dense(12, 64, 5)
    soft = (3 * teacher(X)).softmax(1).detach()

    def loss_of(m, x, p):
        out = m(x)
        return F.kl_div(out.log_softmax(1), p, reduction="batchmean"), None, None

    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    return loop(model, optimizer, loss_of, X, soft, metrics=False)


def focal():
    X, t, _ = tabular()
    y = (t > 1.2).long()
    model = dense(12, 64, 2)

    def loss_of(m, x, y):
        out = m(x)
        p = out.log_softmax(1).gather(1, y[:, None])[:, 0]
        return (-((1 - p.exp()) ** 2) * p).mean(), out, y

    return loop(model, torch.optim.Adam(model.parameters(), 3e-3), loss_of, X, y)


def hinge():
    X, t, _ = tabular()
    y = (t > 0).long()
    model = dense(12, 64, 2)

    def loss_of(m, x, y):
        out = m(x)
        return F.multi_margin_loss(out, y), out, y

    return loop(model, torch.optim.SGD(model.parameters(), 0.1), loss_of, X, y)


def sum_reduction():
    X, t, _ = tabular()
    model = dense(12, 64, 1)

    def loss_of(m, x, y):
        out = m(x)[:, 0]
        return F.mse_loss(out, y, reduction="sum"), out, y

    return loop(model, torch.optim.Adam(model.parameters(), 1e-3), loss_of, X, t)


def pretrained():
    """Trained once, and trained on at a tenth of the rate."""
    X, t, _ = tabular()
    y = torch.bucketize(t, torch.tensor([-0.7, 0.7]))
    model = dense(12, 64, 64, 3)

    def loss_of(m, x, y):
        out = m(x)
        return F.cross_entropy(out, y), out, y

    first = torch.optim.Adam(model.parameters(), 3e-3)
    for rows in [r for _ in range(6) for r in torch.randperm(800).split(32)]:
        first.zero_grad()
        loss_of(model, X[rows], y[rows])[0].backward()
        first.step()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-5)
    return loop(model, optimizer, loss_of, X, y, pretrained=True)


def one_at_a_time():
    X, t, _ = tabular(300)
    model = dense(12, 32, 1)

    def loss_of(m, x, y):
        out = m(x)[:, 0]
        return F.mse_loss(out, y), out, y

    optimizer = torch.optim.SGD(model.parameters(), 3e-3)
    return loop(model, optimizer, loss_of, X, t, batch=1, epochs=4, val=100)


def quasi_newton():
    X, t, _ = tabular(400)
    model = dense(12, 16, 1, act=nn.Tanh)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    watch = Watch(model, optimizer, on="collect", every=10)

    def closure():
        optimizer.zero_grad()
        loss = F.mse_loss(model(X)[:, 0], t)
        loss.backward()
        return loss

    for _ in range(40):
        watch.step(optimizer.step(closure))
    watch.end_epoch()
    return watch


def adversarial():
    """A GAN of two dimensions, with two optimizers."""
    g = torch.Generator().manual_seed(0)
    real = torch.randn(1000, 2, generator=g) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    make, tell = dense(4, 32, 32, 2), dense(2, 32, 32, 1, act=nn.LeakyReLU)
    both = nn.ModuleDict({"make": make, "tell": tell})
    optimizers = [torch.optim.Adam(m.parameters(), 5e-4, betas=(0.5, 0.9)) for m in (make, tell)]
    watch = Watch(both, optimizers, on="collect", every=10)
    bce = F.binary_cross_entropy_with_logits
    for _ in range(8):
        for rows in torch.randperm(1000).split(50):
            fake = make(torch.randn(50, 4))
            optimizers[1].zero_grad()
            judged, other = tell(real[rows]), tell(fake.detach())
            loss = bce(judged, torch.ones(50, 1)) + bce(other, torch.zeros(50, 1))
            loss.backward()
            optimizers[1].step()
            optimizers[0].zero_grad()
            bce(tell(fake), torch.ones(50, 1)).backward()
            optimizers[0].step()
            watch.step(loss)
        watch.end_epoch()
    return watch


def policy_gradient():
    """REINFORCE on a bandit: the loss is no measure of anything."""
    g = torch.Generator().manual_seed(0)
    model = dense(4, 32, 3)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    watch = Watch(model, optimizer, on="collect", every=10)
    for _ in range(6):
        for _ in range(40):
            x = torch.randn(64, 4, generator=g)
            spread = torch.distributions.Categorical(logits=model(x))
            action = spread.sample()
            reward = (action == x[:, :3].argmax(1)).float()
            loss = -(spread.log_prob(action) * (reward - reward.mean())).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
        watch.end_epoch()
    return watch


def many_classes():
    """Two hundred classes, few samples of each."""
    g = torch.Generator().manual_seed(0)
    centers = torch.randn(200, 16, generator=g)
    y = torch.randint(0, 200, (2400,), generator=g)
    X = centers[y] + 0.3 * torch.randn(2400, 16, generator=g)
    model = dense(16, 128, 200)

    def loss_of(m, x, y):
        out = m(x)
        return F.cross_entropy(out, y), out, y

    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    return loop(model, optimizer, loss_of, X, y, batch=64, val=400)


def segmentation():
    """A class for each pixel, most of them background."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(400, 1, 12, 12, generator=g)
    y = torch.zeros(400, 12, 12, dtype=torch.long)
    for k in range(400):
        a, b = torch.randint(0, 9, (2,), generator=g).tolist()
        y[k, a : a + 3, b : b + 3] = 1
    X[y[:, None] == 1] += 2.0
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 2, 1),
    )  # fmt: skip

    def loss_of(m, x, y):
        out = m(x)
        return F.cross_entropy(out, y), out, y

    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    return loop(model, optimizer, loss_of, X, y, batch=20, val=100)


def heavy_dropout():
    X, t, _ = tabular()
    y = (t > 0).long()
    model = nn.Sequential(
        nn.Linear(12, 128), nn.ReLU(), nn.Dropout(0.6), nn.Linear(128, 128), nn.ReLU(),
        nn.Dropout(0.6), nn.Linear(128, 2),
    )  # fmt: skip

    def loss_of(m, x, y):
        out = m(x)
        return F.cross_entropy(out, y), out, y

    return loop(model, torch.optim.Adam(model.parameters(), 3e-3), loss_of, X, y)


def hard_and_noisy():
    """A fifth of the variance of the target can be known."""
    X, t, g = tabular(2000)
    y = t + 2.5 * torch.randn(2000, generator=g)
    model = dense(12, 32, 1)

    def loss_of(m, x, y):
        out = m(x)[:, 0]
        return F.mse_loss(out, y), out, y

    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.1)
    return loop(model, optimizer, loss_of, X, y, val=600)


def mixture_of_experts():
    """Each sample goes to one of four experts."""

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(12, 4)
            self.experts = nn.ModuleList([dense(12, 32, 3) for _ in range(4)])

        def forward(self, x):
            share, which = self.gate(x).softmax(1).max(1)
            out = x.new_zeros(len(x), 3)
            for k, expert in enumerate(self.experts):
                if (which == k).any():
                    out[which == k] = share[which == k, None] * expert(x[which == k])
            return out

    X, t, _ = tabular()
    y = torch.bucketize(t, torch.tensor([-0.7, 0.7]))
    model = Experts()

    def loss_of(m, x, y):
        out = m(x)
        return F.cross_entropy(out, y), out, y

    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    return loop(model, optimizer, loss_of, X, y, sparse=("experts",))


PROGRAMS = (
    raw_prices, huber, multi_label, auto_encoder, variational, lstm, language_model,
    residual_network, contrastive, distillation, focal, hinge, sum_reduction, pretrained,
    one_at_a_time, quasi_newton, adversarial, policy_gradient, many_classes, segmentation,
    heavy_dropout, hard_and_noisy, mixture_of_experts,
)  # fmt: skip
