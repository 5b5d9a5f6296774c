"""Times on a GPU, each beside a competitor's in the same process. One JSON object a line.

python benchmarks/gpu/measure.py FILE
"""

from __future__ import annotations

import functools
import json
import math
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyspectra as ps
from pyspectra._cuda import eigenvalues
from pyspectra.optim import SGD, AdamW, ChildAdamW

OUT = Path(sys.argv[1])
LONG = 1.0  # seconds after which nothing is repeated


def event_ms(work: Callable[[], Any], repeats: int = 15) -> float:
    """Median time on the device between two events around `work`."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def wall_ms(work: Callable[[], Any], repeats: int = 5) -> float:
    """Median wall-clock time of `work`, which ends on the host; what takes seconds runs once.

    The first run of several warms up.
    """
    times: list[float] = []
    while len(times) <= repeats and sum(times) < 1e3 * LONG:
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:] or times)


def record(
    what: str, ms: float, against: str = "", against_ms: float = math.nan, note: str = ""
) -> None:
    """Add one line; `ratio` above one: faster than the competitor."""
    row: dict[str, Any] = {"what": what, "ms": round(ms, 4), "note": note}
    if against:
        row |= {
            "against": against,
            "against_ms": round(against_ms, 4),
            "ratio": round(against_ms / ms, 3),
        }
    with OUT.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def parameters(sizes: list[int], dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    params = [torch.nn.Parameter(torch.randn(n, device="cuda").to(dtype)) for n in sizes]
    for p in params:
        p.grad = 1e-2 * torch.randn_like(p)
    return params


# 22 million in 200 tensors, as a small language model has them; 1.2 billion in 200.
MODELS = {
    "22M": [147_456] * 100 + [73_728] * 100,
    "1.2B": [9_437_184] * 100 + [2_359_296] * 100,
}


def step_variants(
    params: list[Any], hyper: dict[str, Any]
) -> dict[str, tuple[Callable[[], Any], int]]:
    """Return the optimizers that are measured, and the bytes that a step of each has to move."""
    n = sum(p.numel() for p in params)
    state = 4  # bytes of a moment
    plain = n * (3 * params[0].element_size() + 4 * state)
    variants: dict[str, tuple[Callable[[], Any], int]] = {
        "AdamW": (lambda: AdamW(params, **hyper), plain),
        "AdamW with EMA": (
            lambda: AdamW(params, ema_decay=0.999, **hyper),
            plain + 2 * state * n,
        ),
        "mode F": (lambda: ChildAdamW(params, mode="F", **hyper), plain),
        "mode F with EMA": (
            lambda: ChildAdamW(params, mode="F", ema_decay=0.999, **hyper),
            plain + 2 * state * n,
        ),
        "AdamW, clipped": (
            lambda: AdamW(params, max_grad_norm=1.0, **hyper),
            plain + n * params[0].element_size(),
        ),
        "AdamW, statistics": (lambda: AdamW(params, statistics=True, **hyper), plain),
        "SGD, momentum": (
            lambda: SGD(params, lr=1e-4, momentum=0.9),
            n * (3 * params[0].element_size() + 2 * state),
        ),
    }
    if params[0].dtype is torch.bfloat16:
        variants["AdamW, stochastic rounding"] = (
            lambda: AdamW(params, stochastic_rounding=True, **hyper),
            plain,
        )
        variants["AdamW, master weights"] = (
            lambda: AdamW(params, master_weights=True, **hyper),
            plain + 2 * state * n,
        )
    return variants


def steps() -> None:
    """The fused step: rate of memory traffic beside a copy, time beside torch's fused AdamW."""
    x = torch.empty(2**29, dtype=torch.float32, device="cuda")
    y = torch.empty_like(x)
    copy = event_ms(functools.partial(y.copy_, x))
    record("copy of 2 GiB", copy, note=f"{2 * x.nbytes / copy / 1e6:.0f} GB/s, read and written")
    del x, y
    hyper: dict[str, Any] = {"lr": 1e-4, "weight_decay": 0.01}
    for name, sizes in MODELS.items():
        for dtype in (torch.float32, torch.bfloat16):
            kind = str(dtype).removeprefix("torch.")
            params = parameters(sizes, dtype)
            theirs = torch.optim.AdamW(params, fused=True, **hyper)
            their_ms = event_ms(theirs.step)
            del theirs
            for variant, (make, moved) in step_variants(params, hyper).items():
                opt = make()
                ms = event_ms(opt.step)
                record(
                    f"{variant}, {kind}, {name}",
                    ms,
                    "torch AdamW(fused=True)",
                    their_ms,
                    f"{moved / ms / 1e6:.0f} GB/s; torch's bf16 moments have 16 bits"
                    if dtype is torch.bfloat16
                    else f"{moved / ms / 1e6:.0f} GB/s",
                )
                del opt
            del params
            torch.cuda.empty_cache()


