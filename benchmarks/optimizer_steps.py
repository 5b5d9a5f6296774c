"""Optimizer steps side by side, in a random order that changes each round.

The bandwidth of a shared machine drifts by half within a minute, and OpenMP threads of torch spin
for milliseconds after a step, so that contenders timed one after the other cannot be compared.
Each result is checked by the functions of test_bench_optim.py. Run it as
``python optimizer_steps.py [--rounds N]``; it prints a table for each list of shapes.
"""

import argparse
import random
import statistics
import threading
import time

import baselines
import numpy as np
import torch
from test_bench_optim import DECAY, HYPER, SHAPES, P, parameters

from pyspectra.optim import AdamW, ChildAdamW

PAUSE = 0.01  # until threads of the step before have gone to sleep


def contenders(shapes):
    """Name -> (step, parameters, bytes that it must move a parameter)."""
    child = {"mode": "F", "reserve_p": P}

    def ours(kind, bytes_per_param, **options):
        params = parameters(shapes)
        return kind(params, **HYPER, **options).step, params, bytes_per_param

    def fixed(compact):
        params = parameters(shapes)
        generator = torch.Generator().manual_seed(1)
        mask = {p: torch.rand(p.shape, generator=generator) < 0.1 for p in params}
        opt = ChildAdamW(params, mode="D", mask=mask, compact=compact, **HYPER)
        return opt.step, params, 12 + 1.6 + 0.25 if compact else 28.125

    fused = parameters(shapes)
    parts = parameters(shapes)
    composed, _, _ = baselines.torch_child_tuning(parts, P, DECAY, HYPER)
    return {
        "AdamW": ours(AdamW, 28),
        "AdamW, average": ours(AdamW, 36, ema_decay=DECAY),
        "AdamW, statistics": ours(AdamW, 28, statistics=True),
        "mask F": ours(ChildAdamW, 28, **child),
        "mask F, average": ours(ChildAdamW, 36, ema_decay=DECAY, **child),
        "mask D, p = 0.1": fixed(False),
        "mask D, p = 0.1, compact": fixed(True),
        "torch AdamW, fused": (torch.optim.AdamW(fused, fused=True, **HYPER).step, fused, 28),
        "torch, mask F and average": (composed, parts, None),
    }


def copier(size):
    """Copy `size` float32 on as many threads as torch uses: 8 bytes each."""
    count = torch.get_num_threads()
    pairs = [(np.ones(size // count, np.float32), np.empty(size // count, np.float32))
             for _ in range(count)]  # fmt: skip

    def step():
        threads = [threading.Thread(target=np.copyto, args=(b, a)) for a, b in pairs]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    return step


def check(found, rounds):
    """Steps with the same meaning must have gone to the same place."""
    plain, fused = found["AdamW"][1][0], found["torch AdamW, fused"][1][0]
    torch.testing.assert_close(plain, fused, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(plain, found["AdamW, average"][1][0], rtol=0, atol=0)
    torch.testing.assert_close(plain, found["AdamW, statistics"][1][0], rtol=0, atol=0)
    torch.testing.assert_close(
        found["mask F"][1][0], found["mask F, average"][1][0], rtol=0, atol=0
    )
    torch.testing.assert_close(
        found["mask D, p = 0.1"][1][0], found["mask D, p = 0.1, compact"][1][0], rtol=0, atol=0
    )
    # Not the same draws, but the same law: the mean distance travelled agrees.
    start = parameters_start(found)
    ours, theirs = (
        float((found[name][1][0].detach() - start).abs().mean())
        for name in ("mask F, average", "torch, mask F and average")
    )
    assert abs(ours / theirs - 1) < 0.05, (ours, theirs, rounds)


def parameters_start(found):
    """Return the first parameter of the list as it was before the first step."""
    size = found["AdamW"][1][0].shape
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, generator=generator)


def main():
    """Time everything and print markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    order = random.Random(0)
    for shapes in SHAPES:
        found = contenders(shapes)
        size = sum(p.numel() for p in found["AdamW"][1])
        steps = {name: step for name, (step, _, _) in found.items()}
        steps["copy"] = copier(size)
        times = {name: [] for name in steps}
        for turn in range(rounds + 3):
            names = list(steps)
            order.shuffle(names)
            for name in names:
                time.sleep(PAUSE)
                begin = time.perf_counter()
                steps[name]()
                if turn >= 3:
                    times[name].append(time.perf_counter() - begin)
        check(found, rounds)
        median = {name: statistics.median(t) for name, t in times.items()}
        bandwidth = 8 * size / median["copy"]
        print(f"\n{shapes}, {rounds} rounds; copy {bandwidth / 1e9:.1f} GB/s\n")
        print("| step | median | of AdamW | bytes a parameter | of copy bandwidth |")
        print("|---|---|---|---|---|")
        for name, (_, _, moved) in found.items():
            share = "" if moved is None else f"{moved * size / median[name] / bandwidth:.2f}"
            print(f"| {name} | {median[name] * 1e3:.2f} ms | {median[name] / median['AdamW']:.2f} "
                  f"| {'' if moved is None else f'{moved:.4g}'} | {share} |")  # fmt: skip


if __name__ == "__main__":
    main()
