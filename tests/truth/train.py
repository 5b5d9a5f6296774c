"""Train the networks whose truth is known, and keep their weights: ``states/*.npz``.

    python tests/truth/train.py OUT [NAME ...]

Every network is small and trains in seconds on one thread, from a fixed seed. Each file holds the
weight matrices as float16, and what is true of them: the accuracy (R^2 for California housing) on
data that training has not seen. Data: digits and California housing as scikit-learn distributes
them (digits.csv.gz; a CSV file), Fashion-MNIST as Debian's ``dataset-fashion-mnist`` does.
"""

import argparse
import csv
import gzip
import json
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

FASHION = Path("/usr/share/datasets/fashion-mnist")
DIGITS = CALIFORNIA = None  # paths, from the command line


# --- data ---------------------------------------------------------------------------------------


@cache
def digits():
    with gzip.open(DIGITS) as file:
        rows = np.loadtxt(file, delimiter=",")
    x = torch.tensor(rows[:, :64] / 8.0 - 1.0, dtype=torch.float32)
    return _split(x, torch.tensor(rows[:, 64]).long(), 500)


@cache
def california():
    with open(CALIFORNIA) as file:
        rows = list(csv.reader(file))[1:]
    numbers = np.array([[float(v or "nan") for v in r[:9]] for r in rows])
    numbers = numbers[np.isfinite(numbers).all(1)]
    x = numbers[:, :8].copy()
    x[:, 3:7] = np.log(x[:, 3:7])
    x = (x - x.mean(0)) / x.std(0)
    y = np.log(numbers[:, 8])
    y = (y - y.mean()) / y.std()
    return _split(torch.tensor(x).float(), torch.tensor(y).float(), 4000)


@cache
def fashion(n=12000):
    def read(name, skip):
        with gzip.open(FASHION / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=skip)

    out = []
    for part, count in (("train", n), ("t10k", 4000)):
        x = read(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:count]
        y = read(f"{part}-labels-idx1-ubyte.gz", 8)[:count]
        out += [torch.tensor(x / 127.5 - 1.0).float(), torch.tensor(y.astype(np.int64))]
    return tuple(out)


def _split(x, y, n_test):
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return x[n_test:], y[n_test:], x[:n_test], y[:n_test]


# --- networks -----------------------------------------------------------------------------------


def mlp(*sides, act=nn.ReLU):
    layers = []
    for a, b in pairwise(sides):
        layers += [nn.Linear(a, b), act()]
    return nn.Sequential(*layers[:-1])


def separable(width=32):
    """A depthwise-separable CNN."""

    def block(a, b, stride):
        return [
            nn.Conv2d(a, a, 3, stride, 1, groups=a, bias=False), nn.BatchNorm2d(a), nn.ReLU(),
            nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
        ]  # fmt: skip

    return nn.Sequential(
        nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        *block(width, 2 * width, 1), *block(2 * width, 2 * width, 2),
        *block(2 * width, 2 * width, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    )  # fmt: skip


def cnn(width=16):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(2 * width * 16, 10),
    )  # fmt: skip


class Residual(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.one = nn.Conv2d(a, b, 3, stride, 1, bias=False)
        self.two = nn.Conv2d(b, b, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(b), nn.BatchNorm2d(b)])
        self.short = nn.Conv2d(a, b, 1, stride, bias=False)

    def forward(self, x):
        y = F.relu(self.norms[0](self.one(x)))
        return F.relu(self.norms[1](self.two(y)) + self.short(x))


def resnet():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Residual(16, 32, 2), Residual(32, 32, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 10),
    )  # fmt: skip


class RowsLSTM(nn.Module):
    """Reads an image row by row."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(28, 48, batch_first=True)
        self.out = nn.Linear(48, 10)

    def forward(self, x):
        return self.out(self.lstm(x[:, 0])[0][:, -1])


class Patches(nn.Module):
    """A transformer of two blocks on the 8 rows of a digit."""

    def __init__(self, width=48):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.place = nn.Parameter(torch.randn(8, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, 10)

    def forward(self, x):
        return self.out(self.blocks(self.embed(x.reshape(-1, 8, 8)) + self.place).mean(1))


class RowsGRU(nn.Module):
    """Reads an image row by row."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(28, 64, batch_first=True)
        self.out = nn.Linear(64, 10)

    def forward(self, x):
        return self.out(self.gru(x[:, 0])[0][:, -1])


