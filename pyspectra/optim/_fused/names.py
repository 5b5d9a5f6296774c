"""Names of parameters, and the keys of the random numbers that belong to them."""

from __future__ import annotations

import re

from pyspectra._support.random import Purpose, random_key

# What torch.compile puts before the names of a module, wherever that is in the model.
_COMPILED = re.compile(r"(?<![^.])_orig_mod\.")


def plain_names(names: list[str]) -> list[str]:
    """Take the prefixes of torch.compile and DistributedDataParallel off the names of a model.

    Random masks belong to names: they must be those of the plain model. A wrapper goes around all
    of a model, so ``module.`` is left where it is not before every name.
    """
    plain = [_COMPILED.sub("", name) for name in names]
    while plain and all(name.startswith("module.") for name in plain):
        plain = [_COMPILED.sub("", name.removeprefix("module.")) for name in plain]
    return plain if len({*plain}) == len(names) else names


def parameter_key(seed: int, name: str) -> int:
    """Return the key of the random numbers of one parameter: of seed and name alone."""
    return random_key(Purpose.STEP, seed, name)
