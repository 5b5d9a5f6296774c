"""Models whose truth is known: trained ones from ``states/``, and untrained and spoilt ones.

Trained weights are kept (`train.py` makes them); everything else is made here from seeds.
`UNTRAINED` and `TRAINED` name them; a case is a function of no arguments that returns a state dict
of numpy arrays. Cases of seeds from 100 on, and of the architectures in `NEW`, were not looked at
when the rules of the verdict were chosen; those in `LATER` were made after all of them.
"""

import json
from functools import cache, partial
from pathlib import Path

import numpy as np

STATES = Path(__file__).parent / "states"
NEW = ("transformer", "lstm", "resnet")  # with five seeds each
LATER = ("vit", "dense", "convnext", "gated")  # five seeds each, made after all rules


@cache
def facts():
    """Test and training score of every trained state: {"digits-0": {"test": ...}}."""
    return json.loads((STATES / "facts.json").read_text())


def state(name):
    """The weights of a trained network, as float32."""
    run, _, seed = name.rpartition("-")
    with np.load(STATES / f"{run}.npz") as file:
        prefix = f"{seed}/"
        return {
            k.removeprefix(prefix): file[k].astype(np.float32) for k in file if k.startswith(prefix)
        }


# --- untrained ----------------------------------------------------------------------------------


def torch_default(name, seed):
    """A network of `train.py` as PyTorch initialises it."""
    import torch

    from truth import train

    makers = {
        "separable": train.separable, "cnn": train.cnn, "resnet": train.resnet,
        "lstm": train.RowsLSTM, "transformer": train.Patches, "vit": train.Vit,
        "dense": train.Dense, "convnext": train.ConvNext, "gated": train.Gated,
        "mlp": partial(train.mlp, 64, 128, 128, 10), "small": partial(train.mlp, 8, 64, 64, 1),
        "wide": partial(train.mlp, 100, 300, 200, 50),
    }  # fmt: skip
    torch.manual_seed(seed)
    return {k: v.numpy() for k, v in makers[name]().state_dict().items() if v.ndim > 1}


SHAPES = ((128, 64), (96, 96), (64, 200), (32, 48, 3, 3), (64, 1, 3, 3), (300, 64), (10, 96))


def drawn(draw, seed, shapes=SHAPES):
    """Layers of usual shapes with entries, or whole matrices, from `draw(rng, shape)`."""
    rng = np.random.default_rng([seed, 1])
    out = {}
    for i, shape in enumerate(shapes):
        out[f"layers.{i}.weight"] = np.asarray(draw(rng, shape), np.float32)
    return out


def _scaled(rng, shape):
    return rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))


def orthogonal(rng, shape, noise=0.0):
    flat = rng.standard_normal((shape[0], int(np.prod(shape[1:]))))
    q = np.linalg.qr(flat if flat.shape[0] >= flat.shape[1] else flat.T)[0]
    q = (q if q.shape == flat.shape else q.T).reshape(shape)
    return q + noise * _scaled(rng, shape)


