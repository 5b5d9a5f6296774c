"""Quantised weights, entry by entry: the specification of `pyspectra.weights.quantised`.

GPTQ: Frantar et al., "GPTQ: accurate post-training quantization for generative pre-trained
transformers", ICLR 2023, and the layout of AutoGPTQ: integers of each output follow one another
along the inputs in 32-bit words, the lowest bits first, over the ends of words too; zero points lie
so along the outputs, less one in the first version of the format.
"""

from __future__ import annotations

import numpy as np


def words(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Pack each row of unsigned integers into 32-bit words."""
    rows = []
    for row in numbers:
        stream = sum(int(x) << (bits * i) for i, x in enumerate(row))
        count = len(row) * bits // 32
        rows.append([(stream >> (32 * i)) & 0xFFFFFFFF for i in range(count)])
    return np.array(rows, np.uint32).view(np.int32)


def gptq_tensors(
    numbers: np.ndarray, zeros: np.ndarray, bits: int, *, first_version: bool
) -> dict[str, np.ndarray]:
    """Store integers (out, in) and zero points (out, groups) as GPTQ does."""
    stored = (zeros - int(first_version)) % (1 << bits)
    return {
        "qweight": np.ascontiguousarray(words(numbers, bits).T),
        "qzeros": words(stored.T, bits),
    }


def dequantised(
    numbers: np.ndarray, zeros: np.ndarray, scales: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """``W[i, j] = (q[i, j] - z[i, g_j]) * s[i, g_j]``."""
    W = np.empty(numbers.shape)
    for i in range(numbers.shape[0]):
        for j in range(numbers.shape[1]):
            g = groups[j]
            W[i, j] = (int(numbers[i, j]) - int(zeros[i, g])) * float(scales[i, g])
    return W


def blockwise(values: np.ndarray, scales: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """``W[i, j] = v[i, j] * s[i // b, j // c]``."""
    W = np.empty(values.shape)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            W[i, j] = float(values[i, j]) * float(scales[i // block[0], j // block[1]])
    return W
