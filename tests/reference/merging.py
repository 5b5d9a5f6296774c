"""Merging of models, by the formulas of the papers: whole arrays, loops over single weights.

Ilharco et al. 2023 (2212.04089), eq. of section 3; Yadav et al. 2023 (2306.01708), algorithm 1;
Yu et al. 2024 (2311.03099), section 3.1.
"""

import hashlib

import numpy as np

from reference.optim import draws


def trimmed(vector, count):
    """Algorithm 1, step 1: keep the `count` largest magnitudes, of equal ones the first."""
    flat = [(-abs(x), place) for place, x in enumerate(vector.ravel())]
    kept = {place for _, place in sorted(flat)[:count]}
    out = [x if place in kept else 0.0 for place, x in enumerate(vector.ravel())]
    return np.array(out).reshape(vector.shape)


def trimmed_together(vectors, density):
    """Step 1 for all tensors of a model at once; all that equal the smallest kept one stay."""
    flat = np.sort(np.abs(np.concatenate([v.ravel() for v in vectors.values()])))[::-1]
    limit = flat[int(density * len(flat)) - 1]
    return {key: np.where(np.abs(v) >= limit, v, 0.0) for key, v in vectors.items()}


def dropped(vector, density, seed, name, which):
    """Drop with probability 1 - density and rescale: Bernoulli draws of the one key scheme."""
    digest = hashlib.blake2b(
        which.to_bytes(8, "little") + name.encode(),
        digest_size=8,
        key=seed.to_bytes(8, "little"),
        person=b"merge",
    ).digest()
    key = int.from_bytes(digest, "little")
    high, low = (draws(key, 0, half, 0, vector.size).astype(float) for half in (0, 1))
    uniform = (high * 65536 + low) / 2**32
    keeps = (uniform < density).reshape(vector.shape)
    return np.where(keeps, vector / density, 0.0)


def elected(vectors, weights, mean=True):
    """Steps 2 and 3: the sign of the sum, and the mean of what has it."""
    out = np.zeros(vectors[0].shape)
    for place in np.ndindex(out.shape):
        entries = [(abs(w), w * v[place]) for w, v in zip(weights, vectors, strict=True)]
        sign = 1.0 if sum(x for _, x in entries) >= 0 else -1.0
        agree = [(w, x) for w, x in entries if x * sign > 0]
        total = sum(x for _, x in agree)
        out[place] = total / sum(w for w, _ in agree) if agree and mean else total
    return out


def merged(base, models, method, weights, density=None, scale=1.0, normalize=None, scope="tensor",
           seed=0):  # fmt: skip
    """Merge dicts of float64 arrays."""
    vectors = [{key: model[key] - W for key, W in base.items()} for model in models]
    if method in ("ties", "magnitude_prune"):
        if scope == "global":
            vectors = [trimmed_together(v, d) for v, d in zip(vectors, density, strict=True)]
        else:
            vectors = [
                {key: trimmed(x, int(d * x.size)) for key, x in v.items()}
                for v, d in zip(vectors, density, strict=True)
            ]
    if method.startswith("dare"):
        vectors = [
            {key: dropped(x, d, seed, key, which) for key, x in v.items()}
            for which, (v, d) in enumerate(zip(vectors, density, strict=True))
        ]
    out = {}
    for key, W in base.items():
        parts = [v[key] for v in vectors]
        if method.endswith("ties"):
            m = elected(parts, weights, mean=normalize in (None, True))
        else:
            m = sum(w * x for w, x in zip(weights, parts, strict=True))
            m = m / sum(abs(w) for w in weights) if normalize else m
        out[key] = W + scale * m
    return out
