"""Healthy programs of other kinds: they make, play, compare, rank and read."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from .data import blobs, discs, fashion, housing, waves, windows
from .healthy import healthy, warm_cosine
from .loops import adam, batches, fit, letter_loss
from .networks import Letters, Recurrent, cnn, mlp


@healthy
def fashion_autoencoder(eye):
    (x, _), (xv, _) = fashion(1500, raw=True)
    x, xv = x.flatten(1) / 255, xv.flatten(1) / 255
    model = nn.Sequential(mlp(196, 64, 8), nn.ReLU(), mlp(8, 64, 196), nn.Sigmoid())
    model = nn.Sequential(*model[0], nn.LeakyReLU(), *model[2], nn.Sigmoid())
    fit(eye, model, ((x, x), (xv, xv)), F.mse_loss, adam(2e-3), epochs=8)


class VAE(nn.Module):
    """A variational autoencoder of 196 pixels."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = mlp(196, 96, 16), mlp(8, 96, 196)

    def forward(self, x):
        mean, log_var = self.encoder(x).chunk(2, 1)
        drawn = mean + torch.randn_like(mean) * (log_var / 2).exp()
        return self.decoder(drawn), mean, log_var


@healthy
def fashion_vae(eye):
    (x, _), (xv, _) = fashion(1500, raw=True)
    x, xv = x.flatten(1) / 255, xv.flatten(1) / 255
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    watch = eye(model, optimizer)

    def cost(rows):
        out, mean, log_var = model(rows)
        fit = F.binary_cross_entropy_with_logits(out, rows, reduction="sum")
        return (fit - 0.5 * (1 + log_var - mean**2 - log_var.exp()).sum()) / len(rows), out

    for _ in range(6):
        for rows, _ in batches(x, x, 50):
            optimizer.zero_grad()
            loss, out = cost(rows)
            loss.backward()
            optimizer.step()
            watch.step(loss, inputs=rows, targets=rows, outputs=out)
        with watch.evaluating():
            watch.eval_batch(cost(xv)[0])
        watch.end_epoch()


@healthy
def ring_gan(eye):
    angle = torch.rand(2000) * 6.28
    real = torch.stack((angle.cos(), angle.sin()), 1) + 0.05 * torch.randn(2000, 2)
    maker, judge = mlp(4, 64, 64, 2), mlp(2, 64, 64, 1, act=lambda: nn.LeakyReLU(0.2))
    first = torch.optim.Adam(maker.parameters(), 1e-3, betas=(0.5, 0.999))
    second = torch.optim.Adam(judge.parameters(), 1e-3, betas=(0.5, 0.999))
    both = nn.ModuleDict({"maker": maker, "judge": judge})
    watch = eye(both, [first, second])
    ones, zeros = torch.ones(50, 1), torch.zeros(50, 1)
    for _ in range(8):
        for rows, _ in batches(real, real, 50):
            fake = maker(torch.randn(50, 4))
            second.zero_grad()
            lost = F.binary_cross_entropy_with_logits(judge(rows), ones)
            lost = lost + F.binary_cross_entropy_with_logits(judge(fake.detach()), zeros)
            lost.backward()
            second.step()
            first.zero_grad()
            loss = F.binary_cross_entropy_with_logits(judge(fake), ones)
            loss.backward()
            first.step()
            watch.step(loss)
        watch.end_epoch()


@healthy
def letters_lstm(eye):
    train, val, size = windows(n=700)
    fit(
        eye,
        Recurrent(size, 64, size, cell=nn.LSTM, letters=True),
        (train, val),
        letter_loss,
        adam(3e-3),
        clip=1.0,
        epochs=4,
    )


@healthy
def letters_tied_transformer(eye):
    train, val, size = windows(n=700)
    fit(
        eye,
        Letters(size, tied=True),
        (train, val),
        letter_loss,
        lambda p: torch.optim.AdamW(p, 3e-3, betas=(0.9, 0.95)),
        schedule=warm_cosine,
        per_batch=True,
        clip=1.0,
        epochs=4,
    )


