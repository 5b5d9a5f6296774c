"""The optimizer step: ours, torch's, and Child-Tuning with an average composed from torch.

Each benchmark times steps on the same gradients and then checks where the weights went: without a
mask against torch.optim.AdamW in float64, with one by the share of elements and the average.
"""

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
    def test_pyspectra(self, benchmark, shapes):
        params = parameters(shapes)
        check_plain(benchmark, AdamW(params, **HYPER).step, params)

    def test_torch_fused(self, benchmark, shapes):
        params = parameters(shapes)
        check_plain(benchmark, torch.optim.AdamW(params, fused=True, **HYPER).step, params)

    def test_torch_foreach(self, benchmark, shapes):
        params = parameters(shapes)
        check_plain(benchmark, torch.optim.AdamW(params, foreach=True, **HYPER).step, params)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.benchmark(group="Child-Tuning F + average")
class TestChildTuning:
    def test_pyspectra(self, benchmark, shapes):
        params = parameters(shapes)
        opt = ChildAdamW(params, mode="F", reserve_p=P, ema_decay=DECAY, **HYPER)

        def moments():
            return opt.state[params[0]]["exp_avg"]

        def average():
            return opt.state[params[0]]["ema"]

        check_child(benchmark, opt.step, params, moments, average)

    def test_composed_from_torch(self, benchmark, shapes):
        params = parameters(shapes)
        grads = [p.grad for p in params]
        opt = torch.optim.AdamW(params, fused=True, **HYPER)
        averages = [p.detach().clone() for p in params]
        buffers = [torch.empty_like(p) for p in params]
        count = 0

        @torch.no_grad()
        def step():
            nonlocal count
            for p, g, buffer in zip(params, grads, buffers, strict=True):
                p.grad = buffer.bernoulli_(P).mul_(g).div_(P)
            opt.step()
            decay = min(DECAY, (1 + count) / (10 + count))
            torch._foreach_lerp_(averages, [p.detach() for p in params], 1 - decay)
            count += 1

        def moments():
            return opt.state[params[0]]["exp_avg"]

        check_child(benchmark, step, params, moments, lambda: averages[0])


@pytest.mark.benchmark(group="copy of 22M float32")
def test_memory_bandwidth(benchmark):
    """The unit to measure the rest with: 8 bytes an element."""
    a, b = torch.ones(22_000_000), torch.empty(22_000_000)
    benchmark.pedantic(lambda: b.copy_(a), rounds=15, warmup_rounds=3)
    assert np.array_equal(a[:10].numpy(), b[:10].numpy())
