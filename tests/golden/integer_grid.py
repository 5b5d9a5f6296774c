"""What torchao makes of a small matrix: ``python -m golden.integer_grid`` from tests/.

Needs torch and torchao 0.18.0, which the tests do without.
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_suffix(".npz")
SHAPE, BLOCK = (6, 32), 8


def main() -> None:
    import torch
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        dequantize_affine,
        quantize_affine,
    )

    W = torch.from_numpy(
        np.random.default_rng(0).standard_t(4, SHAPE).astype(np.float32) + np.float32(0.3)
    )
    found = {"W": W.numpy()}
    shapes = {"tensor": SHAPE, "channel": (1, SHAPE[1]), "block": (1, BLOCK)}
    for bits in (8, 4):
        most = 2 ** (bits - 1) - 1
        ranges = {MappingType.SYMMETRIC: (-most, most), MappingType.ASYMMETRIC: (-most - 1, most)}
        for mapping, (low, high) in ranges.items():
            for granularity, size in shapes.items():
                scale, zero = choose_qparams_affine(W, mapping, size, torch.int8, low, high)
                q = quantize_affine(W, size, scale, zero, torch.int8, low, high)
                back = dequantize_affine(q, size, scale, zero, torch.int8, low, high)
                found[f"{mapping.name.lower()} {granularity} {bits}"] = back.numpy()
    np.savez(PATH, **found)


if __name__ == "__main__":
    main()
