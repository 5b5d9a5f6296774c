"""What do teachers and ensembles give? Fashion-MNIST; tables of distillation.md and ensembles.md.

    python benchmarks/distillation.py run OUT [--seeds 5] [--students 3]
    python benchmarks/distillation.py table OUT

Data and helpers are those of lottery.py: 6 000 images to train on, 5 000 others to choose by, all
10 000 of the test set. *Teachers*: a convolutional network for each seed, with AdamW and a cosine
for 15 epochs. *Students*: one hidden layer of 32, 30 epochs, on labels, on smoothed labels, on the
seed's teacher at several temperatures, on all teachers together; each arm has three learning rates,
of which the one with the best mean on the other images counts. *Ensembles*: all teachers together,
against one, against the weights of one run averaged (the last epochs; an EMA of every step), and
against the predictions of its last epochs averaged.
"""

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import torch
from lottery import load, summary
from torch import nn
from torch.nn.functional import cross_entropy

from pyspectra.finetune import EnsemblePrediction, disagreement, distillation_loss
from pyspectra.optim import EMA, AdamW
from pyspectra.training.metrics import calibration, fit_temperature

IMAGES, CHOOSING, BATCH = 6000, 5000, 100
EPOCHS, LAST = 15, 5
STUDENT_EPOCHS, RATES, WEIGHT = 30, (3e-3, 1e-2, 3e-2), 0.9
# A constant rate at the end, since the mean of weights that stand still is these weights.
FLAT = 0.3


def teacher(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(784, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10),
    )  # fmt: skip


def student(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))


def train(model, seed, n, epochs, rate, loss, least=0.0, after_step=None, after_epoch=None):
    """Train with AdamW and a cosine down to `least` times the rate; `loss` takes rows."""
    optimizer = AdamW(model.named_parameters(), lr=rate, weight_decay=0.05)
    if after_step is not None:
        after_step.attach(optimizer)
    total, step = epochs * n // BATCH, 0
    draws = torch.Generator().manual_seed(seed)
    model.train()
    for epoch in range(epochs):
        for rows in torch.randperm(n, generator=draws).split(BATCH):
            cosine = 0.5 * (1 + np.cos(np.pi * step / total))
            optimizer.param_groups[0]["lr"] = rate * max(least, cosine)
            optimizer.zero_grad()
            loss(rows).backward()
            optimizer.step()
            step += 1
        if after_epoch is not None:
            after_epoch(epoch)
    model.eval()


@torch.no_grad()
def said(model, x):
    training = model.training
    model.eval()
    out = torch.cat([model(part) for part in x.split(1000)])
    model.train(training)
    return out


def run_teacher(seed, x, y, sets):
    """Return the logits on all sets: of the end, of each late epoch, of two means of weights."""
    model, late, weights = teacher(seed), [], []
    others = {name: own for name, own in sets.items() if name != "train"}

    def of(net):
        return {name: said(net, own) for name, own in others.items()}

    def note(epoch):
        if epoch >= EPOCHS - LAST:
            late.append(of(model))
            weights.append(copy.deepcopy(model.state_dict()))

    ema = EMA(model, 0.99)
    train(
        model, seed, len(x), EPOCHS, 2e-3, lambda rows: cross_entropy(model(x[rows]), y[rows]),
        FLAT, ema, note,
    )  # fmt: skip
    ema.detach()
    found = {"end": {**late[-1], "train": said(model, x)}, "late": late}
    averaged = copy.deepcopy(model)
    averaged.load_state_dict({
        name: torch.stack([w[name] for w in weights]).mean(0) for name in weights[0]
    })  # fmt: skip
    found["mean of weights"] = of(averaged)
    with ema.swap():
        found["EMA"] = of(model)
    return found


def row(what, logits, y, seed, **more):
    found = calibration(logits, y)
    mass = calibration(logits, y, bins="mass").ece
    numbers = {k: getattr(found, k) for k in ("accuracy", "nll", "brier", "ece")}
    return {"what": what, "seed": seed, **numbers, "ece of equal mass": mass, **more}


def with_temperature(what, choosing, test, ys, seed, **more):
    """Rows of logits as they are, and with the temperature that fits the images to choose by."""
    T = fit_temperature(choosing, ys["choosing"])
    return [
        row(what, test, ys["test"], seed, **more),
        row(f"{what}, with temperature", test / T, ys["test"], seed, temperature=T, **more),
    ]


def ensembles(teachers, ys):
    rows = []
    for seed, found in enumerate(teachers):
        for what, name in (("end", "one network"), ("mean of weights", "its last 5 weights, mean"),
                           ("EMA", "its EMA")):  # fmt: skip
            rows += with_temperature(name, found[what]["choosing"], found[what]["test"], ys, seed)
        late = {n: torch.stack([e[n] for e in found["late"]]) for n in ys}
        means = {n: EnsemblePrediction.of(z).mean.log() for n, z in late.items()}
        rate = disagreement(late["test"]).rate
        rows += with_temperature("its last 5 epochs, mean of probabilities", means["choosing"],
                                 means["test"], ys, seed, disagreement=rate)  # fmt: skip
    # All but one seed each time, so that the ensembles' numbers have an error, too.
    for seed in range(len(teachers)):
        some = [t["end"] for i, t in enumerate(teachers) if i != seed]
        rows += together(f"ensemble of {len(some)}", some, ys, seed)
    return rows + together(f"ensemble of {len(teachers)}", [t["end"] for t in teachers], ys, 0)


