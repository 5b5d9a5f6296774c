"""Batched symmetric eigenvalues and Gram matrices, float64, on all threads each library has."""

import numpy as np
import pytest
import scipy.linalg

import pyspectra as ps
from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra.spectra.fast import fast_spectrum

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


def halves(shape):
    """Random weights of 16 bits, as bfloat16."""
    W = np.random.default_rng(0).standard_normal(shape, np.float32)
    bits = (W.view(np.uint32) >> 16).astype(np.uint16)
    return HostArray(bits, "bfloat16"), (bits.astype(np.uint32) << 16).view(np.float32)


# Layers of Llama-8B: k and v, q and o, up, gate and down.
@pytest.mark.parametrize("shape", [(1024, 4096), (4096, 4096), (14336, 4096)], ids=str)
@pytest.mark.benchmark(group="spectrum of bfloat16")
class TestFast:
    def run(self, benchmark, function, X, shape):
        evals = benchmark.pedantic(function, (X,), rounds=3, warmup_rounds=1)
        W = halves(shape)[1].astype(np.float64)
        want = np.linalg.eigvalsh(W.T @ W if shape[0] >= shape[1] else W @ W.T)
        assert np.max(np.abs(evals - want)) < 1e-4 * want[-1]

    def test_pyspectra_fast(self, benchmark, shape):
        self.run(benchmark, lambda X: fast_spectrum(X).evals, halves(shape)[0], shape)

    def test_pyspectra_float64(self, benchmark, shape):
        def function(X):
            return ops.eigvals(ops.gram([X]))[0][0]

        self.run(benchmark, function, halves(shape)[0], shape)

    def test_numpy_float32(self, benchmark, shape):
        def function(W):
            return np.linalg.eigvalsh(W.T @ W if shape[0] >= shape[1] else W @ W.T)

        self.run(benchmark, function, halves(shape)[1], shape)

    def test_torch_float32(self, benchmark, shape):
        torch = pytest.importorskip("torch")

        def function(W):
            W = torch.from_numpy(W)
            return torch.linalg.eigvalsh(W.T @ W if shape[0] >= shape[1] else W @ W.T).numpy()

        self.run(benchmark, function, halves(shape)[1], shape)


@pytest.mark.parametrize("shape", [(64, 16, 16), (1, 144, 24), (1, 240, 80)], ids=str)
@pytest.mark.benchmark(group="sixteen draws of random signs")
class TestSignDraws:
    """The draws of the test for structure: traces and largest eigenvalues of Gram matrices."""

    DRAWS = 16

    def data(self, shape):
        rng = np.random.default_rng(0)
        stack = rng.standard_normal(shape)
        return stack, np.frombuffer(rng.bytes(self.DRAWS * stack.size // 8), np.uint8)

    def by_numpy(self, stack, bits):
        minus = np.unpackbits(bits).reshape(self.DRAWS, *stack.shape)
        flipped = np.where(minus == 1, -stack, stack)
        tall = flipped if stack.shape[1] >= stack.shape[2] else np.swapaxes(flipped, -1, -2)
        evals = np.linalg.eigvalsh(np.swapaxes(tall, -1, -2) @ tall).reshape(self.DRAWS, -1)
        total = evals.sum(1)
        return np.stack([np.square(evals).sum(1) / total**2, evals.max(1) / total], 1)

    def test_pyspectra(self, benchmark, shape):
        stack, bits = self.data(shape)
        found = benchmark(ops.sign_draws, stack, bits, self.DRAWS, centred=False)
        np.testing.assert_allclose(found, self.by_numpy(stack, bits), rtol=1e-9)

    def test_numpy(self, benchmark, shape):
        benchmark(self.by_numpy, *self.data(shape))