class Reverser(nn.Module):
    """An encoder and a decoder of GRUs; 0 is padding, 1 the start."""

    def __init__(self, size=12, width=48):
        super().__init__()
        self.embed = nn.Embedding(size, width, padding_idx=0)
        self.encoder, self.decoder = (
            nn.GRU(width, width, batch_first=True),
            nn.GRU(width, width, batch_first=True),
        )
        self.head = nn.Linear(width, size)

    def forward(self, x):
        source, before = x[:, 0], x[:, 1]
        _, state = self.encoder(self.embed(source))
        return self.head(self.decoder(self.embed(before), state)[0])


def reversals(n):
    """Return numbers in rows of different lengths with their shifted reversals, and these."""
    rows = torch.randint(2, 12, (n, 7))
    length = torch.randint(4, 8, (n, 1))
    rows[torch.arange(7) >= length] = 0
    turned = torch.zeros_like(rows)
    for row, k, place in zip(rows, length[:, 0].tolist(), range(n), strict=True):
        turned[place, :k] = row[:k].flip(0)
    before = torch.cat((torch.ones(n, 1, dtype=torch.long), turned[:, :-1]), 1)
    return torch.stack((rows, before), 1), turned


@healthy
def reversing_seq2seq(eye):
    fit(
        eye,
        Reverser(),
        (reversals(1500), reversals(300)),
        lambda out, y: F.cross_entropy(out.flatten(0, 1), y.flatten(), ignore_index=0),
        adam(3e-3),
        epochs=6,
    )


