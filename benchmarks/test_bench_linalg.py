"""Batched symmetric eigenvalues and Gram matrices, float64, on all threads each library has."""

import numpy as np
import pytest
import scipy.linalg

import pyspectra as ps
from pyspectra import ops
from pyspectra._arrays import HostArray

BATCHES = [(64, 384), (32, 768), (1, 2048)]


def batch(b, n):
    X = np.random.default_rng(n).standard_normal((b, n, n + n // 4))
    return X @ X.transpose(0, 2, 1)


def check(evals, A):
    expected = np.array([np.linalg.eigvalsh(a) for a in A])
    assert np.max(np.abs(np.asarray(evals) - expected)) < 1e-12 * np.max(expected)


@pytest.mark.parametrize("shape", BATCHES, ids=str)
@pytest.mark.benchmark(group="eigvals")
class TestEigvals:
    def run(self, benchmark, function, A):
        check(benchmark.pedantic(function, (A,), rounds=9, warmup_rounds=2), A)

    def test_pyspectra(self, benchmark, shape):
        self.run(benchmark, ps.eigvals, batch(*shape))

    def test_numpy(self, benchmark, shape):
        self.run(benchmark, np.linalg.eigvalsh, batch(*shape))

    def test_scipy(self, benchmark, shape):
        def function(A):
            return [scipy.linalg.eigvalsh(a, driver="evd", check_finite=False) for a in A]

        self.run(benchmark, function, batch(*shape))

    def test_torch(self, benchmark, shape):
        torch = pytest.importorskip("torch")
        self.run(
            benchmark, lambda A: torch.linalg.eigvalsh(torch.from_numpy(A)).numpy(), batch(*shape)
        )


@pytest.mark.parametrize("shape", [(30522, 384), (384, 1536), (2048, 2048)], ids=str)
@pytest.mark.benchmark(group="gram of float32")
class TestGram:
    def weights(self, shape):
        return np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    def check(self, G, W):
        X = W.astype(np.float64)
        expected = X.T @ X if W.shape[0] >= W.shape[1] else X @ X.T
        assert np.max(np.abs(np.tril(G - expected))) < 1e-12 * np.max(np.abs(expected))

    def test_pyspectra(self, benchmark, shape):
        W = self.weights(shape)
        (G,) = benchmark.pedantic(ops.gram, ([HostArray(W, "float32")],), rounds=9, warmup_rounds=2)
        self.check(G, W)

    def test_numpy(self, benchmark, shape):
        def function(W):
            X = W.astype(np.float64)
            return X.T @ X if W.shape[0] >= W.shape[1] else X @ X.T

        W = self.weights(shape)
        self.check(benchmark.pedantic(function, (W,), rounds=9, warmup_rounds=2), W)
