"""What the program of a pickle may cost, in time and in memory, whatever it says.

A pickle names what it has said before in two bytes, and has it copied by a call in two more: four
megabytes that encode one text again and again would make five gigabytes. So everything is counted:
an instruction is a step, an item that a call copies is one too, and what calls make of texts and
lists may not have more bytes and items than the pickle has bytes itself. A pickle that Python or
torch wrote copies each of its texts and lists once, and stays below that.
"""

from __future__ import annotations

from typing import Any, Final

from pyspectra.weights.formats.pickle_values import Foreign, Global, PickleError

__all__ = ["Budget"]

# Both are far beyond the largest checkpoints: a tensor takes thirty steps and six containers.
MAX_STEPS: Final = 1 << 24
MAX_CONTAINERS: Final = 1 << 21
# Spares the pickles of a few bytes the count of what they copy.
FREE_COPIES: Final = 1 << 20

MAX_INTEGER: Final = (1 << 64) - 1
MAX_KEY_LENGTH: Final = 1 << 16
MAX_KEY_PARTS: Final = 64
# Time of a step over the time in which two texts of a key, or two keys, are compared.
CHARACTERS_A_STEP: Final = 256
KEYS_A_STEP: Final = 16


class Budget:
    """Counts what a pickle costs, and ends the one that costs too much.

    Parameters
    ----------
    size : int
        Bytes of the pickle.
    """

    def __init__(self, size: int) -> None:
        self._steps = 0
        self._containers = 0
        self._copied = 0
        self._most_copied = size + FREE_COPIES
        self._number_parts = 0

    def step(self, count: int = 1) -> None:
        """Count instructions, or what takes as long.

        Raises
        ------
        PickleError
            If there are too many.
        """
        self._steps += count
        if self._steps > MAX_STEPS:
            raise PickleError(f"more than {MAX_STEPS} instructions")

    def container(self) -> None:
        """Count an object that is made.

        Raises
        ------
        PickleError
            If there are too many.
        """
        self._containers += 1
        if self._containers > MAX_CONTAINERS:
            raise PickleError(f"more than {MAX_CONTAINERS} containers")

    def copied_bytes(self, count: int) -> None:
        """Count bytes or characters that a call is about to make of others.

        Raises
        ------
        PickleError
            If calls make more than the pickle holds.
        """
        self._copied += count
        if self._copied > self._most_copied:
            raise PickleError("its calls copy more than it holds")

    def copied_items(self, count: int) -> None:
        """Count items that a call is about to put into a new container.

        Raises
        ------
        PickleError
            If calls make more than the pickle holds, or this takes too many steps.
        """
        self.copied_bytes(count)
        self.step(count)

    def key(self, value: Any) -> Any:
        """Return what may be a key: one that is hashed quickly, and fit to be a name.

        Python hashes text with a secret, but an integer to itself modulo 2**61 - 1: a file that
        made keys of the multiples of that number would have each compared with all before it.
        No more than seventeen of the integers of 64 bits share a hash. Tuples of several numbers
        can be found that all share one; each is charged as if it did.

        Raises
        ------
        PickleError
            If it is long, nested or no plain value, or there are too many of its kind.
        """
        parts = value if isinstance(value, tuple) else (value,)
        if len(parts) > MAX_KEY_PARTS:
            raise PickleError(f"a key of {len(parts)} parts")
        length = numbers = 0
        for part in parts:
            if isinstance(part, str | bytes):
                length += len(part)
            elif isinstance(part, int | float):
                numbers += 1
                if isinstance(part, int) and abs(part) > MAX_INTEGER:
                    raise PickleError("a key that is an integer of more than 64 bits")
            elif part is not None and not isinstance(part, Global | Foreign):
                raise PickleError(f"a key of type {type(part).__name__}")
        if length > MAX_KEY_LENGTH:
            raise PickleError(f"a key of {length} characters")
        self.step(length // CHARACTERS_A_STEP)
        if isinstance(value, tuple):
            self.copied_bytes(length)  # where the key becomes a name
            if numbers > 1:
                self._number_parts += len(parts)
                self.step(self._number_parts // KEYS_A_STEP)
        return value