def compact_moments(share: float = 0.1) -> None:
    """Mode D with moments of the child network alone beside whole ones: time and state."""
    hyper: dict[str, Any] = {"lr": 1e-4, "weight_decay": 0.01}
    generator = torch.Generator("cuda").manual_seed(0)
    for name, sizes in MODELS.items():
        n = sum(sizes)
        drawn = {
            k: (torch.rand(k, generator=generator, device="cuda") < share).cpu() for k in {*sizes}
        }
        for dtype in (torch.float32, torch.bfloat16):
            params = parameters(sizes, dtype)
            mask = {p: drawn[p.numel()] for p in params}
            kind, item = str(dtype).removeprefix("torch."), params[0].element_size()
            # Memory comes in sectors of 32 bytes: those with a child's element in them.
            touched = 1 - (1 - share) ** (32 // item)
            for decay_masked in (True, False):
                times, notes = [], []
                # 16-bit parameters are all rounded again.
                moved = 1.0 if decay_masked or item == 2 else touched
                held = (2 * item * moved + item * touched + 16 * share + 1 / 8) * n
                for compact, nbytes in ((True, held), (False, (3 * item + 16 + 1 / 8) * n)):
                    opt = ChildAdamW(
                        params,
                        mode="D",
                        mask=mask,
                        compact=compact,
                        decay_masked=decay_masked,
                        **hyper,
                    )
                    times.append(event_ms(opt.step))
                    notes.append(
                        f"{nbytes / times[-1] / 1e6:.0f} GB/s, "
                        f"{opt.state_bytes() / n:.3f} bytes of state a parameter"
                    )
                    del opt
                decay = "" if decay_masked else ", decay in the child alone"
                record(
                    f"mode D, p = {share}, compact{decay}, {kind}, {name}",
                    times[0],
                    "whole moments",
                    times[1],
                    " against ".join(notes),
                )
            del params, mask
            torch.cuda.empty_cache()


def graph_step() -> None:
    """A captured step: what is left when Python is not in the way."""
    params = parameters(MODELS["22M"])
    opt = ChildAdamW(params, mode="F", ema_decay=0.999)
    opt.step()
    theirs = torch.optim.AdamW(params, fused=True, capturable=True)
    theirs.step()
    times = []
    for o in (opt, theirs):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            o.step()
        times.append(event_ms(graph.replay))
    record(
        "mode F with EMA, float32, 22M, CUDA graph", times[0], "torch AdamW, CUDA graph", times[1]
    )


def fits() -> None:
    """Power-law fits of spectra on the device beside the CPU's, both from tensors on the device."""
    rng = np.random.default_rng(0)
    for count, n in ((1, 1000), (1, 4096), (64, 1000), (256, 1024), (256, 4096), (16, 20_000)):
        spectra = [np.sort(rng.pareto(1.5, n) + 0.5) for _ in range(count)]
        on_device = [torch.tensor(s, device="cuda") for s in spectra]
        ours = ps.fit_powerlaw_batch(on_device)
        host = ps.fit_powerlaw_batch(spectra)
        assert repr(ours) == repr(host)
        ms = wall_ms(lambda x=on_device: ps.fit_powerlaw_batch(x))
        cpu = wall_ms(lambda x=on_device: ps.fit_powerlaw_batch([s.cpu() for s in x]))
        record(f"{count} fits, n = {n}", ms, f"CPU, {ps.get_num_threads()} threads", cpu)
    for count, n in ((1, 1000), (64, 1000), (64, 4096)):
        spectra = [np.sort(rng.pareto(1.5, n) + 0.5) for _ in range(count)]
        on_device = [torch.tensor(s, device="cuda") for s in spectra]
        options = {"bootstrap": 200, "seed": 1}
        assert repr(ps.fit_powerlaw_batch(on_device, **options)) == repr(
            ps.fit_powerlaw_batch(spectra, **options)
        )
        ms = wall_ms(lambda x=on_device, o=options: ps.fit_powerlaw_batch(x, **o), 3)
        cpu = wall_ms(lambda x=spectra, o=options: ps.fit_powerlaw_batch(x, **o), 1)
        what = f"200 refits of {count} spectra, n = {n}"
        record(what, ms, f"CPU, {ps.get_num_threads()} threads", cpu)


def eigenvalue_problems() -> None:
    """Our reduction and bisection beside the library: where ONE_BLOCK_ORDER belongs."""
    generator = torch.Generator("cuda").manual_seed(0)
    for n in (16, 32, 64, 96, 128, 160, 192, 256, 384, 512, 768, 1024):
        for count in (1, 32, 132, 528):
            if count * n * n > 2**25 or (n > 512 and count > 32):
                continue
            x = torch.randn((count, n, n), generator=generator, device="cuda", dtype=torch.float64)
            A = x + x.mT
            own = functools.partial(eigenvalues.eigvals, A, method="one_block")
            library = functools.partial(eigenvalues.eigvals, A, method="library")
            a, b = own()[0], library()[0]
            norm = max(float(np.abs(e).max()) for e in b)
            worst = max(float(np.abs(p - q).max()) for p, q in zip(a, b, strict=True)) / norm
            record(
                f"{count} eigenvalue problems, n = {n}",
                wall_ms(own, 3),
                "torch.linalg.eigvalsh",
                wall_ms(library, 3),
                f"differ by {worst:.1e} of the norm",
            )
    sizes = (64, 384), (64, 768), (64, 1024), (16, 4096)
    for count, n in (*sizes, (1, 1024), (1, 2048), (1, 4096), (1, 8192)):
        x = torch.randn((count, n, n), generator=generator, device="cuda", dtype=torch.float64)
        A = x + x.mT
        own = functools.partial(eigenvalues.eigvals, A, method="two_stage")
        library = functools.partial(eigenvalues.eigvals, A, method="library")
        a, b = own()[0][0], eigenvalues.eigvals(A[:1], method="library")[0][0]
        record(
            f"{count} in two stages, n = {n}",
            wall_ms(own, 3),
            "torch.linalg.eigvalsh",
            wall_ms(library, 3),
            f"differ by {np.abs(a - b).max() / np.abs(b).max():.1e} of the norm",
        )
    for n in (1024, 4096):
        d, e = torch.randn((2, 1, n), generator=generator, device="cuda", dtype=torch.float64)
        bisect = functools.partial(eigenvalues._bisected, d, e)
        record(f"bisection alone, n = {n}", event_ms(bisect, 5))


def whole() -> None:
    """One weight matrix from the device to its spectrum."""
    for rows, columns in ((768, 768), (3072, 768), (4096, 4096)):
        W = torch.randn((rows, columns), device="cuda", dtype=torch.bfloat16)
        on_device = wall_ms(lambda x=W: ps.esd(x, method="gram"), 3)
        on_host = wall_ms(lambda x=W: ps.esd(x.cpu(), method="gram"), 1)
        record(
            f"esd of {rows} x {columns} bfloat16",
            on_device,
            f"CPU, {ps.get_num_threads()} threads",
            on_host,
        )


if __name__ == "__main__":
    failed = False
    for part in (steps, compact_moments, graph_step, fits, eigenvalue_problems, whole):
        begin = time.perf_counter()
        try:
            part()
        except Exception as error:  # the others are still worth their time
            failed = True
            with OUT.open("a") as file:
                note = f"{type(error).__name__}: {error}"[:300]
                file.write(json.dumps({"what": f"{part.__name__} failed", "note": note}) + "\n")
            traceback.print_exc()
        print(f"{part.__name__}: {time.perf_counter() - begin:.1f} s", flush=True)
    sys.exit(1 if failed else 0)
