"""`analyze` of whole models: against WeightWatcher 0.7.7, and against what arithmetic allows.

    python benchmarks/zoo.py [--models MiniLM BERT] [--rounds 7] [--weightwatcher-rounds 3]
    python benchmarks/zoo.py --files model.pth other.safetensors

Trained models are those of requirements-models.txt. BERT-base, ResNet-50 and one layer of Llama-8B
have their layers' shapes and random weights with heavy-tailed spectra: Gaussian entries and strong
directions, or independent entries from Student's t (Llama's are rounded to bfloat16, but held as
float32, which WeightWatcher needs). Both get the same torch module, without options. Layers that
one leaves out and alphas that differ are named. The bound is the time of N M^2 flops for each Gram
matrix and 4/3 M^3 for its eigenvalues, at the rate of the best dgemm (2048 x 2048 x 2048, numpy and
torch) in the same rounds. WeightWatcher gets one round where the bound is above `--once` seconds.
With --files, state dicts of your own take the place of these models.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import baselines
import gram
import numpy as np
import timing
import torch
from torch import nn

import pyspectra as ps

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import real_models

TRAINED = {
    "MiniLM": real_models.minilm_l6,
    "EfficientNet-lite0": real_models.efficientnet_lite0,
    "HED, well trained": real_models.hed_v2,
    "HED, barely trained": real_models.hed_v1,
}


def bert_base():
    """Shapes of the matrices of BERT-base, embeddings included."""
    yield "embeddings.word", (30522, 768)
    yield "embeddings.position", (512, 768)
    for layer in range(12):
        for part in ("query", "key", "value", "output"):
            yield f"layer{layer}.{part}", (768, 768)
        yield f"layer{layer}.up", (3072, 768)
        yield f"layer{layer}.down", (768, 3072)
    yield "pooler", (768, 768)


def resnet50():
    """Shapes of the convolutions of ResNet-50, and of its classifier."""
    yield "stem", (64, 3, 7, 7)
    inputs = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for block in range(blocks):
            name = f"stage{stage}.block{block}"
            yield f"{name}.conv1", (width, inputs, 1, 1)
            yield f"{name}.conv2", (width, width, 3, 3)
            yield f"{name}.conv3", (4 * width, width, 1, 1)
            if block == 0:
                yield f"{name}.shortcut", (4 * width, inputs, 1, 1)
            inputs = 4 * width
    yield "classifier", (1000, 2048)


def llama_layer():
    """Shapes of the seven matrices of a layer of Llama-8B."""
    for name, rows in (("q", 4096), ("k", 1024), ("v", 1024), ("o", 4096)):
        yield name, (rows, 4096)
    yield "gate", (14336, 4096)
    yield "up", (14336, 4096)
    yield "down", (4096, 14336)


def spiked(rng, N, M):
    """Gaussian entries and M / 8 directions whose strengths fall like a power law.

    The spectrum is a bulk with a heavy tail, and the entries are hardly other than Gaussian, which
    is how trained weights are.
    """
    rank = max(M // 8, 1)
    left, right = (rng.standard_normal((n, rank), np.float32) for n in (N, M))
    strengths = rng.pareto(3.0, rank).astype(np.float32) + 1.0
    return rng.standard_normal((N, M), np.float32) + (left * strengths / np.sqrt(M)) @ right.T


def student(rng, N, M):
    """Independent entries with tails: Student's t with 3 degrees of freedom."""
    return rng.standard_normal((N, M), np.float32) / np.sqrt(
        rng.chisquare(3, (N, M)).astype(np.float32) / 3
    )


RANDOM = {
    "BERT-base": (bert_base, spiked),
    "ResNet-50": (resnet50, spiked),
    "ResNet-50, t3 entries": (resnet50, student),
    "Llama-8B, a layer": (llama_layer, spiked),
}
AS_BFLOAT16 = {"Llama-8B, a layer"}
SAME = 1e-6  # alphas that differ by less are the same


def random_weights(name):
    """Weights by name; each slice of a convolution is made by itself."""
    shapes, make = RANDOM[name]
    rng = np.random.default_rng(len(name))
    out = {}
    for layer, (N, M, *window) in shapes():
        slices = [0.02 * make(rng, N, M) for _ in range(int(np.prod(window)))]
        W = np.stack(slices, -1).reshape(N, M, *window)
        if name in AS_BFLOAT16:
            W = torch.from_numpy(W).bfloat16().float().numpy()
        out[f"{layer}.weight"] = W
    return out


