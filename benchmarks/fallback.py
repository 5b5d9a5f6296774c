"""What a matrix costs whose small singular values its Gram matrix does not resolve.

    python benchmarks/fallback.py [--sizes 384 768 1024 2048] [--aspects 1 4] [--rounds 5]
                                  [--threads 2]

Each time is that of `ps.esd(W)`, float32 weights, as a multiple of what a Gaussian matrix of the
same shape takes, which its Gram matrix resolves; the aim is 2.5 at most. "resolved" is that matrix
by `ps.esd(W)`, which looks whether the Gram matrix will do; "all by SVD" is that matrix with
`method="svd"`, without a Gram matrix. Beside each stand singular values by numpy and torch, in
float64. They are held to |error| <= 20 eps n sigma_max against
numpy's, which those of a Gram matrix are far from reaching.
"""

import argparse
import os

import numpy as np
import timing

import pyspectra as ps


def one_small(rng, rows, cols):
    """One column is nearly a combination of two others."""
    W = rng.standard_normal((rows, cols))
    W[:, 0] = (W[:, 1] + W[:, 2]) / np.sqrt(2) + 1e-5 * W[:, 0]
    return W


def graded(rng, rows, cols):
    """Columns fall geometrically by 1e-6, and the spectrum with them."""
    return rng.standard_normal((rows, cols)) * np.geomspace(1, 1e-6, cols)


def turned(rng, rows, cols):
    """The same spectrum, and all columns of one size."""
    W = graded(rng, rows, cols)
    v = rng.standard_normal((cols, 1)) / np.sqrt(cols)
    return W - W @ v @ v.T * (2.0 / np.sum(v**2))


def dead_rows(rng, rows, cols):
    """A quarter of the inputs is dead, as pruning leaves them."""
    W = rng.standard_normal((rows, cols))
    W[:, rng.permutation(cols)[: cols // 4]] = 0.0
    return W


def low_rank(rng, rows, cols):
    """A product of rank cols / 2: what remains is the rounding of float32."""
    rank = cols // 2
    return rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, cols)) / np.sqrt(rank)


def one_giant(rng, rows, cols):
    """All rows lean one way, so that one value is far above the others, and many are small."""
    return rng.standard_normal((rows, cols)) + 2.0 * np.abs(rng.standard_normal((rows, 1)))


KINDS = {
    "one small": one_small,
    "graded": graded,
    "graded, turned": turned,
    "dead rows": dead_rows,
    "low rank": low_rank,
    "one giant": one_giant,
}


def check(evals, W, expected, name):
    """Ascending squared singular values against descending singular values."""
    error = np.max(np.abs(np.sqrt(evals[::-1]) - expected))
    bound = timing.TOLERANCE * timing.EPS * max(W.shape) * expected[0]
    if error > bound:
        raise SystemExit(f"{name} {W.shape}: an error of {error:.3g}, where {bound:.3g} is allowed")


def measure(shape, rounds, threads):
    """Rows of the table for matrices of one shape."""
    rng = np.random.default_rng(min(shape))
    resolved = rng.standard_normal(shape).astype(np.float32)
    matrices = {name: kind(rng, *shape).astype(np.float32) for name, kind in KINDS.items()}
    contenders = {"gram": lambda: ps.esd(resolved, method="gram")}
    matrices |= {"resolved": resolved, "all by SVD": resolved}
    for name, W in matrices.items():
        method = "svd" if name == "all by SVD" else "auto"
        contenders[name] = lambda W=W, method=method: ps.esd(W, method=method)
        if name == "resolved":
            continue  # the peers' times are those of the last row
        contenders[f"numpy {name}"] = lambda W=W: np.linalg.svd(
            W.astype(np.float64), compute_uv=False
        )
        torch = _torch()
        if torch is not None:
            contenders[f"torch {name}"] = lambda W=W, torch=torch: torch.linalg.svdvals(
                torch.from_numpy(W).double()
            )
    seconds, results = timing.alternate(contenders, rounds, threads=threads)
    gram = seconds["gram"]
    for name, W in matrices.items():
        if name != "resolved":
            check(results[name].evals, W, results[f"numpy {name}"], name)
        peers = {p: seconds.get(f"{p} {name}") for p in ("numpy", "torch")}
        yield [
            f"{shape[0]} x {shape[1]}",
            name,
            timing.milliseconds(gram),
            timing.milliseconds(seconds[name]),
            f"{seconds[name] / gram:.2f}",
            *(
                "" if t is None else f"{timing.milliseconds(t)} ({t / seconds[name]:.2f}x)"
                for t in peers.values()
            ),
        ]


def _torch():
    try:
        import torch
    except ModuleNotFoundError:
        return None
    return torch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[384, 768, 1024, 2048])
    parser.add_argument("--aspects", type=int, nargs="+", default=[1], help="rows for each column")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help=timing.THREADS_HELP)
    arguments = parser.parse_args()
    ps.set_num_threads(arguments.threads)
    rows = []
    for aspect in arguments.aspects:
        for n in arguments.sizes:
            rows += measure((n * aspect, n), arguments.rounds, arguments.threads)
    head = ["shape", "kind", "Gram path", "this", "of the Gram path", "numpy svd", "torch svdvals"]
    timing.table(head, rows)


if __name__ == "__main__":
    main()
