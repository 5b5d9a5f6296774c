"""The optimizer step: ours, torch's, and Child-Tuning with an average composed from torch.

Each benchmark times steps on the same gradients and then checks where the weights went: without a
mask against torch.optim.AdamW in float64, with one by the share of elements and the average.
extra_info holds the bytes that must move per parameter, and the share of the bandwidth of a copy
(measured in the same run) that this comes to.
"""

import statistics
import time

import baselines
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyspectra.optim import AdamW, ChildAdamW  # noqa: E402

BLOCK = [(384, 384), (384,)] * 4 + [(1536, 384), (1536,), (384, 1536), (384,)] + [(384,)] * 4
SHAPES = {
    # all-MiniLM-L6-v2: embeddings, six blocks, pooler
    "MiniLM": [(30522, 384), (512, 384), (2, 384), (384,), (384,)]
    + 6 * BLOCK
    + [(384, 384), (384,)],
    "flat 22M": [(22_000_000,)],
    "400 of 64x16": [(64, 16)] * 400,
}
HYPER = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2}
DECAY, P = 0.999, 0.3


def parameters(name):
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in SHAPES[name]]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)
    return params


@pytest.fixture(scope="module")
def copy_bandwidth():
    """Bytes read and written a second by a copy of 22 million float32."""
    a, b = torch.ones(22_000_000), torch.empty(22_000_000)
    times = []
    for _ in range(15):
        begin = time.perf_counter()
        b.copy_(a)
        times.append(time.perf_counter() - begin)
    return 8 * a.numel() / statistics.median(times[3:])


@pytest.fixture
def record(benchmark, copy_bandwidth):
    """Call with the parameters and the bytes that a step moves for each."""

    def note(params, bytes_per_param):
        moved = bytes_per_param * sum(p.numel() for p in params)
        median = benchmark.stats.stats.median
        benchmark.extra_info["bytes_per_param"] = round(bytes_per_param, 3)
        benchmark.extra_info["share_of_copy_bandwidth"] = round(moved / median / copy_bandwidth, 3)

    return note


def timed(benchmark, step, params):
    start = params[0].detach().clone()
    benchmark.pedantic(step, rounds=15, warmup_rounds=3)
    return start


def check_plain(benchmark, step, params):
    start = timed(benchmark, step, params)
    wide = torch.nn.Parameter(start.double())
    wide.grad = params[0].grad.double()
    reference = torch.optim.AdamW([wide], foreach=False, **HYPER)
    for _ in range(18):
        reference.step()
    assert (params[0] - wide).abs().max() < 1e-5 * wide.abs().max()


def check_child(benchmark, step, params, moments, average):
    start = timed(benchmark, step, params)
    n = params[0].numel()
    # An element that 18 draws at p = 0.3 all leave out is still at zero: 0.7^18 of them.
    never = (moments() == 0).double().mean().item()
    expected = (1 - P) ** 18
    assert abs(never - expected) < 6 * (expected / n) ** 0.5 + 1 / n
    old, new = (start - params[0]).abs().mean(), (average() - params[0]).abs().mean()
    assert 0 < new < old


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.benchmark(group="AdamW")
class TestPlain:
    def test_pyspectra(self, benchmark, record, shapes):
        params = parameters(shapes)
        check_plain(benchmark, AdamW(params, **HYPER).step, params)
        record(params, 28)

    def test_pyspectra_with_statistics(self, benchmark, record, shapes):
        params = parameters(shapes)
        opt = AdamW(params, statistics=True, **HYPER)
        check_plain(benchmark, opt.step, params)
        norm = float(params[0].grad.double().norm())
        assert opt.statistics()["0.0"].grad_norm == pytest.approx(norm, rel=1e-9)
        record(params, 28)

    def test_torch_fused(self, benchmark, record, shapes):
        params = parameters(shapes)
        check_plain(benchmark, torch.optim.AdamW(params, fused=True, **HYPER).step, params)
        record(params, 28)

    def test_torch_foreach(self, benchmark, shapes):
        params = parameters(shapes)
        check_plain(benchmark, torch.optim.AdamW(params, foreach=True, **HYPER).step, params)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.benchmark(group="Child-Tuning F + average")
class TestChildTuning:
    def test_pyspectra(self, benchmark, record, shapes):
        params = parameters(shapes)
        opt = ChildAdamW(params, mode="F", reserve_p=P, ema_decay=DECAY, **HYPER)

        def moments():
            return opt.state[params[0]]["exp_avg"]

        def average():
            return opt.state[params[0]]["ema"]

        check_child(benchmark, opt.step, params, moments, average)
        record(params, 36)

    def test_composed_from_torch(self, benchmark, shapes):
        params = parameters(shapes)
        step, opt, averages = baselines.torch_child_tuning(params, P, DECAY, HYPER)

        def moments():
            return opt.state[params[0]]["exp_avg"]

        check_child(benchmark, step, params, moments, lambda: averages[0])


@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.benchmark(group="Child-Tuning D")
class TestFixedMask:
    def step(self, benchmark, shapes, share, *, compact):
        params = parameters(shapes)
        generator = torch.Generator().manual_seed(1)
        mask = {p: torch.rand(p.shape, generator=generator) < share for p in params}
        opt = ChildAdamW(params, mode="D", mask=mask, compact=compact, **HYPER)
        start = timed(benchmark, opt.step, params)
        outside = (start * (1 - HYPER["lr"] * HYPER["weight_decay"]) ** 18)[~mask[params[0]]]
        torch.testing.assert_close(params[0][~mask[params[0]]].detach(), outside)
        size = sum(p.numel() for p in params)
        benchmark.extra_info["state_bytes_per_param"] = round(opt.state_bytes() / size, 3)
        return params

    def test_whole(self, benchmark, record, shapes, share):
        record(self.step(benchmark, shapes, share, compact=False), 28 + 1 / 8)

    def test_compact(self, benchmark, record, shapes, share):
        # Parameters are read and written, gradients read, mask bits read twice.
        record(self.step(benchmark, shapes, share, compact=True), 12 + 16 * share + 2 / 8)


@pytest.mark.benchmark(group="copy of 22M float32")
def test_memory_bandwidth(benchmark):
    """The unit to measure the rest with: 8 bytes an element."""
    a, b = torch.ones(22_000_000), torch.empty(22_000_000)
    benchmark.pedantic(lambda: b.copy_(a), rounds=15, warmup_rounds=3)
    assert np.array_equal(a[:10].numpy(), b[:10].numpy())
