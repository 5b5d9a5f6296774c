"""Gram matrices of weights in the shapes of real models, as a share of dgemm.

    python benchmarks/gram.py [--rounds 5] [--threads 2] [--only 1280x320 bf16]

A symmetric product needs N M^2 flops where dgemm does 2 N M^2 for the same matrix, so GFlop/s
count N M^2 for this library and for dsyrk, and 2 N M^2 for dgemm: a share of 100 % means half of
dgemm's time. Two dgemm stand beside it, the faster of numpy's and torch's: of the same shape, from
weights that are float64 and contiguous already (converting and slicing are not counted against
it), and of 2048 x 2048 x 2048. Results must agree to 4 eps N |x| |y| with numpy's.
"""

import argparse
import os

import numpy as np
import timing
from scipy.linalg import blas

import pyspectra as ps
from pyspectra import ops
from pyspectra._arrays import HostArray

# What is measured: name, type of the elements, shape as stored. Of a convolution (4-D) all slices.
SHAPES = (
    ("MiniLM embedding", "float32", (30522, 384)),
    ("MiniLM attention", "float32", (384, 384)),
    ("MiniLM feed-forward", "float32", (1536, 384)),
    ("BERT feed-forward", "float32", (768, 3072)),
    ("BERT attention", "float32", (768, 768)),
    ("Llama-8B query", "bfloat16", (4096, 4096)),
    ("Llama-8B key", "bfloat16", (1024, 4096)),
    ("Llama-8B gate, half", "bfloat16", (7168, 4096)),
    ("BERT attention", "float16", (768, 768)),
    ("EfficientNet expand, 1x1", "float32", (1152, 192, 1, 1)),
    ("EfficientNet stem, 3x3", "float32", (32, 3, 3, 3)),
    ("ResNet stem, 7x7", "float32", (64, 3, 7, 7)),
    ("ResNet conv2, 3x3", "float32", (64, 64, 3, 3)),
    ("ResNet conv4, 3x3", "float32", (256, 256, 3, 3)),
    ("ResNet conv5, 3x3", "float16", (512, 512, 3, 3)),
    ("Inception, 5x5", "float32", (192, 64, 5, 5)),
    ("ResNet conv5, 1x1", "float32", (2048, 512, 1, 1)),
)
BIG = 2048


def stored(dtype, shape, seed=0):
    """Random elements of a type: the HostArray and its values in float64."""
    X = np.random.default_rng(seed).standard_normal(shape, np.float32)
    if dtype == "bfloat16":
        bits = (X.view(np.uint32) >> 16).astype(np.uint16)
        return HostArray(bits, dtype), (bits.astype(np.uint32) << 16).view(np.float32)
    data = X.astype(dtype)
    return HostArray(data, dtype), data


def slices(host, values):
    """Matrices of a layer: as stored, with its strides, and as a float64 stack (k, N, M)."""
    if values.ndim == 2:
        views, stack = [host], values[None]
    else:
        places = np.ndindex(values.shape[2:])
        views = [HostArray(host.data[:, :, i, j], host.dtype) for i, j in places]
        stack = values.transpose(2, 3, 0, 1).reshape(-1, *values.shape[:2])
    stack = stack.astype(np.float64)
    if stack.shape[1] < stack.shape[2]:
        stack = stack.transpose(0, 2, 1)
    return views, np.ascontiguousarray(stack)


def contenders(views, stack):
    k, _, M = stack.shape
    ours = [np.empty((M, M), order="F") for _ in range(k)]
    theirs = np.empty((k, M, M))
    other = stack.copy()  # numpy would take x.T @ x of one x for dsyrk, which has half of the flops
    calls = {
        "this": lambda: ops.gram(views, out=ours),
        "numpy": lambda: np.matmul(stack.transpose(0, 2, 1), other, out=theirs),
        "dsyrk": lambda: [blas.dsyrk(1.0, x.T, lower=1) for x in stack],
    }
    try:
        import torch
    except ModuleNotFoundError:
        return calls
    T, R = torch.from_numpy(stack), torch.from_numpy(other)
    product = torch.empty((k, M, M), dtype=torch.float64)
    calls["torch"] = lambda: torch.matmul(T.transpose(1, 2), R, out=product)
    return calls


def check(found, stack, name):
    expected = np.matmul(stack.transpose(0, 2, 1), stack)
    norms = np.linalg.norm(stack, axis=1)
    bound = 4 * timing.EPS * stack.shape[1] * norms[:, :, None] * norms[:, None, :]
    off = np.abs(np.array(found) - expected) > bound
    if np.any(np.tril(off)):
        raise SystemExit(f"{name}: a Gram matrix is wrong")


def dgemm_of(n, rounds, threads):
    """GFlop/s of the faster dgemm of n x n matrices."""
    stack = np.random.default_rng(1).standard_normal((1, n, n))
    calls = {k: v for k, v in contenders([], stack).items() if k in ("numpy", "torch")}
    seconds, _ = timing.alternate(calls, rounds, threads=threads)
    return 2 * n**3 / min(seconds.values())


def measure(name, dtype, shape, rounds, threads):
    host, values = stored(dtype, shape)
    views, stack = slices(host, values)
    k, N, M = stack.shape
    calls = contenders(views, stack)
    check(calls["this"](), stack, name)
    # A round is many calls where one is over too soon to be timed.
    repeats = max(1, int(5e8 / (k * N * M * M)))
    many = {key: lambda call=call: [call() for _ in range(repeats)] for key, call in calls.items()}
    seconds, _ = timing.alternate(many, rounds, threads=threads)
    flops = repeats * k * N * M * M
    same = 2 * flops / min(seconds.get(p, np.inf) for p in ("numpy", "torch"))
    return flops / seconds["this"], flops / seconds["dsyrk"], same


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help=timing.THREADS_HELP)
    parser.add_argument(
        "--only", nargs="+", help="shapes, names or types that contain one of these"
    )
    arguments = parser.parse_args()
    ps.set_num_threads(arguments.threads)
    rows = []
    big = dgemm_of(BIG, arguments.rounds, arguments.threads)
    for name, dtype, shape in SHAPES:
        text = f"{name} {'x'.join(map(str, shape))} {dtype}"
        if arguments.only and not any(word in text for word in arguments.only):
            continue
        ours, dsyrk, same = measure(name, dtype, shape, arguments.rounds, arguments.threads)
        rates = [f"{rate / 1e9:.1f}" for rate in (ours, dsyrk, same)]
        shares = [f"{ours / same:.0%}", f"{ours / big:.0%}"]
        rows.append([name, dtype, " x ".join(map(str, shape)), *rates, *shares])
    head = ["layer", "type", "shape", "this, GFlop/s", "dsyrk", "dgemm, same shape", "share of it",
            "share of large dgemm"]  # fmt: skip
    timing.table(head, rows)
    print(f"\ndgemm of {BIG} x {BIG} x {BIG}: {big / 1e9:.0f} GFlop/s")


if __name__ == "__main__":
    main()
