"""What does it save to end trials by findings? A search on Fashion-MNIST; table of docs/search.md.

    python benchmarks/search.py run OUT [--seeds 10]
    python benchmarks/search.py table OUT

Random trials of a network of one hidden layer, of which a third has a fault on purpose, and in
which learning rates reach far too high. Every trial is trained to its end once, watched, and its
validation and findings are kept; then the same trials are replayed to Optuna with each pruner. So
all of them see the same trials, and what a pruned trial would have come to is known.
"""

import argparse
import gzip
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from pyspectra.report.findings import Finding
from pyspectra.training import Watch, search

DATA = Path("/usr/share/datasets/fashion-mnist")
TRIALS, STEPS, BATCH, EVALUATED, TRAIN = 40, 400, 64, 40, 6000
FAULTS = ("no zero_grad", "softmax twice", "zero weights", "uphill")


@dataclass(frozen=True)
class Config:
    lr: float
    momentum: float
    hidden: int
    activation: Literal["relu", "tanh", "sigmoid"]
    loss: Literal["cross_entropy", "mse"]
    fault: int  # number of a fault, or beyond them: none


SPACE = search.Space(
    {
        "lr": search.Range(1e-3, 100.0, log=True),
        "momentum": search.Range(0.0, 0.95),
        "hidden": search.Range(16, 256, log=True),
        "activation": search.Choice(["relu", "tanh", "sigmoid"]),
        "loss": search.Choice(["cross_entropy", "mse"]),
        "fault": search.Range(0, 3 * len(FAULTS) - 1),
    },
    Config,
)


def load():
    with gzip.open(DATA / "train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(DATA / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    x = torch.from_numpy((pixels[: TRAIN + 2000].astype(np.float32) / 255 - 0.2860) / 0.3530)
    y = torch.from_numpy(labels[: TRAIN + 2000].astype(np.int64))
    return (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:])


def fault_of(config):
    return FAULTS[config.fault] if config.fault < len(FAULTS) else None


def build(config):
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[config.activation]
    layers = [nn.Linear(784, config.hidden), activation(), nn.Linear(config.hidden, 10)]
    if fault_of(config) == "softmax twice":
        layers.append(nn.Softmax(1))
    model = nn.Sequential(*layers)
    if fault_of(config) == "zero weights":
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
    return model


def train(config, train_part, val_part, seed):
    """Return accuracies of validation and findings of a trial that nothing ends."""
    torch.manual_seed(seed)
    (x, y), (xv, yv) = train_part, val_part
    model = build(config)
    optimizer = torch.optim.SGD(model.parameters(), config.lr, config.momentum)
    watch = Watch(model, optimizer, on="collect", every=10, planned_steps=STEPS)
    accuracies, findings = [], []
    for step in range(1, STEPS + 1):
        rows = torch.randint(0, len(x), (BATCH,))
        if fault_of(config) != "no zero_grad":
            optimizer.zero_grad()
        outputs = model(x[rows])
        if config.loss == "mse" and fault_of(config) != "softmax twice":
            loss = mse_loss(outputs, one_hot(y[rows], 10).float())
        else:
            loss = cross_entropy(outputs, y[rows])
        (-loss if fault_of(config) == "uphill" else loss).backward()
        optimizer.step()
        new = watch.step(loss)
        if step % EVALUATED == 0:
            with torch.no_grad():
                outputs = model(xv)
            right = float((outputs.argmax(1) == yv).float().mean())
            accuracies.append(right if bool(outputs.isfinite().all()) else 0.0)
            new += watch.end_epoch(val_accuracy=accuracies[-1])
        findings += [(step, finding.code, finding.severity) for finding in new]
    watch.close()
    return accuracies, findings


def run(out, seeds):
    torch.set_num_threads(1)
    parts = load()
    for seed in range(seeds):
        trials = search.Trials(out / f"seed{seed}.jsonl", better="higher")
        for values in trials.missing(search.random(SPACE, TRIALS, seed=seed)):
            accuracies, findings = train(SPACE.config(values), *parts, seed)
            trials.add(values, accuracies[-1], accuracies=accuracies, findings=findings)
        print(seed, trials.best.result, flush=True)


