"""The same number means the same to every public function that takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pyspectra as ps
from pyspectra.errors import ArgumentError

W = np.random.default_rng(0).standard_normal((20, 20))
SCORES = {"w": torch.ones(4, 4)}

SEEDED: dict[str, Callable[[Any], object]] = {
    "analyze": lambda seed: ps.analyze({"a.weight": W}, seed=seed, progress=False),
    "fit_powerlaw": lambda seed: ps.fit_powerlaw(W[0] ** 2, bootstrap=2, seed=seed),
    "fit_powerlaw_batch": lambda seed: ps.fit_powerlaw_batch([W[0] ** 2], bootstrap=2, seed=seed),
    "find_traps": lambda seed: ps.find_traps(W, seed=seed),
    "remove_traps": lambda seed: ps.remove_traps({"a.weight": W}, seed=seed),
    "select": lambda seed: ps.finetune.select(SCORES, 0.5, how="random", seed=seed),
    "ChildAdamW": lambda seed: ps.optim.ChildAdamW([torch.nn.Parameter(torch.ones(2))], seed=seed),
}
COUNTED: dict[str, Callable[[Any], object]] = {
    "analyze": lambda n: ps.analyze({"a.weight": W}, min_evals=n, progress=False),
    "fit_powerlaw": lambda n: ps.fit_powerlaw(W[0] ** 2, estimator="hill", k=n),
    "farms": lambda n: ps.farms(W, window=n),
    "marchenko_pastur": lambda n: ps.marchenko_pastur(np.ones(n if n > 0 else 3), 4, n),
    "set_num_threads": ps.set_num_threads,
}
SHARED: dict[str, Callable[[Any], object]] = {
    "svd_smoothing": lambda share: ps.svd_smoothing({"a.weight": W}, keep=share),
    "select": lambda share: ps.finetune.select(SCORES, share),
    "child_mask": lambda share: ps.finetune.child_mask(SCORES, share),
}


@pytest.mark.parametrize("name", SEEDED)
def test_seeds(name: str) -> None:
    for seed in (3, np.int64(3), np.uint64(2**64 - 1), torch.tensor(3), 2**64 - 1):
        SEEDED[name](seed)
    for wrong, kind in ((2**64, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(ArgumentError) as raised:
            SEEDED[name](wrong)
        assert isinstance(raised.value, kind)
        assert raised.value.complaint == f"must be an integer in [0, 2^64), got {wrong}"
        assert (raised.value.function, raised.value.argument) == (name, "seed")


@pytest.mark.parametrize("name", COUNTED)
def test_counts(name: str) -> None:
    threads = ps.get_num_threads()
    for count in (2, np.int8(2), torch.tensor(2)):
        COUNTED[name](count)
    for wrong, kind in ((0, ValueError), (2.0, TypeError), (True, TypeError)):
        if name == "marchenko_pastur" and kind is TypeError:
            continue  # its lambda needs an integer
        with pytest.raises(ArgumentError) as raised:
            COUNTED[name](wrong)
        assert isinstance(raised.value, kind)
        assert raised.value.function == name
    ps.set_num_threads(threads)


@pytest.mark.parametrize("name", SHARED)
def test_shares(name: str) -> None:
    for share in (0.5, np.float32(0.5), torch.tensor(0.5), 1):
        SHARED[name](share)
    for wrong, kind in ((0.0, ValueError), (1.1, ValueError), (np.nan, ValueError), ("x", None)):
        with pytest.raises(ArgumentError) as raised:
            SHARED[name](wrong)
        assert kind is None or isinstance(raised.value, kind)
        assert raised.value.function == name
