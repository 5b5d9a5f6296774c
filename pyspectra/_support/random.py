"""Keys of the counter-based generator: which random numbers belong to what."""

from __future__ import annotations

import hashlib


def random_key(seed: int, name: str) -> int:
    """64-bit key of the random numbers of one parameter or spectrum: of seed and name alone."""
    text = name.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little")