# --- replay -------------------------------------------------------------------------------------

PRUNERS = {
    "none": (None, optuna.pruners.NopPruner),
    "MedianPruner": (None, optuna.pruners.MedianPruner),
    "errors": ("error", optuna.pruners.NopPruner),
    "errors and warnings": ("warning", optuna.pruners.NopPruner),
    "errors and MedianPruner": ("error", optuna.pruners.MedianPruner),
}


def replay(trials, severity, pruner):
    """Return for each trial the step at which it ended, and whether it was pruned."""
    study = optuna.create_study(direction="maximize", pruner=pruner())
    ends = []
    for recorded in trials:
        trial = study.ask()
        listener = search.OptunaFindings(trial, monitor="val_accuracy", severity=severity)
        found, step = list(recorded.notes["findings"]), 0
        try:
            for step in range(1, STEPS + 1):
                listener.found(
                    [
                        Finding(code=c, severity=s, message="", step=at)
                        for at, c, s in found
                        if at == step
                    ]
                )
                if step % EVALUATED == 0:
                    value = recorded.notes["accuracies"][step // EVALUATED - 1]
                    listener.evaluated(step, {"val_accuracy": value})
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            ends.append((step, True))
        else:
            study.tell(trial, recorded.result)
            ends.append((step, False))
    return ends


def mean(values, digits=1, scale=1.0):
    values = [scale * value for value in values]
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {error:.{digits}f}"


def print_row(*cells):
    print("|", " | ".join(map(str, cells)), "|")


def table(out):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    every = []
    for path in sorted(out.glob("seed*.jsonl"), key=lambda p: int(p.stem[4:])):
        trials = search.Trials(path, better="higher")
        every.append(
            [trials.get(values) for values in search.random(SPACE, TRIALS, seed=int(path.stem[4:]))]
        )
    print(f"{len(every)} seeds of {TRIALS} trials of {STEPS} steps\n")
    heads = (
        "ended by",
        "steps, % of all",
        "best accuracy, %",
        "seeds whose best was pruned",
        "pruned",
    )
    print_row(*heads, "of these within 1 point of the best")
    print_row(*["---"] * 6)
    for name, (severity, pruner) in PRUNERS.items():
        steps, best, lost, pruned, good = [], [], 0, 0, 0
        for trials in every:
            ends = replay(trials, severity, pruner)
            steps.append(sum(step for step, _ in ends) / (STEPS * len(trials)))
            kept = [t.result for t, (_, cut) in zip(trials, ends, strict=True) if not cut]
            best.append(max(kept, default=0.0))
            top = max(t.result for t in trials)
            lost += top not in kept
            cut = [t.result for t, (_, cut) in zip(trials, ends, strict=True) if cut]
            pruned += len(cut)
            good += sum(result > top - 0.01 for result in cut)
        print_row(name, mean(steps, 1, 100), mean(best, 2, 100), lost, pruned, good)
    print()
    heads = "trials", "number", "accuracy at the end, %: median, best", "with an error"
    print_row(*heads, "first error, step: median")
    print_row(*["---"] * 5)
    flat = [t for trials in every for t in trials]
    kinds = [*FAULTS, "no fault, lr < 1", "no fault, lr > 1"]

    def kind(t):
        config = SPACE.config(t.values)
        return fault_of(config) or f"no fault, lr {'<' if config.lr < 1 else '>'} 1"

    for name in kinds:
        own = [t for t in flat if kind(t) == name]
        first = [min(f[0] for f in t.notes["findings"] if f[2] == "error") for t in own
                 if any(f[2] == "error" for f in t.notes["findings"])]  # fmt: skip
        result = [100 * t.result for t in own]
        shown = f"{statistics.median(first):.0f}" if first else ""
        ends = f"{statistics.median(result):.1f}, {max(result):.1f}"
        print_row(name, len(own), ends, len(first), shown)
        codes = Counter(f"{f[1]} ({f[2]})" for t in own for f in t.notes["findings"])
        print("   ", dict(codes.most_common(8)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    if args.what == "run":
        args.out.mkdir(exist_ok=True)
        run(args.out, args.seeds)
    else:
        table(args.out)


if __name__ == "__main__":
    main()