class Mixer(nn.Module):
    """Mixes the 8 rows of a digit, and then the channels, twice."""

    def __init__(self, width=64):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(4)])
        self.rows = nn.ModuleList([mlp(8, 48, 8, act=nn.GELU) for _ in range(2)])
        self.channels = nn.ModuleList([mlp(width, 2 * width, width, act=nn.GELU) for _ in range(2)])
        self.out = nn.Linear(width, 10)

    def forward(self, x):
        x = self.embed(x.reshape(-1, 8, 8))
        for i in range(2):
            x = x + self.rows[i](self.norms[2 * i](x).mT).mT
            x = x + self.channels[i](self.norms[2 * i + 1](x))
        return self.out(x.mean(1))


class Vit(nn.Module):
    """A vision transformer: 16 patches of 2 x 2 pixels of a digit, and a token for the class."""

    def __init__(self, width=48):
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, 2)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.place = nn.Parameter(torch.randn(17, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, 0.0, F.gelu, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, 10)

    def forward(self, x):
        x = self.embed(x.reshape(-1, 1, 8, 8)).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), 1, -1), x], 1) + self.place
        return self.out(self.blocks(x)[:, 0])


class Dense(nn.Module):
    """A block of DenseNet on digits: each convolution reads all that came before."""

    def __init__(self, growth=24, depth=4):
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        sides = [32 + i * growth for i in range(depth + 1)]
        self.norms = nn.ModuleList([nn.BatchNorm2d(n) for n in sides])
        self.convs = nn.ModuleList(
            [nn.Conv2d(n, growth, 3, padding=1, bias=False) for n in sides[:-1]]
        )
        self.out = nn.Linear(sides[-1], 10)

    def forward(self, x):
        x = self.first(x.reshape(-1, 1, 8, 8))
        for norm, conv in zip(self.norms[:-1], self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return self.out(F.relu(self.norms[-1](x)).mean((2, 3)))


class ConvNext(nn.Module):
    """Blocks of a depthwise 5 x 5, a norm over channels and two pointwise layers."""

    def __init__(self, width=40, depth=2):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 4, 4)
        self.depthwise = nn.ModuleList(
            [nn.Conv2d(width, width, 5, padding=2, groups=width) for _ in range(depth)]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(depth)])
        self.pointwise = nn.ModuleList(
            [mlp(width, 3 * width, width, act=nn.GELU) for _ in range(depth)]
        )
        self.out = nn.Linear(width, 10)

    def forward(self, x):
        x = self.stem(x)
        for i, conv in enumerate(self.depthwise):
            y = self.norms[i](conv(x).movedim(1, -1))
            x = x + self.pointwise[i](y).movedim(-1, 1)
        return self.out(x.mean((2, 3)))


class Gated(nn.Module):
    """Residual layers whose one half gates the other (SwiGLU), on a table."""

    def __init__(self, width=48, depth=2):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(depth)])
        self.up = nn.ModuleList([nn.Linear(width, 4 * width) for _ in range(depth)])
        self.down = nn.ModuleList([nn.Linear(2 * width, width) for _ in range(depth)])
        self.out = nn.Linear(width, 1)

    def forward(self, x):
        x = self.embed(x)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            a, b = up(norm(x)).chunk(2, -1)
            x = x + down(F.silu(a) * b)
        return self.out(x)


# --- training -----------------------------------------------------------------------------------


def fit(make, data, seed, *, epochs, lr=1e-3, batch=64, decay=0.0, noise=0.0, limit=None,
        optimizer=torch.optim.AdamW):  # fmt: skip
    """Return the state dict and what it reaches; `noise` is the share of labels drawn at random."""
    torch.manual_seed(seed)
    x, y, x_test, y_test = data()
    x, y = x[:limit], y[:limit].clone()
    if noise:
        wrong = torch.rand(len(y)) < noise
        y[wrong] = torch.randint(0, 10, (int(wrong.sum()),))
    net = make()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    opt = optimizer(net.parameters(), lr=lr, weight_decay=decay)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, lr, steps)
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(batch):
            out = net(x[part])
            loss = (
                F.mse_loss(out[:, 0], y[part])
                if y.is_floating_point()
                else F.cross_entropy(out, y[part])
            )
            opt.zero_grad()
            loss.backward()
            opt.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        facts = {"test": _score(net, x_test, y_test), "train": _score(net, x, y)}
    return net.state_dict(), before, facts


def _score(net, x, y):
    out = torch.cat([net(part) for part in x.split(1000)])
    if y.is_floating_point():
        return float(1 - F.mse_loss(out[:, 0], y) / y.var())
    return float((out.argmax(1) == y).float().mean())


CHOSEN, FRESH, LATER = range(5), range(100, 105), range(500, 505)
SGD = partial(torch.optim.SGD, momentum=0.9)

