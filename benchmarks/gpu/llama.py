"""Analyse a checkpoint with the shapes of a 7B Llama on the device, beside reading its bytes.

    python benchmarks/gpu/llama.py FILE FOLDER [--blocks 32]

Makes FOLDER/llama.safetensors (13.5 GB for 32 blocks; removed at the end) with entries from a
Student t law of 3 degrees of freedom in bfloat16, reads it once as it is, analyses it, and compares
the first block with the CPU's analysis. One JSON object a line is added to FILE.

By Gram matrices alone, then with the singular values that about half of the square layers of such
entries need.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from pathlib import Path

import torch

import pyspectra as ps

HIDDEN, INNER, VOCABULARY = 4096, 11008, 32000


def shapes(blocks: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights."""
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for i in range(blocks):
        start = f"model.layers.{i}"
        for name in "qkvo":
            out[f"{start}.self_attn.{name}_proj.weight"] = (HIDDEN, HIDDEN)
        for name in ("gate", "up"):
            out[f"{start}.mlp.{name}_proj.weight"] = (INNER, HIDDEN)
        out[f"{start}.mlp.down_proj.weight"] = (HIDDEN, INNER)
        out[f"{start}.input_layernorm.weight"] = (HIDDEN,)
        out[f"{start}.post_attention_layernorm.weight"] = (HIDDEN,)
    return out | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def write(path: Path, blocks: int) -> None:
    """Write the file tensor by tensor, drawn on the device."""
    header, end = {}, 0
    for name, shape in shapes(blocks).items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device="cuda")

    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes(blocks).values():
            chi2 = sum((normal(shape) ** 2 for _ in range(2)), start=normal(shape) ** 2)
            W = 0.02 * normal(shape) / (chi2 / 3.0).sqrt()
            file.write(W.bfloat16().view(torch.int16).cpu().numpy().data)


def read(path: Path) -> float:
    """Seconds to read all bytes into one buffer of 64 MiB."""
    buffer = memoryview(bytearray(64 * 2**20))
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


def compare(path: Path, method: str, bytes_s: float, file: Path) -> None:
    """Record the time of one analysis; SystemExit where the first block is not the CPU's."""
    analyze = functools.partial(ps.analyze, str(path), method=method, progress=False)
    analyze(layers="model.layers.0.self_attn.q_proj", device="cuda")  # warm
    start = time.perf_counter()
    on_device = analyze(device="cuda")
    seconds = time.perf_counter() - start
    on_host = analyze(layers="model.layers.0.*")
    of = {layer.name: layer.alpha for layer in on_device.layers}
    worst = max(abs(of[layer.name] / layer.alpha - 1.0) for layer in on_host.layers)
    size = f"{len(on_device.layers)} layers of {path.stat().st_size / 1e9:.1f} GB"
    by_svd = sum(layer.esd.method == "svd" for layer in on_device.layers)
    row = {
        "what": f"analyze(method={method!r}), {size}",
        "ms": round(1e3 * seconds, 1),
        "against": "reading the bytes",
        "against_ms": round(1e3 * bytes_s, 1),
        "ratio": round(bytes_s / seconds, 3),
        "note": f"{by_svd} by SVD; alpha of {len(on_host.layers)} layers differs by {worst:.1e} "
        "from the CPU's",
    }
    with file.open("a") as out:
        out.write(json.dumps(row) + "\n")
    print(row, flush=True)
    if not worst < 1e-9:
        raise SystemExit(f"alpha differs by {worst:.1e} from the CPU's")


def main() -> None:
    """Make the file, measure, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--blocks", type=int, default=32)
    options = parser.parse_args()
    path = options.folder / "llama.safetensors"
    try:
        write(path, options.blocks)
        bytes_s = min(read(path) for _ in range(2))
        # Gram matrices alone, then with the singular values that some square layers need.
        for method in ("gram", "auto"):
            compare(path, method, bytes_s, options.file)
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
