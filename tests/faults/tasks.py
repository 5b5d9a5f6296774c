"""Three small architectures on made-up data that they learn in seconds."""

from __future__ import annotations

import torch
from torch import nn

N_TRAIN, N_VAL, K = 1500, 600, 5


def tabular(seed: int):
    """Ten features; the class is a sector of a curved map of three of them."""
    g = torch.Generator().manual_seed(1000 + seed)
    X = torch.randn(N_TRAIN + N_VAL, 10, generator=g)
    score = torch.stack([X[:, 0], X[:, 1], X[:, 2], X[:, 0] * X[:, 1], X[:, 3] - X[:, 4]], 1)
    return X, (score + 0.2 * torch.randn(score.shape, generator=g)).argmax(1)


def images(seed: int):
    """Ten pixels a side; the class is where and how a stroke lies."""
    g = torch.Generator().manual_seed(2000 + seed)
    n = N_TRAIN + N_VAL
    y = torch.randint(0, K, (n,), generator=g)
    X = 0.6 * torch.randn(n, 1, 10, 10, generator=g)
    at = torch.randint(1, 8, (n,), generator=g)
    for i in range(n):
        k, a = int(y[i]), int(at[i])
        if k == 0:
            X[i, 0, a] += 1.5
        elif k == 1:
            X[i, 0, :, a] += 1.5
        elif k == 2:
            X[i, 0].diagonal()[:] += 1.5
        elif k == 3:
            X[i, 0].flip(1).diagonal()[:] += 1.5
        else:
            X[i, 0, a : a + 2, a : a + 2] += 2.0
    return X, y


def sentences(seed: int):
    """Twelve tokens of twenty; the class is the commonest of the first five."""
    g = torch.Generator().manual_seed(3000 + seed)
    n = N_TRAIN + N_VAL
    y = torch.randint(0, K, (n,), generator=g)
    X = torch.randint(0, 20, (n, 12), generator=g)
    for _ in range(5):
        place = torch.randint(0, 12, (n,), generator=g)
        X[torch.arange(n), place] = y
    return X, y


class Branch(nn.Module):
    """A residual branch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Attention(nn.Module):
    """One block of a transformer, written out."""

    def __init__(self, d: int, act, p: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = nn.MultiheadAttention(d, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), act(), nn.Dropout(p), nn.Linear(2 * d, d))

    def forward(self, x):
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Pool(nn.Module):
    """The mean over tokens."""

    def forward(self, x):
        return x.mean(1)


class Tokens(nn.Module):
    """Embeddings of tokens and of places."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(20, d), nn.Parameter(0.02 * torch.randn(12, d))

    def forward(self, x):
        return self.token(x) + self.place


class Model(nn.Module):
    """A body, which is a list of blocks, and a head."""

    def __init__(self, body: nn.Sequential, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head
        self.cut = self.drop = self.blank = False
        self.after = None

    def forward(self, x):
        if self.blank:
            x = torch.zeros_like(x)
        if self.cut:
            with torch.no_grad():
                x = self.body(x)
        else:
            x = self.body(x)
        if self.drop:
            x = torch.nn.functional.dropout(x, 0.5)
        out = self.head(x)
        return out if self.after is None else self.after(out)


def mlp(act=nn.ReLU, p=0.0, norm=False, width=48, n_out=K):
    layers = []
    for a, b in ((10, width), (width, width), (width, width)):
        layers += [nn.Linear(a, b)] + ([nn.BatchNorm1d(b)] if norm else []) + [act()]
        layers += [nn.Dropout(p)] if p else []
    return Model(nn.Sequential(*layers), nn.Linear(width, n_out))


def cnn(act=nn.ReLU, p=0.0, norm=False, width=12, n_out=K):
    layers = []
    for a, b in ((1, width), (width, 2 * width)):
        layers += [nn.Conv2d(a, b, 3, padding=1)] + ([nn.BatchNorm2d(b)] if norm else [])
        layers += [act(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(8 * width, 32), act()]
    layers += [nn.Dropout(p)] if p else []
    return Model(nn.Sequential(*layers), nn.Linear(32, n_out))


def transformer(act=nn.GELU, p=0.0, norm=True, width=24, n_out=K):
    body = nn.Sequential(Tokens(width), Attention(width, act, p), Attention(width, act, p), Pool())
    return Model(body, nn.Linear(width, n_out))


ARCHITECTURES = {
    "mlp": (tabular, mlp),
    "cnn": (images, cnn),
    "transformer": (sentences, transformer),
}