@healthy
def fashion_contrastive(eye):
    (x, _), _ = fashion(1200)
    model = nn.Sequential(cnn(32), nn.ReLU(), nn.Linear(32, 16))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    watch = eye(model, optimizer)
    for _ in range(5):
        for rows, _ in batches(x, x, 60):
            views = torch.cat(
                (
                    rows + 0.3 * torch.randn_like(rows),
                    rows.roll(1, -1) + 0.3 * torch.randn_like(rows),
                )
            )
            z = F.normalize(model(views))
            alike = (z @ z.T / 0.2).masked_fill(torch.eye(len(z), dtype=torch.bool), -1e9)
            loss = F.cross_entropy(alike, torch.arange(len(z)).roll(len(rows)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
        watch.end_epoch()


@healthy
def house_multitask(eye):
    (x, y), (xv, yv) = housing()
    data = (x, torch.cat((y, (y > 2).float()), 1)), (xv, torch.cat((yv, (yv > 2).float()), 1))

    def loss(out, y):
        return F.mse_loss(out[:, 0], y[:, 0]) + F.binary_cross_entropy_with_logits(
            out[:, 1], y[:, 1]
        )

    fit(eye, mlp(8, 64, 2), data, loss, adam(2e-3), epochs=10)


@healthy
def blobs_multilabel(eye):
    (x, _), (xv, _) = blobs(1500, width=12)
    rule = torch.randn(12, 6)
    data = (x, (x @ rule > 2).float()), (xv, (xv @ rule > 2).float())
    fit(eye, mlp(12, 64, 6), data, F.binary_cross_entropy_with_logits, adam(3e-3), epochs=10)


@healthy
def pole_policy_gradient(eye):
    policy = mlp(4, 32, 2, act=nn.Tanh)
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    watch = eye(policy, optimizer)
    for _ in range(80):
        state, chances, alive, steps = torch.randn(16, 4) * 0.05, [], torch.ones(16), []
        for _ in range(40):
            drawn = torch.distributions.Categorical(logits=policy(state))
            push = drawn.sample()
            chances.append(drawn.log_prob(push))
            place, speed, angle, turn = state.unbind(1)
            force = 10.0 * (2 * push - 1)
            spin = (9.8 * angle - 0.9 * force * angle.cos() / 1.1) / 0.6
            state = torch.stack(
                (
                    place + 0.02 * speed,
                    speed + 0.02 * force,
                    angle + 0.02 * turn,
                    turn + 0.02 * spin,
                ),
                1,
            )
            alive = alive * (state[:, 2].abs() < 0.2)
            steps.append(alive)
        gain = torch.stack(steps).flip(0).cumsum(0).flip(0)
        weight = (gain - gain.mean()) / (gain.std() + 1e-6)
        loss = -(torch.stack(chances) * weight).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss, reward=float(gain[0].mean()))
    watch.end_epoch()


@healthy
def discs_unet(eye):
    class Unet(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.deep = nn.Sequential(
                nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(16, 8, 2, 2)
            )
            self.head = nn.Conv2d(16, 1, 1)

        def forward(self, x):
            high = self.down(x)
            return self.head(torch.cat((high, self.deep(F.max_pool2d(high, 2))), 1))

    def loss(out, y):
        p = out.sigmoid()
        dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
        return F.binary_cross_entropy_with_logits(out, y) + dice

    fit(eye, Unet(), discs(), loss, adam(5e-3), batch=15, epochs=6)


@healthy
def ratings_sparse_embeddings(eye):
    class Factors(nn.Module):
        def __init__(self):
            super().__init__()
            self.person, self.film = (
                nn.Embedding(200, 8, sparse=True),
                nn.Embedding(100, 8, sparse=True),
            )
            nn.init.normal_(self.person.weight, std=0.1)
            nn.init.normal_(self.film.weight, std=0.1)

        def forward(self, x):
            return (self.person(x[:, 0]) * self.film(x[:, 1])).sum(1)

    left, right = torch.randn(200, 3), torch.randn(100, 3)
    pairs = torch.stack((torch.randint(200, (5000,)), torch.randint(100, (5000,))), 1)
    y = (left[pairs[:, 0]] * right[pairs[:, 1]]).sum(1)
    fit(
        eye,
        Factors(),
        ((pairs[:4500], y[:4500]), (pairs[4500:], y[4500:])),
        F.mse_loss,
        lambda p: torch.optim.SparseAdam(p, 2e-2),
        batch=100,
        epochs=10,
    )


@healthy
def waves_gru(eye):
    fit(eye, Recurrent(1, 24, 1), waves(), F.mse_loss, adam(5e-3), epochs=6)


@healthy
def corridor_q_learning(eye):
    net = mlp(6, 32, 2)
    frozen = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    watch = eye(net, optimizer)
    hot = torch.eye(6)
    for step in range(600):
        place, push = torch.randint(5, (32,)), torch.randint(2, (32,))
        moved = (place + 2 * push - 1).clamp(0, 5)
        goal = (moved == 5).float()
        with torch.no_grad():
            target = goal + 0.9 * (1 - goal) * frozen(hot[moved]).max(1).values
        loss = F.smooth_l1_loss(net(hot[place]).gather(1, push[:, None])[:, 0], target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(net.parameters(), 1.0)
        optimizer.step()
        watch.step(loss)
        if step % 50 == 49:
            frozen.load_state_dict(net.state_dict())
    watch.end_epoch()


@healthy
def fashion_triplets(eye):
    (x, y), _ = fashion(1200)
    model = mlp(196, 64, 16, flat=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    watch = eye(model, optimizer)
    of_class = [x[y == k] for k in range(10)]
    for _ in range(250):
        kind = torch.randint(10, (24,))
        other = (kind + torch.randint(1, 10, (24,))) % 10

        def draw(kinds):
            return torch.stack(
                [of_class[k][torch.randint(len(of_class[k]), ())] for k in kinds.tolist()]
            )

        loss = F.triplet_margin_loss(model(draw(kind)), model(draw(kind)), model(draw(other)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss)


@healthy
def blobs_wgan_with_penalty(eye):
    (real, _), _ = blobs(1500, width=2, spread=0.3)
    maker, judge = mlp(4, 64, 2), mlp(2, 64, 64, 1)
    first = torch.optim.Adam(maker.parameters(), 5e-4, betas=(0.0, 0.9))
    second = torch.optim.Adam(judge.parameters(), 5e-4, betas=(0.0, 0.9))
    watch = eye(nn.ModuleList((maker, judge)), (first, second))
    for _ in range(6):
        for rows, _ in batches(real, real, 50):
            for _ in range(2):
                fake = maker(torch.randn(len(rows), 4)).detach()
                between = (rows + torch.rand(len(rows), 1) * (fake - rows)).requires_grad_()
                slope = torch.autograd.grad(judge(between).sum(), between, create_graph=True)[0]
                lost = (
                    judge(fake).mean()
                    - judge(rows).mean()
                    + 10 * (slope.norm(dim=1) - 1).square().mean()
                )
                second.zero_grad()
                lost.backward()
                second.step()
            loss = -judge(maker(torch.randn(len(rows), 4))).mean()
            first.zero_grad()
            loss.backward()
            first.step()
            watch.step(loss)
        watch.end_epoch()