def identity(rng, shape, noise=0.02):
    out = noise * _scaled(rng, shape)
    centre = tuple(n // 2 for n in shape[2:])
    for i in range(min(shape[:2])):
        out[(i, i, *centre)] += 1.0
    return out


def sinusoidal(rng, shape):
    rows, cols = shape
    rate = 10000.0 ** (-np.arange(0, cols, 2) / cols)
    angle = np.outer(np.arange(rows), rate)
    return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(rows, cols)


def gains(rng, shape, axis=0):
    n = [1] * len(shape)
    n[axis] = shape[axis]
    return _scaled(rng, shape) * np.exp(rng.standard_normal(n))


def zero_rows(rng, shape):
    out = _scaled(rng, shape)
    out[rng.random(shape[0]) < 0.3] = 0.0
    return out


def sparse_columns(rng, shape):
    """As torch.nn.init.sparse_: a fixed share of each column is zero."""
    out = rng.standard_normal(shape) * 0.01
    for column in np.ndindex(*shape[1:]):
        out[(rng.permutation(shape[0])[: int(0.9 * shape[0])], *column)] = 0.0
    return out


def int4(rng, shape):
    w = _scaled(rng, shape)
    step = np.abs(w).max() / 7
    return np.round(w / step) * step


def bf16(rng, shape):
    w = _scaled(rng, shape).astype(np.float32)
    return (w.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def pruned(rng, shape, share=0.9):
    w = _scaled(rng, shape)
    return np.where(np.abs(w) >= np.quantile(np.abs(w), share), w, 0.0)


def blocks(rng, shape):
    """A mask of four blocks, as of grouped channels."""
    rows, cols = np.meshgrid(
        np.arange(shape[0]) * 4 // shape[0], np.arange(shape[1]) * 4 // shape[1], indexing="ij"
    )
    mask = (rows == cols).reshape(shape[:2] + (1,) * (len(shape) - 2))
    return _scaled(rng, shape) * mask


DRAWS = {
    "gaussian": _scaled,
    "uniform": lambda rng, shape: rng.uniform(-0.1, 0.1, shape),
    "uncentred": lambda rng, shape: rng.random(shape),
    "uncentred_slightly": lambda rng, shape: _scaled(rng, shape) + 0.5 / np.sqrt(shape[0]),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "t5": lambda rng, shape: rng.standard_t(5, shape),
    "t3": lambda rng, shape: rng.standard_t(3, shape),
    "lognormal": lambda rng, shape: rng.lognormal(size=shape),
    "ternary": lambda rng, shape: rng.integers(-1, 2, shape),
    "bernoulli": lambda rng, shape: rng.random(shape) < 0.1,
    "int4": int4,
    "bf16": bf16,
    "pruned": pruned,
    "sparse_columns": sparse_columns,
    "row_gains": gains,
    "column_gains": partial(gains, axis=1),
    "zero_rows": zero_rows,
    "blocks": blocks,
    "orthogonal": orthogonal,
    "orthogonal_noise": partial(orthogonal, noise=0.05),
    "identity": identity,
    "identity_pure": partial(identity, noise=0.0),
}


def lottery(name, share=0.8):
    """The mask of a trained network on its weights before training."""
    run, _, seed = name.rpartition("-")
    after, before = state(name), state(f"{run}_before-{seed}")
    out = {}
    for k, w in after.items():
        out[k] = np.where(np.abs(w) >= np.quantile(np.abs(w), share), before[k], 0.0)
    return out


def unlearned(name, share):
    """The same mask on weights of the same sizes with random signs: nothing of it was learned."""
    rng = np.random.default_rng([200, round(100 * share)])
    return {
        k: (w * rng.choice([-1.0, 1.0], w.shape)).astype(np.float32)
        for k, w in lottery(name, share).items()
    }


def embedding_table(seed):
    rng = np.random.default_rng(seed)
    return {
        "positions.weight": sinusoidal(rng, (128, 64)).astype(np.float32),
        "fc.weight": _scaled(rng, (64, 64)).astype(np.float32),
    }


# Networks of which the weights before training are kept.
TICKETS = ("gru-200", "mixer-200", "tanh-200", "momentum-200")
SHARES = (0.5, 0.8, 0.9, 0.95)

DEFAULTS = ("separable", "cnn", "mlp", "small", "wide")

UNTRAINED = {
    **{f"{name}-{seed}": partial(torch_default, name, seed)
       for name in DEFAULTS for seed in (0, 1, 100, 101)},
    **{f"{name}-{seed}": partial(torch_default, name, seed)
       for name in NEW for seed in (100, 101, 102)},
    **{f"{name}-{seed}": partial(torch_default, name, seed)
       for name in LATER for seed in range(510, 515)},
    **{f"{name}-{seed}": partial(drawn, draw, seed)
       for name, draw in DRAWS.items() for seed in (0, 100, 101)},
    **{f"sinusoidal-{seed}": partial(embedding_table, seed) for seed in (0, 100)},
    **{f"mask_{share:.0%}_{name}": partial(unlearned, name, share)
       for name in TICKETS for share in SHARES},
}  # fmt: skip


# --- trained ------------------------------------------------------------------------------------


def pruned_to(share, name):
    """A trained network without its smaller weights."""
    return {
        k: np.where(np.abs(w) >= np.quantile(np.abs(w), share), w, 0.0)
        for k, w in state(name).items()
    }


def scrambled(name):
    """The same singular values with random vectors: no network any more, but a structure."""
    rng = np.random.default_rng(0)
    out = {}
    for k, w in state(name).items():
        flat = w.reshape(w.shape[0], -1)
        s = np.linalg.svd(flat, compute_uv=False)
        u = np.linalg.qr(rng.standard_normal((flat.shape[0], len(s))))[0]
        v = np.linalg.qr(rng.standard_normal((flat.shape[1], len(s))))[0]
        out[k] = ((u * s) @ v.T).reshape(w.shape).astype(np.float32)
    return out


TRAINED = {name: partial(state, name) for name in sorted(facts()) if "_before-" not in name}

# Structure is all that can be said of these: the text must not promise more. The mask of a lottery
# ticket was learned, and shows in the weights that it keeps, though they are as they were drawn: at
# half of the weights such a network computes (GRU on Fashion-MNIST .33, mixer .41, tanh R^2 .28,
# momentum .65), with random signs under the same mask it is at chance.
SPOILT = {
    **{f"lottery-{n}": partial(lottery, f"digits_wide-{n}") for n in (0, 100)},
    **{f"lottery_{share:.0%}_{name}": partial(lottery, name, share)
       for name in TICKETS for share in SHARES},
    **{f"pruned98-{n}": partial(pruned_to, 0.98, f"digits_wide-{n}") for n in (0, 100)},
    **{f"scrambled-{n}": partial(scrambled, f"digits_wide-{n}") for n in (0, 100)},
}  # fmt: skip


def is_fresh(name):
    """Tell whether a case was not used to choose rules."""
    return int(name.rpartition("-")[2]) >= 100
