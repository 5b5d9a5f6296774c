"""An own thread pool against OpenMP, inside a torch training loop.

python pool_vs_openmp.py: compiles kernel.cpp with the C++ compiler of the machine, prints a table.
Each variant runs the same training step (forward, backward, SGD of a small transformer block),
followed by the same kernel over all parameters; the medians of the whole step and of the kernel are
compared.

openmp-shared: torch is imported first, so the kernel is given torch's libgomp (same soname).
openmp-own: the kernel's libgomp is a copy under another name, as in a wheel that vendors it.
"""

import ctypes
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
STEPS, WARM = 150, 20


def build(folder, own_runtime):
    """Compile kernel.cpp; with `own_runtime`, against a renamed copy of libgomp."""
    flags = ["-std=c++20", "-O3", "-fPIC", "-shared", "-pthread", "-fopenmp", f"-I{CSRC}"]
    library = folder / ("own.so" if own_runtime else "shared.so")
    sources = [HERE / "kernel.cpp", CSRC / "core" / "parallel.cpp"]
    subprocess.run(["g++", *flags, *sources, "-o", library], check=True)
    if own_runtime:
        found = subprocess.run(
            ["g++", "-print-file-name=libgomp.so.1"], check=True, capture_output=True, text=True
        ).stdout.strip()
        # A soname of the same length, edited in place: for the loader, another library.
        renamed = folder / "libgomp.so.9"
        shutil.copy(Path(found).resolve(), renamed)
        for file in (renamed, library):
            file.write_bytes(file.read_bytes().replace(b"libgomp.so.1\0", b"libgomp.so.9\0"))
        ctypes.CDLL(str(renamed), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(library))


def measure(kernel):
    """Median milliseconds of (whole step, kernel) over a training loop; `kernel` may be None."""
    torch.manual_seed(0)
    model = torch.nn.TransformerEncoderLayer(384, 12, 1536, batch_first=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    x = torch.randn(8, 64, 384)
    shadow = [p.detach().clone() for p in model.parameters()]
    steps, kernels = [], []
    for step in range(STEPS + WARM):
        start = time.perf_counter()
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        middle = time.perf_counter()
        if kernel is not None:
            for y, p in zip(shadow, model.parameters(), strict=True):
                kernel(
                    ctypes.c_void_p(y.data_ptr()), ctypes.c_void_p(p.data_ptr()),
                    ctypes.c_long(p.numel()),
                )  # fmt: skip
        end = time.perf_counter()
        if step >= WARM:
            steps.append(1e3 * (end - start))
            kernels.append(1e3 * (end - middle))
    return statistics.median(steps), statistics.median(kernels)


def main():
    variant = sys.argv[1] if len(sys.argv) > 1 else None
    if variant is None:  # each in a process of its own: runtimes leave threads behind
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {STEPS}")
        print(f"{'variant':<28}{'step ms':>10}{'kernel ms':>12}")
        for name in ("none", "pool", "openmp-shared", "openmp-own"):
            runs = []
            for _ in range(3):
                out = subprocess.run(
                    [sys.executable, __file__, name], check=True, capture_output=True, text=True
                )
                runs.append(tuple(map(float, out.stdout.split())))
            step, kernel = (statistics.median(column) for column in zip(*runs, strict=True))
            print(f"{name:<28}{step:>10.2f}{kernel:>12.3f}")
        return
    with tempfile.TemporaryDirectory() as folder:
        kernel = None
        if variant != "none":
            library = build(Path(folder), own_runtime=variant == "openmp-own")
            kernel = library.axpy_pool if variant == "pool" else library.axpy_openmp
            kernel.restype = None
        print(*measure(kernel))


if __name__ == "__main__":
    main()
