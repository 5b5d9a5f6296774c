"""Data of the programs: houses, clothes, blobs, letters, waves and discs."""

import csv
import functools
import gzip
import inspect
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

FASHION = Path("/usr/share/datasets/fashion-mnist")
HOUSING = Path(__file__).resolve().parents[3] / "examples" / "data" / "california_housing.csv"


@functools.cache
def _housing_table():
    with open(HOUSING) as file:
        rows = [row for row in csv.DictReader(file) if row["total_bedrooms"]]
    names = [name for name in rows[0] if name != "ocean_proximity"]
    table = np.array([[float(row[name]) for name in names] for row in rows], np.float32)
    return np.random.default_rng(0).permutation(table)


def housing(n=2000, *, raw=False, dollars=False):
    """Return features (n, 8) and prices (n, 1) to train with, and 500 to validate."""
    table = torch.from_numpy(_housing_table()[: n + 500].copy())
    x, y = table[:, :8], table[:, 8:]
    if not raw:
        x = (x - x[:n].mean(0)) / x[:n].std(0)
    y = y if dollars else y / 1e5
    return (x[:n], y[:n]), (x[n:], y[n:])


@functools.cache
def _fashion_table():
    kind = "t10k" if not (FASHION / "train-images-idx3-ubyte.gz").exists() else "train"
    with gzip.open(FASHION / f"{kind}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(16 + 6000 * 784)[16:], np.uint8).reshape(-1, 1, 28, 28)
    with gzip.open(FASHION / f"{kind}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + 6000)[8:], np.uint8)
    return images, labels


def fashion(n=1500, *, raw=False, side=14):
    """Return images (n, 1, side, side) with their labels, and the same of 500 for validation."""
    images, labels = _fashion_table()
    x = torch.from_numpy(images[: n + 500].astype(np.float32))
    x = F.avg_pool2d(x, 2) if side == 14 else x
    x = x if raw else (x / 255 - 0.286) / 0.353
    y = torch.from_numpy(labels[: n + 500].astype(np.int64))
    return (x[:n], y[:n]), (x[n:], y[n:])


def blobs(n=1000, classes=4, width=10, spread=1.0, seed=0):
    """Return points around one centre for each class, and their classes, twice."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=generator)
    y = torch.randint(classes, (n + 500,), generator=generator)
    x = centres[y] + spread * torch.randn(n + 500, width, generator=generator)
    return (x[:n], y[:n]), (x[n:], y[n:])


@functools.cache
def text(length=60_000):
    """Return the letters of a Python module as numbers, and how many different ones."""
    import argparse

    letters = inspect.getsource(argparse)[:length]
    alphabet = sorted(set(letters))
    return torch.tensor([alphabet.index(letter) for letter in letters]), len(alphabet)


def windows(span=32, n=1500):
    """Return stretches of text, the same one letter later, and the size of the alphabet."""
    letters, size = text()
    starts = torch.randint(len(letters) - span - 1, (n + 200,))
    rows = torch.stack([letters[start : start + span + 1] for start in starts])
    x, y = rows[:, :-1], rows[:, 1:]
    return (x[:n], y[:n]), (x[n:], y[n:]), size


def waves(n=800, span=30):
    """Return noisy waves (n, span, 1) and the value that follows each of them, twice."""
    phase, pace = torch.rand(n + 200, 1) * 6.28, 0.1 + 0.3 * torch.rand(n + 200, 1)
    curve = torch.sin(phase + pace * torch.arange(span + 1)) + 0.05 * torch.randn(n + 200, span + 1)
    x, y = curve[:, :span, None], curve[:, span:]
    return (x[:n], y[:n]), (x[n:], y[n:])


def discs(n=300, side=24):
    """Return noisy pictures of one disc each, and the masks of the discs, twice."""
    centre = 6 + torch.rand(n + 100, 2, 1, 1) * (side - 12)
    grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    far = ((grid - centre) ** 2).sum(1, keepdim=True).sqrt()
    y = (far < 3 + 3 * torch.rand(n + 100, 1, 1, 1)).float()
    x = y + 0.5 * torch.randn_like(y)
    return (x[:n], y[:n]), (x[n:], y[n:])