# Networks, and data with the number of samples if not all.
NETS = {
    "separable": (separable, fashion), "cnn": (cnn, fashion),
    "digits": (partial(mlp, 64, 64, 32, 10), digits),
    "digits_wide": (partial(mlp, 64, 128, 64, 10), digits),
    "digits_deep": (partial(mlp, 64, 64, 64, 10), digits),
    "california": (partial(mlp, 8, 64, 64, 1), california),
    "california_deep": (partial(mlp, 8, 64, 64, 64, 1), california),
    "transformer": (Patches, digits),
    "lstm": (RowsLSTM, partial(fashion, 6000)), "resnet": (resnet, partial(fashion, 6000)),
    "gru": (RowsGRU, partial(fashion, 6000)), "mixer": (Mixer, digits),
    "tanh": (partial(mlp, 8, 96, 64, 1, act=nn.Tanh), california),
    "momentum": (partial(mlp, 64, 160, 96, 10), digits),
    "vit": (Vit, digits), "dense": (Dense, digits), "convnext": (ConvNext, partial(fashion, 6000)),
    "gated": (Gated, california),
}  # fmt: skip
MANY, SOME = (*CHOSEN, *FRESH), (0, 1, *FRESH)

# Name -> network, seeds and how it is trained. No rule was chosen on the last eleven.
RUNS = {
    "separable": ("separable", MANY, {"epochs": 5, "lr": 6e-3}),
    "cnn": ("cnn", SOME, {"epochs": 4, "lr": 3e-3}),
    "digits": ("digits", MANY, {"epochs": 20, "lr": 3e-3}),
    "digits_wide": ("digits_wide", SOME, {"epochs": 12, "lr": 1e-3}),
    "california": ("california", MANY, {"epochs": 12, "lr": 4e-3, "batch": 128}),
    "california_deep": (
        "california_deep", MANY, {"epochs": 12, "lr": 3e-3, "batch": 128, "decay": 0.1}
    ),
    "memorised": (
        "digits_wide", SOME, {"epochs": 150, "lr": 3e-3, "noise": 1.0, "limit": 600}
    ),
    **{
        f"noise{n}": ("digits_deep", (0, 100), {"epochs": 25, "lr": 3e-3, "noise": n / 100})
        for n in (0, 20, 40, 60, 80, 100)
    },
    "digits_sgd": (
        "digits_deep", SOME, {"epochs": 20, "lr": 0.05, "optimizer": SGD, "decay": 1e-4}
    ),
    "digits_decay": ("digits_deep", (0, 1, 100), {"epochs": 20, "lr": 3e-3, "decay": 0.3}),
    "transformer": ("transformer", FRESH, {"epochs": 15, "lr": 2e-3}),
    "lstm": ("lstm", FRESH, {"epochs": 5, "lr": 5e-3}),
    "resnet": ("resnet", FRESH, {"epochs": 4, "lr": 5e-3}),
    "gru": ("gru", (200,), {"epochs": 5, "lr": 5e-3}),
    "mixer": ("mixer", (200,), {"epochs": 15, "lr": 2e-3}),
    "tanh": ("tanh", (200,), {"epochs": 12, "lr": 3e-3, "batch": 128}),
    "momentum": ("momentum", (200,), {"epochs": 25, "lr": 0.05, "optimizer": SGD}),
    "vit": ("vit", LATER, {"epochs": 12, "lr": 3e-3}),
    "dense": ("dense", LATER, {"epochs": 6, "lr": 5e-3}),
    "convnext": ("convnext", LATER, {"epochs": 3, "lr": 5e-3}),
    "gated": ("gated", LATER, {"epochs": 4, "lr": 3e-3, "batch": 128}),
}  # fmt: skip


def main():
    global DIGITS, CALIFORNIA
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--digits", required=True)
    parser.add_argument("--california", required=True)
    options = parser.parse_args()
    DIGITS, CALIFORNIA = options.digits, options.california
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, (net, seeds, how) in RUNS.items():
        for seed in seeds if name in options.names or not options.names else ():
            path = options.out / f"{name}-{seed}.npz"
            if path.exists():
                continue
            state, before, facts = fit(*NETS[net], seed, **how)
            kept = {k: v.numpy().astype(np.float16) for k, v in state.items() if v.ndim > 1}
            first = {k: v.numpy().astype(np.float16) for k, v in before.items() if v.ndim > 1}
            np.savez_compressed(path, **kept)
            np.savez_compressed(options.out / f"before-{name}-{seed}.npz", **first)
            path.with_suffix(".json").write_text(json.dumps(facts))
            print(
                name,
                seed,
                {k: round(v, 3) for k, v in facts.items()},
                path.stat().st_size,
                flush=True,
            )


if __name__ == "__main__":
    main()
