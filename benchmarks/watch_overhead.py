"""What watching costs: MiniLM fine-tuned with and without, step by step in shuffled order.

Every way of watching has a model of its own, all take the same batches, and in each round the ways
take turns in random order. What is timed is the processor time of this process, which other
processes do not add to. In the end the weights of all must be the same to the last bit.

    python benchmarks/watch_overhead.py [--steps 100] [--batch 32] [--length 64] [--ways "every=1"]

The share of the sums counts all; the median over rounds is steadier, and leaves out what is done in
a few steps only.
"""

import argparse
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModel

from pyspectra.training import Watch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from real_models import minilm_dir

FOLDER = minilm_dir()
WAYS = {
    "not watched": None,
    "every=50": {"every": 50},
    "every=1": {"every": 1},
    "every=50, spectra_every=20": {"every": 50, "spectra_every": 20},
}
WARM_UP = 100  # steps in which a watch looks more often than later


class Classifier(torch.nn.Module):
    """A sentence encoder with a head for two classes."""

    def __init__(self):
        super().__init__()
        self.encoder = AutoModel.from_pretrained(FOLDER)
        self.head = torch.nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, tokens):
        return self.head(self.encoder(tokens).last_hidden_state.mean(1))


class Training:
    """One way of watching: a model, its optimizer, and the processor time of its steps."""

    def __init__(self, options):
        torch.manual_seed(0)
        self.model = Classifier()
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-5)
        self.watch = None
        if options is not None:
            self.watch = Watch(self.model, self.optimizer, on="collect", pretrained=True, **options)
        self.times = []

    def step(self, tokens, labels, seed):
        torch.manual_seed(seed)  # of dropout
        start = time.process_time()
        self.optimizer.zero_grad()
        out = self.model(tokens)
        loss = F.cross_entropy(out, labels)
        loss.backward()
        self.optimizer.step()
        if self.watch is not None:
            self.watch.step(loss, inputs=tokens, targets=labels, outputs=out)
        self.times.append(time.process_time() - start)


def batch(n, length, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1000, 30000, (n, length), generator=generator)
    return tokens, torch.randint(0, 2, (n,), generator=generator)


def overhead(times, plain, rng):
    """Return the share of time that is added, its standard error, and the median over rounds."""
    share = times.sum() / plain.sum() - 1
    draws = rng.integers(0, len(plain), (1000, len(plain)))
    spread = times[draws].sum(1) / plain[draws].sum(1) - 1
    return share, spread.std(), np.median(times / plain) - 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    wanted = {"not watched", *options.ways}
    trainings = {name: Training(way) for name, way in WAYS.items() if name in wanted}
    for k in range(WARM_UP):
        for training in trainings.values():
            training.step(*batch(1, 8, k), k)
    order = list(trainings)
    shuffle = random.Random(0).shuffle
    for k in range(WARM_UP, WARM_UP + options.steps):
        shuffle(order)
        for name in order:
            trainings[name].step(*batch(options.batch, options.length, k), k)
    plain = trainings["not watched"]
    for name, training in trainings.items():
        pairs = zip(training.model.parameters(), plain.model.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), name
    times = {name: np.array(t.times[WARM_UP:]) for name, t in trainings.items()}
    rng = np.random.default_rng(0)
    print(f"a step: {1e3 * np.median(times['not watched']):.0f} ms of processor time")
    for name in trainings:
        share, error, median = overhead(times[name], times["not watched"], rng)
        print(f"{name:30s} {100 * share:6.2f} % +- {100 * error:.2f}, median {100 * median:.2f} %")


if __name__ == "__main__":
    main()