def of_file(path):
    """Matrices and kernels of convolutions in a state dict that a file holds."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors = load_file(path)
    else:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    found = {
        key: np.ascontiguousarray(tensor.float().numpy())
        for key, tensor in tensors.items()
        if key.endswith(".weight") and getattr(tensor, "ndim", 0) in (2, 4)
    }
    if not found:
        raise SystemExit(f"zoo.py: {path} holds no state dict with a matrix or a 2-D convolution")
    return found


def as_module(weights):
    """Nested torch modules with these weights and nothing else."""
    root = nn.Module()
    for key, W in weights.items():
        *parents, last = key.removesuffix(".weight").split(".")
        parent = root
        for part in parents:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent._modules[part]
        if W.ndim == 4:
            made = nn.Conv2d(1, 1, 1, bias=False)
            made.out_channels, made.in_channels, made.kernel_size = (
                W.shape[0],
                W.shape[1],
                W.shape[2:],
            )
        elif "embeddings" in key:
            made = nn.Embedding(1, 1)
        else:
            made = nn.Linear(1, 1, bias=False)
        made.weight = nn.Parameter(torch.from_numpy(np.ascontiguousarray(W)), requires_grad=False)
        parent.add_module(last, made)
    return root


def flops(report):
    """Gram matrices and eigenvalues of the matrices in a report."""
    total = 0
    for layer in report.layers:
        N, M = layer.esd.N, layer.esd.M
        total += layer.esd.n_matrices * (N * M**2 + 4 / 3 * M**3)
    return total


def check(name, report, frame):
    """How many alphas agree, of how many; those that do not are said."""
    ours = {row["name"]: row["alpha"] for row in report.rows("weightwatcher")}
    theirs = {row["longname"]: row["alpha"] for row in frame.to_dict("records")}
    if missing := theirs.keys() - ours.keys():
        raise SystemExit(f"{name}: layers of WeightWatcher alone: {sorted(missing)}")
    for layer in ours.keys() - theirs.keys():
        print(f"{name}: WeightWatcher leaves out {layer}, which is timed here")
    off = {
        k: (ours[k], theirs[k])
        for k in theirs
        if not np.isclose(ours[k], theirs[k], rtol=SAME, atol=0, equal_nan=True)
    }
    for layer, (a, b) in off.items():
        print(f"{name}: alpha of {layer} is {a:.6g}, and WeightWatcher's {b:.6g}")
    return f"{len(theirs) - len(off)} of {len(theirs)}"


def dgemm(threads):
    A = np.random.default_rng(0).standard_normal((gram.BIG, gram.BIG))
    B, C = A.copy(), np.empty_like(A)
    T, U, V = map(torch.from_numpy, (A, B, C))
    for multiply in (lambda: np.matmul(A, B, out=C), lambda: torch.matmul(T, U, out=V)):
        multiply()
        timing.rest(threads)
        begin = time.perf_counter()
        multiply()
        yield 2 * gram.BIG**3 / (time.perf_counter() - begin)
        timing.rest(threads)


def timed(function, model, threads):
    timing.rest(threads)
    begin = time.perf_counter()
    result = function(model)
    return time.perf_counter() - begin, result


def measure(name, arguments):
    if isinstance(name, Path):
        weights, name = of_file(name), name.name
    else:
        weights = TRAINED[name]() if name in TRAINED else random_weights(name)
    model = as_module(weights)
    report = ps.analyze(model)  # memory and threads
    work = flops(report)
    rates = [max(dgemm(arguments.threads))]
    once = work / rates[0] > arguments.once
    seconds, theirs, agree = [], [], ""
    for turn in range(arguments.rounds):
        seconds.append(timed(ps.analyze, model, arguments.threads)[0])
        rates.append(max(dgemm(arguments.threads)))
        if turn < (1 if once else arguments.weightwatcher_rounds):
            took, frame = timed(baselines.weightwatcher_analyze, model, arguments.threads)
            theirs.append(took)
            agree = check(name, report, frame)
    mine, bound = statistics.median(seconds), work / statistics.median(rates)
    fallbacks = sum(layer.esd.method != "gram" for layer in report.layers)
    row = [name, len(report.layers), fallbacks, timing.milliseconds(mine)]
    ratio, watcher = None, ["", "", ""]
    if theirs:
        median = statistics.median(theirs)
        ratio, rounds = median / mine, f"{len(theirs)} round" + "s" * (len(theirs) > 1)
        watcher = [f"{timing.milliseconds(median)}, {rounds}", f"{ratio:.2f}", agree]
    row += watcher
    row += [timing.milliseconds(bound), f"{mine / bound:.2f}"]
    print(name, "took", *row[3:], "of the bound", file=sys.stderr, flush=True)
    return ratio, row


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", help="beginnings of names; all by default")
    parser.add_argument("--files", nargs="+", type=Path, help="files with state dicts instead")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--weightwatcher-rounds", type=int, default=3)
    parser.add_argument("--once", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help=timing.THREADS_HELP)
    arguments = parser.parse_args()
    ps.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    if arguments.weightwatcher_rounds:  # what it imports is not timed
        baselines.weightwatcher_analyze(nn.Sequential(nn.Linear(60, 60)))
    names = arguments.files or [
        name
        for name in [*TRAINED, *RANDOM]
        if not arguments.models or name.startswith(tuple(arguments.models))
    ]
    found = [measure(name, arguments) for name in names]
    head = ["model", "layers", "without Gram", "this", "WeightWatcher", "ratio", "same alpha"]
    head += ["bound", "of the bound"]
    print()
    timing.table(head, [row for _, row in found])
    if arguments.weightwatcher_rounds:
        ratios = [ratio for ratio, _ in found]
        print(f"\ngeometric mean {statistics.geometric_mean(ratios):.2f}, least {min(ratios):.2f}")


if __name__ == "__main__":
    main()