def together(what, members, ys, seed):
    rows, stacks = [], {n: torch.stack([m[n] for m in members]) for n in ys}
    rate = disagreement(stacks["test"]).rate
    information = float(disagreement(stacks["test"]).mutual_information.mean())
    for combine in ("probabilities", "logits"):
        mean = {n: EnsemblePrediction.of(z, combine=combine).mean.log() for n, z in stacks.items()}
        rows += with_temperature(f"{what}, mean of {combine}", mean["choosing"], mean["test"], ys,
                                 seed, disagreement=rate, information=information)  # fmt: skip
    return rows


def students(seed, teachers, x, y, sets, ys):
    own = teachers[seed]["end"]["train"]
    every = EnsemblePrediction.of([t["end"]["train"] for t in teachers]).mean.log()

    def taught(logits, T):
        return lambda z, rows: distillation_loss(
            z, logits[rows], y[rows], temperature=T, weight=WEIGHT
        )

    arms = {
        "labels": lambda z, rows: cross_entropy(z, y[rows]),
        "smoothed labels": lambda z, rows: cross_entropy(z, y[rows], label_smoothing=0.1),
        **{f"teacher, T = {T}": taught(own, T) for T in (1, 2, 4, 8)},
        "all teachers, T = 4": taught(every, 4),
    }
    rows = []
    for what, loss in arms.items():
        for rate in RATES:
            model = student(seed)

            def of_rows(r, loss=loss, model=model):
                return loss(model(x[r]), r)

            train(model, seed, len(x), STUDENT_EPOCHS, rate, of_rows)
            chosen = float((said(model, sets["choosing"]).argmax(1) == ys["choosing"]).float()
                           .mean())  # fmt: skip
            z = said(model, sets["test"])
            rows.append(row(what, z, ys["test"], seed, rate=rate, choosing=chosen))
    return rows


def run(out, seeds, learners):
    torch.set_num_threads(1)
    x, y = load("train")
    test = load("t10k")
    choosing = slice(IMAGES, IMAGES + CHOOSING)
    sets = {"train": x[:IMAGES], "choosing": x[choosing], "test": test[0]}
    ys = {"choosing": y[choosing], "test": test[1]}
    x, y = x[:IMAGES], y[:IMAGES]
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        if not (out / f"teacher{seed}.pt").exists():
            torch.save(run_teacher(seed, x, y, sets), out / f"teacher{seed}.pt")
            print("teacher", seed, flush=True)
    teachers = [torch.load(out / f"teacher{seed}.pt") for seed in range(seeds)]
    rows = ensembles(teachers, ys)
    (out / "ensembles.json").write_text(json.dumps(rows))
    for seed in range(learners):
        file = out / f"students{seed}.json"
        if not file.exists():
            file.write_text(json.dumps(students(seed, teachers, x, y, sets, ys)))
            print("students", seed, flush=True)


def table(out):
    rows = [r for file in sorted(out.glob("students*.json")) for r in json.loads(file.read_text())]
    print("| student learns from | rate | test accuracy, % | NLL | ECE, % |\n|---|---|---|---|---|")
    for what in dict.fromkeys(r["what"] for r in rows):
        own = [r for r in rows if r["what"] == what]

        def mean(rate, own=own):
            return np.mean([r["choosing"] for r in own if r["rate"] == rate])

        best = max(RATES, key=mean)
        print(f"| {what} | {best:g} | {cells([r for r in own if r['rate'] == best])} |")
    rows = json.loads((out / "ensembles.json").read_text())
    print("\n| what | T | test accuracy, % | NLL | ECE, % | ECE of equal mass, % | Brier | disagree"
          " |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for what in dict.fromkeys(r["what"] for r in rows):
        own = [r for r in rows if r["what"] == what]
        T = summary([r["temperature"] for r in own]) if "temperature" in own[0] else "1"
        mass = summary([100 * r["ece of equal mass"] for r in own])
        brier = fine([r["brier"] for r in own])
        rates = [100 * r["disagreement"] for r in own if "disagreement" in r]
        rate = f"{np.mean(rates):.1f} %" if rates else ""
        print(f"| {what} | {T} | {cells(own)} | {mass} | {brier} | {rate} |")


def cells(rows):
    percent = [summary([100 * r[k] for r in rows]) for k in ("accuracy", "ece")]
    return f"{percent[0]} | {fine([r['nll'] for r in rows])} | {percent[1]}"


def fine(values):
    """Mean and standard error, in thousandths."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / len(values) ** 0.5:.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--students", type=int, default=3, help="seeds of students")
    told = parser.parse_args()
    if told.command == "run":
        run(told.out, told.seeds, told.students)
    else:
        table(told.out)


if __name__ == "__main__":
    main()
