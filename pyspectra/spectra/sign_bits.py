"""The random bits of the test for structure: those of numpy's Philox, in the order of its bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pyspectra.types import FloatArray

# Bits that numpy's generators use up together.
WORD = 32


class SignBits:
    """A stream of random bits.

    The bytes are those of ``numpy.random.Generator(numpy.random.Philox(key=key)).bytes``, which
    takes three times as long to copy them.

    Parameters
    ----------
    key : int
        Key of the generator, 64 bits.
    """

    def __init__(self, key: int) -> None:
        self._philox = np.random.Philox(key=key)
        self._left = np.empty(0, np.dtype("<u4"))

    def take(self, count: int) -> npt.NDArray[np.uint8]:
        """Return so many bits, eight a byte; what is left of the last word is lost."""
        words = -(-count // WORD)
        missing = -(-(words - len(self._left)) // 2)
        drawn = self._philox.random_raw(missing).astype("<u8", copy=False).view("<u4")
        if len(self._left):
            drawn = np.concatenate([self._left, drawn])
        self._left = drawn[words:].copy()
        return drawn[:words].view(np.uint8)[: -(-count // 8)]

    def flip(self, stack: FloatArray) -> FloatArray:
        """Return the matrices with random signs: a one means minus."""
        minus = np.unpackbits(self.take(stack.size), count=stack.size).view(np.int8)
        flipped: FloatArray = stack * (np.int8(1) - 2 * minus.reshape(stack.shape))
        return flipped
