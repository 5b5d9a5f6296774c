"""Layers that have a structure with a name, of many shapes, types, scales and sizes of noise.

`CASES` gives for each structure functions of a generator that draw a layer which has it. None of
them was looked at when the thresholds of `pyspectra.spectra.structures` were first chosen; those of
generators of seeds from 100 on were not used to mend them.
"""

from functools import partial

import numpy as np

SHAPES = ((64, 64), (96, 32), (40, 120), (256, 64), (32, 32, 3, 3), (48, 16, 5, 5))


def noise(rng, shape):
    return rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))


def as_dtype(W, dtype):
    if dtype == "bfloat16":
        bits = W.astype(np.float32).view(np.uint32)
        return ((bits + 0x8000) & np.uint32(0xFFFF0000)).view(np.float32)
    return W.astype(dtype)


def orthogonal(shape, dtype, scale, size, rng):
    """As torch.nn.init.orthogonal_, and noise of a part of its norm."""
    flat = rng.standard_normal((shape[0], int(np.prod(shape[1:]))))
    wide = flat.shape[0] < flat.shape[1]
    q, r = np.linalg.qr(flat.T if wide else flat)
    q *= np.sign(np.diag(r))
    q = (q.T if wide else q).reshape(shape)
    E = rng.standard_normal(shape)
    return as_dtype(scale * (q + size * np.linalg.norm(q) / np.linalg.norm(E) * E), dtype)


def identity(shape, dtype, scale, size, rng):
    """As torch.nn.init.eye_ and dirac_, and noise of an initialisation's scale times `size`."""
    out = size * noise(rng, shape)
    for i in range(min(shape[:2])):
        out[(i, i, *(n // 2 for n in shape[2:]))] += 1.0
    return as_dtype(scale * out, dtype)


def sinusoidal(rows, cols, layout, dtype, rng):
    """Tables of Vaswani et al. (interleaved, or as two halves) and of Whisper and fairseq."""
    half = cols // 2
    steps = half - 1 if layout == "whisper" else half
    angle = np.outer(np.arange(rows), 10000.0 ** (-np.arange(half) / steps))
    if layout == "interleaved":
        table = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(rows, cols)
    else:
        table = np.concatenate([np.sin(angle), np.cos(angle)], 1)
    return as_dtype(rng.choice([1.0, 0.02]) * table, dtype)


def zeros(shape, axis, share, rng):
    out = noise(rng, shape)
    count = max(1, round(share * shape[axis]))
    index = [slice(None)] * len(shape)
    index[axis] = rng.permutation(shape[axis])[:count]
    out[tuple(index)] = 0.0
    return as_dtype(out, "float32")


def mean_direction(shape, axis, size, rng):
    """A mean of all entries, of each row or of each column, in standard deviations of them."""
    ones = [1] * len(shape)
    if axis is not None:
        ones[axis] = shape[axis]
    mean = rng.standard_normal(ones) if axis is not None else np.ones(ones)
    return as_dtype(rng.standard_normal(shape) + size * mean, "float32")


def scales(shape, axis, ratio, rng):
    """Half of the rows or columns larger, or all of them with scales spread as widely."""
    ones = [1] * len(shape)
    ones[axis] = shape[axis]
    if rng.random() < 0.5:
        factor = np.where(rng.random(ones) < 0.5, ratio, 1.0)
    else:
        factor = np.exp(0.5 * np.log(ratio) * rng.standard_normal(ones))
    return as_dtype(noise(rng, shape) * factor, "float32")


def low_rank(shape, rank, dtype, rng):
    flat = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))
    return as_dtype(0.02 * flat, dtype)


def mask(shape, share, kind, rng):
    W = noise(rng, shape)
    if kind == "random":
        kept = rng.random(shape) >= share
    elif kind == "magnitude":
        kept = np.abs(W) >= np.quantile(np.abs(W), share)
    else:  # two of four
        kept = np.zeros(shape, bool)
        fours = kept.reshape(-1, 4)
        order = np.argsort(rng.random(fours.shape), axis=1)
        np.put_along_axis(fours, order[:, :2], True, axis=1)
    return as_dtype(W * kept, "float32")


def plain(draw, shape, rng):
    return as_dtype(draw(rng, shape), "float32")


DTYPES = ("float32", "float16", "bfloat16")
MATRICES = [shape for shape in SHAPES if len(shape) == 2]

# Of a name, which others say the same.
ALSO = {
    "orthogonal": ("nearly orthogonal",),
    "nearly orthogonal": ("orthogonal",),
    "mask": ("pruned",),
}

CASES = {
    "orthogonal": [
        partial(orthogonal, shape, dtype, scale, 0.0)
        for shape in SHAPES for dtype in DTYPES for scale in (0.02, 1.0, 2.0**0.5)
    ],
    "nearly orthogonal": [
        partial(orthogonal, shape, "float32", scale, size)
        for shape in SHAPES for size in (0.02, 0.1, 0.3) for scale in (0.02, 1.0)
    ],
    "identity": [
        partial(identity, shape, dtype, scale, size)
        for shape in SHAPES for dtype in ("float32", "bfloat16") for scale in (0.1, 1.0)
        for size in (0.0, 0.02, 0.1, 0.5)
    ],
    "sinusoidal table": [
        partial(sinusoidal, rows, cols, layout, dtype)
        for rows, cols in ((50, 64), (512, 32), (200, 256), (1500, 384))
        for layout in ("interleaved", "halves", "whisper") for dtype in DTYPES
    ],
    "zero rows or columns": [
        partial(zeros, shape, axis, share)
        for shape in SHAPES for axis in (0, 1) for share in (0.0, 0.1, 0.5)
    ],
    "mean direction": [
        partial(mean_direction, shape, axis, size)
        for shape in SHAPES for axis in (None, 0, 1) for size in (0.5, 1.0, 3.0)
    ],
    "mixed scales": [
        partial(scales, shape, axis, ratio)
        for shape in SHAPES for axis in (0, 1) for ratio in (2.0, 4.0, 10.0)
    ],
    "low rank": [
        partial(low_rank, shape, rank, dtype)
        for shape in MATRICES for rank in (1, 2, 8, 20) for dtype in DTYPES
    ],
    "mask": [
        partial(mask, shape, share, kind)
        for shape in SHAPES
        for share, kind in ((0.5, "random"), (0.9, "random"), (0.6, "magnitude"),
                            (0.95, "magnitude"), (0.5, "two of four"))
    ],
}  # fmt: skip
"""Functions of a generator that draw a layer with the structure of that name."""

PLAIN = [
    partial(plain, draw, shape)
    for shape in ((8, 8), *SHAPES, (96, 1, 3, 3), (500, 48), (10, 256))
    for draw in (
        noise,
        lambda rng, shape: rng.uniform(-0.1, 0.1, shape),
        lambda rng, shape: rng.laplace(size=shape),
        lambda rng, shape: rng.standard_t(5, shape),
    )
]
"""Functions of a generator that draw a layer of which nothing is to be said."""


def drawn(functions, seed):
    """Draw a layer of each function, as a state dict."""
    return {
        f"{i}.weight": function(np.random.default_rng([seed, i]))
        for i, function in enumerate(functions)
    }
