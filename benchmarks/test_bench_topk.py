"""The 64 largest singular values: certified, against torch.svd_lowrank and the whole decomposition.

Every run checks the values that it timed; the error of torch's is recorded beside its time.
"""

import numpy as np
import pytest

import pyspectra as ps

K = 64
SHAPES = [(384, 384), (768, 768), (1024, 1024), (2048, 2048), (4096, 4096), (30522, 384)]
KINDS = ["falls as i^-1", "falls as i^-0.25", "Student t3 entries", "Gaussian entries"]


def reflected(W, rng):
    """W between random reflections: the same singular values, and dense."""
    for _ in range(3):
        u, v = (rng.standard_normal(n) for n in W.shape)
        W -= np.outer(u, (2.0 / (u @ u)) * (u @ W))
        W -= np.outer(W @ ((2.0 / (v @ v)) * v), v)
    return W


def matrix(shape, kind):
    """A float32 matrix and its largest singular values by the Gram matrix in float64."""
    rng = np.random.default_rng(0)
    if kind == "Gaussian entries":
        W = rng.standard_normal(shape)
    elif kind == "Student t3 entries":
        W = rng.standard_t(3.0, shape)
    else:
        W = np.zeros(shape)
        n = min(shape)
        W[np.arange(n), np.arange(n)] = np.arange(1, n + 1) ** -float(kind.rpartition("-")[2])
        W = reflected(W, rng)
    W = W.astype(np.float32)
    return W, np.sqrt(ps.esd(W, method="gram").evals[::-1][:K])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.benchmark(group="64 largest singular values")
class TestTopK:
    def run(self, benchmark, function, W, true, tolerance):
        values = benchmark.pedantic(function, (W,), rounds=5, warmup_rounds=1)
        error = float(np.max(np.abs(values - true) / true))
        benchmark.extra_info["error"] = error
        assert error <= tolerance

    def test_pyspectra(self, benchmark, shape, kind):
        W, true = matrix(shape, kind)
        top = ps.svd_topk(W, K)
        assert np.all(top.bounds <= 1.001e-6 * top.s)
        benchmark.extra_info["method"] = f"{top.method}, {top.n_products} vectors"
        self.run(benchmark, lambda W: ps.svd_topk(W, K).s, W, true, 1e-6)

    def test_torch_lowrank(self, benchmark, shape, kind):
        torch = pytest.importorskip("torch")

        def function(W):
            return torch.svd_lowrank(torch.from_numpy(W), q=K, niter=4)[1].numpy()

        W, true = matrix(shape, kind)
        self.run(benchmark, function, W, true, 1.0)
