"""A global mask over 22 million scores in 37 tensors, as many as MiniLM has parameters.

Peers need the scores joined into one array; that copy is part of their time.
"""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyspectra.finetune import child_mask  # noqa: E402

SIZE, TENSORS, P = 22_000_000, 37, 0.3
K = SIZE - math.ceil((1 - P) * (SIZE - 1))


def scores(kind):
    """Squares of gradients whose scale varies, or half of them zero (ReLU)."""
    rng = np.random.default_rng(0)
    F = rng.standard_normal(SIZE, dtype=np.float32) ** 2
    F *= np.exp(3 * rng.standard_normal(SIZE, dtype=np.float32) - 20)
    if kind == "half zeros":
        F[rng.random(SIZE, dtype=np.float32) < 0.5] = 0
    parts = np.array_split(F, TENSORS)
    return {f"w{i}": torch.from_numpy(part.copy()) for i, part in enumerate(parts)}


def masks(F, threshold):
    return {name: score >= threshold for name, score in F.items()}


def pyspectra_mask(F):
    return child_mask(F, P)


def numpy_percentile(F):
    joined = np.concatenate([score.numpy() for score in F.values()])
    return masks(F, float(np.percentile(joined, (1 - P) * 100)))


def numpy_partition(F):
    joined = np.concatenate([score.numpy() for score in F.values()])
    return masks(F, float(np.partition(joined, SIZE - K)[SIZE - K]))


def torch_kthvalue(F):
    joined = torch.cat(list(F.values()))
    return masks(F, joined.kthvalue(SIZE - K + 1).values)


def torch_topk(F):
    joined = torch.cat(list(F.values()))
    return masks(F, joined.topk(K, sorted=False).values.min())


@pytest.mark.parametrize("kind", ["spread", "half zeros"])
@pytest.mark.parametrize(
    "way", [pyspectra_mask, numpy_percentile, numpy_partition, torch_kthvalue, torch_topk]
)
@pytest.mark.benchmark(group="global mask, 22M scores")
def test_global_mask(benchmark, way, kind):
    F = scores(kind)
    found = benchmark.pedantic(way, args=(F,), rounds=5, warmup_rounds=1)
    # np.percentile interpolates in float32, and may round down to the neighbour below.
    slack = 2 if way is numpy_percentile else 0
    assert 0 <= sum(int(mask.sum()) for mask in found.values()) - K <= slack
