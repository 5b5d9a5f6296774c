"""The one key scheme of the counter-based generator: equal seeds give equal numbers on any day.

Every random number of the package that a seed decides comes from Philox
(``csrc/core/philox.inl.hpp``): a function of a 64-bit key and of a counter, which is the index of
what the number is for. So it depends on no thread, no shard, no device and no earlier draw. The key
says whose numbers these are. It is a hash of

- the *purpose*, one of `Purpose`: the mask of a step and the permutation of a spectrum share no
  numbers, though seed and name be the same;
- the *seed*, which the user gives;
- the *name* of the parameter, layer or spectrum, so that numbers belong to it and not to its place
  among others;
- *numbers* that tell apart what has one name: the matrix of a layer, the repetition.

Two that differ in any of these have independent numbers, up to a collision of 64-bit hashes.
"""

from __future__ import annotations

import enum
import hashlib

import numpy as np

__all__ = ["Purpose", "generator", "random_key"]


@enum.unique
class Purpose(enum.Enum):
    """What random numbers are for; no two purposes share any. Values have 16 bytes at most."""

    STEP = "step"  # masks and stochastic rounding of an optimizer
    SELECTION = "selection"  # a random part of the weights
    PERMUTATION = "permutation"  # of the entries of a matrix
    BOOTSTRAP = "bootstrap"  # replicates of a spectrum
    NULL = "null"  # what the test for structure draws
    SUBSPACE = "subspace"  # start blocks and probes of iterative decompositions
    DATA = "data"  # which samples are looked at, or taken
    LAYERS = "layers"  # which layers are trained
    MERGE = "merge"  # what is dropped of task vectors
    SEARCH = "search"  # values of the trials of a search


def random_key(purpose: Purpose, seed: int, name: str, *numbers: int) -> int:
    """Return the 64-bit key of the random numbers of one thing.

    Parameters
    ----------
    purpose : Purpose
        What the numbers are for.
    seed : int
        The user's seed, in [0, 2^64).
    name : str
        Whose numbers they are.
    *numbers : int
        Numbers in [0, 2^64) that tell apart things of one name; each purpose has a fixed count of
        them.

    Returns
    -------
    int
        In [0, 2^64).

    Notes
    -----
    BLAKE2b of 8 bytes, with the seed for its key and the purpose for its personalisation, over the
    numbers (8 bytes each, little-endian) and then the name (UTF-8). The numbers come first, so that
    no name can pass for one.
    """
    text = b"".join(number.to_bytes(8, "little") for number in numbers)
    digest = hashlib.blake2b(
        text + name.encode("utf-8", "surrogatepass"),
        digest_size=8,
        key=seed.to_bytes(8, "little"),
        person=purpose.value.encode(),
    ).digest()
    return int.from_bytes(digest, "little")


def generator(purpose: Purpose, seed: int, name: str, *numbers: int) -> np.random.Generator:
    """Return numpy's generator over Philox with the `random_key` of these arguments."""
    return np.random.Generator(np.random.Philox(key=random_key(purpose, seed, name, *numbers)))
